//! Settings of a shard's database: small, quiet when idle, and bounded.

use std::time::Duration;

use slatedb::config::{CompactionWorkerOptions, CompactorOptions, Settings};

/// Time between two looks at the manifest. The lease says who may answer, not this.
const MANIFEST_POLL: Duration = Duration::from_secs(30);
/// Time between two looks for tables to compact. Ten of them fill as many tables as [`MAX_TABLES`] at full load.
const COMPACTOR_POLL: Duration = Duration::from_secs(5);
/// Time for one change of the manifest.
const MANIFEST_WALL_MAX: Duration = Duration::from_secs(30);
/// Bytes in memory that become a table.
const TABLE_BYTES: usize = 8 << 20;
/// Bytes that are not in a table yet, at most: then writes wait. SlateDB's own bound is 1 GiB.
const MAX_UNFLUSHED_BYTES: usize = 32 << 20;
/// Tables that are not compacted yet, at most: then writes wait. SlateDB's own bound, 8, is full after a second of
/// load.
const MAX_TABLES: usize = 32;
/// Flushes of the WAL before SlateDB makes a table by itself: the least that it takes. The flusher makes them before.
const MAX_WAL_FLUSHES: u64 = 4_096;
/// Bytes of a compacted table.
const MAX_COMPACTED_BYTES: usize = 64 << 20;
/// Bytes that a compaction reads ahead of each of its inputs, of which it has [`MAX_TABLES`] at most.
const COMPACTOR_READ_BYTES: usize = 256 << 10;
/// Repetitions of a request by SlateDB itself: the store below repeats, until its deadline.
pub(crate) const NO_RETRIES: Option<u32> = Some(0);

/// The settings that all shards are opened with.
pub(crate) fn of_shard() -> Settings {
    Settings {
        // The flusher and the collector do both.
        flush_interval: None,
        garbage_collector_options: None,
        manifest_poll_interval: MANIFEST_POLL,
        manifest_update_timeout: MANIFEST_WALL_MAX,
        l0_sst_size_bytes: TABLE_BYTES,
        l0_flush_parallelism: 1,
        l0_max_ssts: MAX_TABLES,
        l0_max_ssts_per_key: MAX_TABLES,
        max_wal_flushes_before_l0_flush: MAX_WAL_FLUSHES,
        max_unflushed_bytes: MAX_UNFLUSHED_BYTES,
        object_store_max_retries: NO_RETRIES,
        compactor_options: Some(compactor()),
        ..Settings::default()
    }
}

fn compactor() -> CompactorOptions {
    let sources = ("max_compaction_sources".to_owned(), MAX_TABLES.to_string());
    CompactorOptions {
        poll_interval: COMPACTOR_POLL,
        manifest_update_timeout: MANIFEST_WALL_MAX,
        max_concurrent_compactions: 1,
        scheduler_options: [sources].into(),
        object_store_max_retries: NO_RETRIES,
        worker: Some(CompactionWorkerOptions {
            max_concurrent_compactions: 1,
            compactions_poll_interval: COMPACTOR_POLL,
            max_sst_size: MAX_COMPACTED_BYTES,
            max_fetch_tasks: 1,
            bytes_to_fetch: COMPACTOR_READ_BYTES,
            max_subcompactions: 1,
            ..CompactionWorkerOptions::default()
        }),
        ..CompactorOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_takes_the_settings() {
        of_shard().validate().expect("they are valid");
    }
}
