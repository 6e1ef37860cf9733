//! The executor's lease, as its agent tells of it: until when it stands, by the clock of the machine.
//!
//! ```text
//! agent ──Lease{until, confirmed}──▶ Lease ──stands()──▶ answers of shards
//! agent ◀──Confirm{number}── Lease ◀──confirmed()── a shard that is opened
//! ```
//!
//! An executor keeps its shards for as long as its lease is in force, so an answer that had to wait for a renewal is
//! right all the same. One that no renewal follows is never given.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, watch};
use weft_protocol::FromExecutor;

/// Reads a clock, in nanoseconds.
type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// The lease. Clones share it.
#[derive(Clone)]
pub(crate) struct Lease(Arc<Shared>);

struct Shared {
    replies: mpsc::Sender<(FromExecutor, Vec<u8>)>,
    /// Number of the last confirmation that was asked for.
    asked: AtomicU64,
    known: watch::Sender<Known>,
    clock: Clock,
}

#[derive(Clone, Copy, Default)]
struct Known {
    until_ns: u64,
    confirmed: u64,
}

/// Time since the machine booted, its sleep included.
fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

impl Lease {
    /// A lease that does not stand yet. It asks for confirmations by way of `replies`, the queue to the agent.
    pub(crate) fn new(replies: mpsc::Sender<(FromExecutor, Vec<u8>)>) -> Self {
        Self::with_clock(replies, Box::new(boot_ns))
    }

    fn with_clock(replies: mpsc::Sender<(FromExecutor, Vec<u8>)>, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            replies,
            asked: AtomicU64::new(0),
            known: watch::Sender::new(Known::default()),
            clock,
        }))
    }

    /// The lease was renewed. One that comes late changes nothing.
    pub(crate) fn renewed(&self, until_ns: u64, confirmed: u64) {
        self.0.known.send_modify(|known| {
            known.until_ns = known.until_ns.max(until_ns);
            known.confirmed = known.confirmed.max(confirmed);
        });
    }

    /// Returns whether the lease stands at this moment.
    pub(crate) fn valid_now(&self) -> bool {
        (self.0.clock)() < self.0.known.borrow().until_ns
    }

    /// Waits until the lease stands: for ever if it is never renewed.
    pub(crate) async fn stands(&self) {
        let mut known = self.0.known.subscribe();
        let stands = known.wait_for(|known| (self.0.clock)() < known.until_ns);
        // The sender is as old as `self`, so this ends with success alone.
        let _ = stands.await;
    }

    /// Waits for a renewal that was asked for after this call: then nobody else had been granted a shard of this
    /// executor before the call.
    pub(crate) async fn confirmed(&self) {
        let number = self.0.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let confirm = FromExecutor::Confirm { number };
        if self.0.replies.send((confirm, Vec::new())).await.is_err() {
            // The agent has gone, and the process is about to follow.
            return pending().await;
        }
        let mut known = self.0.known.subscribe();
        let confirmed = known.wait_for(|known| known.confirmed >= number);
        let _ = confirmed.await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use futures::FutureExt;

    use super::*;

    type Outbox = mpsc::Receiver<(FromExecutor, Vec<u8>)>;

    /// A lease whose clock is set by hand, and what it sends to its agent.
    fn by_hand() -> (Lease, Arc<AtomicU64>, Outbox) {
        let (replies, sent) = mpsc::channel(8);
        let now = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&now);
        let lease = Lease::with_clock(replies, Box::new(move || read.load(Ordering::Relaxed)));
        (lease, now, sent)
    }

    /// A lease that stands for ever, and confirms itself.
    pub(crate) fn for_ever() -> Lease {
        let (replies, sent) = mpsc::channel(1_024);
        // It must not close, or confirmations would have nobody to ask.
        std::mem::forget(sent);
        let lease = Lease::with_clock(replies, Box::new(|| 0));
        lease.renewed(u64::MAX, u64::MAX);
        lease
    }

    #[test]
    fn answers_wait_for_a_renewal_that_reaches_beyond_now() {
        let (lease, now, _sent) = by_hand();
        assert!(!lease.valid_now() && lease.stands().now_or_never().is_none());
        lease.renewed(100, 0);
        assert!(lease.valid_now() && lease.stands().now_or_never().is_some());
        now.store(100, Ordering::Relaxed);
        assert!(!lease.valid_now() && lease.stands().now_or_never().is_none());
        // It comes from before a stop of the machine, and is over.
        lease.renewed(90, 0);
        lease.renewed(100, 0);
        let mut waiting = std::pin::pin!(lease.stands());
        assert!(waiting.as_mut().now_or_never().is_none());
        lease.renewed(101, 0);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn a_confirmation_is_of_a_renewal_that_was_asked_for_after_it() {
        let (lease, _, mut sent) = by_hand();
        lease.renewed(1_000, 0);
        let mut first = std::pin::pin!(lease.confirmed());
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = std::pin::pin!(lease.confirmed());
        assert!(second.as_mut().now_or_never().is_none());
        let number = |sent: &mut mpsc::Receiver<(FromExecutor, Vec<u8>)>| match sent.try_recv() {
            Ok((FromExecutor::Confirm { number }, _)) => number,
            other => panic!("no confirmation was asked for: {other:?}"),
        };
        assert_eq!((number(&mut sent), number(&mut sent)), (1, 2));
        lease.renewed(1_001, 1);
        assert!(first.now_or_never().is_some());
        assert!(second.as_mut().now_or_never().is_none());
        lease.renewed(1_001, 2);
        assert!(second.now_or_never().is_some());
    }
}
