//! What `_weft.json` says, and how it is read.

use std::fs;
use std::io;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use weft_control::SinkFile;
use weft_core::job::{OutputMode, OutputSpec};

use crate::error::{Error, Result};

/// Name of the manifest in an output folder.
pub const MANIFEST: &str = "_weft.json";
/// Bytes of a manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// One output of a job, to be published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestOutput {
    /// Its name in the job file.
    pub name: String,
    /// The folder.
    pub folder: String,
    /// Its format.
    pub format: String,
    /// Its columns, as text.
    pub schema: Vec<(String, String)>,
    /// Its files.
    pub files: Vec<SinkFile>,
    /// Columns whose values name folders.
    pub partition_by: Vec<String>,
    /// What becomes of files that the folder's manifest lists already.
    pub mode: OutputMode,
}

impl ManifestOutput {
    /// These files of an output, with these columns.
    pub fn new(output: &OutputSpec, schema: Vec<(String, String)>, files: Vec<SinkFile>) -> Self {
        Self {
            name: output.name.clone(),
            folder: output.path.clone(),
            format: output.format.name().into(),
            schema,
            files,
            partition_by: output.partition_by.clone(),
            mode: output.mode,
        }
    }
}

/// A file as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name in the folder.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// xxh3 of its bytes, 16 hex digits.
    pub xxh3: String,
}

/// What `_weft.json` says: readers who need all or nothing read it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job that wrote the folder.
    pub job: String,
    /// The output's name in the job file.
    pub output: String,
    /// Format of the files.
    pub format: String,
    /// Columns and their types, as text.
    pub schema: Vec<(String, String)>,
    /// Columns whose values name folders.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// How often jobs wrote to the folder before this one.
    #[serde(default)]
    pub generation: u32,
    /// The files, by name.
    pub files: Vec<ManifestFile>,
    /// Rows in all of them.
    pub rows: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Manifest {
    pub(super) fn with_files(self, files: Vec<ManifestFile>) -> Manifest {
        let sum = |of: fn(&ManifestFile) -> u64| files.iter().map(of).fold(0, u64::saturating_add);
        Manifest {
            rows: sum(|file| file.rows),
            bytes: sum(|file| file.bytes),
            files,
            ..self
        }
    }

    /// Errors: `AppendMismatch` where the files of this output cannot be read together with those that are there.
    pub fn check_append(&self, output: &ManifestOutput) -> Result<()> {
        let theirs = if self.format != output.format {
            "another format"
        } else if self.schema != output.schema {
            "other columns"
        } else if self.partition_by != output.partition_by {
            "another `partition_by`"
        } else {
            return Ok(());
        };
        Err(Error::AppendMismatch {
            output: output.name.clone(),
            folder: output.folder.clone(),
            theirs,
        })
    }
}

/// The manifest of a folder, if it has one.
pub fn read_manifest(folder: &Path) -> Result<Option<Manifest>> {
    read_manifest_at(&folder.join(MANIFEST))
}

pub(super) fn read_manifest_at(path: &Path) -> Result<Option<Manifest>> {
    let wrong = |what: &str| Error::Encoding(format!("`{}`: {what}", path.display()));
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(wrong("it is not a file")),
        Ok(found) if found.len() > MANIFEST_BYTES_MAX => return Err(wrong("it is too large")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file(path, error)),
    }
    let text = fs::read(path).map_err(|error| Error::file(path, error))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| wrong(&error.to_string()))?;
    // Whoever wrote it: what it names is read, and removed.
    match manifest.files.iter().all(|file| is_within(&file.name)) {
        true => Ok(Some(manifest)),
        false => Err(wrong("it names files outside of its folder")),
    }
}

/// True for a relative path that stays below its folder.
fn is_within(name: &str) -> bool {
    let path = Path::new(name);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    !name.is_empty() && path.components().all(plain)
}

pub(super) fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(manifest).map_err(|error| Error::Encoding(error.to_string()))
}
