//! Types that roles exchange: plan shapes and commits, messages, frames, object keys.
//!
//! ```text
//! controller ──messages──▶ agent ──frames of messages──▶ executor
//!      ▲                                                    │ plan shapes, commits
//!      └────────────────────────────────────────────────────┘
//! ```
//!
//! Types only: no I/O, no channels. Whatever is here may go over a wire or into the replicated state.

mod actor;
mod adaptive;
mod agent;
mod compile;
mod explain;
pub mod frame;
mod invocation;
mod keys;
mod messages;
mod outputs;
mod plan;
mod rows;
mod stores;
mod stream;
mod tables;

pub use actor::{
    ACTOR_LEASE, ActorAsk, ActorInvoke, ActorRequest, ActorStatus, Call, CallTo, DeadLetter,
    MAX_CHAIN, MAX_LISTED, MAX_SPAWN_DEPTH, MAX_TURN_BYTES, MessageId, Once, Pin, RENEW_PERIOD,
};
pub use adaptive::{
    AdaptiveTasks, EdgeBytes, TASK_BYTES, TaskPart, fair_bytes, is_skewed, piece_bytes,
    settled_tasks,
};
pub use agent::{
    AgentCommand, AgentOutcome, AgentReport, AgentResult, AgentStatus, ExecutorStatus, FromAgent,
    RunningAttempt, RunningWork, ToAgent,
};
pub use compile::{ARTEFACT_BYTES_MAX, COMPILE_CPU_SECONDS_MAX, COMPILE_MEMORY_BYTES_MAX, Verdict};
pub use explain::{
    MAX_PLAN_LINE_BYTES, MAX_PLAN_TEXT_BYTES, MAX_STAGE_TEXT_BYTES, StageText, plan_line,
    plan_text_key,
};
pub use invocation::{DEADLINE_MAX, OUTPUT_BYTES_MAX};
pub use keys::{
    EARLIER_FINGERPRINTS, FINGERPRINT, KEPT_OUTPUTS, artefact_key, attempt_key, component_key,
    job_prefix, kept_output_key, kept_prefix, shard_prefix, shards_prefix,
};
pub use messages::{
    Columns, DescribeReply, EdgeInput, FromExecutor, GuestTook, InvokeReply, InvokeRequest,
    MESSAGE_VERSION, PlanReply, PlanRequest, PublishRequest, StageContext, StreamFormats,
    TaskReply, TaskRequest, ToExecutor, Took, Work,
};
pub use outputs::{ManifestOutput, kept_too_large};
pub use plan::{
    EdgeKind, EdgeRead, EdgeRef, EdgeShape, FailedLog, LogRef, LostObject, MAX_EDGES,
    MAX_PLAN_STAGES, MAX_PLAN_TASKS, MAX_READS, ObjectRef, Plan, PublishedOutput, ReadMode,
    SinkFile, SlotVector, StageShape, Sums, TaskCommit, TaskFailure, TaskRange,
};
pub use rows::{
    Listing, ListingColumn, ListingValues, MessageHead, OutputRows, RowsFormat, RowsOf, RowsRequest,
};
pub use stores::{ExecutorCredentials, Secret, SessionCredential, StoreSettings, Stores};
pub use stream::{PIECE_BYTES_MAX, PIECE_WEIGHT_MIN, PIECES_MAX, WINDOW_BYTES, piece_weight};
pub use tables::{
    Extended, IfTaken, MAX_DEFINITION_BYTES, MAX_KEPT_PARTS, MAX_TABLE_NAME_BYTES, TableChange,
    TableKind, TableStatement,
};
