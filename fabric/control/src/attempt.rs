//! Attempts that end after their job: who pays for them, and what is kept of their logs.

use weft_core::{AttemptId, Epoch, Problem};
use weft_protocol::{FailedLog, LogRef, TaskCommit, TaskFailure};

use crate::job::{Job, JobState, Outcome};
use crate::running::StageState;

/// Logs of attempts that end after their job: they ran when it ended, and a node has no more slots.
const LATE_LOGS_MAX: usize = 1024;

/// Attempt of a task, and its label.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) stage: u32,
    pub(crate) task: u32,
    pub(crate) label: u32,
    pub(crate) id: AttemptId,
}

impl From<&TaskCommit> for Attempt {
    fn from(commit: &TaskCommit) -> Self {
        Self {
            stage: commit.stage,
            task: commit.task,
            label: commit.attempt,
            id: commit.attempt_id(),
        }
    }
}

impl From<&TaskFailure> for Attempt {
    fn from(failure: &TaskFailure) -> Self {
        Self {
            stage: failure.stage,
            task: failure.task,
            label: failure.attempt,
            id: failure.attempt_id(),
        }
    }
}

/// Planning of a job, among its attempts: epochs of leases begin at 1.
pub(crate) const PLANNING: Attempt = Attempt {
    stage: u32::MAX,
    task: 0,
    label: 0,
    id: AttemptId {
        epoch: Epoch(0),
        sequence: 0,
    },
};

impl Job {
    /// Returns, once for each attempt, whether it is billed though it ended after its job: the job was
    /// cancelled, or failed for its user's own reasons.
    pub(crate) fn settle(&mut self, attempt: Attempt) -> bool {
        let JobState::Ending(ending) = &self.state else {
            return false;
        };
        let platform = |problem: &Problem| problem.code.is_platform_fault();
        let by_its_user = match ending.outcome {
            Outcome::Cancelled => true,
            Outcome::Failed => !ending.problem.as_ref().is_some_and(platform),
            Outcome::Succeeded => false,
        };
        let stage = self.stages().get(attempt.stage as usize);
        let is_committed = stage.is_some_and(|stage| stage.commits.contains_key(&attempt.task));
        by_its_user && !is_committed && self.settled.insert(attempt.id)
    }

    /// Keeps the log of an attempt that ended after its job: of one that was cancelled, say.
    pub(crate) fn keep_late_log(&mut self, attempt: Attempt, log: &LogRef) {
        let JobState::Ending(ending) = &mut self.state else {
            return;
        };
        let Attempt {
            stage, task, label, ..
        } = attempt;
        let is_committed = |stage: &StageState| stage.commits.contains_key(&task);
        if ending.stages.get(stage as usize).is_none_or(is_committed) {
            return;
        }
        let shape = ending
            .plan
            .as_ref()
            .and_then(|plan| plan.stages.get(stage as usize));
        let Some(stage) = shape.map(|shape| shape.name.clone()) else {
            return;
        };
        let late = FailedLog {
            stage,
            task,
            attempt: label,
            log: log.clone(),
        };
        if ending.failed_logs.len() < LATE_LOGS_MAX && !ending.failed_logs.contains(&late) {
            ending.failed_logs.push(late);
        }
    }
}
