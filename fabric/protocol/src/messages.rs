//! Messages between agents and executors, always as encoded bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::job::{InputFormat, JobSpec, MAX_KEPT_BYTES, OutputFormat};
use weft_core::{
    AttemptId, Description, Digest, Epoch, ErrorCode, FunctionUsage, Incarnation, JobId, Limits,
    LogLine, Meters, PinnedFunction, Problem, TaskId, TenantId,
};

use crate::actor::{ActorRequest, Call};
use crate::adaptive::AdaptiveTasks;
use crate::explain::StageText;
use crate::keys::attempt_key;
use crate::outputs::ManifestOutput;
use crate::plan::{EdgeRef, ObjectRef, Plan, PublishedOutput, Sums, TaskCommit, TaskFailure};
use crate::rows::RowsRequest;
use crate::stores::ExecutorCredentials;
use crate::tables::TableStatement;

/// Version of all messages between controllers, agents and executors. Both sides must have the same.
pub const MESSAGE_VERSION: u32 = 11;

/// Work for an executor, beside tasks and invocations.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Have a component describe itself.
    Describe {
        /// Pairs the answer with the question.
        request: u64,
        /// The component.
        digest: Digest,
        /// Digest of its artefact.
        artefact: Digest,
    },
    /// Plan a job.
    Plan(Box<PlanRequest>),
    /// Context of a stage; comes before the first of its tasks.
    Stage(Box<StageContext>),
    /// Make files visible.
    Publish(PublishRequest),
    /// Stop the job's work, and forget the job.
    Forget {
        /// The job.
        job: JobId,
    },
    /// Serve these shards of the tenant's actors: they were granted to the executor for as long as its lease stands.
    Shards {
        /// The shards.
        shards: Vec<u32>,
    },
}

/// From the agent to its executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToExecutor {
    /// Comes first: settings that the process needs to start, which its environment does not tell.
    Setup {
        /// [`MESSAGE_VERSION`] of the agent.
        version: u32,
        /// The tenant that it works for.
        tenant: TenantId,
        /// Lease of the executor.
        epoch: Epoch,
        /// The cluster's store, and those that jobs may use. Those without an `executor_role` have their credentials.
        stores: Box<crate::stores::Stores>,
        /// Credentials for those with one.
        credentials: Box<ExecutorCredentials>,
        /// Folder for files that were fetched from a store that is none itself.
        cache: std::path::PathBuf,
        /// Folder for copies of shuffle objects, which the node's executors share.
        tier: std::path::PathBuf,
        /// Bytes of these copies; 0 for none.
        tier_bytes: u64,
        /// Folder for files that tasks spill.
        spill: std::path::PathBuf,
        /// Tasks that run side by side.
        slots: u32,
        /// Names the artefacts that this engine takes.
        compatibility: String,
    },
    /// Use these credentials from now on: those of before expire.
    Credentials(Box<ExecutorCredentials>),
    /// Do this.
    Work(Work),
    /// Run a task.
    Task(TaskRequest),
    /// Invoke a function once. Its input is the frame's payload, unless the invocation streams.
    Invoke(Box<InvokeRequest>),
    /// More input of an invocation that streams: the frame's payload. An empty one is the end.
    Input {
        /// The invocation's number.
        request: u64,
    },
    /// Send rows, as pieces of `Output`.
    Rows(Box<RowsRequest>),
    /// The client of an invocation that streams, or of rows, has taken a piece of output.
    OutputTaken {
        /// The invocation's number.
        request: u64,
        /// Its length.
        bytes: usize,
    },
    /// Nobody waits for this invocation any more.
    Abandon {
        /// Its number.
        request: u64,
    },
    /// A question to an actor. Its input is the frame's payload.
    Actor(Box<ActorRequest>),
    /// The executor's lease stands.
    Lease {
        /// Until then, in nanoseconds of the machine's clock since it booted, which runs on in sleep.
        until_ns: u64,
        /// The highest number of [`FromExecutor::Confirm`] that came before this renewal was asked for.
        confirmed: u64,
    },
    /// The answer to a call. The output is the frame's payload.
    CallAnswered {
        /// The call's number.
        call: u64,
        /// Nothing, or what went wrong.
        result: Result<(), Problem>,
    },
}

