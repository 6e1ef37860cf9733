//! Services that every role runs on: tasks, clock, random bytes, rooms for bytes, frames on sockets.
//!
//! The one crate that spawns tasks, reads the wall clock and asks the kernel for limits.

pub mod clock;
pub mod frames;
pub mod link;
pub mod process;
pub mod random;
mod room;
mod tasks;

pub use room::{Room, Taken};
pub use tasks::{OnError, Scoped, Tasks};
