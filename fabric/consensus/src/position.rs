//! A place in the log.

use raft::eraftpb::{Entry, SnapshotMetadata};

/// An entry's index together with the term of the leader that wrote it: names one command for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

impl Position {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [self.index.to_le_bytes(), self.term.to_le_bytes()].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Position> {
        let (index, term) = bytes.split_at_checked(8)?;
        Some(Position {
            index: u64::from_le_bytes(index.try_into().ok()?),
            term: u64::from_le_bytes(term.try_into().ok()?),
        })
    }
}

impl From<&Entry> for Position {
    fn from(entry: &Entry) -> Position {
        Position {
            index: entry.index,
            term: entry.term,
        }
    }
}

impl From<&SnapshotMetadata> for Position {
    fn from(metadata: &SnapshotMetadata) -> Position {
        Position {
            index: metadata.index,
            term: metadata.term,
        }
    }
}
