//! The data folder: who holds it, what lies in it, and what a crash left behind.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use weft_control::State;
use weft_core::{Digest, TenantId};
use weft_engine::component_key;

/// Where outputs of calls with an idempotency key lie in the store.
pub(crate) const CALL_OUTPUTS: &str = "invocations";

/// An open data folder. The lock is held as long as this lives.
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Opens the folder, makes it where it is missing, and locks it.
    ///
    /// A folder that holds files and never was a data folder is refused: what a crash leaves behind is swept, and a user's files are not ours.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        if !root.join("lock").exists() && !entries(root)?.is_empty() {
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
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "the data folder `{}` belongs to a Weft that is running; stop it, or choose another with --data",
                root.display()
            );
        }
        let folder = Self { root, _lock: lock };
        for sub in ["store", "spill", "uploads"] {
            fs::create_dir_all(folder.root.join(sub))?;
        }
        Ok(folder)
    }

    pub(crate) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub(crate) fn spill(&self) -> PathBuf {
        self.root.join("spill")
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// The API's token: made once, readable by its owner alone.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let path = self.root.join("token");
        let mut found = String::new();
        match File::open(&path) {
            Ok(mut file) => {
                file.read_to_string(&mut found)?;
                let token = found.trim();
                if token.len() >= 32 {
                    return Ok(token.to_owned());
                }
                bail!(
                    "the token file `{}` is damaged; remove it and a new one is made",
                    path.display()
                )
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("`{}`", path.display())),
        }
        let token = crate::random::name::<32>()?;
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

    /// Removes what no state refers to: uploads that were cut off, components that were never registered, folders of jobs that are gone,
    /// parts of unfinished objects. Returns how many were removed.
    pub(crate) fn sweep(&self, state: &State) -> anyhow::Result<usize> {
        let mut removed = 0;
        let mut sweep = |folder: PathBuf, keep: &dyn Fn(&str) -> bool| -> anyhow::Result<()> {
            for entry in entries(&folder)? {
                let name = entry.file_name();
                if name.to_str().is_some_and(keep) {
                    continue;
                }
                let path = entry.path();
                if path.is_dir() {
                    fs::remove_dir_all(&path)?
                } else {
                    fs::remove_file(&path)?
                }
                tracing::info!(path = %path.display(), "removed what a crash left behind");
                removed += 1;
            }
            Ok(())
        };
        let tenants = || state.tenants.values();
        let digests: Vec<String> = tenants()
            .flat_map(|tenant| tenant.catalog.iter())
            .map(|record| record.digest.hex().to_owned())
            .collect();
        let pinned = tenants()
            .flat_map(|tenant| tenant.jobs.values())
            .flat_map(|job| &job.functions)
            .map(|function| function.digest.hex().to_owned());
        let digests: Vec<String> = digests.into_iter().chain(pinned).collect();
        let known = |name: &str| {
            !name.contains('#')
                && digests
                    .iter()
                    .any(|digest| name.starts_with(digest.as_str()))
        };
        sweep(self.uploads(), &|_| false)?;
        sweep(self.spill(), &|_| false)?;
        sweep(self.store().join("components"), &known)?;
        sweep(self.store().join("artefacts"), &known)?;
        let running =
            |name: &str| tenants().any(|tenant| tenant.jobs.keys().any(|job| job.as_str() == name));
        sweep(self.store().join("jobs"), &running)?;
        let outputs: BTreeSet<&str> = tenants()
            .flat_map(|tenant| tenant.calls.outputs())
            .collect();
        let kept = |name: &str| outputs.contains(format!("{CALL_OUTPUTS}/{name}").as_str());
        sweep(self.store().join(CALL_OUTPUTS), &kept)?;
        sweep(self.store().join("archive"), &|name| !name.contains('#'))?;
        Ok(removed)
    }

    /// Where an uploaded component lies.
    pub(crate) fn component(&self, digest: &Digest) -> PathBuf {
        self.store().join(component_key(digest))
    }
}

fn entries(folder: &Path) -> anyhow::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.collect::<Result<_, _>>()?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("`{}`", folder.display())),
    }
}

/// The one tenant there is.
pub(crate) fn tenant() -> TenantId {
    TenantId::default_tenant()
}
