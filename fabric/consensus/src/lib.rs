//! Replicates opaque commands with Raft and hands them, in one order, to a state machine on every member.
//!
//! ```text
//!  Handle::propose ──▶ bounded queue ──▶ member thread ──▶ log (fsync) ──▶ StateMachine::apply ──▶ answer
//!  Handle::deliver ──▶      "               │  ▲                │
//!                                           ▼  │                ▼
//!                                        Transport          snapshot-<index>, then the log is compacted
//! ```
//!
//! The crate knows bytes and positions, nothing of what a command means. One dedicated thread owns the Raft node; its only
//! clock is a tick. Whatever is acknowledged was written and synced first by a majority. A disk that refuses a write ends
//! the process: a member that went on could forget its vote or an acknowledged command.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test ends at the first surprise")
)]

mod codec;
mod error;
mod settings;
mod state_machine;
mod transport;

mod disk;
mod log;
mod membership;
mod pace;
mod position;
mod snapshot;

mod logger;
mod member;
mod proposals;
mod reads;
mod ticker;

mod handle;
mod start;

pub mod simulation;

pub use codec::{decode_message, encode_message};
pub use error::{Error, ErrorKind};
pub use handle::{Handle, Status};
pub use membership::{Change, Membership};
pub use raft::eraftpb::Message;
pub use settings::Settings;
pub use start::start;
pub use state_machine::{Capture, StateMachine};
pub use transport::{MemoryTransport, NoTransport, Transport};
