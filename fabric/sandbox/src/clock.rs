//! Clocks for meters and traces. Guests never see them.

use rustix::time::{ClockId, clock_gettime};

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// CPU time of the calling thread, in nanoseconds. A system call: read it around calls, not around rows.
pub fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::ThreadCPUTime)
}

/// The time, in Unix nanoseconds. For traces alone, where several processes tell of one moment: nothing is decided by it.
pub fn unix_ns() -> u64 {
    read_ns(ClockId::Realtime)
}

/// A clock that never goes back, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}
