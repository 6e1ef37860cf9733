//! The server side of the `weft` binary: API, controller, agent, executor and compiler.
//!
//! ```text
//! up ─┬─ api ───────▶ replica (Raft thread, control state) ──effects──▶ controller ──▶ agent ──socket──▶ executor child
//!     └─ agent ──▶ compiler child (one for each new component)
//! ```

mod agent;
mod api;
mod archive;
mod clock;
mod compiler;
mod components;
mod controller;
mod executor;
mod folder;
mod invocations;
mod metrics;
mod packed;
mod process;
mod queue;
mod random;
mod replica;
mod room;
mod tasks;
mod traces;
mod up;
mod wire;

pub use compiler::run as compiler;
pub use executor::run as executor;
pub use up::{UpSettings, run as up};
pub use weft_engine::{TextRow, preview};
