//! The object store as Weft uses it: small blobs put whole, large objects streamed, ranges read,
//! prefixes swept.

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use tokio::task::JoinHandle;
use weft_protocol::Stores;

use crate::credentials::HeldCredentials;
use crate::durable::sync_file_and_folder;
use crate::error::{Error, Result};
use crate::folder;
use crate::grants::Grants;
use crate::remote::{Patience, Remote, fetch_ranges, range_of};
use crate::requests::{RequestKind, Requests};
use crate::tier::Tier;

/// Bytes that a streamed object buffers before it is written in parts.
const PART_BYTES: usize = 4 << 20;
/// The same of a remote store: S3 takes no part below 5 MiB but the last.
const REMOTE_PART_BYTES: usize = 8 << 20;
/// Parts of one object that are sent side by side, which are in memory.
const REMOTE_PARTS_AT_ONCE: usize = 3;
/// Objects that one request lists, and that one removes, of S3.
const OBJECTS_PER_REQUEST: usize = 1_000;

/// A handle on the cluster's own store, and on those that jobs may use. Clones share it and its counters.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    base: Base,
    requests: Arc<Requests>,
    grants: Grants,
    /// Copies of a bucket's shuffle objects on this node.
    tier: Option<Tier>,
}

/// Work that goes on whether anybody waits for it or not. Dropping it stops the work.
pub struct Background<T>(JoinHandle<T>);

impl<T> Background<T> {
    /// Waits for the result.
    pub async fn wait(mut self) -> Result<T> {
        let done = (&mut self.0).await;
        done.map_err(|error| Error::Encoding(error.to_string()))
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The folder or bucket that the keys lie in.
#[derive(Clone)]
enum Base {
    Folder(Arc<PathBuf>),
    Remote(Remote),
}

/// One name directly below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// True if there are names below it.
    pub is_folder: bool,
    /// When it was written, in Unix milliseconds; folders of remote stores have no time.
    pub modified_ms: Option<u64>,
}

impl Blobs {
    /// A folder as the store, and no other; creates it if it is missing.
    pub fn local(folder: &FsPath) -> Result<Self> {
        Self::of_folder(folder, Grants::default())
    }

    /// Opens the stores of a server. Of remote ones nothing is asked yet: see [`Self::check`]. The runtime that this is
    /// called in drives their connections.
    ///
    /// Errors: `Settings` if one of them is wrong, `File` if a folder cannot be made.
    pub fn open(stores: &Stores) -> Result<Self> {
        Self::open_with(stores, None)
    }

    /// Opens the stores of an executor, which has credentials of its own for those with a role.
    ///
    /// Errors: as [`Self::open`].
    pub fn open_held(stores: &Stores, held: &HeldCredentials) -> Result<Self> {
        Self::open_with(stores, Some(held))
    }

    fn open_with(stores: &Stores, held: Option<&HeldCredentials>) -> Result<Self> {
        if let Some(folder) = stores.own.folder() {
            if !folder.is_absolute() {
                let what = "is neither an absolute path nor `file://`, `s3://`, `gs://`, `az://`";
                return Err(Error::settings(&stores.own.url, what));
            }
            return Self::of_folder(folder, Grants::open(None, &stores.granted, held)?);
        }
        let remote = Remote::open_with(
            &stores.own,
            held.map(|held| held.provider(None)),
            Patience::Work,
        )?;
        let own = Some(remote.location().clone());
        let grants = Grants::open(own, &stores.granted, held)?;
        Ok(Self::of_remote(remote, grants))
    }

    fn of_folder(folder: &FsPath, grants: Grants) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
        let store = LocalFileSystem::new_with_prefix(folder);
        let store = store.map_err(|source| Error::Store {
            key: "/".into(),
            source,
        })?;
        Ok(Self {
            store: Arc::new(store),
            base: Base::Folder(Arc::new(folder.to_owned())),
            requests: Arc::default(),
            grants,
            tier: None,
        })
    }

