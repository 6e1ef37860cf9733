//! Commands, answers and effects. In the log they are JSON with names and a version: a member that
//! meets a version above its own stops, because ignoring a field would let replicas differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::job::JobSpec;
use weft_core::{Digest, Epoch, FunctionUsage, JobId, NodeId, Problem, TenantId};
use weft_protocol::{Plan, PublishedOutput, TableChange, TableStatement, TaskCommit, TaskFailure};

use crate::calls::{Begun, CallOutcome};
use crate::catalog::ComponentRecord;
use crate::lease::Lease;
use crate::node::NodeRecord;
use crate::origins::Origin;

/// A command as it is replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Version of the commands' format.
    pub version: u32,
    /// The proposer's clock, in Unix milliseconds. The state never goes back behind the latest one it saw.
    pub at_ms: u64,
    /// Tenant whose state it changes.
    pub tenant: TenantId,
    /// Who proposes it.
    pub origin: Origin,
    /// What to do.
    pub command: Command,
}

/// What can be asked of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
        /// The server process that makes it: the controller's number, a colon, and its life.
        by: String,
        /// Seconds for which its answer is kept; the longest time without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_s: Option<u32>,
    },
    /// Says how it ended, or that it did not and may be made again. Answered by the outcome that stands, if
    /// another one was recorded before.
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
        /// Lease of the executor that planned it.
        lease: Option<Epoch>,
        /// Its stages.
        plan: Plan,
        /// Results of its statement beside rows, if it has one that is more than a query.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<TableStatement>,
        /// What planning used.
        usage: Vec<FunctionUsage>,
    },
    /// Changes the tenant's tables without a job.
    ChangeTables {
        /// The change.
        change: TableChange,
    },
    /// Planning or publishing failed.
    StepFailed {
        /// The job.
        job: JobId,
        /// The step.
        step: Step,
        /// Lease of the executor that tried, if one did.
        lease: Option<Epoch>,
        /// Why.
        problem: Problem,
        /// What the attempt used.
        usage: Vec<FunctionUsage>,
    },
    /// Attempts ended, in one batch.
    CommitTasks {
        /// Each of them is applied once, by its own origin.
        commits: Vec<CommitReport>,
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
        /// Lease of the executor that published them.
        lease: Option<Epoch>,
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
    /// Grants shards of the tenant's actors to an executor, for as long as its lease stands. Shards whose holder's
    /// lease
    /// stands stay with it. Answered by [`Answer::Shards`].
    GrantShards {
        /// The executor's lease.
        executor: Epoch,
        /// The shards.
        shards: Vec<u32>,
    },
    /// An executor died: its epoch lapses, and the attempts it had are the platform's loss.
    ExecutorLost {
        /// Its lease.
        epoch: Epoch,
        /// Attempts that ran on it, with their jobs.
        failures: Vec<(JobId, TaskFailure)>,
        /// Steps that it was at, with their jobs.
        steps: Vec<(JobId, Step, Problem)>,
    },
    /// The agent of a node has started: leases of its earlier lives have lapsed.
    JoinNode {
        /// The node.
        node: NodeId,
        /// The node's agent.
        record: NodeRecord,
    },
    /// A component was compiled for another engine.
    RecordArtefact {
        /// The component.
        digest: Digest,
        /// Name of the engine's artefacts.
        compatibility: String,
        /// Digest of the artefact.
        artefact: Digest,
    },
    /// Forgets origins of commands that have not been seen for long.
    ExpireOrigins {
        /// Those whose last command came before, in Unix milliseconds.
        before_ms: u64,
    },
    /// Gives the group of controllers its id; one that has an id keeps it.
    NameGroup {
        /// The id, made by the proposer.
        group: String,
    },
}

impl Command {
    /// Lease under which a step of a job was done, for commands that report one.
    pub(crate) fn lease(&self) -> Option<Epoch> {
        match self {
            Command::JobPlanned { lease, .. }
            | Command::JobPublished { lease, .. }
            | Command::StepFailed { lease, .. } => *lease,
            _ => None,
        }
    }
}

/// Part of a job beside its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Planning.
    Plan,
    /// Publishing.
    Publish,
}

/// A finished attempt, as an agent reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitReport {
    /// The job.
    pub job: JobId,
    /// The agent and the number of its result.
    pub origin: Origin,
    /// The attempt.
    pub commit: TaskCommit,
}

/// A command that this member cannot read: it must stop, or its state would differ from the others'.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It was written by a newer Weft.
    #[error(
        "a command has version {found}, and this member reads versions up to {COMMAND_VERSION}: upgrade it"
    )]
    Newer {
        /// The command's version.
        found: u32,
    },
    /// It was written by an older Weft whose commands are not read any more.
    #[error(
        "a command has version {found}, and this member reads versions from {OLDEST_COMMAND_VERSION} on: it is of an earlier Weft"
    )]
    Older {
        /// The command's version.
        found: u32,
    },
    /// It is damaged.
    #[error("a command cannot be read: {0}")]
    Damaged(String),
}

impl Envelope {
    /// Reads a command of the log.
    pub fn decode(bytes: &[u8]) -> Result<Envelope, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |error: serde_json::Error| Unreadable::Damaged(error.to_string());
        match serde_json::from_slice(bytes) {
            Ok(envelope) if Envelope::is_readable(&envelope) => Ok(envelope),
            // The rest of another version's fields may not be readable: its number comes first.
            _ => {
                let Version { version: found } = serde_json::from_slice(bytes).map_err(damaged)?;
                match found {
                    OLDEST_COMMAND_VERSION..=COMMAND_VERSION => {
                        serde_json::from_slice::<Envelope>(bytes).map_err(damaged)
                    }
                    found if found > COMMAND_VERSION => Err(Unreadable::Newer { found }),
                    found => Err(Unreadable::Older { found }),
                }
            }
        }
    }

    fn is_readable(&self) -> bool {
        (OLDEST_COMMAND_VERSION..=COMMAND_VERSION).contains(&self.version)
    }
}

/// Version of the commands' format. From 3 on, job specifications say what happens to unknown fields of JSON.
/// From 4 on they have SQL stages and outputs that the cluster keeps, plans have reads by some of a stage's tasks or
/// of whole edges, and problems the code `query_error`. From 5 on SQL stages name functions of components, which may
/// be scalar, and tenants have tables and views. From 6 on numbers of tasks follow from bytes of commits, tables have
/// rows that the cluster keeps, and ended jobs say whether outputs that it keeps are a table's. From 7 on failed
/// attempts name objects that the store lost, and groups have ids. From 8 on rows are added to those that the cluster
/// keeps for a table. From 9 on shards of actors are granted, and sets of tasks have an input or run for each row.
pub const COMMAND_VERSION: u32 = 9;
/// The oldest version that is read.
const OLDEST_COMMAND_VERSION: u32 = 2;

/// What becomes of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitAnswer {
    /// It is the task's first.
    Committed,
    /// The same, after the commit before was taken back because the store had lost its object: nobody pays twice.
    CommittedAgain,
    /// The task had one. `same`: both wrote the same, or need not.
    Duplicate {
        /// Whether the two attempts agree.
        same: bool,
    },
    /// It was taken before, and its answer is forgotten.
    Repeated,
    /// Too many answers to its agent are not acknowledged: it may be proposed again.
    Busy,
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
    /// Who holds the shards that were to be granted, by shard.
    Shards {
        /// Leases of their executors.
        holders: BTreeMap<u32, Epoch>,
    },
    /// Answer to one commit of a batch, as it is kept for its origin.
    Commit {
        /// The answer.
        answer: CommitAnswer,
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
