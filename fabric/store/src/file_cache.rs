//! Objects as files of this machine, for those that map or compile them: the store's own files if it is a folder, or
//! copies that were fetched once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::blobs::Blobs;
use crate::error::{Error, Result};

/// Bytes of the copies in one folder; the least recently fetched go first.
const CACHE_BYTES_MAX: u64 = 4 << 30;

/// Files of one store's objects. Several processes may share the folder; clones share the locks.
#[derive(Clone)]
pub struct FileCache {
    blobs: Blobs,
    folder: Arc<PathBuf>,
    /// One object is fetched at a time: whoever waits may find the file that it needs.
    fetching: Arc<tokio::sync::Mutex<()>>,
    /// Number of files that this process fetched, for names of drafts.
    fetched: Arc<AtomicU64>,
}

impl FileCache {
    /// A cache in a folder, which is created when it is needed.
    pub fn new(blobs: Blobs, folder: PathBuf) -> Self {
        Self {
            blobs,
            folder: Arc::new(folder),
            fetching: Arc::default(),
            fetched: Arc::default(),
        }
    }

    /// The store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The folder of the copies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file with the bytes of an object. `name` is the copy's, another one for each content.
    ///
    /// The caller checks the bytes, and calls [`Self::forget`] if they are damaged. Errors: the store's.
    pub async fn file(&self, key: &str, name: &str) -> Result<PathBuf> {
        if self.blobs.folder().is_some() {
            return self.blobs.local_path(key);
        }
        let copy = self.folder.join(name);
        let is_there = |path: &Path| path.is_file();
        if is_there(&copy) {
            return Ok(copy);
        }
        let _fetching = self.fetching.lock().await;
        if is_there(&copy) {
            return Ok(copy);
        }
        self.fetch(key, &copy).await?;
        Ok(copy)
    }

    /// Removes a copy.
    pub async fn forget(&self, name: &str) {
        if self.blobs.folder().is_none() {
            // It may be gone already, and the next fetch writes over it.
            let _ = tokio::fs::remove_file(self.folder.join(name)).await;
        }
    }

    async fn fetch(&self, key: &str, copy: &Path) -> Result<()> {
        let failed = |error| Error::file(copy, error);
        let folder = self.folder.as_path();
        tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        let number = self.fetched.fetch_add(1, Ordering::Relaxed);
        let draft = copy.with_extension(format!("{}-{number}.part", std::process::id()));
        let fetched = match self.blobs.download(key, &draft).await {
            // Whole or not there: other processes look for it.
            Ok(()) => tokio::fs::rename(&draft, copy).await.map_err(failed),
            Err(error) => Err(error),
        };
        if fetched.is_err() {
            let _ = tokio::fs::remove_file(&draft).await;
            return fetched;
        }
        let (folder, kept) = (self.folder.clone(), copy.to_owned());
        let evicted = tokio::task::spawn_blocking(move || evict(&folder, &kept, CACHE_BYTES_MAX));
        let evicted = evicted.await;
        evicted.map_err(|error| Error::Encoding(error.to_string()))?
    }
}

/// Removes the oldest files of a folder until the rest fits. What is mapped stays as long as it is used.
fn evict(folder: &Path, kept: &Path, most: u64) -> Result<()> {
    let failed = |error| Error::file(folder, error);
    let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Another process may have removed it.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_file() {
            let written = metadata.modified().map_err(failed)?;
            files.push((written, metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, size, path) in files {
        if bytes <= most {
            break;
        }
        if path != kept {
            let _ = fs::remove_file(&path);
            bytes -= size;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::grants::Grants;
    use crate::remote::Remote;
    use crate::requests::RequestKind;

    #[tokio::test]
    async fn objects_are_fetched_once() {
        let remote = Remote::in_memory("s3://lake/weft").expect("it opens");
        let blobs = Blobs::of_remote(remote, Grants::default());
        let put = blobs.put("artefacts/a", Bytes::from_static(b"code"));
        put.await.expect("it is written");
        let root = tempfile::tempdir().expect("a folder");
        let cache = FileCache::new(blobs.clone(), root.path().join("cache"));
        for _ in 0..3 {
            let file = cache.file("artefacts/a", "a").await.expect("it is fetched");
            assert_eq!(fs::read(&file).expect("a file"), b"code");
        }
        assert_eq!(blobs.requests_of(RequestKind::Get), 1);
        cache.forget("a").await;
        cache.file("artefacts/a", "a").await.expect("it is fetched");
        assert_eq!(blobs.requests_of(RequestKind::Get), 2);
        let error = cache.file("artefacts/b", "b").await.expect_err("none");
        assert!(error.is_not_found(), "{error}");
        let files = fs::read_dir(cache.folder()).expect("a folder").count();
        assert_eq!(files, 1, "no draft is left");
    }

    #[tokio::test]
    async fn files_of_folders_are_used_where_they_are() {
        let root = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(&root.path().join("store")).expect("a store");
        let cache = FileCache::new(blobs, root.path().join("cache"));
        let file = cache.file("artefacts/a", "a").await.expect("a path");
        assert_eq!(file, root.path().join("store/artefacts/a"));
        cache.forget("a").await;
    }

    #[test]
    fn the_oldest_files_go_first() {
        let root = tempfile::tempdir().expect("a folder");
        let path = |name: &str| root.path().join(name);
        for (age, name) in [(3, "a"), (2, "b"), (1, "c")] {
            fs::write(path(name), [0; 10]).expect("it writes");
            let file = fs::File::options().write(true).open(path(name));
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(100 - age);
            file.expect("a file").set_modified(at).expect("it is set");
        }
        evict(root.path(), &path("a"), 20).expect("it evicts");
        let left = ["a", "b", "c"].map(|name| path(name).exists());
        assert_eq!(left, [true, false, true]);
    }
}
