//! The object store as Weft uses it: small blobs put whole, large objects streamed, ranges read,
//! prefixes swept.

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use weft_core::JobId;
use weft_core::job::OutputSpec;
use weft_protocol::kept_output_key;

use crate::durable::sync_file_and_folder;
use crate::error::{Error, Result};

/// Bytes that a streamed object buffers before it is written in parts.
const PART_BYTES: usize = 4 << 20;

/// A handle on one store. Clones share it and its counters.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    folder: Arc<PathBuf>,
    gets: Arc<AtomicU64>,
    puts: Arc<AtomicU64>,
}

fn fail(key: &str) -> impl FnOnce(object_store::Error) -> Error + '_ {
    move |source| Error::Store {
        key: key.to_owned(),
        source,
    }
}

impl Blobs {
    /// A folder as the store; creates it if it is missing.
    pub fn local(folder: &FsPath) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(fail("/"))?;
        Ok(Self {
            store: Arc::new(store),
            folder: Arc::new(folder.to_owned()),
            gets: Arc::default(),
            puts: Arc::default(),
        })
    }

    /// The same store with counters of its own.
    pub fn metered(&self) -> Self {
        Self {
            gets: Arc::default(),
            puts: Arc::default(),
            ..self.clone()
        }
    }

    /// Path of an object, for those that map it as a file.
    pub fn local_path(&self, key: &str) -> PathBuf {
        self.folder.join(key)
    }

    /// Folder of a job's output: the user's, or the one that the store has for it.
    pub fn output_folder(&self, job: &JobId, output: &OutputSpec) -> PathBuf {
        match output.path() {
            Some(path) => PathBuf::from(path),
            None => self.local_path(&kept_output_key(job, &output.name)),
        }
    }

    /// Number of requests so far: those that read, and those that write.
    pub fn requests(&self) -> (u64, u64) {
        (
            self.gets.load(Ordering::Relaxed),
            self.puts.load(Ordering::Relaxed),
        )
    }

    /// Writes a blob whole; it appears at once or not at all.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.store
            .put(&Path::from(key), bytes.into().into())
            .await
            .map_err(fail(key))?;
        Ok(())
    }

    /// Writes a blob whole and makes sure that it outlives the machine: file and folder are synced.
    pub async fn put_durable(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.put(key, bytes).await?;
        let path = self.local_path(key);
        let sync = move || sync_file_and_folder(&path);
        tokio::task::spawn_blocking(sync)
            .await
            .map_err(|error| Error::Encoding(error.to_string()))?
    }

    /// Writes a blob that is not there yet, and makes sure that it outlives the machine. Returns false if it is
    /// there: then nothing is changed.
    pub async fn create_durable(&self, key: &str, bytes: Bytes) -> Result<bool> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        let created = self
            .store
            .put_opts(&Path::from(key), bytes.into(), PutMode::Create.into())
            .await;
        let is_new = match created {
            Ok(_) => true,
            Err(object_store::Error::AlreadyExists { .. }) => false,
            Err(source) => return Err(fail(key)(source)),
        };
        let path = self.local_path(key);
        let sync = move || sync_file_and_folder(&path);
        tokio::task::spawn_blocking(sync)
            .await
            .map_err(|error| Error::Encoding(error.to_string()))??;
        Ok(is_new)
    }

    /// Starts an object that is written piece by piece; it appears when the writer is shut down.
    pub fn writer(&self, key: &str) -> BufWriter {
        self.puts.fetch_add(1, Ordering::Relaxed);
        BufWriter::with_capacity(Arc::clone(&self.store), Path::from(key), PART_BYTES)
    }

    /// Reads a blob whole.
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        let found = self.store.get(&Path::from(key)).await.map_err(fail(key))?;
        found.bytes().await.map_err(fail(key))
    }

    /// Reads a range of an object. An empty one is not asked for: stores refuse that.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.store
            .get_range(&Path::from(key), range)
            .await
            .map_err(fail(key))
    }

    /// Returns whether an object is there.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        match self.store.head(&Path::from(key)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(Error::Store {
                key: key.to_owned(),
                source,
            }),
        }
    }

    /// Removes all under `prefix`, staged parts of unfinished objects included. Repeating it does
    /// no harm.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<()> {
        let folder = self.local_path(prefix);
        let remove = move || match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file(&folder, error))
            }
            _ => Ok(()),
        };
        tokio::task::spawn_blocking(remove)
            .await
            .map_err(|error| Error::Encoding(error.to_string()))?
    }

    /// Removes one object; one that is not there is removed already.
    pub async fn delete(&self, key: &str) -> Result<()> {
        match self.store.delete(&Path::from(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Store {
                key: key.to_owned(),
                source,
            }),
        }
    }
}
