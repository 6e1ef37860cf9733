//! Memory of tasks: shared fairly, charged, and given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::memory_pool::MemoryConsumer;
use weft_sql::{Account, fair_pool};

#[derive(Debug)]
pub(crate) struct Limited {
    used: AtomicU64,
    limit: u64,
}

impl Account for Limited {
    fn try_grow(&self, bytes: u64) -> bool {
        let used = self.used.load(Ordering::Relaxed) + bytes;
        if used > self.limit {
            return false;
        }
        self.used.store(used, Ordering::Relaxed);
        true
    }

    fn grow(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

pub(crate) fn account(limit: u64) -> Arc<Limited> {
    Arc::new(Limited {
        used: AtomicU64::new(0),
        limit,
    })
}

#[test]
fn grants_are_charged_and_given_back() {
    let account = account(1_000);
    let pool = fair_pool(Arc::clone(&account) as Arc<dyn Account>, 1_000);
    let reservation = MemoryConsumer::new("join").register(&pool);
    reservation.try_grow(600).expect("there is room");
    assert_eq!(account.used.load(Ordering::Relaxed), 600);
    drop(reservation);
    assert_eq!(account.used.load(Ordering::Relaxed), 0);
    assert_eq!(pool.reserved(), 0);
}

#[test]
fn an_account_that_is_full_refuses() {
    let account = account(500);
    let pool = fair_pool(Arc::clone(&account) as Arc<dyn Account>, 1_000);
    let reservation = MemoryConsumer::new("join").register(&pool);
    let refusal = reservation
        .try_grow(600)
        .expect_err("the account is smaller");
    assert!(refusal.to_string().contains("`join`"), "{refusal}");
    assert_eq!(
        (pool.reserved(), account.used.load(Ordering::Relaxed)),
        (0, 0)
    );
}

#[test]
fn operators_that_spill_share_evenly() {
    let account = account(1_000);
    let pool = fair_pool(account, 1_000);
    let sort = MemoryConsumer::new("sort")
        .with_can_spill(true)
        .register(&pool);
    let group = MemoryConsumer::new("group")
        .with_can_spill(true)
        .register(&pool);
    sort.try_grow(501).expect_err("half is its share");
    sort.try_grow(500).expect("its share");
    group.try_grow(500).expect("the other share");
}

#[test]
fn sorts_that_merge_share_evenly() {
    let pool = fair_pool(account(1_000), 1_000);
    let merge = |partition: u32| {
        let name = format!("ExternalSorterMerge[{partition}]");
        MemoryConsumer::new(name).register(&pool)
    };
    let alone = merge(0);
    alone.try_grow(600).expect("there is no other");
    alone.free();
    let other = merge(1);
    alone.try_grow(501).expect_err("half is its share");
    alone.try_grow(500).expect("its share");
    other.try_grow(500).expect("the other share");
}
