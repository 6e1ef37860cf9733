//! Components of earlier builds, by a digest of all that a build reads.
//!
//! `componentize-py` makes other bytes each time, and a version that is deployed accepts no other bytes. The same
//! inputs therefore give the component of the first build again:
//!
//! ```text
//!   tool's version, SDK, project, installed packages --SHA-256--> ~/.cache/weft/components/DIGEST.wasm
//! ```
//!
//! Sources count by their content, installed packages by the sizes and times of their files: these are many, and the
//! project uses few of them.

use std::fs::{File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// Components that are kept, about 18 MB each.
const COMPONENTS_MAX: usize = 32;
/// Files and folders of the sources; a project that has more is built anew each time.
const SOURCES_MAX: usize = 10_000;
/// Bytes of the sources.
const SOURCE_BYTES_MAX: u64 = 256 << 20;
/// Files and folders of installed packages.
const INSTALLED_MAX: usize = 100_000;
/// Files whose folder holds no sources: a cache, and a virtual environment.
const MARKERS: [&str; 2] = ["CACHEDIR.TAG", "pyvenv.cfg"];

/// Inputs of a build.
pub(crate) struct Inputs<'a> {
    /// The tool's version.
    pub(crate) tool: &'a str,
    /// Folders of sources: the project, the SDK and the contract.
    pub(crate) sources: &'a [&'a Path],
    /// Folders of installed packages; some may be missing.
    pub(crate) installed: &'a [PathBuf],
}

