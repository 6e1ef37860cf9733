//! The log of a member on raft-engine: entries, vote and term, members, and where the compacted part ends.
//!
//! ```text
//!   compacted ┐            ┌ snapshot                ┌ last
//!   ──────────┴─ kept ─────┴── replayed at start ────┘        index ▶
//! ```
//!
//! Everything before `compacted` is in the snapshot, and so is what is kept for members that lag. All writes of one step of
//! Raft go into one batch, so that a crash leaves all of them or none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, SnapshotMetadata};
use raft::{Ready, Storage};
use raft_engine::{Command, Engine, LogBatch, MessageExt, ReadableSize};

use crate::disk::{Disk, panic_text, written};
use crate::error::Error;
use crate::membership::Membership;
use crate::position::Position;
use crate::settings::Settings;

mod storage;

/// raft-engine can hold the logs of many groups; a member has one.
const GROUP: u64 = 1;
const MEMBER_KEY: &[u8] = b"member";
const HARD_STATE_KEY: &[u8] = b"hard-state";
/// The members of the group when the folder was new, or by the snapshot that the log begins behind.
const MEMBERS_KEY: &[u8] = b"voters";
const COMPACTED_KEY: &[u8] = b"compacted";

/// Small files, so that space comes back soon after a snapshot.
const LOG_FILE_BYTES: u64 = 16 << 20;
/// Four files: below this, purging would cost more than it frees.
const PURGE_BYTES: u64 = 64 << 20;

pub(crate) struct Log<D: Disk> {
    engine: Engine<D>,
    settings: Settings,
    hard_state: HardState,
    members: ConfState,
    compacted: Position,
    last: Position,
}

/// Tells raft-engine how to write an entry.
struct EntryFormat;

impl MessageExt for EntryFormat {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl<D: Disk> Log<D> {
    /// Opens the log below the folder of `settings`, or makes it; `snapshot` is where the newest snapshot ends.
    ///
    /// Errors: `Invalid` where the folder belongs to another member, `Damaged` where entries are missing.
    pub(crate) fn open(
        settings: &Settings,
        disk: &Arc<D>,
        snapshot: Option<(Position, Membership)>,
    ) -> Result<Self, Error> {
        let path = settings.folder.join("log");
        let engine = open_engine(&path, disk)?;
        let mut log = Log {
            engine,
            settings: settings.clone(),
            hard_state: HardState::default(),
            members: ConfState::from((settings.sorted_voters(), vec![])),
            compacted: Position::default(),
            last: Position::default(),
        };
        if log.engine.get(GROUP, MEMBER_KEY).is_some() {
            log.load()?;
        } else if snapshot.is_some() {
            return Err(log.damaged("it is empty, but there is a snapshot"));
        } else {
            log.write_all_state();
        }
        log.check_entries()?;
        let (position, members) = match snapshot {
            Some((position, members)) => (position, ConfState::from(&members)),
            None => (Position::default(), log.members.clone()),
        };
        log.members = members;
        log.align_with(position)?;
        Ok(log)
    }

    /// Writes what one step of Raft wants kept, synced where Raft says so, and returns only when it is on the disk.
    pub(crate) fn persist(&mut self, ready: &Ready) {
        let mut batch = LogBatch::default();
        if let Some(hard_state) = ready.hs() {
            self.hard_state = hard_state.clone();
            put(&mut batch, HARD_STATE_KEY, hard_state);
        }
        if !ready.snapshot().is_empty() {
            self.restart_behind(&mut batch, ready.snapshot().get_metadata());
        }
        self.append(&mut batch, ready.entries());
        let has_entries = !ready.entries().is_empty();
        if has_entries {
            (self.settings.failpoint)("raft-append");
        }
        self.write(&mut batch, ready.must_sync());
        if has_entries {
            (self.settings.failpoint)("raft-appended");
        }
    }

