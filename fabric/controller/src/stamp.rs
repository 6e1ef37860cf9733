//! Time that a leader stamps on commands.
//!
//! A clock that jumps ahead, by an hour or by years, must not expire all that has a lifetime at once.
//! Every member knows when the last command was applied by a clock that nobody sets, and what time it
//! brought: a leader's stamp is ahead of that by what has passed since, and by [`STEP_MS`] at most.

use crate::clock::Clock;

/// How far one command may bring the time ahead of what has passed.
const STEP_MS: u64 = 10_000;

/// Clock for stamps.
#[derive(Debug)]
pub(crate) struct Stamp {
    clock: Clock,
    /// The time that the last applied command brought, and when it was applied, by the time since
    /// the machine was started. None before the first.
    reference: Option<(u64, u64)>,
    /// The last jump was reported.
    reported: bool,
}

impl Stamp {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            reference: None,
            reported: false,
        }
    }

    /// A command was applied, and time is `now_ms`, in Unix milliseconds.
    pub(crate) fn applied(&mut self, now_ms: u64) {
        self.reference = Some((now_ms, self.clock.boot_ms()));
    }

    /// The stamp of the next command, in Unix milliseconds.
    pub(crate) fn next(&mut self) -> u64 {
        self.next_at(self.clock.unix_ms(), self.clock.boot_ms())
    }

    fn next_at(&mut self, wall_ms: u64, boot_ms: u64) -> u64 {
        let Some((time_ms, applied_ms)) = self.reference else {
            return wall_ms;
        };
        let passed_ms = boot_ms.saturating_sub(applied_ms);
        let expected_ms = time_ms + passed_ms;
        let stamp = wall_ms.min(expected_ms + STEP_MS);
        let jumped = wall_ms.abs_diff(expected_ms) > STEP_MS;
        if jumped && !self.reported {
            tracing::warn!(
                wall_ms,
                expected_ms,
                step_ms = STEP_MS,
                "the clock jumped: time follows it by one step with each command, and never goes back"
            );
        }
        self.reported = jumped;
        stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_ahead_is_followed_step_by_step() {
        let mut stamp = Stamp::new(Clock::Machine);
        assert_eq!(
            stamp.next_at(1_000_000, 5),
            1_000_000,
            "there is nothing to compare with"
        );
        stamp.reference = Some((1_000_000, 100));
        // An idle hour is no jump.
        assert_eq!(stamp.next_at(4_600_000, 3_600_100), 4_600_000);
        assert!(!stamp.reported);
        let year_ms = 365 * 86_400_000;
        assert_eq!(stamp.next_at(1_000_000 + year_ms, 150), 1_000_050 + STEP_MS);
        assert!(stamp.reported);
        stamp.reference = Some((1_010_050, 150));
        assert_eq!(stamp.next_at(1_000_000 + year_ms, 160), 1_010_060 + STEP_MS);
    }

    #[test]
    fn a_clock_that_is_set_back_gives_old_stamps_and_is_reported() {
        let mut stamp = Stamp::new(Clock::Machine);
        stamp.reference = Some((1_000_000, 100));
        // The state never goes back behind the latest time that it saw.
        assert_eq!(stamp.next_at(400_000, 200), 400_000);
        assert!(stamp.reported);
    }
}
