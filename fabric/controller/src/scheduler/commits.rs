//! From an attempt's answer to its commit.

use std::time::Duration;

use weft_control::{Answer, Command, CommitAnswer};
use weft_core::{JobId, Problem, TaskId};
use weft_protocol::TaskCommit;
use weft_protocol::TaskReply;

use super::{COMMITS_MAX, Done, Scheduler};
use crate::metrics::OutcomeLabels;
use crate::tenant;
use weft_runtime::OnError;

impl Scheduler {
    pub(super) async fn on_task(&mut self, reply: TaskReply) {
        let (stage, task, attempt) = match &reply.result {
            Ok(commit) => (commit.stage, commit.task, commit.attempt),
            Err(failure) => (failure.stage, failure.task, failure.attempt),
        };
        let id = TaskId {
            job: reply.job.clone(),
            stage,
            task,
        };
        self.traces.task_answered(&id, attempt, &reply);
        self.suspects.remove(&id);
        if let Some(executor) = &mut self.executor {
            executor.running.remove(&(id, attempt));
        }
        match reply.result {
            Ok(commit) => self.commits.push((reply.job.clone(), commit)),
            Err(failure) => {
                tracing::debug!(job = %reply.job, stage, task, attempt, problem = %failure.problem, "attempt failed");
                if failure.cancelled {
                    self.count_task("cancelled");
                } else {
                    self.count_task("failed");
                    self.metrics.task_failed(&failure.problem);
                }
                let usage = failure.usage.clone();
                let answer = self.propose(Command::FailTask {
                    job: reply.job.clone(),
                    failure,
                });
                match answer.await {
                    Some(Answer::Failure { billed: true }) => self.metrics.used(&usage),
                    _ => self.metrics.waived(&usage),
                }
            }
        }
        if self.archiving.contains(&reply.job) {
            self.archive_when_quiet(&reply.job);
        }
    }

    fn count_task(&self, outcome: &'static str) {
        let labels = OutcomeLabels { outcome };
        self.metrics.tasks.get_or_create(&labels).inc();
    }

    fn count_commit(&self, commit: &TaskCommit) {
        self.count_task("committed");
        let usage = commit.usage.lines();
        self.metrics.used(&usage);
        self.metrics.log_lines_dropped.inc_by(commit.log.dropped);
        let wall_ns = usage.last().map_or(0, |own| own.billed.wall_ns);
        let took = Duration::from_nanos(wall_ns).as_secs_f64();
        self.metrics.task_seconds.observe(took);
    }

    pub(super) fn flush_commits(&mut self) {
        if !self.commits_under_way.is_empty() || self.commits.is_empty() {
            return;
        }
        let batch: Vec<_> = self
            .commits
            .drain(..self.commits.len().min(COMMITS_MAX))
            .collect();
        let jobs = batch.iter().map(|(job, _)| job.clone());
        self.commits_under_way.extend(jobs);
        let (replica, done) = (self.replica.clone(), self.done.clone());
        self.tasks.spawn("commit", OnError::Log, async move {
            weft_failpoint::hit("commit");
            let answer = replica
                .propose(
                    &tenant(),
                    Command::CommitTasks {
                        commits: batch.clone(),
                    },
                )
                .await;
            let _ = done.send(Done::Committed(batch, answer)).await;
            Ok(())
        });
    }

    pub(super) fn on_committed(
        &mut self,
        batch: &[(JobId, TaskCommit)],
        answer: Result<Answer, Problem>,
    ) -> anyhow::Result<()> {
        let answers = match answer {
            Ok(Answer::Commits { answers }) => answers,
            Ok(other) => anyhow::bail!("commits were answered with {other:?}"),
            Err(problem) => anyhow::bail!("commits were refused: {problem}"),
        };
        self.commits_under_way.clear();
        for ((job, commit), answer) in batch.iter().zip(answers) {
            let (stage, task) = (commit.stage, commit.task);
            match answer {
                CommitAnswer::Committed => self.count_commit(commit),
                CommitAnswer::Duplicate { same: true } => {
                    self.count_task("duplicate");
                    self.metrics.waived(&commit.usage.lines());
                }
                CommitAnswer::Duplicate { same: false } => {
                    tracing::error!(%job, stage, task, "two attempts of a deterministic task differ; the first one stands");
                    self.metrics.waived(&commit.usage.lines());
                }
                // Its executor died before the commit was proposed: the loss did not count it among what ran.
                CommitAnswer::Fenced => self.queue.push_front(TaskId {
                    job: job.clone(),
                    stage,
                    task,
                }),
                CommitAnswer::Stale { billed } => {
                    self.count_task("stale");
                    match billed {
                        true => self.metrics.used(&commit.usage.lines()),
                        false => self.metrics.waived(&commit.usage.lines()),
                    }
                    tracing::debug!(%job, stage, task, "a commit came when its job had ended")
                }
            }
        }
        Ok(())
    }
}
