//! What this task has used, and what its limits leave.

/// Amounts that a task is billed for or limited by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Output in bytes.
    pub output_bytes: u64,
}

/// What this task has used so far. Nothing in native builds.
pub fn spent() -> Usage {
    crate::host::spent()
}

/// What the limits leave. No limit in native builds.
pub fn remaining() -> Usage {
    crate::host::remaining()
}