impl Inputs<'_> {
    /// SHA-256 of all inputs in hexadecimal digits. `None` if they are too many, or if one cannot be read.
    pub(crate) fn digest(&self) -> Option<String> {
        let mut sum = Sha256::new();
        add(&mut sum, self.tool.as_bytes());
        let (mut entries_left, mut bytes_left) = (SOURCES_MAX, SOURCE_BYTES_MAX);
        for folder in self.sources {
            let files = files(folder, &mut entries_left)?;
            add(&mut sum, &files.len().to_le_bytes());
            for (path, metadata) in files {
                bytes_left = bytes_left.checked_sub(metadata.len())?;
                add(&mut sum, path.as_os_str().as_bytes());
                add(&mut sum, &std::fs::read(folder.join(&path)).ok()?);
            }
        }
        let mut entries_left = INSTALLED_MAX;
        for folder in self.installed.iter().filter(|folder| folder.is_dir()) {
            add(&mut sum, folder.as_os_str().as_bytes());
            for (path, metadata) in files(folder, &mut entries_left)? {
                add(&mut sum, path.as_os_str().as_bytes());
                add(&mut sum, &metadata.len().to_le_bytes());
                add(&mut sum, &metadata.mtime().to_le_bytes());
                add(&mut sum, &metadata.mtime_nsec().to_le_bytes());
            }
        }
        let digits = sum.finalize();
        Some(digits.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Adds a field with its length, so that neighbours cannot be taken for one another.
fn add(sum: &mut Sha256, field: &[u8]) {
    sum.update((field.len() as u64).to_le_bytes());
    sum.update(field);
}

/// The files below `root` by their paths from there, sorted. Links are followed; each entry takes one of
/// `entries_left`, which also ends a circle of links.
fn files(root: &Path, entries_left: &mut usize) -> Option<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in root.join(&folder).read_dir().ok()? {
            let path = folder.join(entry.ok()?.file_name());
            if is_left_out(&path) {
                continue;
            }
            *entries_left = entries_left.checked_sub(1)?;
            let full = root.join(&path);
            let metadata = std::fs::metadata(&full).ok()?;
            if metadata.is_file() {
                found.push((path, metadata));
            } else if metadata.is_dir() && !MARKERS.iter().any(|name| full.join(name).is_file()) {
                folders.push(path);
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Some(found)
}

/// True for names that no build reads: hidden ones, compiled Python, and components.
fn is_left_out(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    name.starts_with(b".") || name == b"__pycache__" || name.ends_with(b".wasm")
}

/// A folder of components that were built, each named by the digest of its inputs.
pub(crate) struct ComponentCache(PathBuf);

impl ComponentCache {
    /// The cache in `folder`, which is created with the first component.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The component of these inputs, which then counts as the newest.
    pub(crate) fn get(&self, digest: &str) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let component = std::fs::read(&path).ok()?;
        let now = || Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now(),
            last_modification: now(),
        };
        // A component that stays as old as it is goes earlier, which is no reason to fail.
        let _ = File::open(&path).map(|file| futimens(&file, &times));
        Some(component)
    }

    /// Keeps a component, and removes the oldest ones past the bound. The file appears whole or not at all.
    pub(crate) fn put(&self, digest: &str, component: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let mut file = NamedTempFile::new_in(&self.0)?;
        file.write_all(component)?;
        file.as_file().sync_all()?;
        file.persist(self.path(digest))
            .map_err(|refused| refused.error)?;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in self.0.read_dir()? {
            let path = entry?.path();
            // Another build may have removed it a moment ago.
            if let Ok(modified) = std::fs::metadata(&path).and_then(|found| found.modified()) {
                kept.push((modified, path));
            }
        }
        kept.sort();
        for (_, path) in kept.iter().rev().skip(COMPONENTS_MAX) {
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.0.join(format!("{digest}.wasm"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tempfile::TempDir;

    use super::*;

    fn write(folder: &TempDir, path: &str, text: &str) {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("created");
        std::fs::write(path, text).expect("written");
    }

    /// A project of two files.
    fn project() -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        write(&folder, "app.py", "import weft\n");
        write(&folder, "weft/weft.wit", "package a:b;\n");
        folder
    }

    fn digest(tool: &str, project: &TempDir, installed: &[PathBuf]) -> Option<String> {
        let inputs = Inputs {
            tool,
            sources: &[project.path()],
            installed,
        };
        inputs.digest()
    }

    fn digest_of(project: &TempDir) -> String {
        digest("1", project, &[]).expect("a small project")
    }

    #[test]
    fn equal_inputs_have_one_digest() {
        let (one, other) = (project(), project());
        assert_eq!(digest_of(&one), digest_of(&one));
        assert_eq!(digest_of(&one), digest_of(&other));
        assert_eq!(digest_of(&one).len(), 64);
    }

    #[test]
    fn every_input_counts() {
        let first = digest_of(&project());
        for (path, text) in [
            ("app.py", "import weft\r"),
            ("weft/weft.wit", "package a:c;\n"),
            ("more.py", ""),
            ("data/words.txt", "a"),
            ("target/app.py", ""),
            ("venv/app.py", ""),
        ] {
            let changed = project();
            write(&changed, path, text);
            assert_ne!(digest_of(&changed), first, "{path}");
        }
        let another_tool = digest("2", &project(), &[]);
        assert_ne!(another_tool.as_deref(), Some(first.as_str()));
    }

    #[test]
    fn bytes_that_move_from_one_file_to_another_count() {
        let (one, other) = (project(), project());
        write(&one, "a", "b");
        write(&other, "ab", "");
        assert_ne!(digest_of(&one), digest_of(&other));
    }

    #[test]
    fn files_that_no_build_reads_do_not_count() {
        let folder = project();
        let first = digest_of(&folder);
        for path in [
            ".git/HEAD",
            ".venv/lib/x.py",
            ".app.py.swp",
            "__pycache__/app.cpython-311.pyc",
            "weft/__pycache__/x.pyc",
            "words.wasm",
            "target/CACHEDIR.TAG",
            "target/x.py",
            "venv/pyvenv.cfg",
            "venv/lib/x.py",
        ] {
            write(&folder, path, "x");
        }
        assert_eq!(digest_of(&folder), first);
    }

    #[test]
    fn installed_packages_count_and_may_be_missing() {
        let (folder, packages) = (project(), project());
        let installed = [packages.path().to_owned(), packages.path().join("none")];
        let first = digest("1", &folder, &installed);
        assert_ne!(first.as_deref(), Some(digest_of(&folder).as_str()));
        assert_eq!(digest("1", &folder, &installed), first);
        write(&packages, "package/__init__.py", "");
        assert_ne!(digest("1", &folder, &installed), first);
    }

    #[test]
    fn links_are_followed_and_may_not_lead_in_a_circle() {
        let (folder, shared) = (project(), project());
        let link = folder.path().join("shared");
        std::os::unix::fs::symlink(shared.path(), &link).expect("linked");
        let first = digest_of(&folder);
        write(&shared, "app.py", "changed");
        assert_ne!(digest_of(&folder), first);
        for name in ["a", "b"] {
            std::os::unix::fs::symlink(folder.path(), folder.path().join(name)).expect("linked");
        }
        assert_eq!(digest("1", &folder, &[]), None);
    }

    #[test]
    fn a_component_is_kept_and_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = ComponentCache::new(folder.path().join("components"));
        assert_eq!(cache.get("d"), None);
        cache.put("d", b"component").expect("kept");
        assert_eq!(cache.get("d"), Some(b"component".to_vec()));
        assert_eq!(cache.get("e"), None);
    }

    #[test]
    fn the_newest_components_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = ComponentCache::new(folder.path().to_owned());
        for n in 0..COMPONENTS_MAX as u64 {
            cache.put(&n.to_string(), b"x").expect("kept");
            let file = File::open(cache.path(&n.to_string())).expect("it is there");
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(n);
            file.set_modified(modified).expect("set");
        }
        assert!(cache.get("0").is_some(), "and it is the newest from now on");
        cache.put("new", b"x").expect("kept");
        assert_eq!(cache.get("1"), None);
        for kept in ["0", "2", "new"] {
            assert!(cache.get(kept).is_some(), "{kept}");
        }
    }
}
