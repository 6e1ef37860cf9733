//! From attempts' results to their commits: in batches, one batch of a tenant at a time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use weft_control::{Answer, Command, CommitAnswer, CommitReport, Origin};
use weft_core::{ErrorCode, Incarnation, JobId, NodeId, Problem, TaskId, TenantId};
use weft_protocol::{TaskCommit, TaskFailure};

use super::io::{Marks, Pending};
use super::results::Of;
use super::{Scheduler, Turn};

/// Commits of one command.
const MAX_BATCH: usize = 256;

/// A finished attempt that a node reported.
#[derive(Clone)]
pub(crate) struct Reported {
    pub(super) node: NodeId,
    pub(super) origin: Origin,
    pub(super) job: JobId,
    pub(super) commit: TaskCommit,
}

impl Reported {
    fn id(&self) -> TaskId {
        TaskId {
            job: self.job.clone(),
            stage: self.commit.stage,
            task: self.commit.task,
        }
    }
}

/// Attempts that wait to be committed.
#[derive(Default)]
pub(super) struct Commits {
    waiting: BTreeMap<TenantId, VecDeque<Reported>>,
    /// Tenants whose batch is being committed.
    in_flight: BTreeSet<TenantId>,
}

impl Commits {
    pub(super) fn push(&mut self, tenant: &TenantId, reported: Reported) {
        match self.waiting.get_mut(tenant) {
            Some(waiting) => waiting.push_back(reported),
            None => {
                let waiting = VecDeque::from([reported]);
                self.waiting.insert(tenant.clone(), waiting);
            }
        }
    }

    /// Tenants with attempts that wait, and whether a batch of theirs is in flight.
    fn tenants(&self) -> Vec<(TenantId, bool)> {
        let some = self
            .waiting
            .iter()
            .filter(|(_, waiting)| !waiting.is_empty());
        some.map(|(tenant, _)| (tenant.clone(), self.in_flight.contains(tenant)))
            .collect()
    }

    fn take(&mut self, tenant: &TenantId) -> Vec<Reported> {
        let Some(waiting) = self.waiting.get_mut(tenant) else {
            return Vec::new();
        };
        let n = waiting.len().min(MAX_BATCH);
        waiting.drain(..n).collect()
    }
}

impl Scheduler {
    /// Proposes a batch of each tenant that has none in flight.
    pub(super) fn flush_commits(&mut self, turn: &mut Turn<'_>) {
        for (tenant, in_flight) in self.commits.tenants() {
            if !in_flight {
                self.flush_batch(turn, &tenant);
            }
        }
    }

    /// Proposes all that wait: a lease is about to lapse.
    pub(super) fn flush_all_commits(&mut self, turn: &mut Turn<'_>) {
        loop {
            let tenants = self.commits.tenants();
            if tenants.is_empty() {
                return;
            }
            for (tenant, _) in tenants {
                self.flush_batch(turn, &tenant);
            }
        }
    }

    fn flush_batch(&mut self, turn: &mut Turn<'_>, tenant: &TenantId) {
        let batch = self.commits.take(tenant);
        self.commits.in_flight.insert(tenant.clone());
        weft_failpoint::hit("commit");
        let command = command(&batch);
        self.propose(turn, tenant, None, command, Pending::Commits(batch));
    }

    pub(super) fn on_committed(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        batch: Vec<Reported>,
        answer: Result<Answer, Problem>,
    ) {
        self.commits.in_flight.remove(tenant);
        match answer {
            Ok(Answer::Commits { answers }) => self.on_commits(turn, tenant, batch, &answers),
            Err(problem) if !problem.code.is_platform_fault() => {
                self.on_too_large(turn, tenant, batch);
            }
            other => {
                tracing::warn!(answer = ?other, "commits could not be recorded and are proposed again");
                self.commit_again(turn, tenant, batch);
            }
        }
    }

    fn commit_again(&mut self, turn: &Turn<'_>, tenant: &TenantId, batch: Vec<Reported>) {
        let command = command(&batch);
        self.propose_again(turn, tenant.clone(), None, command, Pending::Commits(batch));
    }

