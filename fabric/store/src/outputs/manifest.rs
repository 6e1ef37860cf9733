//! The manifest `_weft.manifest`: its contents, and how it is read and written.

use std::fs;
use std::io;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use weft_protocol::ManifestOutput;

use super::objects::{Ledger, holds_output};
use crate::durable::write_durably;
use crate::error::{Error, Result};

/// Name of the manifest in an output folder.
///
/// It has no extension of a data format, so that `*.json` finds only data.
pub const MANIFEST: &str = "_weft.manifest";
/// Name of the manifest in folders that earlier builds have published.
pub(super) const EARLIER_MANIFEST: &str = "_weft.json";
/// Largest manifest that is read.
pub(super) const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// A file as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Name in the folder, the same whichever attempt wrote the file.
    pub name: String,
    /// Key below the folder, on an object store: files are not renamed there, so it holds job and attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Rows in it.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// xxh3 of its bytes, 16 hex digits.
    pub xxh3: String,
}

impl ManifestFile {
    /// Path of the file below the folder: its key, or else its name.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.name)
    }
}

/// The contents of `_weft.manifest`. Readers who need all or nothing read it first.
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
    /// Publications and withdrawals, on an object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
}

impl Manifest {
    /// The same manifest with other files, and their sums.
    pub(super) fn with_files(self, files: Vec<ManifestFile>) -> Manifest {
        let sum = |of: fn(&ManifestFile) -> u64| files.iter().map(of).fold(0, u64::saturating_add);
        Manifest {
            rows: sum(|file| file.rows),
            bytes: sum(|file| file.bytes),
            files,
            ..self
        }
    }

    /// Returns whether the folder holds an output. A manifest that only says that a job was withdrawn does not say so.
    pub fn holds_output(&self) -> bool {
        holds_output(self)
    }

    /// Checks that the files of an output can be read together with those that are there.
    ///
    /// Errors: `AppendMismatch` if the format, the columns or `partition_by` differ.
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
    match read_manifest_at(&folder.join(MANIFEST))? {
        None => read_manifest_at(&folder.join(EARLIER_MANIFEST)),
        found => Ok(found),
    }
}

/// Removes the manifest that an earlier build has left in a folder which has one by the name of
/// today. A file of the same name that is no manifest is somebody else's, and stays.
pub(super) fn remove_earlier_manifest(folder: &Path) -> Result<()> {
    let earlier = folder.join(EARLIER_MANIFEST);
    match read_manifest_at(&earlier) {
        Ok(Some(_)) => remove_manifest_at(&earlier),
        _ => Ok(()),
    }
}

/// Reads the manifest at a path, if there is one.
pub(super) fn read_manifest_at(path: &Path) -> Result<Option<Manifest>> {
    let wrong = |what: &str| Error::ForeignManifest {
        uri: path.display().to_string(),
        what: what.to_owned(),
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(wrong("it is not a file")),
        Ok(found) if found.len() > MANIFEST_BYTES_MAX => return Err(wrong("it is too large")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file(path, error)),
    }
    let text = fs::read(path).map_err(|error| Error::file(path, error))?;
    decode_manifest(&text)
        .map(Some)
        .map_err(|what| wrong(&what))
}

/// Decodes a manifest. Errors: what is wrong with it.
pub(super) fn decode_manifest(text: &[u8]) -> std::result::Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    // Whoever wrote it: what it names is read, and removed.
    let stays = |file: &ManifestFile| is_within(&file.name) && is_within(file.key());
    let replaced = manifest.ledger.iter().flat_map(Ledger::replaced_files);
    let all_stay = manifest.files.iter().chain(replaced).all(stays);
    match all_stay {
        true => Ok(manifest),
        false => Err("it names files outside of its folder".into()),
    }
}

/// Returns whether a name is a relative path that stays below its folder.
pub(super) fn is_within(name: &str) -> bool {
    let path = Path::new(name);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    !name.is_empty() && path.components().all(plain)
}

/// Writes a manifest that is there as a whole or not at all.
pub(super) fn write_manifest_at(path: &Path, manifest: &Manifest) -> Result<()> {
    let text = serde_json::to_vec_pretty(manifest);
    let text = text.map_err(|error| Error::Encoding(error.to_string()))?;
    write_durably(path, &text)
}

/// Removes the manifest at a path, if there is one.
pub(super) fn remove_manifest_at(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(path, error)),
        _ => Ok(()),
    }
}
