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

mod calls;
mod catalog;
mod command;
mod event;
mod job;
mod lease;
mod plan;
mod running;
mod state;
#[cfg(test)]
mod tests;
mod usage;

pub use calls::{Begun, CallOutcome, KeyedCalls};
pub use catalog::{Catalog, ComponentRecord};
pub use command::{Answer, Command, CommitAnswer, Effect, Envelope};
pub use event::{EVENTS_MAX, JobEvent, JobEventKind};
pub use job::{EndedJob, Ending, Job, JobState, Outcome, Planning, Publishing};
pub use lease::{Lease, Leases};
pub use running::{Running, StageState};
pub use state::{
    ATTEMPTS_MAX, COMMAND_VERSION, ENDED_JOBS_MAX, IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_MS,
    RUNNING_JOBS_MAX, State, Tenant,
};
pub use usage::{USAGE_MINUTES_MAX, UsageSums};
