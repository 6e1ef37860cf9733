//! What the Raft library reads from the log.

use std::path::Path;

use raft::eraftpb::{Entry, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::disk::Disk;
use crate::error::Error;
use crate::log::{EntryFormat, GROUP, Log};
use crate::snapshot;

impl<D: Disk> Storage for Log<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.members.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last.index + 1, "entries behind the log's end");
        let max_bytes = max_size
            .into()
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut entries = Vec::new();
        self.engine
            .fetch_entries_to::<EntryFormat>(GROUP, low, high, max_bytes, &mut entries)
            .map_err(|error| StorageError::Other(Box::new(error)))?;
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.compacted.index {
            return Err(StorageError::Compacted.into());
        }
        if index > self.last.index {
            return Err(StorageError::Unavailable.into());
        }
        if index == self.compacted.index {
            return Ok(self.compacted.term);
        }
        if index == self.last.index {
            return Ok(self.last.term);
        }
        let entry = self
            .entry(index)
            .map_err(|error| StorageError::Other(Box::new(error)))?;
        Ok(entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.index)
    }

    /// Reads the newest snapshot file: the log still holds every entry behind it.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        match newest_snapshot_message(&self.settings.folder) {
            Ok(Some(message)) if message.get_metadata().index >= request_index => Ok(message),
            Ok(_) => Err(StorageError::SnapshotTemporarilyUnavailable.into()),
            Err(error) => {
                // The next snapshot replaces the file, and the member that lags is asked again.
                tracing::error!(%error, to, "cannot send the snapshot");
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

fn newest_snapshot_message(folder: &Path) -> Result<Option<Snapshot>, Error> {
    let Some((path, image)) = snapshot::read_newest(folder)? else {
        return Ok(None);
    };
    let message =
        snapshot::to_message(image).map_err(|reason| Error::SnapshotDamaged { path, reason })?;
    Ok(Some(message))
}
