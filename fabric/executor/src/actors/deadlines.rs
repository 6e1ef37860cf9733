//! Deadlines of turns that run. A guest that computes gives its own thread no time to look at a clock.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::lock;

#[derive(Default)]
struct State {
    next: u64,
    running: HashMap<u64, (Instant, CancellationToken)>,
}

/// Turns that run, and when each is stopped.
#[derive(Default)]
pub(super) struct Deadlines(Mutex<State>);

/// A turn that runs, until this is dropped.
pub(super) struct Running<'a> {
    deadlines: &'a Deadlines,
    number: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.deadlines.0).running.remove(&self.number);
    }
}

impl Deadlines {
    /// A turn begins.
    pub(super) fn watch(&self, deadline: Instant, cancel: &CancellationToken) -> Running<'_> {
        let mut state = lock(&self.0);
        state.next += 1;
        let number = state.next;
        state.running.insert(number, (deadline, cancel.clone()));
        Running {
            deadlines: self,
            number,
        }
    }

    /// Stops the turns whose deadline has passed.
    pub(super) fn stop_late(&self, now: Instant) {
        let state = lock(&self.0);
        for (deadline, cancel) in state.running.values() {
            if *deadline <= now {
                cancel.cancel();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn late_turns_are_stopped_and_no_others() {
        let deadlines = Deadlines::default();
        let now = Instant::now();
        let cancels = [CancellationToken::new(), CancellationToken::new()];
        let _late = deadlines.watch(now, &cancels[0]);
        let ended = deadlines.watch(now + Duration::from_secs(9), &cancels[1]);
        deadlines.stop_late(now);
        assert!(cancels[0].is_cancelled() && !cancels[1].is_cancelled());
        drop(ended);
        deadlines.stop_late(now + Duration::from_secs(10));
        assert!(!cancels[1].is_cancelled());
    }
}
