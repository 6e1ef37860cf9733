//! The hidden folder that a job has in the folder of an output, and the files that attempts write
//! there.
//!
//! ```text
//! <output>/.weft-<job>/
//!     <files of attempts>.part        are being written: no commit names them
//!     <files of attempts>             renamed into <output> when the job is published
//!     generation                      the generation that the job has chosen
//!     replaced.json, extended.json    the manifest that was there before the job's
//!     _weft.manifest                      the job's manifest, until it is renamed into <output>
//!     ready                           marks that manifest as complete
//! <output>/.weft-<job>.trash/         a staging folder that is being removed
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempPath;
use weft_core::JobId;
use weft_protocol::SinkFile;
use xxhash_rust::xxh3::Xxh3;

use super::manifest::MANIFEST;
use crate::durable::sync_file_and_folder;
use crate::error::{Error, Result};

/// Name of the previous manifest if its files are to be removed.
pub(super) const REPLACED: &str = "replaced.json";
/// Name of the previous manifest if its files stay.
pub(super) const EXTENDED: &str = "extended.json";
/// Name of the mark that the staged manifest is complete.
pub(super) const READY: &str = "ready";

/// End of the name of a file that its attempt has not finished.
pub(crate) const PART: &str = ".part";
/// Beginning of the names of staging folders.
const STAGING: &str = ".weft-job-";
/// End of the name of a staging folder that is being removed.
const TRASH: &str = ".trash";

/// Creates the staging folder of a job's output, so that a folder that cannot be written to is
/// found out before the work is done.
pub(super) fn prepare_output(output: &Path, job: &JobId) -> Result<()> {
    let folder = staging_folder(output, job);
    let probe = folder.join("probe");
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        File::create(&probe)?;
        fs::remove_file(&probe)
    };
    write().map_err(|error| Error::file(&folder, error))
}

/// A file in a staging folder that is being written; counts and hashes what passes through.
pub struct LocalFile {
    path: PathBuf,
    name: String,
    file: io::BufWriter<File>,
    /// The file until it is finished. One that never is may have filled the disk, and goes at once.
    draft: TempPath,
    bytes: Arc<AtomicU64>,
    hash: Xxh3,
}

impl LocalFile {
    /// Starts the file `name`, which must be the attempt's own, for `output`.
    pub(super) fn create(output: &Path, job: &JobId, name: &str) -> Result<Self> {
        let folder = staging_folder(output, job);
        fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        let path = folder.join(name);
        let failed = |error| Error::file(&path, error);
        let draft = folder.join(format!("{name}{PART}"));
        let file = File::create(&draft).map_err(failed)?;
        let draft = TempPath::try_from_path(draft).map_err(failed)?;
        Ok(Self {
            path,
            name: name.to_owned(),
            file: io::BufWriter::with_capacity(1 << 16, file),
            draft,
            bytes: Arc::default(),
            hash: Xxh3::new(),
        })
    }

    /// Bytes that were written so far, for those who have handed the file to an encoder.
    pub(super) fn written_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }

    /// Syncs the file and describes it. `published` is its name once it is published.
    pub(super) fn finish(self, output: &str, published: String, rows: u64) -> Result<SinkFile> {
        let failed = |error| Error::file(&self.path, error);
        let file = self
            .file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        let kept = self.draft.persist(&self.path);
        kept.map_err(|error| failed(error.error))?;
        sync_file_and_folder(&self.path)?;
        let xxh3 = format!("{:016x}", self.hash.digest());
        Ok(SinkFile {
            output: output.to_owned(),
            staged: self.name,
            name: published,
            rows,
            bytes: self.bytes.load(Ordering::Relaxed),
            xxh3,
        })
    }
}

impl Write for LocalFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        self.hash.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The staging folder of a job in the folder of an output.
pub(super) fn staging_folder(output: &Path, job: &JobId) -> PathBuf {
    output.join(format!(".weft-{job}"))
}

/// Returns whether a folder is a job's staging folder, or was.
pub(crate) fn is_staging(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(STAGING.as_bytes())
}

/// The name that a job's staging folder gets before it is removed.
pub(super) fn trash_folder(output: &Path, job: &JobId) -> PathBuf {
    output.join(format!(".weft-{job}{TRASH}"))
}

/// The staging folders of all jobs that write to `output`.
pub(super) fn stagings(output: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::file(output, error);
    let mut stagings = Vec::new();
    for entry in fs::read_dir(output).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(STAGING) && !name.ends_with(TRASH) {
            stagings.push(output.join(name.as_ref()));
        }
    }
    Ok(stagings)
}

/// Returns whether the job's manifest was renamed into the output's folder: it was ready, and is
/// not staged any more.
pub(super) fn is_published(staging: &Path) -> bool {
    staging.join(READY).exists() && !staging.join(MANIFEST).exists()
}
