//! Memory accounts: what a task holds, in guests and for them, against one limit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::monotonic_ns;

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    peak_bytes: u64,
    byte_ns: u128,
    changed_ns: u64,
}

impl Held {
    fn settle(&mut self) {
        let now = monotonic_ns();
        self.byte_ns += u128::from(self.bytes) * u128::from(now.saturating_sub(self.changed_ns));
        self.changed_ns = now;
    }
}

/// An account with a limit. A child's bytes count in its parent too, so that a task's functions share the task's limit.
#[derive(Debug)]
pub struct MemoryAccount {
    parent: Option<Arc<MemoryAccount>>,
    limit_bytes: u64,
    held: Mutex<Held>,
}

impl MemoryAccount {
    /// An account of its own.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        let held = Held {
            changed_ns: monotonic_ns(),
            ..Held::default()
        };
        Arc::new(Self {
            parent: None,
            limit_bytes,
            held: Mutex::new(held),
        })
    }

    /// An account within `self`, with the same limit.
    pub fn child(self: &Arc<Self>) -> Arc<Self> {
        let held = Held {
            changed_ns: monotonic_ns(),
            ..Held::default()
        };
        Arc::new(Self {
            parent: Some(Arc::clone(self)),
            limit_bytes: self.limit_bytes,
            held: Mutex::new(held),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` more; false, and nothing changed, where the limit does not allow it.
    #[must_use]
    pub fn try_grow(&self, bytes: u64) -> bool {
        if self.held().bytes.saturating_add(bytes) > self.limit_bytes {
            return false;
        }
        if let Some(parent) = &self.parent
            && !parent.try_grow(bytes)
        {
            return false;
        }
        self.add(bytes);
        true
    }

    /// Takes `bytes` more whatever the limit says: for memory that is there already.
    pub fn grow(&self, bytes: u64) {
        if let Some(parent) = &self.parent {
            parent.grow(bytes);
        }
        self.add(bytes);
    }

    fn add(&self, bytes: u64) {
        let mut held = self.held();
        held.settle();
        held.bytes += bytes;
        held.peak_bytes = held.peak_bytes.max(held.bytes);
    }

    /// Gives `bytes` back.
    pub fn shrink(&self, bytes: u64) {
        if let Some(parent) = &self.parent {
            parent.shrink(bytes);
        }
        let mut held = self.held();
        held.settle();
        debug_assert!(held.bytes >= bytes, "an account gives back what it took");
        held.bytes = held.bytes.saturating_sub(bytes);
    }

    /// Takes `bytes` that are given back when the reservation is dropped.
    pub fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        self.try_grow(bytes).then(|| Reservation {
            account: Arc::clone(self),
            bytes,
        })
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> u64 {
        self.held().bytes
    }

    /// The most that was held at a time.
    pub fn peak_bytes(&self) -> u64 {
        self.held().peak_bytes
    }

    /// Bytes held, integrated over time.
    pub fn byte_ns(&self) -> u128 {
        let mut held = self.held();
        held.settle();
        held.byte_ns
    }

    /// The limit.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }
}

/// Bytes taken from an account, given back on drop.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<MemoryAccount>,
    bytes: u64,
}

impl Reservation {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more; false, and nothing changed, where the limit does not allow it.
    #[must_use]
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let grown = self.account.try_grow(bytes);
        if grown {
            self.bytes += bytes;
        }
        grown
    }

    /// Gives everything back now.
    pub fn free(&mut self) {
        self.account.shrink(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_share_the_limit_and_give_back() {
        let task = MemoryAccount::new(100);
        let (a, b) = (task.child(), task.child());
        let held = a.try_reserve(60).expect("it fits");
        assert!(!b.try_grow(50));
        assert_eq!((task.used_bytes(), b.used_bytes()), (60, 0));
        drop(held);
        assert!(b.try_grow(100));
        assert_eq!((task.peak_bytes(), a.peak_bytes()), (100, 60));
    }
}
