//! A log of no member, whose only use is that a thread reads it.
//!
//! raft-engine keeps the block that a thread has read last, by file number, offset and length. Several
//! members of one thread have such blocks in common, and a member that starts again has other bytes at the
//! same place. Reading another block in between makes the thread forget the one before.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt};

use crate::simulation::Random;

/// More than any block of a simulated member.
const BYTES: usize = 200_000;
/// Index of the small entry that shares the block.
const READ: u64 = 2;

struct Format;

impl MessageExt for Format {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

struct Decoy {
    /// Closed before its folder is removed.
    engine: Option<Engine>,
    folder: PathBuf,
}

impl Decoy {
    fn new() -> Decoy {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-decoy-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let config = Config {
            dir: folder.display().to_string(),
            ..Config::default()
        };
        let engine = Engine::open(config).expect("an empty log is opened");
        let mut random = Random(0);
        // Bytes that cannot be compressed.
        let data: Vec<u8> = (0..BYTES).map(|_| random.next() as u8).collect();
        let entry = |index, data: Vec<u8>| Entry {
            index,
            data: data.into(),
            ..Entry::default()
        };
        let entries = [entry(1, data), entry(READ, Vec::new())];
        let mut batch = LogBatch::default();
        let added = batch.add_entries::<Format>(1, &entries);
        added.expect("they fit");
        engine.write(&mut batch, false).expect("it is written");
        Decoy {
            engine: Some(engine),
            folder,
        }
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        drop(self.engine.take());
        // What cannot be removed lies in a folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

thread_local! {
    static DECOY: Decoy = Decoy::new();
}

/// Makes this thread forget the block that it has read last.
pub(super) fn read() {
    DECOY.with(|decoy| {
        let engine = decoy.engine.as_ref().expect("it is open");
        let entry = engine.get_entry::<Format>(1, READ);
        assert!(entry.is_ok_and(|entry| entry.is_some()), "it is there");
    });
}
