//! Clean-up of an output when its job has ended: staging folders and replaced files are removed. If
//! the job did not succeed, its publication is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use weft_core::JobId;
use weft_protocol::SinkFile;

use super::folder::FolderLock;
use super::generation::{chosen_generation, named};
use super::manifest::{
    MANIFEST, Manifest, ManifestFile, read_manifest, read_manifest_at, remove_manifest_at,
    write_manifest_at,
};
use super::staging::{EXTENDED, REPLACED, is_published, staging_folder, stagings, trash_folder};
use crate::error::{Error, Result};

/// Removes what a job that has ended left in an output's folder, and what it replaced. A folder
/// that is empty then goes too.
///
/// `withdraw`: the files of a job that did not succeed. Those that were renamed already are taken
/// back, and the manifest that was there before comes back. Repeating it changes nothing.
pub(super) fn clean_staging(
    output: &Path,
    job: &JobId,
    withdraw: Option<&[SinkFile]>,
) -> Result<()> {
    let staging = staging_folder(output, job);
    let trash = trash_folder(output, job);
    if staging.exists() {
        let _lock = FolderLock::take(output)?;
        match withdraw {
            Some(files) => withdraw_files(output, &staging, job, files)?,
            None => remove_replaced(output, &staging)?,
        }
        // All at once, so that a clean-up that is cut short does not look like a publication.
        match fs::rename(&staging, &trash) {
            // Whoever owns the output's folder has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(|error| Error::file(&staging, error))?,
        }
    }
    if trash.exists() {
        remove_folder(&trash)?;
        // Fails, and rightly, if the folder holds something.
        let _ = fs::remove_dir(output);
    }
    Ok(())
}

/// Takes back the files of a job that did not succeed.
fn withdraw_files(output: &Path, staging: &Path, job: &JobId, files: &[SinkFile]) -> Result<()> {
    let files = named(files, chosen_generation(staging)?.unwrap_or(0));
    withdraw_manifests(output, staging, job, &files)?;
    // A file that is still staged was never renamed, and what a manifest still lists is not this
    // job's: what has its name is somebody else's.
    let listed = listed_in(output);
    let mut ours = files
        .iter()
        .filter(|file| !staging.join(&file.staged).exists() && !listed.contains(&file.name));
    ours.try_for_each(|file| remove_file(output, &file.name, file.bytes))
}

/// Removes a file if it still has the size that it was written with, and folders of `partition_by`
/// that are empty then.
fn remove_file(output: &Path, name: &str, bytes: u64) -> Result<()> {
    let path = output.join(name);
    if fs::metadata(&path).is_ok_and(|found| found.len() == bytes) {
        fs::remove_file(&path).map_err(|error| Error::file(&path, error))?;
    }
    for folder in Path::new(name)
        .ancestors()
        .skip(1)
        .filter(|folder| *folder != Path::new(""))
    {
        // Fails, and rightly, if the folder holds something.
        if fs::remove_dir(output.join(folder)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Removes the files that a job has replaced, unless the folder's manifest lists them.
fn remove_replaced(output: &Path, staging: &Path) -> Result<()> {
    let Some(replaced) = read_manifest_at(&staging.join(REPLACED))? else {
        return Ok(());
    };
    let listed = listed_in(output);
    let mut gone = replaced
        .files
        .iter()
        .filter(|file| !listed.contains(&file.name));
    gone.try_for_each(|file| remove_file(output, &file.name, file.bytes))
}

/// Names of the files that the folder's manifest lists. What is no manifest any more lists nothing.
fn listed_in(output: &Path) -> BTreeSet<String> {
    let manifest = read_manifest(output).ok().flatten();
    let files = manifest.into_iter().flat_map(|manifest| manifest.files);
    files.map(|file| file.name).collect()
}

/// Takes the files of a job that had published them, and did not succeed, out of the folder's
/// manifest, and out of those that other jobs keep to go back to. The files that the job had
/// replaced take their place.
pub(super) fn withdraw_manifests(
    output: &Path,
    staging: &Path,
    job: &JobId,
    files: &[SinkFile],
) -> Result<()> {
    if !is_published(staging) {
        return Ok(());
    }
    let replaced = read_manifest_at(&staging.join(REPLACED))?;
    let extended = read_manifest_at(&staging.join(EXTENDED))?;
    let withdrawn = Withdrawn {
        job,
        ours: files.iter().map(|file| file.name.as_str()).collect(),
        comes_back: replaced.as_ref().map_or(Vec::new(), |replaced| {
            let there = |file: &&ManifestFile| output.join(&file.name).exists();
            replaced.files.iter().filter(there).cloned().collect()
        }),
        before: replaced.as_ref().or(extended.as_ref()),
    };
    let mut paths = vec![output.join(MANIFEST)];
    for other in stagings(output)?.iter().filter(|other| *other != staging) {
        paths.extend([other.join(REPLACED), other.join(EXTENDED)]);
    }
    let mut listed = BTreeSet::new();
    for path in paths {
        // What is no manifest is somebody else's.
        let Ok(Some(manifest)) = read_manifest_at(&path) else {
            continue;
        };
        match withdrawn.from(manifest) {
            Rest::All(manifest) => listed.extend(manifest.files.into_iter().map(|file| file.name)),
            Rest::Some(manifest) => {
                write_manifest_at(&path, &manifest)?;
                listed.extend(manifest.files.into_iter().map(|file| file.name));
            }
            Rest::Nothing => remove_manifest_at(&path)?,
        }
    }
    // Who replaced the job's files for good has removed them, and knows nothing of those that the
    // job had replaced.
    let is_gone = |name: &&str| !output.join(name).exists();
    if !withdrawn.ours.is_empty() && withdrawn.ours.iter().all(is_gone) {
        let comes_back = withdrawn.comes_back.iter();
        for file in comes_back.filter(|file| !listed.contains(&file.name)) {
            remove_file(output, &file.name, file.bytes)?;
        }
    }
    Ok(())
}

/// Removes a folder, if it is there.
fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(folder, error)),
        _ => Ok(()),
    }
}

/// A publication that is taken back.
struct Withdrawn<'a> {
    job: &'a JobId,
    ours: BTreeSet<&'a str>,
    /// The files that it had replaced and that are still there.
    comes_back: Vec<ManifestFile>,
    /// The manifest that was there before.
    before: Option<&'a Manifest>,
}

/// The rest of a manifest without a publication that is taken back.
enum Rest {
    /// All of it: it listed nothing of the publication.
    All(Manifest),
    Some(Manifest),
    Nothing,
}

impl Withdrawn<'_> {
    fn from(&self, manifest: Manifest) -> Rest {
        let is_ours = |file: &ManifestFile| self.ours.contains(file.name.as_str());
        let own = manifest.job == self.job.as_str();
        if !own && !manifest.files.iter().any(is_ours) {
            return Rest::All(manifest);
        }
        let rest = manifest.files.iter().filter(|file| !is_ours(file));
        let files = rest.chain(&self.comes_back).cloned();
        let files: BTreeMap<String, _> = files.map(|file| (file.name.clone(), file)).collect();
        let files = files.into_values().collect();
        match (own, self.before) {
            (false, _) => Rest::Some(manifest.with_files(files)),
            (true, Some(before)) => Rest::Some(before.clone().with_files(files)),
            (true, None) => Rest::Nothing,
        }
    }
}
