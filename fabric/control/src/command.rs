//! Commands, answers and effects. On the wire they are JSON with names, so that an old member ignores fields it does not know.

use serde::{Deserialize, Serialize};
use weft_core::job::JobSpec;
use weft_core::{Epoch, FunctionUsage, JobId, Problem, TenantId};
use weft_protocol::{Plan, PublishedOutput, TaskCommit, TaskFailure};

use crate::calls::{Begun, CallOutcome};
use crate::catalog::ComponentRecord;
use crate::lease::Lease;

/// A command as it is replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Version of the commands' format.
    pub version: u32,
    /// The proposer's clock, in Unix milliseconds. The state never goes back behind the latest one it saw.
    pub at_ms: u64,
    /// Whose state it changes.
    pub tenant: TenantId,
    /// What to do.
    pub command: Command,
}

/// What can be asked of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Adds a version of a component whose artefact is in the store.
    RegisterComponent {
        /// The version.
        component: ComponentRecord,
    },
    /// Adds what invocations used since the last time.
    MeterInvocations {
        /// By function.
        usage: Vec<FunctionUsage>,
    },
    /// Begins an invocation that is to be made once.
    BeginCall {
        /// The client's key.
        key: String,
        /// Digest of its request.
        request: String,
        /// The server process that makes it.
        by: String,
    },
    /// Says how it ended, or that it did not and may be made again.
    EndCall {
        /// The client's key.
        key: String,
        /// The server process that made it.
        by: String,
        /// The answer from now on.
        outcome: Option<CallOutcome>,
    },
    /// Accepts a job.
    SubmitJob {
        /// Its id, made by the proposer.
        job: JobId,
        /// The checked document.
        spec: JobSpec,
        /// The client's key and the digest of its request, so that a retry gets the same job.
        idempotency: Option<(String, String)>,
    },
    /// Planning ended.
    JobPlanned {
        /// The job.
        job: JobId,
        /// Its stages.
        plan: Plan,
        /// What planning used.
        usage: Vec<FunctionUsage>,
    },
    /// Planning or publishing failed.
    StepFailed {
        /// The job.
        job: JobId,
        /// Why.
        problem: Problem,
        /// What the attempt used.
        usage: Vec<FunctionUsage>,
    },
    /// Attempts ended, in one batch.
    CommitTasks {
        /// Their jobs and what they wrote.
        commits: Vec<(JobId, TaskCommit)>,
    },
    /// An attempt failed.
    FailTask {
        /// The job.
        job: JobId,
        /// What happened.
        failure: TaskFailure,
    },
    /// Files are visible.
    JobPublished {
        /// The job.
        job: JobId,
        /// Its outputs.
        outputs: Vec<PublishedOutput>,
    },
    /// Gives a job up: its wall time is over, say.
    EndJob {
        /// The job.
        job: JobId,
        /// Why.
        problem: Problem,
    },
    /// Somebody wants the job to stop.
    CancelJob {
        /// The job.
        job: JobId,
    },
    /// The archive object is in the store; only a line stays.
    JobArchived {
        /// The job.
        job: JobId,
        /// Key of the archive object.
        archive: String,
    },
    /// An executor wants to work.
    GrantLease {
        /// Its slots.
        lease: Lease,
    },
    /// An executor died: its epoch lapses, and the attempts it had are the platform's loss.
    ExecutorLost {
        /// Its lease.
        epoch: Epoch,
        /// What ran on it.
        failures: Vec<(JobId, TaskFailure)>,
    },
    /// The node's agent starts afresh: whatever it had leased has lapsed.
    NodeStarted {
        /// The node.
        node: String,
    },
}

/// What becomes of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitAnswer {
    /// It is the task's first.
    Committed,
    /// The task had one. `same`: both wrote the same, or need not.
    Duplicate {
        /// Whether the two attempts agree.
        same: bool,
    },
    /// Its lease has lapsed.
    Fenced,
    /// The job does not run any more.
    Stale {
        /// Whether its user pays for it: it was cancelled, or failed for what is its own.
        billed: bool,
    },
}

/// What the proposer gets to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// A failed attempt was taken note of.
    Failure {
        /// Whether the user pays for it.
        billed: bool,
    },
    /// The record that stands, and whether it is new.
    Component {
        /// The record.
        component: ComponentRecord,
        /// False where it was there before.
        new: bool,
    },
    /// The job that stands, and whether it is new.
    Job {
        /// Its id.
        job: JobId,
        /// False where an idempotency key named an earlier one.
        new: bool,
    },
    /// What a call's key is known for.
    Call {
        /// That.
        begun: Begun,
    },
    /// The epoch of a lease.
    Lease {
        /// The epoch.
        epoch: Epoch,
    },
    /// One answer for each commit of a batch.
    Commits {
        /// In the order of the batch.
        answers: Vec<CommitAnswer>,
    },
    /// The command was refused and changed nothing.
    Refused {
        /// Why.
        problem: Problem,
    },
}

/// What the leader's scheduler has to do. Doing an effect twice does no harm: the state takes the first result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Have an executor plan the job.
    PlanJob {
        /// The job.
        job: JobId,
    },
    /// Dispatch the stage's tasks that are not committed.
    RunStage {
        /// The job.
        job: JobId,
        /// Position of the stage in the plan.
        stage: u32,
    },
    /// Dispatch one task again.
    RunTask {
        /// The job.
        job: JobId,
        /// Position of the stage in the plan.
        stage: u32,
        /// Position of the task in the stage.
        task: u32,
    },
    /// Make the staged files visible.
    PublishJob {
        /// The job.
        job: JobId,
    },
    /// Stop what runs of the job, remove what it left behind, and archive it.
    ArchiveJob {
        /// The job.
        job: JobId,
    },
}

impl Effect {
    /// The job it is about.
    pub fn job(&self) -> &JobId {
        match self {
            Effect::PlanJob { job }
            | Effect::RunStage { job, .. }
            | Effect::RunTask { job, .. }
            | Effect::PublishJob { job }
            | Effect::ArchiveJob { job } => job,
        }
    }
}
