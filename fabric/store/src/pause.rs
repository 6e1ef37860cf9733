//! Pauses before requests are repeated.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first pause before a request is repeated, and the longest; it doubles in between.
const PAUSE_MIN: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 10 });
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Waits before a request is repeated: between a half and all of a time that doubles, so that those who failed together
/// do not come back together.
pub(crate) async fn pause(tries: u32) {
    if tries > 0 {
        let doubled = PAUSE_MIN.saturating_mul(1 << tries.min(10));
        let longest = doubled.min(PAUSE_MAX);
        // Its keys are random, and others for each one.
        let random = u32::try_from(RandomState::new().hash_one(tries) % 1_000).unwrap_or(0);
        tokio::time::sleep(longest / 2 + longest / 2_000 * random).await;
    }
}
