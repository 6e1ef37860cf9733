//! The place of an output: a folder of files, or one of an object store.

use std::path::{Path as FsPath, PathBuf};

use object_store::path::Path;
use weft_core::job::OutputSpec;
use weft_core::{JobId, Location};
use weft_protocol::{KEPT_OUTPUTS, ManifestOutput, PublishedOutput, SinkFile, kept_output_key};

use super::cleanup::clean_staging;
use super::folder::{Holding, look_into};
use super::manifest::{Manifest, read_manifest};
use super::objects::{Ended, ObjectFolder};
use super::publish::publish;
use super::staging::prepare_output;
use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::grants::Grants;

/// The place of an output.
#[derive(Debug, Clone)]
pub enum OutputPlace {
    /// A folder of the file system, where files are renamed.
    Folder(PathBuf),
    /// A folder of an object store, where uploads are completed.
    Objects(ObjectFolder),
}

impl Blobs {
    /// The place of a job's output: the user's, or the one that the store has for it.
    ///
    /// Errors: `NotAllowed` if jobs may not use the location, `Unpublishable` for a kind of store without outputs.
    pub fn output_place(&self, job: &JobId, output: &OutputSpec) -> Result<OutputPlace> {
        match output.path() {
            Some(path) => self.place_of(path),
            None => self.kept_place(job, &output.name),
        }
    }

    /// The place that a path or a location such as `s3://bucket/out/` names.
    pub fn place_of(&self, path: &str) -> Result<OutputPlace> {
        if !Location::is_one(path) {
            return Ok(OutputPlace::Folder(PathBuf::from(path)));
        }
        let location = Location::parse(path).map_err(Error::Encoding)?;
        let folder = self.grants().output_folder(&location)?;
        Ok(OutputPlace::Objects(folder))
    }

    /// The place in the cluster's store of an output that it keeps.
    pub fn kept_place(&self, job: &JobId, output: &str) -> Result<OutputPlace> {
        let key = kept_output_key(job, output);
        match self.remote() {
            None => self.local_path(&key).map(OutputPlace::Folder),
            Some(remote) => {
                let root = remote.path(&key);
                let folder = ObjectFolder::new(remote.clone(), root)?;
                Ok(OutputPlace::Objects(folder.of_cluster()))
            }
        }
    }

    /// Grants that reach the outputs which the cluster keeps in its bucket, and nothing else: statements read them as
    /// tables, and no job names them. They reach nothing if the store is a folder, whose files have paths.
    pub fn kept_grants(&self) -> Grants {
        self.remote().map_or_else(Grants::default, |remote| {
            Grants::below(remote.clone(), KEPT_OUTPUTS)
        })
    }
}

impl Grants {
    /// The folder of outputs at a location.
    ///
    /// Errors: `NotAllowed` if jobs may not use it or the cluster's own objects lie in it, `Unpublishable` for a kind
    /// of store without outputs.
    pub fn output_folder(&self, location: &Location) -> Result<ObjectFolder> {
        let remote = self.find_for_output(location)?;
        let root = Path::parse(&location.key);
        let root = root.map_err(|error| Error::Encoding(error.to_string()))?;
        ObjectFolder::new(remote.clone(), root)
    }
}

impl OutputPlace {
    /// Finds out whether a job can write here, before the work is done.
    pub async fn prepare(&self, job: &JobId) -> Result<()> {
        match self {
            Self::Folder(folder) => prepare_output(folder, job),
            Self::Objects(folder) => folder.prepare(job).await,
        }
    }

    /// Looks into the place, as a new job finds it.
    pub async fn look_into(&self) -> Result<Holding> {
        match self {
            Self::Folder(folder) => look_into(folder),
            Self::Objects(folder) => folder.look_into().await,
        }
    }

    /// The manifest of the place, if it has one.
    pub async fn read_manifest(&self) -> Result<Option<Manifest>> {
        match self {
            Self::Folder(folder) => read_manifest(folder),
            Self::Objects(folder) => folder.read_manifest().await,
        }
    }

    /// Makes the files of an output visible. Repeating it changes nothing.
    pub async fn publish(
        &self,
        blobs: &Blobs,
        job: &JobId,
        output: &ManifestOutput,
    ) -> Result<PublishedOutput> {
        match self {
            Self::Folder(_) => publish(job, output),
            Self::Objects(folder) => folder.publish(blobs, job, output).await,
        }
    }

    /// Removes what a job that has ended left here. Repeating it changes nothing.
    ///
    /// `output`: with all files that its tasks committed.
    pub async fn clean(
        &self,
        blobs: &Blobs,
        job: &JobId,
        output: &ManifestOutput,
        ended: Ended,
    ) -> Result<()> {
        match self {
            Self::Folder(folder) => clean_folder(folder, job, &output.files, ended).await,
            Self::Objects(folder) => folder.clean(blobs, job, output, ended).await,
        }
    }

    /// Aborts uploads of attempts of a job that has ended, which no commit names. Returns how many there were.
    pub async fn abort_uploads_of(&self, job: &JobId) -> Result<usize> {
        match self {
            // What is staged in a folder goes with the staging folder.
            Self::Folder(_) => Ok(0),
            Self::Objects(folder) => folder.abort_uploads_of(job).await,
        }
    }
}

impl std::fmt::Display for OutputPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Objects(folder) => f.write_str(&folder.uri()),
        }
    }
}

/// Cleans up in a folder, on a thread that may wait: folders may be large, and may lie on disks that are slow.
async fn clean_folder(
    folder: &FsPath,
    job: &JobId,
    files: &[SinkFile],
    ended: Ended,
) -> Result<()> {
    let (folder, job) = (folder.to_owned(), job.clone());
    let withdraw = (ended != Ended::Succeeded).then(|| files.to_vec());
    let clean = move || clean_staging(&folder, &job, withdraw.as_deref());
    let cleaned = tokio::task::spawn_blocking(clean).await;
    cleaned.map_err(|error| Error::Encoding(error.to_string()))?
}
