//! The places of shards, and how they are opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store_slate::ObjectStore;
use object_store_slate::local::LocalFileSystem;
use object_store_slate::path::Path;
use object_store_slate::prefix::PrefixStore;
use slatedb::admin::AdminBuilder;
use slatedb::db_cache::DbCache;
use slatedb::{Db, DbBuilder};
use tokio::time::timeout;
use weft_core::TenantId;
use weft_protocol::shard_prefix;
use weft_store::Blobs;

use crate::adapter::Adapter;
use crate::cache::BlockCache;
use crate::collect::{Collected, Collector};
use crate::deadline::{DeadlineStore, STORE_DEADLINE};
use crate::error::{Error, Result};
use crate::settings;
use crate::shard::Shard;

/// Time to open a shard: some forty requests, and two for each object of the WAL that is replayed.
const OPEN_WALL_MAX: Duration = Duration::from_secs(60);
/// Time to read a shard's epoch: two requests, which SlateDB repeats for ever.
const EPOCH_WALL_MAX: Duration = Duration::from_secs(25);

/// The shards of a cluster's store. Made once in a process: clones share connections and the cache of blocks.
#[derive(Clone)]
pub struct ShardStore(Arc<Lying>);

struct Lying {
    objects: Arc<dyn ObjectStore>,
    is_folder: bool,
    cache: Arc<BlockCache>,
    /// Databases that were opened: each has entries of its own in the cache.
    opened: AtomicU64,
    collected: Arc<Collected>,
}

impl std::fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ShardStore").field(&self.0.objects).finish()
    }
}

impl ShardStore {
    /// The shards in a store. Nothing is asked of it yet.
    ///
    /// Errors: `Store` if its folder or prefix cannot be used.
    pub fn new(blobs: &Blobs) -> Result<Self> {
        let (objects, is_folder) = objects_of(blobs)?;
        Ok(Self::of(objects, is_folder, STORE_DEADLINE))
    }

    /// The shards among some objects. `limit`: time for one request.
    pub(crate) fn of(objects: Arc<dyn ObjectStore>, is_folder: bool, limit: Duration) -> Self {
        Self(Arc::new(Lying {
            objects: Arc::new(DeadlineStore::new(objects, limit)),
            is_folder,
            cache: Arc::new(BlockCache::new()),
            opened: AtomicU64::new(0),
            collected: Arc::default(),
        }))
    }

    /// Reads the epoch of the shard's writer: 0 if nobody has opened it yet.
    pub async fn writer_epoch(&self, tenant: &TenantId, shard: u32) -> Result<u64> {
        let place = Place::of(tenant, shard);
        let admin = AdminBuilder::new(place.path.clone(), Arc::clone(&self.0.objects)).build();
        let read = timeout(EPOCH_WALL_MAX, Box::pin(admin.read_manifest(None))).await;
        let read = read.map_err(|_| place.late("reading its epoch", EPOCH_WALL_MAX))?;
        let manifest = read.map_err(|error| Error::of(&place.name, &error))?;
        Ok(manifest.map_or(0, |manifest| manifest.writer_epoch()))
    }

    /// Opens a shard as its only writer, and creates it if it is not there. Whoever has it open is fenced.
    ///
    /// `expected_epoch`: [`Self::writer_epoch`], read before the caller made sure that the shard is its own. So a
    /// caller that is late cannot take the shard from whoever came after it.
    ///
    /// Errors: `Fenced` if another writer came first. Read the epoch again, and make sure again.
    pub async fn open(&self, tenant: &TenantId, shard: u32, expected_epoch: u64) -> Result<Shard> {
        let place = Place::of(tenant, shard);
        let builder = self.builder(&place, expected_epoch);
        let opened = timeout(OPEN_WALL_MAX, Box::pin(builder.build())).await;
        let opened = opened.map_err(|_| place.late("opening it", OPEN_WALL_MAX))?;
        let db = opened.map_err(|error| match Error::of(&place.name, &error) {
            // Both created its first manifest.
            Error::Damaged { shard, .. } if expected_epoch == 0 => Error::Fenced { shard },
            error => error,
        })?;
        Ok(Shard::start(
            db,
            place.name.into(),
            self.collector(place.path),
        ))
    }

    fn builder(&self, place: &Place, expected_epoch: u64) -> DbBuilder<Path> {
        let id = self.0.opened.fetch_add(1, Ordering::Relaxed);
        let cache = Arc::clone(&self.0.cache) as Arc<dyn DbCache>;
        Db::builder(place.path.clone(), Arc::clone(&self.0.objects))
            .with_settings(settings::of_shard())
            .with_db_cache(cache, id)
            .with_expected_epoch(expected_epoch)
    }

    pub(crate) fn collector(&self, path: Path) -> Collector {
        Collector {
            objects: Arc::clone(&self.0.objects),
            path,
            is_folder: self.0.is_folder,
            collected: Arc::clone(&self.0.collected),
        }
    }
}

/// Place of one shard.
pub(crate) struct Place {
    pub(crate) path: Path,
    /// `TENANT/NUMBER`, for errors.
    name: String,
}

impl Place {
    pub(crate) fn of(tenant: &TenantId, shard: u32) -> Self {
        Self {
            path: Path::from(shard_prefix(tenant, shard)),
            name: format!("{tenant}/{shard}"),
        }
    }

    fn late(&self, what: &str, limit: Duration) -> Error {
        Error::late(&self.name, what, limit)
    }
}

/// The objects of a store, and whether they are files of a folder.
fn objects_of(blobs: &Blobs) -> Result<(Arc<dyn ObjectStore>, bool)> {
    let unusable = |error: &dyn std::fmt::Display| Error::Store {
        cause: error.to_string(),
    };
    if let Some(folder) = blobs.folder() {
        let files = LocalFileSystem::new_with_prefix(folder);
        let files = files.map_err(|error| unusable(&error))?;
        // What is acknowledged outlives the machine.
        let files: Arc<dyn ObjectStore> = Arc::new(files.with_fsync(true));
        return Ok((files, true));
    }
    let Some(remote) = blobs.remote() else {
        return Err(unusable(&"it is neither a folder nor a bucket"));
    };
    let prefix = Path::parse(&remote.prefix).map_err(|error| unusable(&error))?;
    let bucket = Adapter::new(Arc::clone(&remote.objects));
    let bucket: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(bucket, prefix));
    Ok((bucket, false))
}