    /// Forgets the entries up to `index`, which a snapshot must cover, and gives their space back.
    pub(crate) fn compact(&mut self, index: u64) -> Result<(), Error> {
        if index <= self.compacted.index {
            return Ok(());
        }
        let term = self.term(index).map_err(Error::raft)?;
        self.compacted = Position { index, term };
        let mut batch = LogBatch::default();
        self.put_compacted(&mut batch);
        batch.add_command(GROUP, Command::Compact { index: index + 1 });
        // Synced, because purging may remove files that only this command makes superfluous.
        self.write(&mut batch, true);
        written("purging the log", || self.engine.purge_expired_files());
        Ok(())
    }

    fn append(&mut self, batch: &mut LogBatch, entries: &[Entry]) {
        if let Some(entry) = entries.last() {
            self.last = Position::from(entry);
        }
        written("encoding log entries", || {
            batch.add_entries::<EntryFormat>(GROUP, entries)
        });
    }

    /// Drops all entries: the log goes on behind a snapshot that does not fit what was here.
    fn restart_behind(&mut self, batch: &mut LogBatch, snapshot: &SnapshotMetadata) {
        self.compacted = Position::from(snapshot);
        self.last = self.compacted;
        self.members = snapshot.get_conf_state().clone();
        self.hard_state.term = self.hard_state.term.max(snapshot.term);
        self.hard_state.commit = self.hard_state.commit.max(snapshot.index);
        batch.add_command(GROUP, Command::Clean);
        // `Clean` dropped the state as well, so all of it is written again.
        self.put_all_state(batch);
    }

    fn load(&mut self) -> Result<(), Error> {
        self.check_identity()?;
        self.load_members()?;
        self.hard_state = self
            .engine
            .get_message(GROUP, HARD_STATE_KEY)
            .map_err(|error| self.failed(error))?
            .unwrap_or_default();
        self.compacted = self
            .engine
            .get(GROUP, COMPACTED_KEY)
            .and_then(|bytes| Position::from_bytes(&bytes))
            .ok_or_else(|| self.damaged("it does not say where it begins"))?;
        self.drop_compacted_entries()?;
        self.last = match self.engine.last_index(GROUP) {
            Some(index) => Position::from(&self.entry(index)?),
            None => self.compacted,
        };
        Ok(())
    }

    fn check_identity(&self) -> Result<(), Error> {
        let member = self.engine.get(GROUP, MEMBER_KEY).unwrap_or_default();
        if member != self.settings.id.to_le_bytes() {
            return Err(Error::Setting {
                setting: "id",
                reason: "the folder belongs to another member".to_owned(),
            });
        }
        Ok(())
    }

    /// Reads the members. Those of the settings count for a new folder only: members have come and gone since.
    fn load_members(&mut self) -> Result<(), Error> {
        let members = self
            .engine
            .get_message(GROUP, MEMBERS_KEY)
            .map_err(|error| self.failed(error))?;
        self.members = members.ok_or_else(|| self.damaged("it does not name the members"))?;
        Ok(())
    }

    /// Entries that were compacted can come back at start, where raft-engine moved them to another file.
    fn drop_compacted_entries(&self) -> Result<(), Error> {
        let first = self.engine.first_index(GROUP);
        if first.is_some_and(|first| first > self.first()) {
            return Err(self.damaged("entries are missing at its beginning"));
        }
        self.engine.compact_to(GROUP, self.first());
        Ok(())
    }

    /// Reads all entries, before anything is decided by them: Raft panics over one that it cannot read.
    fn check_entries(&self) -> Result<(), Error> {
        reading(Path::new(self.engine.path()), || {
            (self.first()..=self.last.index).try_for_each(|index| self.entry(index).map(drop))
        })
    }