/// From the executor to its agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromExecutor {
    /// It can take work.
    Ready {
        /// Slots that it has.
        slots: u32,
    },
    /// The answer to `Describe`.
    Described(DescribeReply),
    /// The answer to `Plan`.
    Planned(Box<PlanReply>),
    /// A task ended.
    Task(Box<TaskReply>),
    /// Output of a call that streams: the frame's payload. It comes before the answer to `Invoke`.
    Output {
        /// The call's number.
        request: u64,
    },
    /// A call that streams has taken a piece of input.
    InputRead {
        /// The call's number.
        request: u64,
        /// Its length.
        bytes: usize,
    },
    /// The answer to `Invoke`. The function's output is the frame's payload, unless the call streams.
    Invoked(Box<InvokeReply>),
    /// The answer to `Rows`. It comes after the last piece of `Output`.
    RowsSent {
        /// The question's number.
        request: u64,
        /// Nothing, or why not all rows were sent.
        result: Result<(), Problem>,
    },
    /// The answer to `Publish`.
    Published {
        /// The job.
        job: JobId,
        /// Its outputs, or why not.
        result: Result<Vec<PublishedOutput>, Problem>,
    },
    /// The answer to `Actor` where its shard was granted to another executor: nothing was done. Any other answer to
    /// `Actor` is an `Invoked`.
    NotHere {
        /// The question's number.
        request: u64,
    },
    /// Have the lease renewed now, and say so.
    Confirm {
        /// Counted from 1.
        number: u64,
    },
    /// Make a call for a guest. An input is the frame's payload.
    Call(Box<Call>),
    /// Nobody waits for this call any more.
    CancelCall {
        /// The call's number.
        call: u64,
    },
}

impl FromExecutor {
    /// The same answer, as an error: as it is, it has too many bytes to be sent.
    #[must_use]
    pub fn too_large(self, bytes: usize) -> Self {
        let detail = format!(
            "the answer has {bytes} bytes, more than can be sent: fewer files or columns, or shorter names"
        );
        let problem = Problem::new(ErrorCode::TooLarge, detail);
        match self {
            Self::Ready { .. }
            | Self::Output { .. }
            | Self::InputRead { .. }
            | Self::NotHere { .. }
            | Self::Confirm { .. }
            | Self::Call(_)
            | Self::CancelCall { .. } => self,
            Self::Described(reply) => Self::Described(DescribeReply {
                result: Err(problem),
                ..reply
            }),
            Self::Planned(reply) => Self::Planned(Box::new(PlanReply {
                result: Err(problem),
                statement: None,
                columns: Vec::new(),
                texts: Vec::new(),
                ..*reply
            })),
            Self::Task(reply) => {
                let failure = match reply.result {
                    Ok(commit) => TaskFailure {
                        stage: commit.stage,
                        task: commit.task,
                        attempt: commit.attempt,
                        epoch: commit.epoch,
                        sequence: commit.sequence,
                        problem,
                        cancelled: false,
                        lost: None,
                        usage: commit.usage.lines(),
                        log: Some(commit.log),
                    },
                    Err(failure) => TaskFailure { problem, ..failure },
                };
                Self::Task(Box::new(TaskReply {
                    job: reply.job,
                    result: Err(failure),
                    took: reply.took,
                }))
            }
            Self::Invoked(reply) => Self::Invoked(Box::new(InvokeReply {
                result: Err(problem),
                ..*reply
            })),
            Self::RowsSent { request, .. } => Self::RowsSent {
                request,
                result: Err(problem),
            },
            Self::Published { job, .. } => Self::Published {
                job,
                result: Err(problem),
            },
        }
    }
}

/// The answer to `Describe`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DescribeReply {
    /// The question's number.
    pub request: u64,
    /// What the component says, or why it could not.
    pub result: Result<Description, Problem>,
}

/// What an invocation gets, beside its input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvokeRequest {
    /// Pairs the answer with the question.
    pub request: u64,
    /// The component.
    pub digest: Digest,
    /// Digest of its artefact.
    pub artefact: Digest,
    /// The function.
    pub function: String,
    /// `component@version/function`.
    pub label: String,
    /// Its params.
    pub params: Vec<(String, String)>,
    /// What it may use.
    pub limits: Limits,
    /// Seeds what it sees as random.
    pub seed: u64,
    /// Where its clock stands, in Unix milliseconds.
    pub started_ms: u64,
    /// For a map function, whose input comes and whose output goes while it runs.
    #[serde(default)]
    pub stream: Option<StreamFormats>,
    /// How deep its spawners are nested: 0 for a client's.
    #[serde(default)]
    pub depth: u32,
}

/// What a call that streams reads and writes: not Parquet, which is neither read nor written from its front.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamFormats {
    /// Of the input.
    pub input: InputFormat,
    /// Of the output.
    pub output: OutputFormat,
}

/// What an invocation answers with, beside its output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvokeReply {
    /// The question's number.
    pub request: u64,
    /// `component@version/function`.
    pub label: String,
    /// Nothing, or what went wrong.
    pub result: Result<(), Problem>,
    /// What it used.
    pub meters: Meters,
    /// The first lines that it logged.
    pub log: Vec<LogLine>,
    /// Lines after those.
    pub log_dropped: u64,
    /// When it began, in Unix nanoseconds; `meters` say how long it took. 0 where nothing ran.
    pub began_ns: u64,
}

