//! Files of attempts that nobody sees before the job is published: in a staging folder, or as uploads.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use weft_core::JobId;
use weft_protocol::SinkFile;

use super::objects::{UploadFile, Uploader};
use super::place::OutputPlace;
use super::staging::LocalFile;
use crate::blobs::Blobs;
use crate::error::Result;

/// The files of one attempt for one output.
pub struct Staging {
    attempt: String,
    to: To,
}

enum To {
    Folder { folder: PathBuf, job: JobId },
    Uploads(Uploader),
}

impl Staging {
    /// Begins the files of an attempt, on a thread that may wait.
    ///
    /// `attempt`: its name, which no other attempt has. `list`: key in `blobs`, the cluster's store, of the list of
    /// uploads, if the place is on an object store. What is on its way there waits in unnamed files in `spool`.
    pub fn new(
        place: OutputPlace,
        blobs: &Blobs,
        job: &JobId,
        attempt: String,
        list: String,
        spool: &Path,
    ) -> Self {
        let to = match place {
            OutputPlace::Folder(folder) => To::Folder {
                folder,
                job: job.clone(),
            },
            OutputPlace::Objects(folder) => {
                let uploader = Uploader::start(folder, blobs.clone(), job, &attempt, list, spool);
                To::Uploads(uploader)
            }
        };
        Self { attempt, to }
    }

    /// Starts the file `name`, as it is called once it is published. `position`: how many the attempt has started.
    pub fn create(&self, position: usize, name: &str) -> Result<StagedFile> {
        match &self.to {
            To::Folder { folder, job } => {
                let base = name.rsplit('/').next().unwrap_or(name);
                let staged = format!("{}-{position}-{base}", self.attempt);
                LocalFile::create(folder, job, &staged).map(StagedFile::Local)
            }
            To::Uploads(uploader) => uploader.file(name).map(StagedFile::Upload),
        }
    }

    /// Ends the attempt's files: from now on whoever commits them owns them.
    pub fn finish(self) -> Result<()> {
        match self.to {
            To::Folder { .. } => Ok(()),
            To::Uploads(uploader) => uploader.finish(),
        }
    }
}

/// A file that is being written, and that nobody sees before the job is published.
pub enum StagedFile {
    /// In a staging folder.
    Local(LocalFile),
    /// On its way to an object store.
    Upload(UploadFile),
}

impl StagedFile {
    /// Bytes that were written so far, for those who have handed the file to an encoder.
    pub fn written_bytes(&self) -> Arc<AtomicU64> {
        match self {
            Self::Local(file) => file.written_bytes(),
            Self::Upload(file) => file.written_bytes(),
        }
    }

    /// Ends the file and describes it. `name`: as it is called once it is published.
    pub fn finish(self, output: &str, name: String, rows: u64) -> Result<SinkFile> {
        match self {
            Self::Local(file) => file.finish(output, name, rows),
            Self::Upload(file) => file.finish(output, name, rows),
        }
    }
}

impl Write for StagedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Local(file) => file.write(buffer),
            Self::Upload(file) => file.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Local(file) => file.flush(),
            Self::Upload(file) => file.flush(),
        }
    }
}
