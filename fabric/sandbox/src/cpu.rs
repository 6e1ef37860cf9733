//! CPU time of one guest against its limit. While the guest waits for its host, the clock stands: what else its thread
//! does meanwhile is not the guest's. What the host does for it on its thread is.

use std::future::poll_fn;
use std::pin::pin;

use crate::clock::thread_cpu_ns;

/// The CPU clock of a guest, which is called on one thread at a time.
pub(crate) struct CpuMeter {
    limit_ns: u64,
    /// Spent under the same limit by earlier guests.
    before_ns: u64,
    /// Spent by the calls that have returned.
    spent_ns: u64,
    /// The part of it that was spent before the current turn.
    exempt_ns: u64,
    /// The thread's clock when the current call began, set forward by the pauses since then.
    began_ns: u64,
    /// The thread's clock at the pause, during one.
    paused_ns: Option<u64>,
}

impl CpuMeter {
    /// Starts to count.
    pub(crate) fn start(limit_ns: u64, before_ns: u64) -> Self {
        Self {
            limit_ns,
            before_ns,
            spent_ns: 0,
            exempt_ns: 0,
            began_ns: thread_cpu_ns(),
            paused_ns: None,
        }
    }

    /// A call begins.
    pub(crate) fn begin(&mut self) {
        self.began_ns = thread_cpu_ns();
        self.paused_ns = None;
    }

    /// The call has returned, failed, or was dropped in a pause.
    pub(crate) fn end(&mut self) {
        self.spent_ns = self.total_ns();
    }

    /// A turn begins: the limit counts from here.
    pub(crate) fn begin_turn(&mut self, limit_ns: u64) {
        self.limit_ns = limit_ns;
        self.before_ns = 0;
        self.exempt_ns = self.spent_ns;
    }

    /// Waits for work that the host does for the guest. The clock goes on while that is at work on the guest's thread:
    /// otherwise calls that are answered at once would be free.
    pub(crate) async fn wait<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.resume();
            let polled = work.as_mut().poll(context);
            if polled.is_pending() {
                self.pause();
            }
            polled
        })
        .await
    }

    /// The guest waits from now on.
    fn pause(&mut self) {
        self.paused_ns = Some(thread_cpu_ns());
    }

    /// The guest waits no more.
    fn resume(&mut self) {
        if let Some(paused_ns) = self.paused_ns.take() {
            self.began_ns += thread_cpu_ns().saturating_sub(paused_ns);
        }
    }

    /// Adds what another thread spent for the guest.
    pub(crate) fn add(&mut self, cpu_ns: u64) {
        self.spent_ns += cpu_ns;
    }

    /// Spent since the guest was made, the current call included.
    pub(crate) fn total_ns(&self) -> u64 {
        let now_ns = self.paused_ns.unwrap_or_else(thread_cpu_ns);
        self.spent_ns + now_ns.saturating_sub(self.began_ns)
    }

    /// Spent by the calls that have returned, since the guest was made.
    pub(crate) fn spent_ns(&self) -> u64 {
        self.spent_ns
    }

    /// Spent since the guest was made or its turn began, the current call included.
    pub(crate) fn used_ns(&self) -> u64 {
        self.total_ns().saturating_sub(self.exempt_ns)
    }

    /// The limit.
    pub(crate) fn limit_ns(&self) -> u64 {
        self.limit_ns
    }

    /// Returns whether the limit is reached, as of now.
    pub(crate) fn is_over(&self) -> bool {
        self.exceeds(self.used_ns())
    }

    /// Returns whether the calls that have returned reached the limit.
    pub(crate) fn was_over(&self) -> bool {
        self.exceeds(self.spent_ns.saturating_sub(self.exempt_ns))
    }

    fn exceeds(&self, used_ns: u64) -> bool {
        self.before_ns.saturating_add(used_ns) > self.limit_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the thread busy for as long.
    fn spin(ns: u64) {
        let until = thread_cpu_ns() + ns;
        while thread_cpu_ns() < until {}
    }

    #[test]
    fn pauses_are_not_charged() {
        let mut cpu = CpuMeter::start(2_000_000, 0);
        cpu.begin();
        cpu.pause();
        spin(5_000_000);
        assert!(cpu.used_ns() < 2_000_000, "{} ns", cpu.used_ns());
        cpu.resume();
        assert!(!cpu.is_over(), "{} ns", cpu.used_ns());
        spin(3_000_000);
        assert!(cpu.is_over(), "{} ns", cpu.used_ns());
        // A call that is dropped while it waits.
        cpu.pause();
        let before = cpu.used_ns();
        spin(1_000_000);
        cpu.end();
        assert_eq!(cpu.spent_ns(), before);
    }

    #[test]
    fn the_limit_counts_from_the_turn() {
        let mut cpu = CpuMeter::start(1, 0);
        cpu.begin();
        spin(1_000_000);
        cpu.end();
        assert!(cpu.was_over());
        let before = cpu.spent_ns();
        cpu.begin_turn(100_000_000);
        assert!(!cpu.was_over());
        cpu.begin();
        spin(1_000_000);
        cpu.end();
        assert!(cpu.spent_ns() >= before + 1_000_000, "meters go on");
    }
}