    /// A bucket as the store.
    pub fn of_remote(remote: Remote, grants: Grants) -> Self {
        Self {
            store: Arc::clone(&remote.objects),
            base: Base::Remote(remote),
            requests: Arc::default(),
            grants,
            tier: None,
        }
    }

    /// The same stores, with copies of shuffle objects in a tier. A folder needs none.
    #[must_use]
    pub fn with_tier(self, tier: Tier) -> Self {
        let is_remote = self.remote().is_some();
        Self {
            tier: is_remote.then_some(tier),
            ..self
        }
    }

    /// Copies of shuffle objects on this node, if the store is a bucket.
    pub fn tier(&self) -> Option<&Tier> {
        self.tier.as_ref()
    }

    /// The same stores with counters of their own.
    pub fn metered(&self) -> Self {
        let requests = Arc::<Requests>::default();
        let base = match &self.base {
            Base::Folder(folder) => Base::Folder(Arc::clone(folder)),
            Base::Remote(remote) => Base::Remote(remote.metered(Arc::clone(&requests))),
        };
        Self {
            store: Arc::clone(&self.store),
            base,
            grants: self.grants.metered(&requests),
            requests,
            tier: self.tier.clone(),
        }
    }

    /// Stores that jobs may use.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// The bucket, if the store is no folder.
    pub fn remote(&self) -> Option<&Remote> {
        match &self.base {
            Base::Folder(_) => None,
            Base::Remote(remote) => Some(remote),
        }
    }

    /// The folder, if the store is one.
    pub fn folder(&self) -> Option<&FsPath> {
        match &self.base {
            Base::Folder(folder) => Some(folder),
            Base::Remote(_) => None,
        }
    }

    /// Path of an object, for those that map it as a file.
    ///
    /// Errors: `NoFolder` if the store is none.
    pub fn local_path(&self, key: &str) -> Result<PathBuf> {
        match &self.base {
            Base::Folder(folder) => Ok(folder::file(folder, key)),
            Base::Remote(remote) => Err(Error::NoFolder {
                key: key.to_owned(),
                url: remote.location().to_string(),
            }),
        }
    }

    /// Counts a request to a bucket. Files cost none.
    fn count(&self, kind: RequestKind) {
        if self.remote().is_some() {
            self.requests.count(kind);
        }
    }

    /// Counts the requests of an object of that size which was written piece by piece, beyond the first: one for each
    /// part, and one that joins them.
    pub fn count_parts(&self, bytes: u64) {
        let part = REMOTE_PART_BYTES as u64;
        if bytes >= part {
            (0..bytes.div_ceil(part) + 1).for_each(|_| self.count(RequestKind::Put));
        }
    }

    /// Number of requests so far: those that read, and those that write.
    pub fn requests(&self) -> (u64, u64) {
        (self.requests.reads(), self.requests.writes())
    }

    /// Number of requests so far of one kind, without those that were repeated by themselves.
    pub fn requests_of(&self, kind: RequestKind) -> u64 {
        self.requests.of(kind)
    }

    /// The key as the store has it.
    fn path(&self, key: &str) -> Path {
        match &self.base {
            Base::Folder(_) => Path::from(key),
            Base::Remote(remote) => remote.path(key),
        }
    }

    /// The error of a request about a key.
    fn fail<'a>(&'a self, key: &'a str) -> impl FnOnce(object_store::Error) -> Error + 'a {
        move |source| match &self.base {
            Base::Folder(_) => Error::Store {
                key: key.to_owned(),
                source,
            },
            Base::Remote(remote) => Error::of_store(remote.uri(key), source),
        }
    }

    /// Lists one name of a remote store, so that what is wrong with it is known before it is needed. Folders are there.
    ///
    /// Errors: `Refused`, with the reason.
    pub async fn check(&self) -> Result<()> {
        let Base::Remote(remote) = &self.base else {
            return Ok(());
        };
        self.count(RequestKind::List);
        let prefix = Some(&remote.prefix).filter(|prefix| !prefix.is_root());
        let first = self.store.list(prefix).next().await;
        first.transpose().map(drop).map_err(self.fail(""))
    }

