//! Folders that a controller works in.

use std::path::{Path, PathBuf};

use weft_core::Digest;
use weft_protocol::component_key;

/// Folders of one controller. They exist.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The data folder: its file system's free space is a metric.
    pub root: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// Uploads that are being received.
    pub uploads: PathBuf,
}

impl Folders {
    /// Path of an uploaded component.
    pub(crate) fn component(&self, digest: &Digest) -> PathBuf {
        self.store.join(component_key(digest))
    }

    /// Path of an object of the store.
    pub(crate) fn object(&self, key: &str) -> PathBuf {
        Path::new(&self.store).join(key)
    }
}
