//! What is left of a job's output when the job has ended: staging folders go, and so does what was replaced; where the job did not
//! succeed, what it had published is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use weft_control::SinkFile;
use weft_core::JobId;

use super::manifest::{MANIFEST, Manifest, ManifestFile, encode, read_manifest, read_manifest_at};
use super::{
    EXTENDED, FolderLock, REPLACED, TRASH, chosen_generation, is_published, named, remove_if_there,
    staging_folder, stagings, write_durably,
};
use crate::error::{Error, Result};

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(folder, error)),
        _ => Ok(()),
    }
}

/// Removes what a job that has ended left in an output's folder, and what it replaced. `withdraw`: files of a job that did not
/// succeed, which are taken back where they were renamed already; the manifest that was there before comes back. A folder that
/// is empty then goes too. Repeating it changes nothing.
pub fn clean_staging(output: &Path, job: &JobId, withdraw: Option<&[SinkFile]>) -> Result<()> {
    let staging = staging_folder(output, job);
    let trash = output.join(format!(".weft-{job}{TRASH}"));
    if staging.exists() {
        let _lock = FolderLock::take(output)?;
        match withdraw {
            Some(files) => {
                let files = named(files, chosen_generation(&staging)?.unwrap_or(0));
                withdraw_manifests(output, &staging, job, &files)?;
                // A file that is still staged was never renamed, and what a manifest still lists is not this job's: what has its
                // name is somebody else's.
                let listed = listed_in(output);
                let ours = files.iter().filter(|file| {
                    !staging.join(&file.staged).exists() && !listed.contains(&file.name)
                });
                for file in ours {
                    remove_file(output, &file.name, file.bytes)?;
                }
            }
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
        remove(&trash)?;
        // Fails, and rightly, where the folder holds something.
        let _ = fs::remove_dir(output);
    }
    Ok(())
}

/// Removes a file if it still has the size that it was written with, and folders of `partition_by` that are empty then.
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
        // Fails, and rightly, where the folder holds something.
        if fs::remove_dir(output.join(folder)).is_err() {
            break;
        }
    }
    Ok(())
}

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

/// Takes the files of a job that had published them, and did not succeed, out of the folder's manifest, and out of those that
/// other jobs keep to go back to. What the job had replaced takes their place.
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
                write_durably(&path, &encode(&manifest)?)?;
                listed.extend(manifest.files.into_iter().map(|file| file.name));
            }
            Rest::Nothing => remove_if_there(&path)?,
        }
    }
    // Who replaced the job's files for good has removed them, and knows nothing of those that the job had replaced.
    let is_gone = |name: &&str| !output.join(name).exists();
    if !withdrawn.ours.is_empty() && withdrawn.ours.iter().all(is_gone) {
        let comes_back = withdrawn.comes_back.iter();
        for file in comes_back.filter(|file| !listed.contains(&file.name)) {
            remove_file(output, &file.name, file.bytes)?;
        }
    }
    Ok(())
}

/// A publication that is taken back.
struct Withdrawn<'a> {
    job: &'a JobId,
    ours: BTreeSet<&'a str>,
    /// Those of the files that it had replaced that are still there.
    comes_back: Vec<ManifestFile>,
    /// The manifest that was there before.
    before: Option<&'a Manifest>,
}

/// What is left of a manifest.
enum Rest {
    /// It had nothing of what is taken back.
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