/// When an executor was at something, in Unix nanoseconds: for traces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Took {
    /// When it began.
    pub began_ns: u64,
    /// When it ended.
    pub ended_ns: u64,
    /// When its guests were alive, one entry for each function.
    pub guests: Vec<GuestTook>,
}

/// When a guest was alive, in Unix nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestTook {
    /// `component@version/function`.
    pub function: String,
    /// When the first one was started.
    pub began_ns: u64,
    /// When the last one was gone.
    pub ended_ns: u64,
}

/// What a planning task gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The job.
    pub job: JobId,
    /// As it was accepted.
    pub spec: JobSpec,
    /// Its functions.
    pub functions: Vec<PinnedFunction>,
    /// Digests of the components' artefacts, by component.
    pub artefacts: BTreeMap<Digest, Digest>,
    /// Where guests' clocks stand, in Unix milliseconds.
    pub started_ms: u64,
    /// Nothing is to be written: the job is only looked at.
    pub check: bool,
    /// Definitions of the tenant's tables and views, by name, if the job has SQL stages.
    #[serde(default)]
    pub tables: BTreeMap<String, String>,
    /// Most bytes of the rows of a table that the cluster keeps.
    #[serde(default = "max_kept_bytes")]
    pub max_kept_bytes: u64,
}

/// The bound of controllers that send none.
fn max_kept_bytes() -> u64 {
    MAX_KEPT_BYTES
}

/// Columns that come out of an input or a stage: names and types.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Columns {
    /// The input or stage.
    pub of: String,
    /// The columns in order.
    pub columns: Vec<(String, String)>,
}

/// What a planning task answers with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanReply {
    /// The job.
    pub job: JobId,
    /// The plan, or why there is none.
    pub result: Result<Plan, Problem>,
    /// Results of planning the job's statement, if it is more than a query.
    #[serde(default)]
    pub statement: Option<TableStatement>,
    /// What comes out of inputs and stages, as far as planning got.
    pub columns: Vec<Columns>,
    /// Plans of the stages for people, in the order of the plan, of a job that is only looked at.
    #[serde(default)]
    pub texts: Vec<StageText>,
    /// What planning used.
    pub usage: Vec<FunctionUsage>,
}

/// Context that the tasks of a stage share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageContext {
    /// The job.
    pub job: JobId,
    /// Position of the stage in the plan.
    pub stage: u32,
    /// [`FINGERPRINT`](crate::FINGERPRINT) of the plan: an executor with another refuses the stage.
    pub fingerprint: String,
    /// Key of the plan's blob.
    pub plan: String,
    /// Edges that the stage reads, in the order of its shape.
    pub inputs: Vec<EdgeInput>,
    /// Tasks that are more or fewer than planned: the plan has the ranges of tasks as they were planned.
    #[serde(default)]
    pub adaptive: Vec<AdaptiveTasks>,
    /// Digests of the components' artefacts, by component.
    pub artefacts: BTreeMap<Digest, Digest>,
}

/// Rows of an edge, as its writers committed them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EdgeInput {
    /// The edge.
    pub edge: EdgeRef,
    /// Sums over all that was written to it. Readers together must read the same; of a broadcast, each
    /// of them.
    pub expected: Sums,
    /// Objects of the writing stage's tasks, by task.
    pub objects: Vec<Option<ObjectRef>>,
}

/// One attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRequest {
    /// The task.
    pub id: TaskId,
    /// Number of the attempt, for people.
    pub attempt: u32,
    /// Lease of the executor.
    pub epoch: Epoch,
    /// Number of the attempt under the lease.
    pub sequence: u64,
    /// Life of the agent: with epoch and sequence it keeps names of objects and files apart.
    pub agent: Incarnation,
}

impl TaskRequest {
    /// The attempt.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId {
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }

    /// Key of an object that the attempt writes.
    pub fn key(&self, suffix: &str) -> String {
        attempt_key(&self.id, &self.agent, self.attempt_id(), suffix)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskReply {
    /// The job.
    pub job: JobId,
    /// What to commit, or what went wrong.
    pub result: Result<TaskCommit, TaskFailure>,
    /// When it ran.
    pub took: Took,
}

/// What a publishing task gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishRequest {
    /// The job.
    pub job: JobId,
    /// Keys of the stages' plan blobs: the schemas of outputs come from them.
    pub plans: Vec<String>,
    /// The outputs with their files; `schema` is filled in by the executor.
    pub outputs: Vec<ManifestOutput>,
}
