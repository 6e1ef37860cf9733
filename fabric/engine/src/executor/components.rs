//! Components that an executor has loaded: their artefacts are checked, mapped as code, and linked once.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest as _, Sha256};
use weft_core::{Digest, ErrorCode, Problem, lock};
use weft_protocol::artefact_key;
use weft_sandbox::{Component, Engine};
use weft_store::FileCache;

/// Bytes of artefacts that stay loaded, which are mapped files; the least recently used go first.
const LOADED_BYTES_MAX: u64 = 2 << 30;
/// Components that stay loaded, however small: each is an open file and some mappings.
const LOADED_MAX: usize = 256;
/// Bytes of an artefact that are hashed at a time.
const HASHED_BYTES: usize = 256 << 10;

/// Components by digest.
pub(super) struct Components {
    engine: Engine,
    files: FileCache,
    /// Names the artefacts of the engine.
    compatibility: String,
    loaded: Mutex<Loaded>,
}

/// A component that invocations can start from at once.
struct Entry {
    component: Arc<Component>,
    /// Digest that its artefact had when it was loaded.
    artefact: Digest,
    bytes: u64,
    /// The tick of its last use.
    used: u64,
}

#[derive(Default)]
struct Loaded {
    entries: HashMap<Digest, Entry>,
    bytes: u64,
    uses: u64,
}

impl Components {
    pub(super) fn new(engine: Engine, files: FileCache, compatibility: String) -> Self {
        Self {
            engine,
            files,
            compatibility,
            loaded: Mutex::default(),
        }
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        lock(&self.loaded)
    }

    /// Returns the component, loaded once, from the artefact of this digest.
    ///
    /// Two threads that ask at once may both check and map it, which costs little; one of the two stays. Errors: `Internal` if
    /// the artefact is not there, or not the one that is meant.
    pub(super) async fn get(
        &self,
        digest: &Digest,
        artefact: &Digest,
    ) -> Result<Arc<Component>, Problem> {
        if let Some(component) = self.loaded().find(digest, artefact) {
            return Ok(component);
        }
        let (path, bytes) = self.checked(digest, artefact).await?;
        let component = Component::load(&self.engine, &path)
            .map_err(|fault| Problem::new(ErrorCode::Internal, fault.to_string()))?;
        let entry = Entry {
            component: Arc::clone(&component),
            artefact: artefact.clone(),
            bytes,
            used: 0,
        };
        self.loaded().insert(digest.clone(), entry);
        Ok(component)
    }

    /// The file of an artefact, and its size. A copy that is damaged is fetched once more.
    async fn checked(&self, digest: &Digest, artefact: &Digest) -> Result<(PathBuf, u64), Problem> {
        let key = artefact_key(digest, &self.compatibility);
        let mut may_be_damaged = self.files.blobs().folder().is_none();
        loop {
            let path = self.files.file(&key, artefact.hex()).await;
            let path = path.map_err(|error| error.problem())?;
            match check(&path, digest, artefact) {
                Ok(bytes) => return Ok((path, bytes)),
                Err(_) if may_be_damaged => {
                    self.files.forget(artefact.hex()).await;
                    may_be_damaged = false;
                }
                Err(problem) => return Err(problem),
            }
        }
    }

    /// Returns all of these components. `artefacts`: digests of artefacts, by component.
    pub(super) async fn all<'a>(
        &self,
        digests: impl Iterator<Item = &'a Digest>,
        artefacts: &BTreeMap<Digest, Digest>,
    ) -> Result<HashMap<Digest, Arc<Component>>, Problem> {
        let mut components = HashMap::new();
        for digest in digests {
            let artefact = artefacts.get(digest).ok_or_else(|| {
                let detail = format!("nothing says which artefact component `{digest}` has");
                Problem::new(ErrorCode::Internal, detail)
            })?;
            components.insert(digest.clone(), self.get(digest, artefact).await?);
        }
        Ok(components)
    }
}

impl Loaded {
    fn find(&mut self, digest: &Digest, artefact: &Digest) -> Option<Arc<Component>> {
        self.uses += 1;
        let entry = self.entries.get_mut(digest)?;
        if entry.artefact != *artefact {
            return None;
        }
        entry.used = self.uses;
        Some(Arc::clone(&entry.component))
    }

