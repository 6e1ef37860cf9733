//! The data folder: opened and locked by one process, with the API's token.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use weft_controller::{Folders, Reserve};
use weft_store::remove_unfinished;

use crate::identity::{self, Identity, Owner};
use crate::remembered_store::RememberedStore;

/// Tries to get what a server may still hold that was killed a moment ago.
pub(crate) const PREDECESSOR_TRIES: u32 = 50;
/// Pause between two of the tries.
pub(crate) const PREDECESSOR_PAUSE: Duration = Duration::from_millis(20);

/// Characters of a token, at least.
const TOKEN_DIGITS_MIN: usize = 32;

/// An open data folder. The lock is held as long as this lives.
pub(crate) struct DataFolder {
    root: PathBuf,
    pub(crate) identity: Identity,
    _lock: File,
}

impl DataFolder {
    /// Opens the folder, creates it if it is missing, and locks it. Blocks, for a second at most, while
    /// somebody else has the lock.
    ///
    /// Errors: the folder is in use, has another format, or holds files and never was a data folder:
    /// leftovers of a crash are swept, and a user's files are not ours.
    pub(crate) fn open(root: &Path, owner: &Owner) -> anyhow::Result<Self> {
        let is_ours = root.join("lock").exists() || root.join(identity::FILE).exists();
        if !is_ours && !entries(root)?.is_empty() {
            bail!(
                "`{}` holds files and is no data folder of Weft; choose an empty or a new one with --data",
                root.display()
            );
        }
        fs::create_dir_all(root)
            .with_context(|| format!("the data folder `{}` cannot be made", root.display()))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("`{}`", root.display()))?;
        let root = root.canonicalize()?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("`{}`", path.display()))?;
        let held = locked(&lock).with_context(|| format!("`{}`", path.display()))?;
        if !held {
            bail!(
                "the data folder `{}` belongs to a Weft that is running; stop it, or choose another with --data",
                root.display()
            );
        }
        let identity = Identity::of(&root, owner)?;
        let folder = Self {
            root,
            identity,
            _lock: lock,
        };
        // Whatever an earlier process spilled is of tasks that have ended with it, and what it fetched may be half.
        for leftover in [folder.spill(), folder.cache(), folder.tier()] {
            match fs::remove_dir_all(leftover) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("`{}`", folder.root.display()));
                }
                _ => {}
            }
        }
        Reserve::of(&folder.root).release_if_full()?;
        if *owner == Owner::Up {
            // Its executors have ended, and nobody else writes there.
            let removed = remove_unfinished(&folder.store())
                .with_context(|| format!("`{}`", folder.store().display()))?;
            if removed > 0 {
                tracing::info!(removed, "removed files that executors had not finished");
            }
        }
        for sub in ["store", "spill", "uploads"] {
            fs::create_dir_all(folder.root.join(sub))?;
        }
        Ok(folder)
    }

    /// Folder of the Raft log.
    pub(crate) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    /// Folder for files that tasks spill. It is empty when the data folder is opened.
    pub(crate) fn spill(&self) -> PathBuf {
        self.root.join("spill")
    }

    /// Folder of the store, unless another one is named.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The store that the folder was started with before.
    pub(crate) fn remembered_store(&self) -> anyhow::Result<RememberedStore> {
        RememberedStore::of(&self.root)
    }

    /// Folder for copies of a store's objects. It is empty when the data folder is opened.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Folder for copies of a store's shuffle objects. It is empty when the data folder is opened.
    pub(crate) fn tier(&self) -> PathBuf {
        self.root.join("tier")
    }

    /// Folders that the roles work in.
    pub(crate) fn folders(&self) -> Folders {
        Folders {
            root: self.root.clone(),
            uploads: self.root.join("uploads"),
        }
    }

    /// The API's token: made once, readable by its owner alone.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let path = self.root.join("token");
        if path.exists() {
            let with_advice = |error| anyhow::anyhow!("{error:#}; remove it and a new one is made");
            return read_token(&path).map_err(with_advice);
        }
        let token = weft_runtime::random::name::<32>()?;
        let draft = self.root.join("token.draft");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&draft)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        Ok(token)
    }
}

/// The token in a file. Errors: it cannot be read, or is too short to be one.
pub(crate) fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    let token = text.trim();
    if token.len() < TOKEN_DIGITS_MIN {
        bail!(
            "the token file `{}` holds no token of {TOKEN_DIGITS_MIN} characters or more: it is damaged",
            path.display()
        );
    }
    Ok(token.to_owned())
}

fn entries(folder: &Path) -> anyhow::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.collect::<Result<_, _>>()?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("`{}`", folder.display())),
    }
}

/// Locks the file, and waits for a server that was killed a moment ago and still holds the lock.
/// Returns whether the lock is ours.
fn locked(lock: &File) -> std::io::Result<bool> {
    for _ in 0..PREDECESSOR_TRIES {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(PREDECESSOR_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_dead_executors_had_not_finished_are_gone() {
        let data = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::open(data.path(), &Owner::Up).expect("it is new");
        let staging = folder.store().join("outputs/job-1/rows/.weft-job-1");
        fs::create_dir_all(&staging).expect("it is made");
        for name in ["committed", "unfinished.part"] {
            fs::write(staging.join(name), "rows").expect("it writes");
        }
        drop(folder);
        let _folder = DataFolder::open(data.path(), &Owner::Up).expect("it is ours");
        assert!(staging.join("committed").exists());
        assert!(!staging.join("unfinished.part").exists());
    }

    #[test]
    fn files_that_an_earlier_process_spilled_are_gone() {
        let root = tempfile::tempdir().expect("a folder");
        let node = Owner::Node {
            cluster: "blue".into(),
            node: weft_core::NodeId::local(),
        };
        for owner in [Owner::Up, node] {
            let data = root.path().join(owner.to_string());
            let folder = DataFolder::open(&data, &owner).expect("it is new");
            fs::write(folder.spill().join("run-1"), "rows").expect("it writes");
            drop(folder);
            let folder = DataFolder::open(&data, &owner).expect("it is ours");
            assert_eq!(entries(&folder.spill()).expect("it is there").len(), 0);
        }
    }
}
