//! Pauses between attempts to connect.

use std::time::Duration;

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a process that is back is found within it.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Pauses that double, up to a bound.
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// Waits for the next pause.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
    }

    /// The next pause is the first one again.
    pub(crate) fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }
}