    /// Takes a component in; others go where they are too many or too large. What runs keeps its own hold on what goes.
    fn insert(&mut self, digest: Digest, entry: Entry) {
        self.uses += 1;
        self.bytes += entry.bytes;
        let entry = Entry {
            used: self.uses,
            ..entry
        };
        if let Some(before) = self.entries.insert(digest, entry) {
            self.bytes -= before.bytes;
        }
        while self.entries.len() > LOADED_MAX || self.bytes > LOADED_BYTES_MAX {
            let by_use = self.entries.iter().min_by_key(|(_, one)| one.used);
            let Some(oldest) = by_use.map(|(digest, _)| digest.clone()) else {
                return;
            };
            if self.entries.len() == 1 {
                return;
            }
            let gone = self.entries.remove(&oldest);
            self.bytes -= gone.map_or(0, |gone| gone.bytes);
        }
    }
}

/// Compares the artefact of `component` at `path` with its digest, and returns its size. Artefacts become native code: not a
/// bit of them may differ from what the compiler wrote.
fn check(path: &Path, component: &Digest, expected: &Digest) -> Result<u64, Problem> {
    let unread = |error: std::io::Error| {
        let detail = format!(
            "the artefact of component `{component}` cannot be read: `{}`: {error}",
            path.display()
        );
        Problem::new(ErrorCode::Internal, detail)
    };
    let file = File::open(path).map_err(unread)?;
    let mut file = BufReader::with_capacity(HASHED_BYTES, file);
    let mut hasher = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut hasher).map_err(unread)?;
    let found = Digest::from_sha256(&hasher.finalize().into());
    if found != *expected {
        let detail = format!(
            "the artefact of component `{component}` is damaged: its digest is `{found}`, and `{expected}` was compiled"
        );
        return Err(Problem::new(ErrorCode::Internal, detail));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use weft_sandbox::Role;
    use weft_store::Blobs;

    use super::*;

    const COMPATIBILITY: &str = "0123456789abcdef";
    const ARTEFACT: &[u8] = b"native code, or what passes for it";

    fn component() -> Digest {
        Digest::from_sha256(&[7; 32])
    }

    fn artefact() -> Digest {
        Digest::from_sha256(&Sha256::digest(ARTEFACT).into())
    }

    /// Components over a store that holds these bytes as the artefact of one.
    fn components(folder: &Path, bytes: &[u8]) -> Components {
        let blobs = Blobs::local(folder).expect("a folder");
        let path = blobs.local_path(&artefact_key(&component(), COMPATIBILITY));
        let path = path.expect("it is a folder");
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("it writes");
        let engine = Engine::new(Role::Executor).expect("the engine starts");
        let files = FileCache::new(blobs, folder.join("cache"));
        Components::new(engine, files, COMPATIBILITY.into())
    }

    async fn refused(components: &Components, artefact: &Digest) -> Problem {
        match components.get(&component(), artefact).await {
            Ok(_) => panic!("it was loaded"),
            Err(problem) => problem,
        }
    }

    #[tokio::test]
    async fn artefacts_with_a_flipped_byte_are_refused() {
        for at in [0, ARTEFACT.len() / 2, ARTEFACT.len() - 1] {
            let folder = tempfile::tempdir().expect("a folder");
            let mut bytes = ARTEFACT.to_vec();
            bytes[at] ^= 1;
            let found = Digest::from_sha256(&Sha256::digest(&bytes).into());
            let problem = refused(&components(folder.path(), &bytes), &artefact()).await;
            assert_eq!(problem.code, ErrorCode::Internal);
            let parts = [component(), found, artefact()].map(String::from);
            for part in parts.iter().map(String::as_str).chain(["is damaged"]) {
                assert!(problem.detail.contains(part), "`{problem}` lacks `{part}`");
            }
        }
    }

    /// What the compiler wrote gets as far as the engine, which sees that this is no code.
    #[tokio::test]
    async fn artefacts_are_mapped_once_they_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let components = components(folder.path(), ARTEFACT);
        let problem = refused(&components, &artefact()).await;
        assert!(problem.detail.contains("loading artefact"), "{problem}");
    }

    #[tokio::test]
    async fn artefacts_that_are_missing_or_unnamed_are_internal_problems() {
        let folder = tempfile::tempdir().expect("a folder");
        let components = components(folder.path(), ARTEFACT);
        let other = Digest::from_sha256(&[8; 32]);
        let problem = components.get(&other, &artefact()).await.map(drop);
        let problem = problem.expect_err("it is not there");
        assert_eq!(problem.code, ErrorCode::Internal);
        assert!(problem.detail.contains("cannot be read"), "{problem}");
        let none = BTreeMap::new();
        let unnamed = components.all([&other].into_iter(), &none).await;
        let unnamed = unnamed.map(drop).expect_err("nothing names it");
        assert_eq!(unnamed.code, ErrorCode::Internal);
        assert!(unnamed.detail.contains(other.as_str()), "{unnamed}");
    }
}
