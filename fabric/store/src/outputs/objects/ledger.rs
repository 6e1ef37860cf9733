//! The part of a manifest on an object store that no reader needs: publications and withdrawals, so that jobs of
//! several clusters, which share no lock, may write to one folder. Pure: a manifest goes in, the next one comes out.
//!
//! ```text
//! publication of B ──overwrite──▶ files: B's; replaced: what was there, by B ──B succeeded──▶ replaced: nothing
//!                  ──append─────▶ files: theirs and B's          │
//!                                                                └──B failed──▶ files: what was there
//! ```
//!
//! A manifest is written if nothing has been written since it was read, and says in itself which jobs it knows. So a
//! writer that gets no answer, or a wrong one, reads it back. A withdrawal is written down even if there was nothing to
//! take back: a publisher that was paused finds its job there, and writes nothing.
//!
//! Jobs are remembered for a day, those that wait for a clean-up and all after them for longer: what comes of a
//! withdrawal depends on who has replaced what, in which order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_core::JobId;
use weft_core::job::OutputMode;
use weft_protocol::ManifestOutput;

use super::super::generation::{name_in, next_generation};
use super::super::manifest::{Manifest, ManifestFile};
use super::is_of;
use super::upload::Pending;
use crate::error::{Error, Result};

/// Publications and withdrawals that a manifest remembers. Beyond, jobs are refused: to forget one early could write
/// its rows twice. Withdrawals are noted all the same, as a clean-up must end; the manifest's own bound holds for them.
const MAX_PUBLICATIONS: usize = 20_000;
/// Seconds after which a publication is forgotten: longer than anybody repeats one, or is paused.
const REMEMBERED_S: u64 = 24 * 60 * 60;

/// Publications and withdrawals of a folder on an object store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// How often the manifest was written. It only grows, so no two manifests of a folder are the same bytes: stores
    /// tell versions apart by a hash of the contents.
    writes: u64,
    /// The last publications, oldest first.
    publications: Vec<Publication>,
    /// Manifests whose files are to be removed, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaced: Vec<Replaced>,
}

/// A publication, or a withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Publication {
    job: String,
    /// It replaced what was there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    overwrites: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_withdrawn: bool,
    /// Time at which it was written, or withdrawn, in seconds since 1970 by the store's clock. Nothing before it was
    /// read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
}

/// A manifest that another one has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Replaced {
    /// The job that replaced it, and removes its files if it succeeds.
    by: String,
    manifest: Manifest,
}

impl Ledger {
    /// Files that are listed no longer, and may still be there.
    pub(in super::super) fn replaced_files(&self) -> impl Iterator<Item = &ManifestFile> {
        let replaced = self.replaced.iter();
        replaced.flat_map(|replaced| &replaced.manifest.files)
    }

    /// Takes the time at which the manifest was written, by the store's clock: that of what it notes for the first
    /// time.
    pub(super) fn stamp(&mut self, written: u64) {
        for publication in &mut self.publications {
            publication.at.get_or_insert(written);
        }
    }

    fn publication(&self, job: &str) -> Option<&Publication> {
        self.publications
            .iter()
            .find(|publication| publication.job == job)
    }

    /// Notes a publication, and forgets old ones. Those stay that a job which awaits its clean-up needs: its own, and
    /// all after it. So does the last that stands: it says that there is an output, which may have no files.
    fn note(&mut self, publication: Publication) {
        let times = self.publications.iter().filter_map(|one| one.at);
        let now = times.max().unwrap_or(0);
        let is_old = |one: &Publication| {
            one.at
                .is_some_and(|at| now.saturating_sub(at) > REMEMBERED_S)
        };
        let goes = |one: &&Publication| is_old(one) && self.replaced_by(&one.job).is_none();
        let n_old = self.publications.iter().take_while(goes).count();
        let mut stand = self.publications.iter();
        let last = stand.rposition(|one| !one.is_withdrawn);
        self.publications
            .drain(..last.map_or(n_old, |last| n_old.min(last)));
        self.publications.push(publication);
    }

    /// Notes that a job was withdrawn, whether it had published or not.
    fn withdraw(&mut self, job: &str) {
        let mut publications = self.publications.iter_mut();
        match publications.find(|publication| publication.job == job) {
            Some(publication) => {
                publication.is_withdrawn = true;
                publication.at = None;
            }
            None => self.note(Publication {
                job: job.to_owned(),
                overwrites: false,
                is_withdrawn: true,
                at: None,
            }),
        }
    }

    /// The next job after one that has replaced what was there, and stands.
    fn heir(&self, job: &str) -> Option<&str> {
        let after = self.publications.iter();
        let mut after = after.skip_while(|publication| publication.job != job);
        let heir = after.find(|publication| {
            publication.job != job && publication.overwrites && !publication.is_withdrawn
        })?;
        Some(&heir.job)
    }

    /// Position of the manifest that a job has replaced.
    fn replaced_by(&self, job: &str) -> Option<usize> {
        let mut replaced = self.replaced.iter();
        replaced.position(|replaced| replaced.by == job)
    }

