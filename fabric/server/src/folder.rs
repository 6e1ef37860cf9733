//! The data folder: who holds it, what lies in it, and what a crash left behind.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use weft_control::State;
use weft_core::{Digest, JobId, TenantId};
use weft_engine::component_key;

/// Where outputs of calls with an idempotency key lie in the store.
pub(crate) const CALL_OUTPUTS: &str = "invocations";

/// Digits of a digest.
const DIGEST_HEX: usize = 64;
/// What nothing has referred to for as long is removed: by then nobody is about to, and no call that began before still runs.
const STALE_AFTER: Duration = Duration::from_secs(660);

/// How often something is asked for again that a server may still hold which was killed a moment ago.
pub(crate) const PREDECESSOR_TRIES: u32 = 50;
/// How long between two of the tries.
pub(crate) const PREDECESSOR_PAUSE: Duration = Duration::from_millis(20);

/// Names of what the control state refers to.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Digests of components.
    components: BTreeSet<String>,
    /// Jobs that have not been archived.
    jobs: BTreeSet<String>,
    /// Jobs that have.
    archives: BTreeSet<String>,
    call_outputs: BTreeSet<String>,
}

impl Kept {
    pub(crate) fn of(state: &State) -> Self {
        let mut kept = Self::default();
        for tenant in state.tenants.values() {
            let digests = tenant.catalog.iter().map(|record| &record.digest);
            let jobs = tenant.jobs.values();
            let pinned = jobs.flat_map(|job| &job.functions);
            let pinned = pinned.map(|function| &function.digest);
            let digests = digests.chain(pinned).map(|digest| digest.hex().to_owned());
            kept.components.extend(digests);
            let ids = |id: &JobId| id.to_string();
            kept.jobs.extend(tenant.jobs.keys().map(ids));
            kept.archives.extend(tenant.ended.keys().map(ids));
            let outputs = tenant.calls.outputs();
            let names = outputs.filter_map(|key| key.strip_prefix(CALL_OUTPUTS)?.strip_prefix('/'));
            kept.call_outputs.extend(names.map(str::to_owned));
        }
        kept
    }

    /// Keeps these components, too: somebody is about to register them.
    pub(crate) fn components(&mut self, digests: impl Iterator<Item = Digest>) {
        self.components
            .extend(digests.map(|digest| digest.hex().to_owned()));
    }
}

/// An open data folder. The lock is held as long as this lives.
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Opens the folder, makes it where it is missing, and locks it. Blocks, for a second at most, while somebody else has the lock.
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
        let held = locked(&lock).with_context(|| format!("`{}`", path.display()))?;
        if !held {
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

    pub(crate) fn root(&self) -> &Path {
        &self.root
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

    /// Removes what no state refers to, when the server starts: uploads that were cut off, components that were never registered,
    /// folders of jobs that are gone, parts of unfinished objects. Returns how many were removed.
    pub(crate) fn sweep(&self, kept: &Kept) -> anyhow::Result<usize> {
        let mut all = |_: &fs::DirEntry| true;
        let mut removed = self.sweep_store(kept, &mut all)?;
        removed += remove(&self.uploads(), &|_| false, &mut all)?;
        removed += remove(&self.spill(), &|_| false, &mut all)?;
        let jobs = |name: &str| kept.jobs.contains(name);
        removed += remove(&self.store().join("jobs"), &jobs, &mut all)?;
        Ok(removed)
    }

    /// The same while the server runs, of what has lain there for a while: development versions that were replaced, outputs of calls
    /// whose keys have expired, archives of jobs that are not listed any more.
    ///
    /// `seen`: what was found so before, and when first, in Unix milliseconds.
    pub(crate) fn sweep_stale(
        &self,
        kept: &Kept,
        seen: &mut HashMap<PathBuf, u64>,
        now_ms: u64,
    ) -> anyhow::Result<usize> {
        let before = std::mem::take(seen);
        let long_ago =
            |at_ms: u64| u128::from(now_ms.saturating_sub(at_ms)) > STALE_AFTER.as_millis();
        let mut stale = |entry: &fs::DirEntry| {
            let first_ms = before.get(&entry.path()).copied().unwrap_or(now_ms);
            // What was written a moment ago may have taken the place of what was seen.
            let is_stale = long_ago(first_ms) && modified_ms(entry).is_some_and(long_ago);
            if !is_stale {
                seen.insert(entry.path(), first_ms);
            }
            is_stale
        };
        self.sweep_store(kept, &mut stale)
    }

    fn sweep_store(
        &self,
        kept: &Kept,
        may_go: &mut dyn FnMut(&fs::DirEntry) -> bool,
    ) -> anyhow::Result<usize> {
        let component = |name: &str| {
            let hex = name.get(..DIGEST_HEX).unwrap_or_default();
            !name.contains('#') && kept.components.contains(hex)
        };
        let archive = |name: &str| {
            let job = name.split('.').next().unwrap_or_default();
            !name.contains('#') && (kept.archives.contains(job) || kept.jobs.contains(job))
        };
        let output = |name: &str| kept.call_outputs.contains(name);
        let store = self.store();
        Ok(remove(&store.join("components"), &component, may_go)?
            + remove(&store.join("artefacts"), &component, may_go)?
            + remove(&store.join(CALL_OUTPUTS), &output, may_go)?
            + remove(&store.join("archive"), &archive, may_go)?)
    }

    /// Where an uploaded component lies.
    pub(crate) fn component(&self, digest: &Digest) -> PathBuf {
        self.store().join(component_key(digest))
    }
}

/// Moves a synced file to where it stays, and syncs the folder, which is made where there is none.
pub(crate) async fn move_durably(from: &Path, to: &Path) -> std::io::Result<()> {
    let folder = to.parent().ok_or(ErrorKind::InvalidInput)?.to_owned();
    let (from, to) = (from.to_owned(), to.to_owned());
    let moving = move || {
        fs::create_dir_all(&folder)?;
        fs::rename(&from, &to)?;
        File::open(&folder)?.sync_all()
    };
    tokio::task::spawn_blocking(moving).await?
}

/// When a file was written, in Unix milliseconds.
fn modified_ms(entry: &fs::DirEntry) -> Option<u64> {
    let modified = entry.metadata().ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Removes what is not to be kept and may go. Returns how many were removed.
fn remove(
    folder: &Path,
    keep: &dyn Fn(&str) -> bool,
    may_go: &mut dyn FnMut(&fs::DirEntry) -> bool,
) -> anyhow::Result<usize> {
    let mut removed = 0;
    for entry in entries(folder)? {
        if entry.file_name().to_str().is_some_and(keep) || !may_go(&entry) {
            continue;
        }
        let path = entry.path();
        let gone = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        match gone {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed what nothing refers to");
                removed += 1;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what nothing refers to cannot be removed");
            }
        }
    }
    Ok(removed)
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

/// Locks the file, and waits where a server that was killed a moment ago, and is about to end, still holds the lock. Gives
/// whether it is ours now.
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
