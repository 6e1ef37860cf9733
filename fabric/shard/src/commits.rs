//! How far a shard's writes have come: begun, accepted, durable.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::{Notify, watch};

/// Counts writes, and the flushes that make them durable.
#[derive(Debug)]
pub(crate) struct Commits {
    /// Writes that were handed to the database. One that was given up meanwhile may still be made.
    begun: AtomicU64,
    /// Writes that the database has answered.
    accepted: AtomicU64,
    /// Writes of these that a flush which succeeded found accepted.
    durable: AtomicU64,
    /// Flushes that have begun.
    flushes: AtomicU64,
    /// Flushes that have succeeded: they are made one after the other.
    succeeded: watch::Sender<u64>,
    /// Asks for a flush: one that comes during another leaves a permit for the next.
    wake: Notify,
}

/// A flush that is under way.
#[derive(Debug)]
pub(crate) struct Flush {
    accepted: u64,
    number: u64,
}

impl Commits {
    pub(crate) fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            succeeded: watch::Sender::new(0),
            wake: Notify::new(),
        }
    }

    /// A write goes to the database.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, SeqCst);
    }

    /// The database has answered it. Asks for a flush.
    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, SeqCst);
        self.wake.notify_one();
    }

    /// Waits until somebody asks for a flush.
    pub(crate) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// A flush begins: it covers what is visible by now.
    pub(crate) fn begin_flush(&self) -> Flush {
        let accepted = self.accepted.load(SeqCst);
        let number = self.flushes.fetch_add(1, SeqCst) + 1;
        Flush { accepted, number }
    }

    /// The flush has succeeded.
    pub(crate) fn end_flush(&self, flush: &Flush) {
        self.durable.store(flush.accepted, SeqCst);
        self.succeeded.send_replace(flush.number);
    }

    /// Returns whether all that reads may have seen is durable.
    fn is_durable(&self) -> bool {
        // In this order: writes that begin in between make it false.
        let durable = self.durable.load(SeqCst);
        durable == self.begun.load(SeqCst)
    }

    /// Waits until all that is visible by now is durable. For ever, if no flush succeeds any more.
    pub(crate) async fn all_durable(&self) {
        if self.is_durable() {
            return;
        }
        // One that is under way may have begun before the last of them.
        let next = self.flushes.load(SeqCst) + 1;
        let mut succeeded = self.succeeded.subscribe();
        self.wake.notify_one();
        // The sender is ours.
        let _ = succeeded.wait_for(|number| *number >= next).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_flush_that_began_before_a_write_does_not_cover_it() {
        let commits = Commits::new();
        let is_durable = || commits.all_durable().now_or_never().is_some();
        assert!(is_durable());
        commits.begin();
        assert!(!is_durable(), "it may be visible already");
        commits.accept();
        let first = commits.begin_flush();
        commits.begin();
        commits.accept();
        let all = commits.all_durable();
        let mut all = std::pin::pin!(all);
        assert!(all.as_mut().now_or_never().is_none());
        commits.end_flush(&first);
        assert!(all.as_mut().now_or_never().is_none());
        let second = commits.begin_flush();
        commits.end_flush(&second);
        all.await;
        assert!(is_durable());
    }

    #[tokio::test]
    async fn a_write_that_was_given_up_is_waited_for() {
        let commits = Commits::new();
        commits.begin();
        commits.begin();
        commits.accept();
        let flush = commits.begin_flush();
        commits.end_flush(&flush);
        let all = commits.all_durable();
        let mut all = std::pin::pin!(all);
        assert!(all.as_mut().now_or_never().is_none());
        commits.asked().await;
        let flush = commits.begin_flush();
        commits.end_flush(&flush);
        all.await;
    }
}
