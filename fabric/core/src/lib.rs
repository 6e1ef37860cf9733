//! Types that every part of Weft shares: ids, job specifications, limits, meters, the closed list of problem codes; and
//! [`lock`], the one way to lock a mutex.
//!
//! Nothing here does I/O, asks the time or makes random numbers; those come in as arguments. Job documents are decoded by
//! hand in [`job`] so that everything that is wrong with one is reported at once, with its path and the nearest known key.

mod actor;
mod function;
mod ids;
pub mod job;
mod limits;
mod location;
mod lock;
mod log_line;
mod meters;
mod packed_usage;
mod problem;
mod quantity;
mod receipt;

pub use actor::{ActorRef, InvalidActorKey, MAX_ACTOR_KEY_BYTES, MAX_METHOD_BYTES, SHARDS};
pub use function::{Description, FunctionKind, FunctionRecord, PinnedFunction};
pub use ids::{
    AttemptId, Digest, Epoch, Incarnation, InvalidId, JobId, NodeId, TaskId, TenantId,
    is_component_name, is_semver,
};
pub use limits::{COMPONENT_BYTES_MAX, LimitKind, Limits};
pub use location::{Location, MAX_LOCATION_BYTES, StoreKind};
pub use lock::lock;
pub use log_line::LogLine;
pub use meters::Meters;
pub use packed_usage::PackedUsage;
pub use problem::{ErrorCode, FieldError, Problem};
pub use quantity::{parse_bytes, parse_duration};
pub use receipt::{Amounts, BillingPlan, FunctionUsage, PriceSheet, Receipt, ReceiptLine};
