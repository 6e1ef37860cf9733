//! Time that passes when the world says so.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use weft_core::lock;

/// When the simulation begins, in Unix milliseconds.
const BEGIN_UNIX_MS: u64 = 1_700_000_000_000;

/// Clocks of one machine: they show the world's time, and the wall clock some more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Time {
    world: Arc<Mutex<Sleeping>>,
    /// How far the wall clock is ahead, in milliseconds.
    ahead_ms: u64,
}

#[derive(Debug, Default)]
struct Sleeping {
    now_ms: u64,
    next: u64,
    wakers: BTreeMap<(u64, u64), Waker>,
}

impl Time {
    /// Clocks of another machine in the same world.
    pub(super) fn ahead(&self, ahead_ms: u64) -> Time {
        Time {
            world: Arc::clone(&self.world),
            ahead_ms,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        lock(&self.world).now_ms
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        BEGIN_UNIX_MS + self.ahead_ms + self.now_ms()
    }

    /// Lets time pass, and wakes who has slept long enough.
    pub(super) fn advance(&self, ms: u64) {
        let mut world = lock(&self.world);
        world.now_ms += ms;
        let after = (world.now_ms + 1, 0);
        let later = world.wakers.split_off(&after);
        let due = std::mem::replace(&mut world.wakers, later);
        drop(world);
        due.into_values().for_each(Waker::wake);
    }

    pub(crate) async fn sleep(&self, length: Duration) {
        let length_ms = u64::try_from(length.as_millis()).expect("lengths are short");
        let until_ms = self.now_ms() + length_ms;
        poll_fn(|context| {
            let mut world = lock(&self.world);
            if world.now_ms >= until_ms {
                return Poll::Ready(());
            }
            world.next += 1;
            let key = (until_ms, world.next);
            world.wakers.insert(key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
