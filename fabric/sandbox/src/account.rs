//! Memory accounts: what a task holds, in guests and for them, against one limit.

use std::sync::{Arc, Mutex, MutexGuard};
use weft_core::lock;

use crate::clock::monotonic_ns;

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    peak_bytes: u64,
    byte_ns: u128,
    changed_ns: u64,
}

impl Held {
    fn settle(&mut self, now_ns: u64) {
        // The clock was read before the lock was had, so another's reading may be later.
        let passed_ns = now_ns.saturating_sub(self.changed_ns);
        self.byte_ns += u128::from(self.bytes) * u128::from(passed_ns);
        self.changed_ns = self.changed_ns.max(now_ns);
    }

    fn add(&mut self, bytes: u64, now_ns: u64) {
        self.settle(now_ns);
        self.bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.bytes);
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
        lock(&self.held)
    }

    /// Takes `bytes` more; false, and nothing changed, where the limit does not allow it.
    #[must_use]
    pub fn try_grow(&self, bytes: u64) -> bool {
        self.try_grow_at(bytes, monotonic_ns())
    }

    fn try_grow_at(&self, bytes: u64, now_ns: u64) -> bool {
        // Accounts are locked from child to parent, always.
        let mut held = self.held();
        if held.bytes.saturating_add(bytes) > self.limit_bytes {
            return false;
        }
        if let Some(parent) = &self.parent
            && !parent.try_grow_at(bytes, now_ns)
        {
            return false;
        }
        held.add(bytes, now_ns);
        true
    }

    /// Takes `bytes` more whatever the limit says: for memory that is there already.
    pub fn grow(&self, bytes: u64) {
        let now_ns = monotonic_ns();
        for account in self.and_parents() {
            account.held().add(bytes, now_ns);
        }
    }

    /// Gives `bytes` back.
    pub fn shrink(&self, bytes: u64) {
        let now_ns = monotonic_ns();
        for account in self.and_parents() {
            let mut held = account.held();
            held.settle(now_ns);
            debug_assert!(held.bytes >= bytes, "an account gives back what it took");
            held.bytes = held.bytes.saturating_sub(bytes);
        }
    }

    fn and_parents(&self) -> impl Iterator<Item = &MemoryAccount> {
        std::iter::successors(Some(self), |account| account.parent.as_deref())
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
        held.settle(monotonic_ns());
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

    /// Takes more or gives back, so that `bytes` are held; false, and nothing changed, where the limit does not allow it.
    #[must_use]
    pub(crate) fn try_resize(&mut self, bytes: u64) -> bool {
        if bytes > self.bytes {
            return self.try_grow(bytes - self.bytes);
        }
        self.account.shrink(self.bytes - bytes);
        self.bytes = bytes;
        true
    }

    /// Holds what `other` holds, too. Both must be of one account.
    pub(crate) fn merge(&mut self, mut other: Reservation) {
        assert!(
            Arc::ptr_eq(&self.account, &other.account),
            "reservations of one account"
        );
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives everything back now.
    pub fn free(&mut self) {
        if self.bytes > 0 {
            self.account.shrink(std::mem::take(&mut self.bytes));
        }
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
