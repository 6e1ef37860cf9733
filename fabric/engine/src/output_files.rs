//! Files of a published output, as files that can be opened: those of an object store are fetched, one at a time.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use weft_core::{ErrorCode, Problem};
use weft_store::{Manifest, ManifestFile, OutputPlace};

/// The files of an output.
pub(crate) struct OutputFiles {
    place: OutputPlace,
    folder: PathBuf,
    /// Holds what was fetched, and removes it in the end.
    fetched: Option<TempDir>,
}

impl OutputFiles {
    /// Opens the place of an output. Files that are fetched lie in a folder of their own in `spill_folder`.
    pub(crate) fn new(place: OutputPlace, spill_folder: &Path) -> Result<Self, Problem> {
        let failed = |error: std::io::Error| {
            let detail = format!("`{}`: {error}", spill_folder.display());
            Problem::new(ErrorCode::StoreUnavailable, detail)
        };
        let (folder, fetched) = match &place {
            OutputPlace::Folder(folder) => (folder.clone(), None),
            OutputPlace::Objects(_) => {
                let fetched = TempDir::new_in(spill_folder).map_err(failed)?;
                (fetched.path().to_owned(), Some(fetched))
            }
        };
        Ok(Self {
            place,
            folder,
            fetched,
        })
    }

    /// The folder in which files lie by their keys.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest of the output, if there is one.
    pub(crate) async fn manifest(&self) -> Result<Option<Manifest>, Problem> {
        let found = self.place.read_manifest().await;
        found.map_err(|error| error.problem())
    }

    /// Sees to it that a file can be opened.
    pub(crate) async fn fetch(&self, file: &ManifestFile) -> Result<(), Problem> {
        let OutputPlace::Objects(objects) = &self.place else {
            return Ok(());
        };
        let to = self.folder.join(file.key());
        if to.exists() {
            return Ok(());
        }
        let fetched = objects.fetch(file, &to).await;
        fetched.map_err(|error| error.problem())
    }

    /// Makes room for the next file.
    pub(crate) fn drop_fetched(&self, file: &ManifestFile) {
        if self.fetched.is_some() {
            // The folder is removed as a whole in the end.
            let _ = std::fs::remove_file(self.folder.join(file.key()));
        }
    }
}
