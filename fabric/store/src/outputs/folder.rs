//! The folder of an output: its contents as a new job finds them, and the lock on it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::generation::GENERATION;
use super::manifest::{Manifest, read_manifest};
use super::staging::stagings;
use crate::error::{Error, Result};

/// Contents of the folder of an output.
#[derive(Debug)]
pub enum Holding {
    /// Nothing that readers see.
    Nothing,
    /// The files of jobs, with their manifest.
    Output(Box<Manifest>),
    /// Files of a job that died while it published them, and will go on.
    Unfinished,
    /// Files that no job has written.
    Foreign,
}

/// Looks into the folder of an output, while no job publishes there.
pub(super) fn look_into(output: &Path) -> Result<Holding> {
    let _lock = match FolderLock::take(output) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Holding::Nothing);
        }
        lock => lock?,
    };
    if folder_is_free(output)? {
        return Ok(Holding::Nothing);
    }
    if let Some(manifest) = read_manifest(output)? {
        return Ok(Holding::Output(Box::new(manifest)));
    }
    let is_unfinished = |staging: &PathBuf| staging.join(GENERATION).exists();
    Ok(match stagings(output)?.iter().any(is_unfinished) {
        true => Holding::Unfinished,
        false => Holding::Foreign,
    })
}

/// Returns whether nothing that readers see lies in `output`.
pub(super) fn folder_is_free(output: &Path) -> Result<bool> {
    match fs::read_dir(output) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry.map_err(|error| Error::file(output, error))?;
                if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::file(output, error)),
    }
}

/// The right to publish into a folder, or to clean up in it: one process has it at a time. The
/// lock ends with the value, and with the process.
pub(super) struct FolderLock(#[expect(dead_code, reason = "it is held")] File);

impl FolderLock {
    /// Waits for the lock on `folder`, which must be there.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let take = || -> io::Result<File> {
            let folder = File::open(folder)?;
            flock(&folder, FlockOperation::LockExclusive)?;
            Ok(folder)
        };
        take().map(Self).map_err(|error| Error::file(folder, error))
    }
}
