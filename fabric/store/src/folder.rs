//! A folder that is a store: names below a prefix, and their removal.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::blobs::Entry;
use crate::error::{Error, Result};

/// Returns the file of an object, or the folder of a prefix. It has the name of the object, in which some characters
/// are encoded.
pub(crate) fn file(root: &Path, key: &str) -> PathBuf {
    root.join(object_store::path::Path::from(key).as_ref())
}

/// Lists the names in a folder; none if it is not there.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let failed = |error| Error::file(folder, error);
    let found = match fs::read_dir(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let entries = found.map(|entry: io::Result<fs::DirEntry>| -> io::Result<Entry> {
        let entry = entry?;
        Ok(Entry {
            // One that is no UTF-8 is none of ours: its name is no key, and nothing keeps it.
            name: entry.file_name().to_string_lossy().into_owned(),
            is_folder: entry.file_type()?.is_dir(),
            modified_ms: modified_ms(&entry),
        })
    });
    entries.collect::<io::Result<_>>().map_err(failed)
}

/// When a file was written, in Unix milliseconds.
fn modified_ms(entry: &fs::DirEntry) -> Option<u64> {
    let modified = entry.metadata().ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Removes a folder with all in it. Returns whether it was there.
pub(crate) fn remove_all(folder: &Path) -> Result<bool> {
    was_there(folder, fs::remove_dir_all(folder))
}

/// Removes a file. Returns whether it was there.
pub(crate) fn remove_file(path: &Path) -> Result<bool> {
    was_there(path, fs::remove_file(path))
}

fn was_there(path: &Path, removed: io::Result<()>) -> Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file(path, error)),
    }
}
