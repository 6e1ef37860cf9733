//! Resources of one turn: what its instance used since the turn began, and its thread beside it.

use weft_core::Meters;
use weft_sandbox::{GuestMeters, TaskLog, monotonic_ns, thread_cpu_ns, unix_ns};

use super::answer::Used;

/// Lines of a turn's log that are told; the rest is counted.
const MAX_LOG_LINES: usize = 32;

/// When a turn began, on the thread that it runs on.
pub(super) struct Stopwatch {
    cpu_ns: u64,
    began: u64,
    began_ns: u64,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self {
            cpu_ns: thread_cpu_ns(),
            began: monotonic_ns(),
            began_ns: unix_ns(),
        }
    }

    /// Ends the turn. `before`, `after`: meters of its instance.
    pub(super) fn used(
        self,
        label: &str,
        before: &GuestMeters,
        after: &GuestMeters,
        log: &TaskLog,
    ) -> Used {
        let in_guest_ns = after.thread_cpu_ns.saturating_sub(before.thread_cpu_ns);
        let beside_ns = (thread_cpu_ns() - self.cpu_ns).saturating_sub(in_guest_ns);
        let native_ns = after.native_cpu_ns.saturating_sub(before.native_cpu_ns);
        let meters = Meters {
            guest_cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
            native_cpu_ns: native_ns + beside_ns,
            guest_calls: after.calls.saturating_sub(before.calls),
            memory_byte_ns: after.memory_byte_ns.saturating_sub(before.memory_byte_ns),
            memory_peak_bytes: after.memory_peak_bytes,
            wall_ns: monotonic_ns() - self.began,
            ..Meters::default()
        };
        let (mut lines, mut dropped) = log.take();
        dropped += lines.len().saturating_sub(MAX_LOG_LINES) as u64;
        lines.truncate(MAX_LOG_LINES);
        Used {
            label: label.to_owned(),
            meters,
            log: lines,
            log_dropped: dropped,
            began_ns: self.began_ns,
        }
    }
}
