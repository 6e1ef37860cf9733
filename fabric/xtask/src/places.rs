//! Where things lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folders that all verbs share.
pub(crate) struct Places {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// What we keep from run to run and can make again: `~/.cache/weft`.
    pub(crate) cache: PathBuf,
    /// Where cargo builds: `$CARGO_TARGET_DIR`, or `target` in the checkout.
    pub(crate) target: PathBuf,
}

impl Places {
    pub(crate) fn find() -> Result<Places> {
        // Not at compile time: checkouts may share a target folder, and a checkout may move.
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("this program is run by cargo: `cargo xtask VERB`")?;
        let root = Path::new(&package).join("../..").canonicalize()?;
        let home = std::env::var_os("HOME").context("HOME is not set")?;
        let cache = Path::new(&home).join(".cache/weft");
        let target = match std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty())
        {
            Some(folder) => std::path::absolute(folder)?,
            None => root.join("target"),
        };
        Ok(Places {
            root,
            cache,
            target,
        })
    }

    /// The `weft` binary, whether it is built or not.
    pub(crate) fn weft(&self) -> PathBuf {
        self.target.join("release/weft")
    }

    /// The built guests, `NAME.wasm`.
    pub(crate) fn guests(&self) -> PathBuf {
        self.target.join("guests")
    }

    /// Folders matching `parent/*/child` under the checkout that hold `file`, by name.
    ///
    /// `child` may be empty; a missing parent has no folders.
    pub(crate) fn folders_with(
        &self,
        parent: &str,
        child: &str,
        file: &str,
    ) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in subfolders(&self.root.join(parent))? {
            let folders = match child {
                "" => vec![folder],
                child => subfolders(&folder.join(child))?,
            };
            found.extend(
                folders
                    .into_iter()
                    .filter(|folder| folder.join(file).is_file()),
            );
        }
        Ok(found)
    }

    /// The crates of guests: examples, and what the tests of the fabric's crates run.
    pub(crate) fn guest_crates(&self) -> Result<Vec<PathBuf>> {
        let mut crates = self.folders_with("examples", "", "Cargo.toml")?;
        crates.extend(self.folders_with("fabric", "tests/guests", "Cargo.toml")?);
        Ok(crates)
    }
}

/// The folders in a folder, sorted; none where it does not exist.
fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", folder.display()));
        }
    };
    let mut folders = Vec::new();
    for entry in entries {
        folders.push(entry?.path());
    }
    folders.retain(|path| path.is_dir());
    folders.sort();
    Ok(folders)
}
