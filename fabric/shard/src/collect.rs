//! Removes objects of a shard that its newest manifest no longer needs.
//!
//! Empty objects of the WAL stay: they fence. A write of an earlier owner that lingers in the network would find its
//! number free if they were removed, and succeed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use object_store_slate::ObjectStore;
use object_store_slate::path::Path;
use slatedb::admin::AdminBuilder;
use slatedb::config::{GarbageCollectorDirectoryOptions, GarbageCollectorOptions};
use tokio::time::{Instant, sleep_until, timeout};
use weft_core::lock;

use crate::settings::NO_RETRIES;

/// Time between two collections of a shard by this process.
const COLLECT_PERIOD: Duration = Duration::from_secs(300);
/// Time after which a shard that was opened is collected, if that is due. Less than an idle one stays open.
const COLLECT_DELAY: Duration = Duration::from_secs(10);
/// Ages of what is removed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MinAges {
    /// Objects of the WAL: a busy shard makes hundreds a second, and none is read again once its writes are in tables.
    wal: Duration,
    /// Everything else: beyond any read, compaction and request.
    others: Duration,
}

const MIN_AGES: MinAges = MinAges {
    wal: Duration::from_secs(300),
    others: Duration::from_secs(3_600),
};

impl MinAges {
    /// The same age for all.
    #[cfg(test)]
    pub(crate) fn all(age: Duration) -> Self {
        Self {
            wal: age,
            others: age,
        }
    }
}

/// Time for one collection.
const COLLECT_WALL_MAX: Duration = Duration::from_secs(120);

/// When the shards of this process were collected. They may be open for a moment only, again and again.
#[derive(Debug, Default)]
pub(crate) struct Collected(Mutex<HashMap<Path, Instant>>);

impl Collected {
    /// When a shard is due that is opened now.
    fn due(&self, path: &Path) -> Instant {
        let soon = Instant::now() + COLLECT_DELAY;
        let last = lock(&self.0).get(path).copied();
        last.map_or(soon, |last| soon.max(last + COLLECT_PERIOD))
    }

    fn note(&self, path: &Path) {
        lock(&self.0).insert(path.clone(), Instant::now());
    }
}

/// Collects one shard.
pub(crate) struct Collector {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) is_folder: bool,
    pub(crate) collected: Arc<Collected>,
}

impl Collector {
    /// Collects now and then, until it is aborted.
    pub(crate) async fn run(self) {
        loop {
            sleep_until(self.collected.due(&self.path)).await;
            self.collect(MIN_AGES).await;
            self.collected.note(&self.path);
        }
    }

    /// Removes what is old and not needed. What fails is tried again the next time.
    pub(crate) async fn collect(&self, ages: MinAges) {
        let admin = AdminBuilder::new(self.path.clone(), Arc::clone(&self.objects)).build();
        let once = admin.run_gc_once(options(self.is_folder, ages));
        let shard: &str = self.path.as_ref();
        match timeout(COLLECT_WALL_MAX, Box::pin(once)).await {
            Ok(Ok(())) => tracing::debug!(shard, "a shard was collected"),
            Ok(Err(error)) => tracing::warn!(shard, %error, "a shard could not be collected"),
            Err(_) => tracing::warn!(shard, "a collection of a shard took too long"),
        }
    }
}

fn options(is_folder: bool, ages: MinAges) -> GarbageCollectorOptions {
    let older_than = |min_age| {
        Some(GarbageCollectorDirectoryOptions {
            interval: None,
            min_age,
            dry_run: false,
        })
    };
    let all = older_than(ages.others);
    GarbageCollectorOptions {
        manifest_options: all,
        wal_options: older_than(ages.wal),
        wal_fence_options: None,
        compacted_options: all,
        compactions_options: all,
        detach_options: None,
        // Folders have no conditional overwrites.
        boundary_files_enabled: !is_folder,
        object_store_max_retries: NO_RETRIES,
        ..GarbageCollectorOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_that_is_opened_often_is_collected_once_a_period() {
        let (collected, path) = (Collected::default(), Path::from("shards/default/0"));
        let begin = Instant::now();
        let first = collected.due(&path);
        assert!(first >= begin + COLLECT_DELAY && first < begin + COLLECT_PERIOD);
        collected.note(&path);
        assert!(collected.due(&path) >= begin + COLLECT_PERIOD);
        let other = collected.due(&Path::from("shards/default/1"));
        assert!(other < begin + COLLECT_PERIOD);
    }

    #[test]
    fn fences_stay() {
        assert!(options(true, MIN_AGES).wal_fence_options.is_none());
        assert!(options(false, MIN_AGES).boundary_files_enabled);
        assert!(!options(true, MIN_AGES).boundary_files_enabled);
    }
}