    /// The last job whose publication stands.
    fn last(&self) -> Option<&str> {
        let mut stand = self.publications.iter().rev();
        let last = stand.find(|publication| !publication.is_withdrawn)?;
        Some(&last.job)
    }
}

/// The next step with a manifest.
#[derive(Debug)]
pub(super) enum Change {
    /// It stays as it is.
    Nothing,
    /// It is written anew, unless somebody has written it since.
    Write(Box<Manifest>),
}

impl Change {
    fn write(manifest: Manifest, mut ledger: Ledger) -> Self {
        ledger.writes = ledger.writes.saturating_add(1);
        Self::Write(Box::new(Manifest {
            ledger: Some(ledger),
            ..manifest
        }))
    }
}

/// Returns whether the folder of a manifest holds an output. One that only says that a job was withdrawn does not.
pub(in super::super) fn holds_output(manifest: &Manifest) -> bool {
    match &manifest.ledger {
        Some(ledger) => !manifest.files.is_empty() || ledger.last().is_some(),
        None => true,
    }
}

/// Returns whether a manifest lists files of a job, or lists that they were replaced.
fn has_files_of(manifest: &Manifest, job: &JobId) -> bool {
    let replaced = manifest.ledger.iter().flat_map(Ledger::replaced_files);
    let mut files = manifest.files.iter().chain(replaced);
    files.any(|file| is_of(job, file.key()))
}

fn ledger_of(found: Option<&Manifest>) -> Ledger {
    let ledger = found.and_then(|manifest| manifest.ledger.clone());
    ledger.unwrap_or_default()
}

/// The manifest with the files of a job.
///
/// Errors: `Withdrawn` if the job has ended, `OutputExists` or `AppendMismatch` as the mode of the output has it,
/// `OverLimit` if the folder remembers as many jobs as it can.
pub(super) fn with_publication(
    found: Option<&Manifest>,
    job: &JobId,
    output: &ManifestOutput,
    pending: &[Pending],
) -> Result<Change> {
    let mut ledger = ledger_of(found);
    match ledger.publication(job.as_str()) {
        Some(Publication {
            is_withdrawn: true, ..
        }) => return Err(Error::Withdrawn(output.folder.clone())),
        Some(_) => return Ok(Change::Nothing),
        None if found.is_some_and(|found| has_files_of(found, job)) => return Ok(Change::Nothing),
        None => {}
    }
    let previous = found.filter(|manifest| holds_output(manifest));
    match (output.mode, previous) {
        (OutputMode::Error, Some(_)) => return Err(Error::OutputExists(output.folder.clone())),
        (OutputMode::Append, Some(previous)) => previous.check_append(output)?,
        (OutputMode::Overwrite, Some(previous)) => {
            ledger.replaced.push(Replaced {
                by: job.to_string(),
                manifest: without_ledger(previous),
            });
        }
        (OutputMode::Error | OutputMode::Append | OutputMode::Overwrite, None) => {}
    }
    let generation = next_generation(previous);
    let stays = previous.filter(|_| output.mode == OutputMode::Append);
    let stays = stays.into_iter().flat_map(|previous| &previous.files);
    let ours = pending.iter().map(|one| listed(one, generation));
    let files: BTreeMap<String, ManifestFile> = stays
        .cloned()
        .chain(ours)
        .map(|file| (file.name.clone(), file))
        .collect();
    ledger.note(Publication {
        job: job.to_string(),
        overwrites: output.mode == OutputMode::Overwrite,
        is_withdrawn: false,
        at: None,
    });
    check_room(&ledger, output)?;
    let manifest = Manifest {
        generation,
        ..empty(job, output)
    };
    let manifest = manifest.with_files(files.into_values().collect());
    Ok(Change::write(manifest, ledger))
}

/// Refuses a publication that is one too many.
fn check_room(ledger: &Ledger, output: &ManifestOutput) -> Result<()> {
    match ledger.publications.len() <= MAX_PUBLICATIONS {
        true => Ok(()),
        false => Err(Error::OverLimit {
            what: format!(
                "`{}` remembers {MAX_PUBLICATIONS} jobs, those of a day and all since the oldest one that is not \
                 cleaned up yet: write more rows by one job, or choose another folder",
                output.folder
            ),
        }),
    }
}

/// A file as the manifest lists it.
fn listed(pending: &Pending, generation: u32) -> ManifestFile {
    let Pending { file, upload } = pending;
    ManifestFile {
        name: name_in(&file.name, generation),
        key: Some(upload.key.clone()),
        rows: file.rows,
        bytes: file.bytes,
        xxh3: file.xxh3.clone(),
    }
}

/// The manifest of a job without files.
fn empty(job: &JobId, output: &ManifestOutput) -> Manifest {
    Manifest {
        job: job.to_string(),
        output: output.name.clone(),
        format: output.format.clone(),
        schema: output.schema.clone(),
        partition_by: output.partition_by.clone(),
        generation: 0,
        files: Vec::new(),
        rows: 0,
        bytes: 0,
        ledger: None,
    }
}

