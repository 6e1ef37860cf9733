//! Runs guests: one engine, a fresh store for every task, limits that are enforced, and meters.
//!
//! ```text
//! bytes ──compile (its own process)──▶ artefact ──Component::load──▶ Component ──Guest::start──▶ Guest ──push/finish──▶ batches
//! ```
//!
//! A [`Guest`] is one store with one instance, for one function of one task, or for one actor and its turns; it is
//! dropped after that, and after a fault at once. Guests that import nothing that can wait are called synchronously;
//! those that import WASI, or reach outside by a [`Turn`] or [`Futures`], run on a fiber. What a guest hands over is
//! checked in full before it becomes an Arrow array. Everything here that names wasmtime stays here.

mod account;
mod bindings;
mod clock;
mod compile;
mod component;
mod cpu;
mod description;
mod engine;
mod expressions;
mod fault;
mod fields;
mod guest;
mod host;
mod limiter;
mod log;
mod outside;
mod printed;
mod transfer;
mod wasi;

pub use account::{MemoryAccount, Reservation};
pub use clock::{monotonic_ns, thread_cpu_ns, unix_ns};
pub use compile::{CompileError, Compiled, compatibility, compile};
pub use component::Component;
pub use engine::{Engine, Role};
pub use expressions::{Expressions, PreparedExpressions};
pub use fault::{Fault, Result};
pub use fields::{SCHEMA_NAME_BYTES_MAX, guest_field, guest_type, is_column_name, type_name};
pub use guest::{
    BoundScalar, Guest, GuestMeters, GuestSettings, ScalarColumn, TurnSettings, at_once,
};
pub use host::batch_bytes;
pub use log::{LOG_BYTES_MAX, TaskLog};
pub use outside::{Asked, Futures, Refusal, Turn};
