//! The controller: serves the API, replicates the control state, and schedules on the leader.
//!
//! ```text
//! client ──HTTP──▶ api ──commands──▶ replica (Raft thread, control state) ──effects──▶ scheduler ──▶ nodes
//!                   └──invocations──▶ node                                                └──▶ archive
//! ```

mod actors;
mod api;
mod archive;
mod clock;
mod components;
mod controller;
mod folders;
mod group;
mod invocations;
mod kept_outputs;
mod membership;
mod metrics;
mod nodes;
mod ownership;
mod packed;
mod pins;
mod replica;
mod reserve;
mod scheduler;
#[cfg(test)]
mod simulation;
mod stamp;
mod sweep;
mod traces;

pub use api::AllowedSources;
pub use controller::{Controller, ControllerSettings, Group, NodeInputs};
pub use folders::Folders;
pub use kept_outputs::KeptOutputs;
pub use reserve::Reserve;
pub use weft_consensus::Membership;
