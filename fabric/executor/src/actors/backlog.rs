//! Bytes of batches that wait for the writer of a shard. A store that falls behind must not fill the memory: turns that
//! begin meanwhile are refused, and no thread waits with one in its hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::bounds::MAX_BACKLOG_BYTES;

/// Bytes that wait. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Backlog(Arc<AtomicUsize>);

/// A batch that waits, until this is dropped.
pub(super) struct Queued {
    backlog: Backlog,
    bytes: usize,
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.backlog.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Backlog {
    /// Adds a batch.
    pub(super) fn add(&self, bytes: usize) -> Queued {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Queued {
            backlog: self.clone(),
            bytes,
        }
    }

    /// Returns whether no further turn should begin.
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= MAX_BACKLOG_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_count_until_they_are_written() {
        let backlog = Backlog::default();
        let first = backlog.add(MAX_BACKLOG_BYTES - 1);
        assert!(!backlog.is_full());
        let second = backlog.add(1);
        assert!(backlog.is_full());
        drop(first);
        assert!(!backlog.is_full());
        drop(second);
        assert_eq!(backlog.0.load(Ordering::Relaxed), 0);
    }
}
