//! Waiting: for something to come true, with a deadline, never for a time in the hope that it has.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// What takes longer than this has failed, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The time, for deadlines and durations.
#[expect(clippy::disallowed_methods, reason = "the one clock of these tests")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Unix time in milliseconds, as the server stamps what happens.
#[expect(clippy::disallowed_methods, reason = "the other clock of these tests")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is past 1970");
    u64::try_from(since.as_millis()).expect("it is not that far past 1970")
}

/// Unix time in milliseconds of a time that the API tells: `2026-11-20T12:00:00.000Z`.
pub(crate) fn parse_ms(time: &str) -> u64 {
    let number = |from: usize, to: usize| -> u64 { time[from..to].parse().expect("RFC 3339") };
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // A year that begins in March ends with the day that not every year has.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19);
    // 719 468 days lie between the first of March of year 0 and the first of January of 1970.
    (days - 719_468) * 86_400_000 + seconds * 1000 + number(20, 23)
}

#[test]
fn times_of_the_api_are_read() {
    assert_eq!(parse_ms("1970-01-01T00:00:00.000Z"), 0);
    assert_eq!(parse_ms("2000-02-28T23:59:59.999Z"), 951_782_399_999);
    assert_eq!(parse_ms("2000-02-29T00:00:00.000Z"), 951_782_400_000);
    assert_eq!(parse_ms("2026-11-20T12:00:00.000Z"), 1_795_176_000_000);
}

/// Waits until `look` finds something. Panics where `what` does not come true in time.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    poll(what, || look().ok_or("not yet"))
}

/// Waits until `list` finds nothing. Panics, with what it still finds, where there is something for too long.
pub(crate) fn until_empty<T: Debug>(what: &str, mut list: impl FnMut() -> Vec<T>) {
    poll(what, || match list() {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}

fn poll<T, E: Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(now() < deadline, "{what}: {seen:?} after {PATIENCE:?}"),
        }
        sleep(LOOK_EVERY);
    }
}
