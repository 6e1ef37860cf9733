//! Changes of a shard that are made as one.

use bytes::Bytes;
use slatedb::WriteBatch;

/// Changes that are all made, or none. Of several of one key the last counts.
#[derive(Debug, Default)]
pub struct Batch {
    changes: WriteBatch,
    len: usize,
    bytes: usize,
}

impl Batch {
    /// Sets a value. Keys are not empty.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.count(key.len() + value.len());
        self.changes.put_bytes(key, value);
    }

    /// Removes a value, if there is one. Keys are not empty.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.count(key.as_ref().len());
        self.changes.delete(key);
    }

    fn count(&mut self, bytes: usize) {
        self.len += 1;
        self.bytes += bytes;
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes as the database takes them.
    pub(crate) fn into_changes(self) -> WriteBatch {
        self.changes
    }
}
