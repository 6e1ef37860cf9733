//! Memory of a task as DataFusion's operators ask for it: shared fairly, and charged to the caller's account.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// Consumer by which a sort merges what it spilled, as DataFusion names it. It asks for more until it is refused.
const SORT_MERGE: &str = "ExternalSorterMerge";

/// A task's account of memory, kept by the caller.
pub trait Account: fmt::Debug + Send + Sync {
    /// Charges bytes, unless that would pass the limit.
    fn try_grow(&self, bytes: u64) -> bool;
    /// Charges bytes, whatever the limit.
    fn grow(&self, bytes: u64);
    /// Gives bytes back.
    fn shrink(&self, bytes: u64);
}

/// Creates a pool of `bytes` that operators which can spill share evenly, and sorts that merge as well: the sides of a
/// merge join are merged at the same time. Every grant is charged to `account` as well, and is refused if the account
/// refuses it.
pub fn fair_pool(account: Arc<dyn Account>, bytes: u64) -> Arc<dyn MemoryPool> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Arc::new(ChargedPool {
        fair: FairSpillPool::new(bytes),
        bytes,
        n_merges: AtomicUsize::new(0),
        account,
    })
}

#[derive(Debug)]
struct ChargedPool {
    fair: FairSpillPool,
    bytes: usize,
    /// Sorts that merge, or will.
    n_merges: AtomicUsize,
    account: Arc<dyn Account>,
}

impl ChargedPool {
    fn check_merge(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let name = reservation.consumer().name();
        if !name.starts_with(SORT_MERGE) {
            return Ok(());
        }
        let share = self.bytes / self.n_merges.load(Ordering::Relaxed).max(1);
        if reservation.size().saturating_add(additional) <= share {
            return Ok(());
        }
        let text =
            format!("`{name}` asks for {additional} bytes more than its share of {share} bytes");
        Err(DataFusionError::ResourcesExhausted(text))
    }
}

impl fmt::Display for ChargedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task memory, {}", self.fair)
    }
}

impl MemoryPool for ChargedPool {
    fn name(&self) -> &str {
        "task"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.name().starts_with(SORT_MERGE) {
            self.n_merges.fetch_add(1, Ordering::Relaxed);
        }
        self.fair.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.name().starts_with(SORT_MERGE) {
            self.n_merges.fetch_sub(1, Ordering::Relaxed);
        }
        self.fair.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.fair.grow(reservation, additional);
        self.account.grow(additional as u64);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.fair.shrink(reservation, shrink);
        self.account.shrink(shrink as u64);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.check_merge(reservation, additional)?;
        self.fair.try_grow(reservation, additional)?;
        if self.account.try_grow(additional as u64) {
            return Ok(());
        }
        self.fair.shrink(reservation, additional);
        let text = format!(
            "`{}` asks for {additional} bytes more than the task's memory limit allows",
            reservation.consumer().name()
        );
        Err(DataFusionError::ResourcesExhausted(text))
    }

    fn reserved(&self) -> usize {
        self.fair.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.fair.memory_limit()
    }
}