    /// Writes a blob whole; it appears at once or not at all.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<()> {
        self.count(RequestKind::Put);
        let put = self.store.put(&self.path(key), bytes.into().into()).await;
        put.map(drop).map_err(self.fail(key))
    }

    /// Writes a blob whole and makes sure that it outlives the machine. Remote stores do before they answer.
    pub async fn put_durable(&self, key: &str, bytes: Bytes) -> Result<()> {
        self.put(key, bytes).await?;
        self.sync(key).await
    }

    /// Syncs an object's file and its folder, of a store that is one.
    async fn sync(&self, key: &str) -> Result<()> {
        match &self.base {
            Base::Folder(folder) => {
                let path = folder::file(folder, key);
                blocking(move || sync_file_and_folder(&path)).await
            }
            Base::Remote(_) => Ok(()),
        }
    }

    /// Writes a blob that is not there yet, and makes sure that it outlives the machine. Returns false if another one
    /// is there: then nothing is changed.
    pub async fn create_durable(&self, key: &str, bytes: Bytes) -> Result<bool> {
        self.count(RequestKind::Put);
        let path = self.path(key);
        let create = self
            .store
            .put_opts(&path, bytes.clone().into(), PutMode::Create.into());
        let is_new = match (create.await, &self.base) {
            (Ok(_), _) => true,
            (Err(object_store::Error::AlreadyExists { .. }), Base::Folder(_)) => false,
            (Err(source), Base::Folder(_)) => return Err(self.fail(key)(source)),
            // A reply that was lost comes back as a conflict with oneself, or as an error: only the object can tell.
            (Err(source), Base::Remote(_)) => match self.get(key).await {
                Ok(found) => found == bytes,
                Err(_) => return Err(self.fail(key)(source)),
            },
        };
        self.sync(key).await?;
        Ok(is_new)
    }

    /// Starts an object that is written piece by piece; it appears when the writer is shut down.
    pub fn writer(&self, key: &str) -> BufWriter {
        self.count(RequestKind::Put);
        let (store, path) = (Arc::clone(&self.store), self.path(key));
        match &self.base {
            Base::Folder(_) => BufWriter::with_capacity(store, path, PART_BYTES),
            Base::Remote(_) => BufWriter::with_capacity(store, path, REMOTE_PART_BYTES)
                .with_max_concurrency(REMOTE_PARTS_AT_ONCE),
        }
    }

    /// The error of a writer of [`Self::writer`].
    pub fn write_error(&self, key: &str, error: std::io::Error) -> Error {
        match error.downcast::<object_store::Error>() {
            Ok(error) => self.fail(key)(error),
            Err(error) => Error::file(FsPath::new(key), error),
        }
    }

    /// Reads a blob whole.
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        self.count(RequestKind::Get);
        let found = self.store.get(&self.path(key)).await;
        let found = found.map_err(self.fail(key))?;
        found.bytes().await.map_err(self.fail(key))
    }

    /// Reads a blob whole that somebody else has written: one that is larger than it may be is not read.
    ///
    /// Errors: `OverLimit` if it is.
    pub async fn get_within(&self, key: &str, max_bytes: u64) -> Result<Bytes> {
        self.count(RequestKind::Get);
        let found = self.store.get(&self.path(key)).await;
        let found = found.map_err(self.fail(key))?;
        let bytes = found.meta.size;
        if bytes > max_bytes {
            return Err(Error::OverLimit {
                what: format!("`{key}` has {bytes} bytes; {max_bytes} are allowed"),
            });
        }
        found.bytes().await.map_err(self.fail(key))
    }

    /// Reads a range of an object. An empty one is not asked for: stores refuse that.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.count(RequestKind::Get);
        let found = self.store.get_range(&self.path(key), range).await;
        found.map_err(self.fail(key))
    }

    /// Has the threads that drive a bucket's connections do some work. Nothing if the store is a folder.
    pub fn in_background<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<Background<T>> {
        let io = self.remote()?.io();
        Some(Background(io.spawn(work)))
    }

    /// Copies an object of that size into the tier, in one request. Returns false if it does not go there.
    pub async fn copy_to_tier(&self, key: &str, bytes: u64) -> Result<bool> {
        let Some(tier) = self.tier() else {
            return Ok(false);
        };
        let (tier, copy) = (tier.clone(), key.to_owned());
        // It may have to look through the tier for room.
        let draft = blocking(move || Ok(tier.begin(&copy, bytes))).await?;
        let Some(mut draft) = draft else {
            return Ok(false);
        };
        self.count(RequestKind::Get);
        let found = self.store.get(&self.path(key)).await;
        let mut pieces = found.map_err(self.fail(key))?.into_stream();
        while let Some(piece) = pieces.next().await {
            draft.write(&piece.map_err(self.fail(key))?);
        }
        draft.keep();
        Ok(true)
    }

    /// Returns whether an object is there.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.size(key).await?.is_some())
    }

    /// Size of an object; nothing if it is not there.
    pub async fn size(&self, key: &str) -> Result<Option<u64>> {
        self.count(RequestKind::Head);
        match self.store.head(&self.path(key)).await {
            Ok(found) => Ok(Some(found.size)),
            Err(source) => match self.fail(key)(source) {
                error if error.is_not_found() => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Lists the names directly below a prefix. All of them: the callers' prefixes have a name for each job or
    /// component.
    pub async fn entries(&self, prefix: &str) -> Result<Vec<Entry>> {
        self.count(RequestKind::List);
        match &self.base {
            Base::Folder(root) => {
                let folder = folder::file(root, prefix);
                blocking(move || folder::entries(&folder)).await
            }
            Base::Remote(remote) => {
                let path = remote.path(prefix);
                let listed = self.store.list_with_delimiter(Some(&path)).await;
                let listed = listed.map_err(self.fail(prefix))?;
                let folders = listed.common_prefixes.into_iter().map(|path| Entry {
                    name: path.filename().unwrap_or_default().to_owned(),
                    is_folder: true,
                    modified_ms: None,
                });
                // Some stores keep an object for a folder, with the name of the prefix.
                let below = |object: &ObjectMeta| object.location != path;
                let objects = listed.objects.into_iter().filter(below);
                let objects = objects.map(|object| Entry {
                    name: object.location.filename().unwrap_or_default().to_owned(),
                    is_folder: false,
                    modified_ms: u64::try_from(object.last_modified.timestamp_millis()).ok(),
                });
                Ok(folders.chain(objects).collect())
            }
        }
    }

    /// Removes all under `prefix`, staged parts of unfinished objects included: those of remote stores are for the
    /// bucket's own rules to remove. Repeating it does no harm.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<()> {
        self.remove_below(prefix).await.map(drop)
    }

    /// The same. Returns whether there was anything.
    async fn remove_below(&self, prefix: &str) -> Result<bool> {
        let remote = match &self.base {
            Base::Folder(root) => {
                let folder = folder::file(root, prefix);
                return blocking(move || folder::remove_all(&folder)).await;
            }
            Base::Remote(remote) => remote,
        };
        let requests = Arc::clone(&self.requests);
        let found = self.store.list(Some(&remote.path(prefix))).enumerate();
        let found = found.map(move |(position, object)| {
            if position % OBJECTS_PER_REQUEST == 0 {
                requests.count(RequestKind::List);
                requests.count(RequestKind::Delete);
            }
            object.map(|object| object.location)
        });
        let mut deleted = self.store.delete_stream(found.boxed());
        let mut any = false;
        while let Some(deleted) = deleted.next().await {
            match deleted {
                Ok(_) => any = true,
                // Somebody else removed it meanwhile.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(self.fail(prefix)(source)),
            }
        }
        Ok(any)
    }

    /// Removes one object; one that is not there is removed already.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.count(RequestKind::Delete);
        match self.store.delete(&self.path(key)).await {
            Ok(()) => Ok(()),
            Err(source) => match self.fail(key)(source) {
                error if error.is_not_found() => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Removes a name that lies directly below a prefix, with all below it. Returns whether there was anything: some
    /// stores list folders that are empty.
    pub async fn remove(&self, prefix: &str, entry: &Entry) -> Result<bool> {
        let key = format!("{prefix}/{}", entry.name);
        match &self.base {
            // Names of files are no keys: some characters are encoded, and drafts have names of their own.
            Base::Folder(root) => {
                let (path, is_folder) = (
                    folder::file(root, prefix).join(&entry.name),
                    entry.is_folder,
                );
                blocking(move || match is_folder {
                    true => folder::remove_all(&path),
                    false => folder::remove_file(&path),
                })
                .await
            }
            Base::Remote(_) if entry.is_folder => self.remove_below(&key).await,
            Base::Remote(_) => self.delete(&key).await.map(|()| true),
        }
    }

    /// Moves a synced file into the store, where it appears at once and outlives the machine.
    pub async fn take_file(&self, from: &FsPath, key: &str) -> Result<()> {
        let Base::Folder(root) = &self.base else {
            self.upload(from, key).await?;
            let removed = tokio::fs::remove_file(from).await;
            return removed.map_err(|error| Error::file(from, error));
        };
        let to = folder::file(root, key);
        let moved = crate::durable::move_durably(from, &to).await;
        moved.map_err(|error| Error::file(&to, error))
    }

    async fn upload(&self, from: &FsPath, key: &str) -> Result<()> {
        use tokio::io::AsyncWriteExt;
        let unread = |error| Error::file(from, error);
        let mut file = tokio::fs::File::open(from).await.map_err(unread)?;
        let mut writer = self.writer(key);
        match tokio::io::copy(&mut file, &mut writer).await {
            Ok(bytes) => self.count_parts(bytes),
            Err(error) => {
                // Nobody would complete the parts.
                let _ = writer.abort().await;
                return Err(self.write_error(key, error));
            }
        }
        let written = writer.shutdown().await;
        written.map_err(|error| self.write_error(key, error))
    }

    /// Writes an object to a file, which must not be there. It is fetched in ranges: a request has a time limit, and
    /// the object may be of any size.
    pub async fn download(&self, key: &str, to: &FsPath) -> Result<()> {
        let path = self.path(key);
        self.count(RequestKind::Head);
        let found = self.store.head(&path).await.map_err(self.fail(key))?;
        let unwritten = |error| Error::file(to, error);
        let file = tokio::fs::File::create_new(to).await.map_err(unwritten)?;
        let written = self.write_ranges(key, &found, file, to).await;
        if written.is_err() {
            // Half a file must not be taken for the object.
            let _ = tokio::fs::remove_file(to).await;
        }
        written
    }

    /// Writes an object that was `found` to a file, range by range.
    async fn write_ranges(
        &self,
        key: &str,
        found: &ObjectMeta,
        mut file: tokio::fs::File,
        to: &FsPath,
    ) -> Result<()> {
        use tokio::io::AsyncWriteExt;
        let unwritten = |error| Error::file(to, error);
        for range in fetch_ranges(found.size) {
            self.count(RequestKind::Get);
            let options = range_of(range, found.e_tag.clone());
            let piece = self.store.get_opts(&found.location, options).await;
            let piece = piece.map_err(self.fail(key))?.bytes().await;
            let piece = piece.map_err(self.fail(key))?;
            file.write_all(&piece).await.map_err(unwritten)?;
        }
        file.flush().await.map_err(unwritten)
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Encoding(error.to_string()))?
}
