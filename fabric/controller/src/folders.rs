//! Folders that a controller works in.

use std::path::PathBuf;

/// Folders of one controller.
#[derive(Debug, Clone)]
pub struct Folders {
    /// The data folder: its file system's free space is a metric.
    pub root: PathBuf,
    /// Uploads that are being received; in the store's file system if that is a folder. The controller makes it.
    pub uploads: PathBuf,
}
