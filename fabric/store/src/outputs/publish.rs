//! Publication of one output: files are renamed into the folder, then the manifest that lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use weft_core::JobId;
use weft_core::job::OutputMode;
use weft_protocol::{ManifestOutput, PublishedOutput, SinkFile};

use super::folder::FolderLock;
use super::generation::{choose_generation, named, next_generation};
use super::manifest::{
    MANIFEST, Manifest, ManifestFile, read_manifest, remove_earlier_manifest, remove_manifest_at,
    write_manifest_at,
};
use super::staging::{EXTENDED, READY, REPLACED, is_published, staging_folder};
use crate::durable::{sync, write_durably};
use crate::error::{Error, Result};

/// Makes the files of one output visible, then writes its manifest.
///
/// Staging folders stay until the job is archived, so that renamed files can still be told from
/// those that are not. The previous manifest stays, too: what it lists is removed only then.
///
/// Repeating it changes nothing. Errors: `OutputExists` if a file of somebody else has a name of
/// ours, `StagedFileLost`.
pub(super) fn publish(job: &JobId, output: &ManifestOutput) -> Result<PublishedOutput> {
    let folder = Path::new(&output.folder);
    let staging = staging_folder(folder, job);
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    let _lock = FolderLock::take(folder)?;
    // Another job may have written to the folder since this one's manifest stood there.
    if !is_published(&staging) {
        // The folder of an output without rows has not been made by a task.
        fs::create_dir_all(&staging).map_err(|error| Error::file(&staging, error))?;
        let previous = keep_previous(job, folder, &staging, output)?;
        let generation = choose_generation(folder, &staging, output, previous.as_ref())?;
        let files = named(&output.files, generation);
        for file in &files {
            weft_failpoint::hit("publish");
            publish_file(folder, &staging, file)?;
        }
        sync_folders(folder, &files)?;
        let manifest = manifest(job, output, &files, previous.as_ref(), generation);
        publish_manifest(folder, &staging, &manifest, previous.is_some())?;
        weft_failpoint::hit("publish-manifest");
    }
    // An attempt before this one may have died between the renaming and this.
    sync(folder)?;
    remove_earlier_manifest(folder)?;
    Ok(published(output))
}

/// Summary of a published output, which the state keeps.
pub(super) fn published(output: &ManifestOutput) -> PublishedOutput {
    let sum = |of: fn(&SinkFile) -> u64| output.files.iter().map(of).sum();
    PublishedOutput {
        name: output.name.clone(),
        uri: (!output.is_kept).then(|| output.folder.clone()),
        files: output.files.len() as u64,
        rows: sum(|file| file.rows),
        bytes: sum(|file| file.bytes),
    }
}

/// Keeps the manifest that was there before the job in the staging folder, and returns it.
fn keep_previous(
    job: &JobId,
    folder: &Path,
    staging: &Path,
    output: &ManifestOutput,
) -> Result<Option<Manifest>> {
    let kept = match output.mode {
        OutputMode::Error => return Ok(None),
        OutputMode::Overwrite => staging.join(REPLACED),
        OutputMode::Append => staging.join(EXTENDED),
    };
    // The manifest that is there now counts: another job may have been faster than this one, or
    // than its first attempt.
    let found = read_manifest(folder)?.filter(|manifest| manifest.job != job.as_str());
    if let (OutputMode::Append, Some(manifest)) = (output.mode, &found) {
        manifest.check_append(output)?;
    }
    match &found {
        Some(manifest) => write_manifest_at(&kept, manifest)?,
        None => remove_manifest_at(&kept)?,
    }
    Ok(found)
}

/// Renames a file into the folder, unless an attempt that died has renamed it before.
pub(super) fn publish_file(folder: &Path, staging: &Path, file: &SinkFile) -> Result<()> {
    let (staged, published) = (staging.join(&file.staged), folder.join(&file.name));
    if file.name.contains('/') {
        let parent = published.parent().expect("a file lies in a folder");
        fs::create_dir_all(parent).map_err(|error| Error::file(parent, error))?;
    }
    match renameat_with(CWD, &staged, CWD, &published, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(Error::OutputExists(published.display().to_string())),
        Err(Errno::NOENT) => match fs::metadata(&published) {
            Ok(found) if found.len() == file.bytes => Ok(()),
            _ => Err(Error::StagedFileLost(staged.display().to_string())),
        },
        Err(error) => Err(Error::file(&published, error.into())),
    }
}

/// Syncs the folders that files of `partition_by` were renamed into, and those above them.
fn sync_folders(output: &Path, files: &[SinkFile]) -> Result<()> {
    let parents = files
        .iter()
        .flat_map(|file| Path::new(&file.name).ancestors().skip(1));
    let parents: BTreeSet<&Path> = parents.collect();
    let mut parents = parents.into_iter().map(|parent| output.join(parent));
    parents.try_for_each(|folder| sync(&folder))
}

/// The manifest of the folder once the job is published.
fn manifest(
    job: &JobId,
    output: &ManifestOutput,
    ours: &[SinkFile],
    previous: Option<&Manifest>,
    generation: u32,
) -> Manifest {
    let file = |file: &SinkFile| ManifestFile {
        name: file.name.clone(),
        key: None,
        rows: file.rows,
        bytes: file.bytes,
        xxh3: file.xxh3.clone(),
    };
    let mut files: BTreeMap<&str, ManifestFile> = BTreeMap::new();
    if let (OutputMode::Append, Some(previous)) = (output.mode, previous) {
        files.extend(
            previous
                .files
                .iter()
                .map(|file| (file.name.as_str(), file.clone())),
        );
    }
    files.extend(ours.iter().map(|ours| (ours.name.as_str(), file(ours))));
    let manifest = Manifest {
        job: job.to_string(),
        output: output.name.clone(),
        format: output.format.clone(),
        schema: output.schema.clone(),
        partition_by: output.partition_by.clone(),
        generation: next_generation(previous).max(generation),
        files: Vec::new(),
        rows: 0,
        bytes: 0,
        ledger: None,
    };
    manifest.with_files(files.into_values().collect())
}

/// Stages the manifest, marks it as complete, and renames it into the folder.
fn publish_manifest(
    folder: &Path,
    staging: &Path,
    manifest: &Manifest,
    replaces: bool,
) -> Result<()> {
    let path = folder.join(MANIFEST);
    let staged = staging.join(MANIFEST);
    write_manifest_at(&staged, manifest)?;
    write_durably(&staging.join(READY), b"")?;
    let flags = match replaces {
        true => RenameFlags::empty(),
        false => RenameFlags::NOREPLACE,
    };
    match renameat_with(CWD, &staged, CWD, &path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(Error::OutputExists(path.display().to_string())),
        Err(error) => Err(Error::file(&path, error.into())),
    }
}
