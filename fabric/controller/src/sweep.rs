//! Removes unreferenced files of the store: leftovers of a crash at the start, expired ones later.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use weft_control::State;
use weft_core::{Digest, JobId};
use weft_protocol::KEPT_OUTPUTS;
use weft_runtime::clock::unix_ms;
use weft_store::{Blobs, Entry, PROBES};

use crate::components::Components;
use crate::kept_outputs::KeptOutputs;
use crate::replica::Replica;

/// Folder of the store for outputs of invocations with an idempotency key.
pub(crate) const CALL_OUTPUTS: &str = "invocations";
/// Time between two sweeps.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// Tells which names below a prefix are kept.
type Keep<'a> = dyn Fn(&str) -> bool + Sync + 'a;

/// Digits of a digest.
const DIGEST_HEX: usize = 64;
/// How long an unreferenced file is kept. Longer than the longest invocation, so none that still runs can need it. A
/// job may run longer: if it still reads the rows of a kept table that was dropped or replaced meanwhile, it fails.
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

/// Sweeps the store, and one controller's uploads.
pub(crate) struct Sweep {
    blobs: Blobs,
    uploads: PathBuf,
    kept_outputs: KeptOutputs,
}

/// Says of an unreferenced name, by its key, whether it may go.
type MayGo<'a> = dyn FnMut(&str, &Entry) -> bool + Send + 'a;

impl Sweep {
    pub(crate) fn new(blobs: Blobs, uploads: PathBuf, kept_outputs: KeptOutputs) -> Self {
        Self {
            blobs,
            uploads,
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
            let mut kept = self.kept(&replica.state(), now_ms);
            kept.components(in_flight.into_iter());
            let swept = self.sweep_stale(&kept, &mut seen, unix_ms()).await;
            if let Err(error) = swept {
                tracing::warn!(%error, "unreferenced files could not be removed");
            }
        }
    }

    /// Removes what no state refers to, when the server starts: uploads that were cut off, components that were never registered,
    /// folders of jobs that are gone, parts of unfinished objects. Returns how many were removed.
    pub(crate) async fn sweep(&self, kept: &Kept) -> anyhow::Result<usize> {
        let mut all = |_: &str, _: &Entry| true;
        let removed = self.sweep_store(kept, &mut all).await?;
        Ok(removed + self.sweep_own()?)
    }

    /// The same while the server runs, of what has lain there for a while: development versions that were replaced, outputs of calls
    /// whose keys have expired, archives of jobs that are not listed any more, outputs that are kept no longer.
    ///
    /// `seen`: what was found so before, and when first, in Unix milliseconds.
    pub(crate) async fn sweep_stale(
        &self,
        kept: &Kept,
        seen: &mut HashMap<String, u64>,
        now_ms: u64,
    ) -> anyhow::Result<usize> {
        let before = std::mem::take(seen);
        let long_ago =
            |at_ms: u64| u128::from(now_ms.saturating_sub(at_ms)) > STALE_AFTER.as_millis();
        let mut stale = |key: &str, entry: &Entry| {
            let first_ms = before.get(key).copied().unwrap_or(now_ms);
            // What was written a moment ago may have taken the place of what was seen. Folders of buckets have no time.
            let is_old = entry.modified_ms.map_or(entry.is_folder, long_ago);
            let is_stale = long_ago(first_ms) && is_old;
            if !is_stale {
                seen.insert(key.to_owned(), first_ms);
            }
            is_stale
        };
        self.sweep_store(kept, &mut stale).await
    }

    /// Removes uploads that an earlier life of this process was receiving.
    pub(crate) fn sweep_own(&self) -> anyhow::Result<usize> {
        let folder = || format!("`{}`", self.uploads.display());
        let entries = match fs::read_dir(&self.uploads) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error).with_context(folder),
        };
        let mut removed = 0;
        for entry in entries {
            let path = entry.with_context(folder)?.path();
            match fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "an upload cannot be removed");
                }
            }
        }
        Ok(removed)
    }

    async fn sweep_store(&self, kept: &Kept, may_go: &mut MayGo<'_>) -> anyhow::Result<usize> {
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
        // Of jobs whose clean-up was lost with a leader, too.
        let job = |name: &str| kept.keeps_job(name);
        // Checks of the store that were cut off.
        let none = |_: &str| false;
        let keep: [(&str, &Keep<'_>); 7] = [
            ("components", &component),
            ("artefacts", &component),
            (CALL_OUTPUTS, &output),
            (KEPT_OUTPUTS, &job_output),
            ("archive", &archive),
            ("jobs", &job),
            (PROBES, &none),
        ];
        let mut removed = 0;
        for (prefix, keep) in keep {
            removed += self.remove(prefix, keep, may_go).await?;
        }
        Ok(removed)
    }

    /// Removes the names below a prefix that are not to be kept and may go. Returns how many were removed.
    async fn remove(
        &self,
        prefix: &str,
        keep: &Keep<'_>,
        may_go: &mut MayGo<'_>,
    ) -> anyhow::Result<usize> {
        let mut removed = 0;
        for entry in self.blobs.entries(prefix).await? {
            let key = format!("{prefix}/{}", entry.name);
            if keep(&entry.name) || !may_go(&key, &entry) {
                continue;
            }
            match self.blobs.remove(prefix, &entry).await {
                Ok(true) => {
                    tracing::info!(%key, "removed what nothing refers to");
                    removed += 1;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%key, %error, "what nothing refers to cannot be removed");
                }
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use weft_core::TenantId;
    use weft_protocol::shard_prefix;

    use super::*;

    #[tokio::test]
    async fn shards_are_nothing_that_a_sweep_knows() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a store");
        let manifest = format!(
            "{}/manifest/1",
            shard_prefix(&TenantId::default_tenant(), 0)
        );
        for key in [manifest.as_str(), "jobs/job-0/plan"] {
            blobs.put(key, "text").await.expect("it is written");
        }
        let uploads = folder.path().join("uploads");
        let sweep = Sweep::new(blobs.clone(), uploads, KeptOutputs::default());
        let removed = sweep.sweep(&Kept::default()).await.expect("it sweeps");
        assert_eq!(removed, 1, "the job is gone");
        assert!(blobs.exists(&manifest).await.expect("it looks"));
        // A store with shards stays its cluster's.
        blobs.adopt("blue").await.expect("it is not marked");
        blobs.claim("blue").await.expect("it is blue's");
    }
}
