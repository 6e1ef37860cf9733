//! Limits that a job sets and the fabric enforces; every one has the name that errors and metrics use.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes of a component that are accepted.
pub const COMPONENT_BYTES_MAX: u64 = 128 << 20;

/// Which limit was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Linear memories, host-side batches and buffers of one task, in bytes.
    Memory,
    /// Guest CPU time of one task, in nanoseconds.
    Cpu,
    /// Wall time of a job, in milliseconds.
    Wall,
    /// Bytes that one task emits.
    Output,
    /// Bytes that one task logs.
    Log,
    /// Host resources that one task holds at a time.
    Handles,
    /// Elements of a guest's tables.
    Tables,
    /// Bytes of a guest's stack.
    Stack,
    /// Files of an output.
    Files,
    /// Bytes of an output that the cluster keeps.
    KeptOutput,
    /// Keys, values and writes of an actor's turn.
    State,
    /// Messages that wait in a shard's outbox, or that one turn sends.
    Outbox,
    /// Futures that one invocation has spawned, and how deep they spawn.
    Futures,
}

impl LimitKind {
    /// All of them.
    pub const ALL: [LimitKind; 13] = [
        LimitKind::Memory,
        LimitKind::Cpu,
        LimitKind::Wall,
        LimitKind::Output,
        LimitKind::Log,
        LimitKind::Handles,
        LimitKind::Tables,
        LimitKind::Stack,
        LimitKind::Files,
        LimitKind::KeptOutput,
        LimitKind::State,
        LimitKind::Outbox,
        LimitKind::Futures,
    ];
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LimitKind::Memory => "memory",
            LimitKind::Cpu => "cpu",
            LimitKind::Wall => "wall",
            LimitKind::Output => "output",
            LimitKind::Log => "log",
            LimitKind::Handles => "handles",
            LimitKind::Tables => "tables",
            LimitKind::Stack => "stack",
            LimitKind::Files => "files",
            LimitKind::KeptOutput => "kept_output",
            LimitKind::State => "state",
            LimitKind::Outbox => "outbox",
            LimitKind::Futures => "futures",
        })
    }
}

/// The limits of a job's tasks; a stage may narrow them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of one task, in bytes.
    pub memory_bytes: u64,
    /// Guest CPU time of one task, in milliseconds.
    pub cpu_ms: u64,
    /// Wall time of the whole job, in milliseconds.
    pub wall_ms: u64,
    /// Bytes that one task may emit.
    pub output_bytes: u64,
}

impl Limits {
    /// The smallest memory a task can be given: below it not even its buffers fit.
    pub const MEMORY_BYTES_MIN: u64 = 16 << 20;
    /// The largest memory a task can be given: what one sandbox slot reserves.
    pub const MEMORY_BYTES_MAX: u64 = 4 << 30;

    /// The stricter of the two, limit by limit.
    pub fn narrow(&self, other: &Limits) -> Limits {
        Limits {
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            cpu_ms: self.cpu_ms.min(other.cpu_ms),
            wall_ms: self.wall_ms.min(other.wall_ms),
            output_bytes: self.output_bytes.min(other.output_bytes),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            cpu_ms: 60_000,
            wall_ms: 600_000,
            output_bytes: 10 << 30,
        }
    }
}
