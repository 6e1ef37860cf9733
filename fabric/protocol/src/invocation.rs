//! Bounds of invocations that client, controller and agent share.

use std::time::Duration;

/// Bytes of an output.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Longest deadline of an invocation.
pub const DEADLINE_MAX: Duration = Duration::from_secs(600);
