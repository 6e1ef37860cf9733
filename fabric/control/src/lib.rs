//! The control state of Weft as a pure state machine: `(state, command) -> (answer, effects)`.
//!
//! Every member applies the same commands in the same order and must end in the same state, so nothing here does I/O, asks
//! the time, makes random numbers or iterates over unordered maps: time and ids arrive inside the [`Command`]. Effects say what the leader's
//! scheduler has to do next; a new leader gets the same ones from [`State::pending_effects`].
//!
//! A job moves like this (`*`: on failure or cancel, from any state before it):
//!
//! ```text
//! submit ─▶ Planning ─planned─▶ Running ─last commit─▶ Publishing ─published─▶ Ending ─archived─▶ a line in `ended`
//!                                                          *────────────────────▲
//! ```

mod actors;
mod adaptive;
mod attempt;
mod bounds;
mod calls;
mod catalog;
mod command;
mod event;
mod inline_output;
mod job;
mod job_keys;
mod lease;
mod lost;
mod node;
mod origins;
mod plan;
mod running;
mod state;
mod tables;
mod tenant;
#[cfg(test)]
mod tests;
mod usage;

pub use bounds::{
    IDEMPOTENCY_MS, MAX_ATTEMPTS, MAX_ENDED_JOBS, MAX_IDEMPOTENCY_KEYS, MAX_INLINE_OUTPUT_BYTES,
    MAX_KEY_BYTES, MAX_ORIGIN_ANSWERS, MAX_ORIGINS, MAX_RUNNING_JOBS, MAX_STORED_OUTPUT_BYTES,
    MAX_TABLES, MAX_TABLES_BYTES, ORIGIN_MS,
};
pub use calls::{Begun, CallOutcome, HeldKeys, KeyedCalls};
pub use catalog::{Catalog, ComponentRecord};
pub use command::{
    Answer, COMMAND_VERSION, Command, CommitAnswer, CommitReport, Effect, Envelope, Step,
    Unreadable,
};
pub use event::{EVENTS_MAX, JobEvent, JobEventKind};
pub use inline_output::InlineOutput;
pub use job::{EndedJob, Ending, Job, JobState, Outcome, Planning, Publishing};
pub use lease::{Lease, Leases};
pub use node::{NodeRecord, Nodes};
pub use origins::{Origin, Origins};
pub use running::{Running, SlowestTask, Span, StageState, edge_sums};
pub use state::State;
pub use tables::{KeptRows, TableRecord, Tables};
pub use tenant::Tenant;
pub use usage::{Cost, USAGE_MINUTES_MAX, UsageSums};
