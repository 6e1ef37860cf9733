//! The only clock of a member.

use std::time::{Duration, Instant};

/// Says when the next tick is due.
///
/// Ticks that were missed are skipped: a member that was held up must first read the heartbeats that wait in its queue,
/// not conclude from a burst of ticks that there were none.
pub(crate) struct Ticker {
    interval: Duration,
    next: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one clock of the member, which only says when ticks are due"
)]
impl Ticker {
    pub(crate) fn new(interval: Duration) -> Ticker {
        Ticker {
            interval,
            next: Instant::now() + interval,
        }
    }

    /// How long until the next tick, zero when it is due.
    pub(crate) fn wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Takes the tick if it is due.
    pub(crate) fn take(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + self.interval;
        true
    }
}