    /// Makes the log go on where the newest snapshot ends.
    fn align_with(&mut self, snapshot: Position) -> Result<(), Error> {
        if snapshot.index < self.compacted.index {
            return Err(self.damaged("no snapshot covers the entries before it"));
        }
        if self.hard_state.commit > self.last.index.max(snapshot.index) {
            return Err(self.damaged("committed entries are missing at its end"));
        }
        if self.term(snapshot.index).ok() != Some(snapshot.term) {
            // The member stopped after it had stored the snapshot of a leader, before it had emptied its own log.
            let metadata = SnapshotMetadata {
                index: snapshot.index,
                term: snapshot.term,
                conf_state: Some(self.members.clone()).into(),
                ..SnapshotMetadata::default()
            };
            let mut batch = LogBatch::default();
            self.restart_behind(&mut batch, &metadata);
            self.write(&mut batch, true);
        }
        // The commit index is written with the next step of Raft, so the snapshot may know of a later one.
        self.hard_state.commit = self.hard_state.commit.max(snapshot.index);
        self.hard_state.term = self.hard_state.term.max(snapshot.term);
        Ok(())
    }

    fn write_all_state(&self) {
        let mut batch = LogBatch::default();
        self.put_all_state(&mut batch);
        self.write(&mut batch, true);
    }

    fn put_all_state(&self, batch: &mut LogBatch) {
        put_bytes(batch, MEMBER_KEY, self.settings.id.to_le_bytes().to_vec());
        put(batch, MEMBERS_KEY, &self.members);
        put(batch, HARD_STATE_KEY, &self.hard_state);
        self.put_compacted(batch);
    }

    fn put_compacted(&self, batch: &mut LogBatch) {
        put_bytes(batch, COMPACTED_KEY, self.compacted.to_bytes());
    }

    fn write(&self, batch: &mut LogBatch, sync: bool) {
        written("writing the log", || self.engine.write(batch, sync));
    }

    fn first(&self) -> u64 {
        self.compacted.index + 1
    }

    fn entry(&self, index: u64) -> Result<Entry, Error> {
        self.engine
            .get_entry::<EntryFormat>(GROUP, index)
            .map_err(|error| self.failed(error))?
            .ok_or_else(|| self.damaged("an entry is missing"))
    }

    fn failed(&self, error: raft_engine::Error) -> Error {
        failed(Path::new(self.engine.path()), error)
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::LogDamaged {
            path: PathBuf::from(self.engine.path()),
            reason: reason.to_owned(),
        }
    }
}

fn open_engine<D: Disk>(path: &Path, disk: &Arc<D>) -> Result<Engine<D>, Error> {
    let dir = path.to_str().ok_or_else(|| Error::Setting {
        setting: "folder",
        reason: "its name is not UTF-8".to_owned(),
    })?;
    let config = raft_engine::Config {
        dir: dir.to_owned(),
        recovery_threads: 1,
        target_file_size: ReadableSize(LOG_FILE_BYTES),
        purge_threshold: ReadableSize(PURGE_BYTES),
        ..raft_engine::Config::default()
    };
    let engine = reading(path, || {
        Engine::open_with_file_system(config, Arc::clone(disk)).map_err(|error| failed(path, error))
    })?;
    // raft-engine does not sync the name of its first file.
    disk.sync_folder(path)
        .map_err(|error| Error::io(path, error))?;
    Ok(engine)
}

/// Reads from the engine. There are damages over which it panics.
fn reading<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        Err(Error::LogDamaged {
            path: path.to_owned(),
            reason: panic_text(&*panic).to_owned(),
        })
    })
}

fn failed(path: &Path, error: raft_engine::Error) -> Error {
    match error {
        raft_engine::Error::Corruption(_)
        | raft_engine::Error::Codec(_)
        | raft_engine::Error::Protobuf(_) => Error::LogDamaged {
            path: path.to_owned(),
            reason: error.to_string(),
        },
        other => Error::log(other),
    }
}

fn put<M: protobuf::Message>(batch: &mut LogBatch, key: &[u8], message: &M) {
    batch
        .put_message(GROUP, key.to_vec(), message)
        .expect("our keys are not raft-engine's own, and our messages have no required fields");
}

fn put_bytes(batch: &mut LogBatch, key: &[u8], value: Vec<u8>) {
    batch
        .put(GROUP, key.to_vec(), value)
        .expect("our keys are not raft-engine's own");
}

#[cfg(test)]
mod tests;
