//! Outputs that the cluster keeps: how large they may be, and for how long they are there.

use std::time::Duration;

use weft_core::job::MAX_KEPT_BYTES;

/// How long an output is kept after its job has ended, unless the settings say otherwise. It goes with the job's
/// record, too, whichever comes first.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Bounds of outputs that the cluster keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptOutputs {
    /// Bytes of one output.
    pub max_bytes: u64,
    /// Time that it is kept for after its job has ended.
    pub kept_for: Duration,
}

impl Default for KeptOutputs {
    fn default() -> Self {
        Self {
            max_bytes: MAX_KEPT_BYTES,
            kept_for: KEPT_FOR,
        }
    }
}

impl KeptOutputs {
    /// Returns whether outputs of a job that ended at a time, in Unix milliseconds, are not kept any more.
    pub(crate) fn have_expired(&self, ended_ms: u64, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(ended_ms)) >= self.kept_for.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_expire_some_time_after_their_job() {
        let kept = KeptOutputs {
            kept_for: Duration::from_secs(2),
            ..KeptOutputs::default()
        };
        for (now_ms, expected) in [(0, false), (5_000, false), (6_999, false), (7_000, true)] {
            assert_eq!(kept.have_expired(5_000, now_ms), expected, "{now_ms}");
        }
    }
}
