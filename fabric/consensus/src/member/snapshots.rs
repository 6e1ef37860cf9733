//! The snapshots that a member makes of its own state.
//!
//! ```text
//! member's thread:  take hold of the state ─── steps go on ───▶ forget the log before it
//! other thread:                        └─ pack, write, sync ─┘
//! ```

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};

use crate::disk::{Disk, written};
use crate::error::Error;
use crate::member::Member;
use crate::snapshot::{self, Snapshot};
use crate::state_machine::StateMachine;
use crate::transport::Transport;

/// A snapshot that another thread writes. Dropped, it is waited for: the folder is then nobody's.
pub(crate) struct BeingWritten {
    index: u64,
    /// Size of the file in bytes, once it is there.
    written: Receiver<usize>,
}

impl Drop for BeingWritten {
    fn drop(&mut self) {
        // Whether it was written does not matter: whoever drops this has another snapshot, or ends.
        let _ = self.written.recv();
    }
}

impl<S: StateMachine, T: Transport, D: Disk> Member<S, T, D> {
    /// Takes hold of the state for a snapshot, and has it written. One is under way at a time.
    pub(super) fn take_snapshot_if_due(&mut self) {
        let every = self.settings.snapshot_every_entries;
        let is_due = self.running.snapshot_wanted || self.pace.is_due(self.applied.index, every);
        if !is_due || self.running.snapshot_being_written.is_some() {
            return;
        }
        self.running.snapshot_wanted = false;
        self.pace.taken();
        let (position, members) = (self.applied, self.members.borrow().clone());
        let capture = self.state_machine.snapshot();
        let (disk, folder) = (Arc::clone(&self.disk), self.settings.folder.clone());
        let failpoint = self.settings.failpoint;
        let (done, written_bytes) = mpsc::sync_channel(1);
        let write = move || {
            let snapshot = Snapshot {
                position,
                members,
                state: &capture(),
            };
            let image = snapshot.encode();
            written("writing a snapshot", || {
                snapshot::write(&*disk, &folder, position.index, &image, failpoint)
            });
            // The member may have ended.
            let _ = done.send(image.len());
        };
        self.running.snapshot_being_written = Some(BeingWritten {
            index: position.index,
            written: written_bytes,
        });
        self.disk.in_background(Box::new(write));
    }

    /// Forgets the log before a snapshot that is written, and older snapshots.
    ///
    /// Errors: the log's; `Internal` if the snapshot could not be made, which is a fault of the state machine.
    pub(super) fn notice_written_snapshot(&mut self) -> Result<(), Error> {
        let Some(being_written) = &self.running.snapshot_being_written else {
            return Ok(());
        };
        let index = being_written.index;
        let bytes = match being_written.written.try_recv() {
            Ok(bytes) => bytes,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => return Err(Error::SnapshotFailed { index }),
        };
        self.running.snapshot_being_written = None;
        self.pace.written(index, bytes);
        // Not the first one: a new member is to need a snapshot.
        let keep_from = index.saturating_sub(self.settings.keep_entries).max(1);
        self.node.mut_store().compact(keep_from)?;
        snapshot::remove_older(&self.settings.folder, index);
        tracing::debug!(index, bytes, "wrote a snapshot");
        self.tell_outside();
        Ok(())
    }
}