    fn on_commits(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        batch: Vec<Reported>,
        answers: &[CommitAnswer],
    ) {
        let mut recorded: BTreeMap<(NodeId, Incarnation), Vec<u64>> = BTreeMap::new();
        let mut again = Vec::new();
        for (reported, answer) in batch.into_iter().zip(answers) {
            if *answer == CommitAnswer::Busy {
                again.push(reported);
                continue;
            }
            self.count_answer(&reported, *answer);
            // A task whose commit does not stand runs again.
            let marks = Marks {
                tasks: vec![reported.id()],
                ..Marks::default()
            };
            self.unmark(turn, tenant, marks);
            let of = (reported.node, reported.origin.incarnation);
            recorded
                .entry(of)
                .or_default()
                .push(reported.origin.sequence);
        }
        for ((node, incarnation), numbers) in recorded {
            self.acknowledge(turn, &node, &incarnation, numbers);
        }
        if !again.is_empty() {
            self.commit_again(turn, tenant, again);
        }
    }

    fn count_answer(&self, reported: &Reported, answer: CommitAnswer) {
        let Reported { job, commit, .. } = reported;
        let (stage, task) = (commit.stage, commit.task);
        match answer {
            CommitAnswer::Committed => self.count_commit(commit),
            CommitAnswer::CommittedAgain => {
                self.count_task("committed_again");
                self.metrics.waived(&commit.usage.lines());
            }
            // An earlier leader counted it, or nobody did yet.
            CommitAnswer::Repeated | CommitAnswer::Busy => {}
            CommitAnswer::Duplicate { same } => {
                match same {
                    true => self.count_task("duplicate"),
                    false => {
                        tracing::error!(%job, stage, task, "two attempts of a deterministic task differ; the first one stands");
                    }
                }
                self.metrics.waived(&commit.usage.lines());
            }
            // Its lease lapsed before the commit was proposed.
            CommitAnswer::Fenced => self.count_task("fenced"),
            CommitAnswer::Stale { billed } => {
                self.count_task("stale");
                match billed {
                    true => self.metrics.used(&commit.usage.lines()),
                    false => self.metrics.waived(&commit.usage.lines()),
                }
                tracing::debug!(%job, stage, task, "a commit came when its job had ended");
            }
        }
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

    /// A batch has more bytes than a command may: each of its commits is tried alone, and one that is
    /// too large by itself fails its job.
    fn on_too_large(&mut self, turn: &mut Turn<'_>, tenant: &TenantId, batch: Vec<Reported>) {
        let alone = batch.len() == 1;
        for reported in batch {
            let of = Of {
                node: &reported.node.clone(),
                incarnation: &reported.origin.incarnation.clone(),
                tenant,
                number: reported.origin.sequence,
                answered_below: reported.origin.answered_below,
            };
            if alone {
                let failure = too_large(&reported.commit);
                self.end(&reported.id());
                self.on_failure(turn, &of, reported.job, failure);
            } else {
                let batch = vec![reported];
                let command = command(&batch);
                self.propose(turn, tenant, None, command, Pending::Commits(batch));
            }
        }
    }
}

fn command(batch: &[Reported]) -> Command {
    let report = |reported: &Reported| CommitReport {
        job: reported.job.clone(),
        origin: reported.origin.clone(),
        commit: reported.commit.clone(),
    };
    Command::CommitTasks {
        commits: batch.iter().map(report).collect(),
    }
}

fn too_large(commit: &TaskCommit) -> TaskFailure {
    let detail = "the task's commit has more bytes than can be recorded: fewer files for each task";
    TaskFailure {
        stage: commit.stage,
        task: commit.task,
        attempt: commit.attempt,
        epoch: commit.epoch,
        sequence: commit.sequence,
        problem: Problem::new(ErrorCode::TooLarge, detail),
        cancelled: false,
        lost: None,
        usage: commit.usage.lines(),
        log: Some(commit.log.clone()),
    }
}