fn without_ledger(manifest: &Manifest) -> Manifest {
    Manifest {
        ledger: None,
        ..manifest.clone()
    }
}

/// The manifest without the files of a job that did not succeed, and with those that it had replaced.
///
/// It is written down even if nothing was published: a publisher of the job may have been paused.
pub(super) fn with_withdrawal(
    found: Option<&Manifest>,
    job: &JobId,
    output: &ManifestOutput,
) -> Change {
    let mut ledger = ledger_of(found);
    if ledger
        .publication(job.as_str())
        .is_some_and(|known| known.is_withdrawn)
    {
        return Change::Nothing;
    }
    ledger.withdraw(job.as_str());
    let Some(found) = found else {
        return Change::write(empty(job, output), ledger);
    };
    let rest = |manifest: Manifest| {
        let ours = |file: &ManifestFile| is_of(job, file.key());
        let files = manifest.files.iter().filter(|file| !ours(file));
        let files = files.cloned().collect();
        manifest.with_files(files)
    };
    for replaced in &mut ledger.replaced {
        replaced.manifest = rest(replaced.manifest.clone());
    }
    let mut current = rest(without_ledger(found));
    if let Some(at) = ledger.replaced_by(job.as_str()) {
        match ledger.heir(job.as_str()).map(str::to_owned) {
            None => current = merged(ledger.replaced.remove(at).manifest, &current),
            // The job that has replaced this one's files replaces what was there before as well.
            Some(heir) if ledger.replaced_by(&heir).is_some() => {
                let before = ledger.replaced.remove(at).manifest;
                let of_heir = ledger.replaced_by(&heir);
                let of_heir = of_heir.expect("one of another job was removed");
                let of_heir = &mut ledger.replaced[of_heir].manifest;
                *of_heir = merged(before, of_heir);
            }
            // It has done so for good, and knows nothing of those files: they are removed with this one's.
            Some(_) => {}
        }
    }
    if current.job == job.as_str()
        && let Some(last) = ledger.last()
    {
        current.job = last.to_owned();
    }
    Change::write(current, ledger)
}

/// All that was there before a job, together with what others have added to its files since.
fn merged(before: Manifest, rest: &Manifest) -> Manifest {
    let generation = before.generation.max(rest.generation);
    let files = before.files.iter().chain(&rest.files);
    let files: BTreeMap<&str, ManifestFile> = files
        .map(|file| (file.name.as_str(), file.clone()))
        .collect();
    let files = files.into_values().collect();
    let like = match rest.files.is_empty() {
        true => before,
        false => rest.clone(),
    };
    Manifest { generation, ..like }.with_files(files)
}

/// Keys of the files that a job which succeeded has replaced, and that nobody lists.
pub(super) fn replaced_by(found: Option<&Manifest>, job: &JobId) -> Vec<String> {
    let Some(manifest) = found else {
        return Vec::new();
    };
    let listed: BTreeSet<&str> = manifest.files.iter().map(ManifestFile::key).collect();
    let ledger = manifest.ledger.iter();
    let replaced = ledger.flat_map(|ledger| &ledger.replaced);
    let replaced = replaced.filter(|replaced| replaced.by == job.as_str());
    let keys = replaced.flat_map(|replaced| replaced.manifest.files.iter().map(ManifestFile::key));
    let keys = keys.filter(|key| !listed.contains(key));
    keys.map(str::to_owned).collect()
}

/// Returns whether a job has replaced files that are not known to be gone.
pub(super) fn replaces(found: Option<&Manifest>, job: &JobId) -> bool {
    let ledger = found.and_then(|manifest| manifest.ledger.as_ref());
    ledger.is_some_and(|ledger| ledger.replaced_by(job.as_str()).is_some())
}

/// The manifest without the files that a job has replaced and that are `gone`. Others stay: those of a job that had
/// replaced them before, and was withdrawn meanwhile, are for this job to remove.
pub(super) fn without_replaced(found: Option<&Manifest>, job: &JobId, gone: &[String]) -> Change {
    let mut ledger = ledger_of(found);
    let (Some(found), Some(at)) = (found, ledger.replaced_by(job.as_str())) else {
        return Change::Nothing;
    };
    let listed = found.files.iter().map(ManifestFile::key);
    let over: BTreeSet<&str> = gone.iter().map(String::as_str).chain(listed).collect();
    let replaced = &mut ledger.replaced[at].manifest;
    let left = replaced.files.iter();
    let left = left.filter(|file| !over.contains(file.key()));
    let left: Vec<ManifestFile> = left.cloned().collect();
    if left.is_empty() {
        ledger.replaced.remove(at);
    } else if left.len() == replaced.files.len() {
        return Change::Nothing;
    } else {
        *replaced = replaced.clone().with_files(left);
    }
    Change::write(without_ledger(found), ledger)
}

#[cfg(test)]
mod tests;
