//! How jobs end: in time or past it, archived once nothing of them runs.

use weft_control::{Command, Job, JobState};
use weft_core::{ErrorCode, JobId, LimitKind, Problem};
use weft_protocol::ToExecutor;

use super::{Done, Scheduler, Signal};
use crate::archive;
use crate::tenant;
use weft_runtime::OnError;
use weft_runtime::clock::unix_ms;

impl Scheduler {
    pub(super) async fn stop_job(&mut self, job: JobId) {
        self.queue.forget(&job);
        self.suspects.retain(|task| task.job != job);
        self.steps.retain(|step| *step.job() != job);
        if let Some(executor) = &mut self.executor {
            executor.stages.retain(|(other, _)| *other != job);
            executor
                .link
                .send(ToExecutor::Forget { job: job.clone() })
                .await;
        }
        if self.archiving.insert(job.clone()) {
            self.archive_when_quiet(&job);
        }
    }

    /// Archives once nothing of the job runs any more: what still runs could write what was just removed.
    pub(super) fn archive_when_quiet(&mut self, id: &JobId) {
        let commits =
            self.commits_under_way.contains(id) || self.commits.iter().any(|(job, _)| job == id);
        let busy = commits
            || self.executor.as_ref().is_some_and(|executor| {
                executor.running.keys().any(|(task, _)| task.job == *id)
                    || executor.planning.contains(id)
                    || executor.publishing.contains(id)
            });
        if busy {
            return;
        }
        self.archiving.remove(id);
        let Some(job) = self.job(id) else { return };
        let (blobs, done) = (self.blobs.clone(), self.done.clone());
        self.tasks.spawn("archive", OnError::Log, async move {
            let result = archive::archive(&blobs, &job).await;
            let _ = done.send(Done::Archived(job.id, result)).await;
            Ok(())
        });
    }

    pub(super) async fn check_deadlines(&mut self) {
        if std::mem::take(&mut self.derive) || self.replica.take_behind() {
            self.on_signal(Signal::Derive).await;
        }
        let now = unix_ms();
        let late: Vec<(JobId, Problem)> = {
            let state = self.replica.state();
            let over = |job: &Job| {
                // What is committed is published, however late.
                if matches!(job.state, JobState::Publishing(_) | JobState::Ending(_)) {
                    return None;
                }
                (now.saturating_sub(job.submitted_ms) > job.spec.limits.wall_ms)
                    .then(|| (job.id.clone(), wall_problem(job)))
            };
            state
                .tenant(&tenant())
                .map(|tenant| tenant.jobs.values().filter_map(over).collect())
                .unwrap_or_default()
        };
        for (job, problem) in late {
            self.metrics.limit_hit(&problem);
            self.propose(Command::EndJob { job, problem }).await;
        }
        for job in self.archiving.clone() {
            self.archive_when_quiet(&job);
        }
    }
}

/// Why a job that takes too long is given up, and what it was at.
fn wall_problem(job: &Job) -> Problem {
    let value = format!("{} ms", job.spec.limits.wall_ms);
    let under_way = job.under_way();
    let at = match under_way.as_slice() {
        [] => "while it waited".to_owned(),
        stages => {
            let names: Vec<String> = stages
                .iter()
                .map(|(stage, functions)| match functions.as_slice() {
                    [] => format!("`{stage}`"),
                    functions => format!("`{stage}` (`{}`)", functions.join("`, `")),
                })
                .collect();
            let what = match &job.state {
                JobState::Planning(_) => "while it was planned",
                _ => "while it ran",
            };
            format!("{what}, in stage {}", names.join(", "))
        }
    };
    let detail = format!(
        "the `{}` limit of {value} was reached by the job, {at}; raise `limits.wall`",
        LimitKind::Wall
    );
    let problem = Problem::new(ErrorCode::LimitExceeded, detail).of_limit(LimitKind::Wall, value);
    let mut functions = under_way.iter().flat_map(|(_, functions)| functions);
    match (functions.next(), functions.next()) {
        (Some(function), None) => problem.of_function(function.as_str()),
        _ => problem,
    }
}
