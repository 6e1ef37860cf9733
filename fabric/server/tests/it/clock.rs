//! Waiting: for something to come true, with a deadline, never for a time in the hope that it has.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// What takes longer than this has failed, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The time, for deadlines and durations.
#[expect(clippy::disallowed_methods, reason = "the one clock of these tests")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock as the API tells it, in RFC 3339: the time at which a file that is made now was made.
///
/// Panics where `what` does not come true in time.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(LOOK_EVERY);
    }
}
