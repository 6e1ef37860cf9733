//! Removes unreferenced files of the store: leftovers of a crash at the start, expired ones later.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use weft_control::State;
use weft_core::{Digest, JobId};
use weft_protocol::KEPT_OUTPUTS;
use weft_runtime::clock::unix_ms;

use crate::components::Components;
use crate::folders::Folders;
use crate::kept_outputs::KeptOutputs;
use crate::replica::Replica;

/// Folder of the store for outputs of invocations with an idempotency key.
pub(crate) const CALL_OUTPUTS: &str = "invocations";
/// Time between two sweeps.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// Digits of a digest.
const DIGEST_HEX: usize = 64;
/// How long an unreferenced file is kept. Longer than the longest invocation, so none that still
/// runs can need it.
const STALE_AFTER: Duration = Duration::from_secs(660);

/// Names of files that the control state refers to.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Digests of components.
    components: BTreeSet<String>,
    /// Jobs that have not been archived.
    jobs: BTreeSet<String>,
    /// Jobs that have.
    archives: BTreeSet<String>,
    /// Those of them whose outputs the cluster still keeps, and jobs whose outputs are the rows of tables.
    outputs: BTreeSet<String>,
    call_outputs: BTreeSet<String>,
}

impl Kept {
    /// `at_ms`: time by which idempotency keys and outputs have expired or not, in Unix milliseconds.
    pub(crate) fn of(state: &State, kept_outputs: &KeptOutputs, at_ms: u64) -> Self {
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
            let ended = tenant.ended.values();
            let still_kept = ended.filter(|job| {
                // The rows of a table are kept as long as the table is there, and no longer.
                !job.is_of_table && !kept_outputs.have_expired(job.ended_ms, at_ms)
            });
            kept.outputs.extend(still_kept.map(|job| ids(&job.id)));
            kept.outputs.extend(tenant.tables.kept_jobs().map(ids));
            let outputs = tenant.calls.outputs(at_ms);
            let names = outputs.filter_map(|key| key.strip_prefix(CALL_OUTPUTS)?.strip_prefix('/'));
            kept.call_outputs.extend(names.map(str::to_owned));
        }
        kept
    }

    /// Returns whether the folder of a job is kept.
    pub(crate) fn keeps_job(&self, id: &str) -> bool {
        self.jobs.contains(id)
    }

    /// Keeps these components, too: somebody is about to register them.
    pub(crate) fn components(&mut self, digests: impl Iterator<Item = Digest>) {
        self.components
            .extend(digests.map(|digest| digest.hex().to_owned()));
    }
}

/// Sweeps one controller's folders.
pub(crate) struct Sweep {
    folders: Folders,
    kept_outputs: KeptOutputs,
}

impl Sweep {
    pub(crate) fn new(folders: Folders, kept_outputs: KeptOutputs) -> Self {
        Self {
            folders,
            kept_outputs,
        }
    }

    /// Lists the files that a state refers to.
    pub(crate) fn kept(&self, state: &State, at_ms: u64) -> Kept {
        Kept::of(state, &self.kept_outputs, at_ms)
    }

    /// Sweeps once a period, until it is aborted.
    pub(crate) async fn keep_sweeping(
        self,
        replica: Replica,
        components: Arc<Components>,
    ) -> anyhow::Result<()> {
        let sweep = Arc::new(self);
        let mut ticks = tokio::time::interval(SWEEP_PERIOD);
        let mut seen = HashMap::new();
        loop {
            ticks.tick().await;
            // Of a group, only a leader that is known to lead sweeps, and begins to watch anew.
            if replica.peers().is_some()
                && (!replica.status().is_leader || replica.catch_up().await.is_err())
            {
                seen.clear();
                continue;
            }
            // Those under way first: what is registered meanwhile is in the state.
            let in_flight = components.in_flight();
            let now_ms = replica.now_ms();
            let mut kept = sweep.kept(&replica.state(), now_ms);
            kept.components(in_flight.into_iter());
            let sweep = Arc::clone(&sweep);
            let sweeping = move || {
                let swept = sweep.sweep_stale(&kept, &mut seen, unix_ms());
                (swept, seen)
            };
            let swept;
            (swept, seen) = tokio::task::spawn_blocking(sweeping).await?;
            if let Err(error) = swept {
                tracing::warn!(%error, "unreferenced files could not be removed");
            }
        }
    }

    /// Removes what no state refers to, when the server starts: uploads that were cut off, components that were never registered,
    /// folders of jobs that are gone, parts of unfinished objects. Returns how many were removed.
    pub(crate) fn sweep(&self, kept: &Kept) -> anyhow::Result<usize> {
        let mut all = |_: &fs::DirEntry| true;
        let mut removed = self.sweep_store(kept, &mut all)? + self.sweep_own()?;
        let jobs = |name: &str| kept.keeps_job(name);
        removed += remove(&self.folders.store.join("jobs"), &jobs, &mut all)?;
        Ok(removed)
    }

    /// The same while the server runs, of what has lain there for a while: development versions that were replaced, outputs of calls
    /// whose keys have expired, archives of jobs that are not listed any more, outputs that are kept no longer.
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
        let removed = self.sweep_store(kept, &mut stale)?;
        // Of jobs whose clean-up was lost with a leader.
        let jobs = |name: &str| kept.keeps_job(name);
        Ok(removed + remove(&self.folders.store.join("jobs"), &jobs, &mut stale)?)
    }

    /// Removes uploads that an earlier life of this process was receiving.
    pub(crate) fn sweep_own(&self) -> anyhow::Result<usize> {
        remove(&self.folders.uploads, &|_| false, &mut |_| true)
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
        let job_output = |name: &str| kept.jobs.contains(name) || kept.outputs.contains(name);
        let store = &self.folders.store;
        Ok(remove(&store.join("components"), &component, may_go)?
            + remove(&store.join("artefacts"), &component, may_go)?
            + remove(&store.join(CALL_OUTPUTS), &output, may_go)?
            + remove(&store.join(KEPT_OUTPUTS), &job_output, may_go)?
            + remove(&store.join("archive"), &archive, may_go)?)
    }
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
