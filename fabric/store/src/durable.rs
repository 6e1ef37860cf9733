//! Files that outlive the machine: written or moved, then synced together with their folder.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Moves a synced file to its final path and syncs the folder, which is created if missing.
///
/// A dropped future does not stop the move.
pub async fn move_durably(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().ok_or(ErrorKind::InvalidInput)?.to_owned();
    let (from, to) = (from.to_owned(), to.to_owned());
    let moving = move || {
        fs::create_dir_all(&folder)?;
        fs::rename(&from, &to)?;
        File::open(&folder)?.sync_all()
    };
    tokio::task::spawn_blocking(moving).await?
}

/// Writes a file that is there as a whole or not at all.
pub(crate) fn write_durably(path: &Path, text: &[u8]) -> Result<()> {
    let draft = path.with_extension("draft");
    let write = || -> io::Result<()> {
        let folder = path.parent().expect("a file lies in a folder");
        fs::create_dir_all(folder)?;
        let mut file = File::create(&draft)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| Error::file(path, error))?;
    sync_file_and_folder(path)
}

/// Makes a file and its name outlive the machine. After a failed sync the data may be gone: the
/// caller must not retry.
pub(crate) fn sync_file_and_folder(path: &Path) -> Result<()> {
    sync(path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Syncs a file, or the names in a folder.
pub(crate) fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| Error::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_moves_to_a_folder_that_is_made_and_replaces_what_was_there() {
        let root = tempfile::tempdir().expect("a folder");
        let (from, to) = (root.path().join("draft"), root.path().join("a/b/final"));
        for text in ["one", "two"] {
            fs::write(&from, text).expect("it writes");
            move_durably(&from, &to).await.expect("it moves");
            assert_eq!(fs::read_to_string(&to).expect("it is there"), text);
            assert!(!from.exists());
        }
        let error = move_durably(&from, &to).await.expect_err("it has moved");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
