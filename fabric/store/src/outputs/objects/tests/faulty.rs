//! A server of a test: it loses answers, fails, and lets a process die at any request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use weft_core::lock;

use crate::pending::PendingUploads;
use crate::remote::Remote;

/// The fate of one request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Fate {
    /// It is done and answered.
    Answered,
    /// It is refused, and not done.
    Refused,
    /// It is done, and the answer is lost or wrong.
    Lost,
    /// The process dies before it is done.
    DiesBefore,
    /// The process dies when it is done.
    DiesAfter,
}

/// The server, which all processes share.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) objects: InMemory,
    /// Uploads that are neither completed nor aborted.
    pub(super) uploads: Mutex<BTreeMap<MultipartId, Path>>,
}

/// The way of one process to the server.
#[derive(Clone, Debug)]
pub(super) struct Process {
    server: Arc<Server>,
    plan: Arc<Mutex<Plan>>,
    died: Arc<Notify>,
}

#[derive(Debug)]
struct Plan {
    dice: StdRng,
    /// Share of requests that fail, in percent.
    percent: u32,
    /// Requests until the process dies, and whether the last one is done.
    dies: Option<(u32, bool)>,
    /// The process has credentials that do not allow writes.
    only_reads: bool,
    fates: BTreeMap<Fate, u32>,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a faulty server")
    }
}

fn generic() -> Error {
    Error::Generic {
        store: "faulty",
        source: "status code: 500: <Code>InternalError</Code>".into(),
    }
}

fn not_found(path: &Path) -> Error {
    Error::NotFound {
        path: path.to_string(),
        source: "it is not there".into(),
    }
}

impl Process {
    pub(super) fn new(server: &Arc<Server>, seed: u64, percent: u32) -> Self {
        Self {
            server: Arc::clone(server),
            plan: Arc::new(Mutex::new(Plan {
                dice: StdRng::seed_from_u64(seed),
                percent,
                dies: None,
                only_reads: false,
                fates: BTreeMap::new(),
            })),
            died: Arc::default(),
        }
    }

    /// One that dies at its request of this number, before or after it is done.
    pub(super) fn that_dies(server: &Arc<Server>, request: u32, is_done: bool) -> Self {
        let process = Self::new(server, 0, 0);
        lock(&process.plan).dies = Some((request, is_done));
        process
    }

    /// One whose credentials do not allow writes.
    pub(super) fn that_only_reads(server: &Arc<Server>) -> Self {
        let process = Self::new(server, 0, 0);
        lock(&process.plan).only_reads = true;
        process
    }

    /// How often requests had a fate.
    pub(super) fn fates(&self, fate: Fate) -> u32 {
        lock(&self.plan).fates.get(&fate).copied().unwrap_or(0)
    }

    /// The store as the process sees it.
    pub(super) fn remote(&self) -> Remote {
        let mut remote = Remote::in_memory("s3://lake/").expect("it opens");
        remote.objects = Arc::new(self.clone());
        remote.uploads = Arc::new(self.clone());
        remote.pending = Some(Arc::new(self.clone()));
        remote
    }

    /// Works until the end, or until the process dies.
    pub(super) async fn lives<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.died.notified() => None,
        }
    }

    fn fate(&self) -> (Fate, u32) {
        let mut plan = lock(&self.plan);
        let turns = plan.dice.random_range(0..3);
        let dies = plan.dies;
        let fate = match dies {
            Some((0, false)) => Fate::DiesBefore,
            Some((0, true)) => Fate::DiesAfter,
            _ if plan.dice.random_range(0..100_u32) >= plan.percent => Fate::Answered,
            _ if plan.dice.random_range(0..2) == 0 => Fate::Refused,
            _ => Fate::Lost,
        };
        if let Some((left, _)) = &mut plan.dies {
            *left = left.saturating_sub(1);
        }
        *plan.fates.entry(fate).or_default() += 1;
        (fate, turns)
    }

    fn is_even(&self) -> bool {
        lock(&self.plan).dice.random_range(0..2) == 0
    }

    async fn dead<T>(&self) -> T {
        self.died.notify_one();
        std::future::pending().await
    }

    /// Performs a request. `lost`: the answer that comes instead of the right one.
    async fn request<T>(
        &self,
        act: impl Future<Output = Result<T>>,
        lost: impl FnOnce() -> Error,
    ) -> Result<T> {
        let (fate, turns) = self.fate();
        // Others have their turns.
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        match fate {
            Fate::Answered => act.await,
            Fate::Refused => Err(generic()),
            Fate::Lost => act.await.and_then(|_| Err(lost())),
            Fate::DiesBefore => self.dead().await,
            Fate::DiesAfter => {
                let _ = act.await;
                self.dead().await
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Process {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if lock(&self.plan).only_reads {
            let mut plan = lock(&self.plan);
            *plan.fates.entry(Fate::Refused).or_default() += 1;
            return Err(Error::PermissionDenied {
                path: location.to_string(),
                source: "status code: 403: <Code>AccessDenied</Code>".into(),
            });
        }
        // The client repeats a conditional write by itself, and meets its own success.
        let conflict = match opts.mode {
            PutMode::Create => Some(Error::AlreadyExists {
                path: location.to_string(),
                source: "it is there".into(),
            }),
            PutMode::Update(_) => Some(Error::Precondition {
                path: location.to_string(),
                source: "it is another one".into(),
            }),
            PutMode::Overwrite => None,
        };
        let conflict = conflict.filter(|_| self.is_even());
        let put = self.server.objects.put_opts(location, payload, opts);
        self.request(put, || conflict.unwrap_or_else(generic)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.server.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.server.objects.get_opts(location, options);
        self.request(got, generic).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let process = self.clone();
        let delete = move |location: Result<Path>| {
            let process = process.clone();
            async move {
                let location = location?;
                let deleted = process.server.objects.delete(&location);
                process.request(deleted, generic).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.server.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.server.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.server.objects.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Process {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let create = async {
            let id = self.server.objects.create_multipart(path).await?;
            lock(&self.server.uploads).insert(id.clone(), path.clone());
            Ok(id)
        };
        self.request(create, generic).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let put = self.server.objects.put_part(path, id, part_idx, data);
        self.request(put, generic).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let is_polite = self.is_even();
        let complete = async {
            let done = self.server.objects.complete_multipart(path, id, parts);
            match done.await {
                Ok(done) => {
                    lock(&self.server.uploads).remove(id);
                    Ok(done)
                }
                // Some servers answer 404 to the completion of an upload that is gone, some 500.
                Err(_) if is_polite => Err(not_found(path)),
                Err(_) => Err(generic()),
            }
        };
        self.request(complete, generic).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let is_polite = self.is_even();
        let abort = async {
            match self.server.objects.abort_multipart(path, id).await {
                Ok(()) => {
                    lock(&self.server.uploads).remove(id);
                    Ok(())
                }
                // Some servers say so of an upload that was completed, some answer 404.
                Err(_) if is_polite => Ok(()),
                Err(_) => Err(not_found(path)),
            }
        };
        self.request(abort, generic).await
    }
}

impl PendingUploads for Process {
    fn uploads_of<'a>(&'a self, keys: &'a str) -> BoxFuture<'a, Result<Vec<(Path, MultipartId)>>> {
        let uploads = lock(&self.server.uploads).clone().into_iter();
        let uploads = uploads.filter(|(_, path)| path.as_ref().starts_with(keys));
        let uploads = uploads.map(|(id, path)| (path, id));
        let uploads: Vec<(Path, MultipartId)> = uploads.collect();
        Box::pin(std::future::ready(Ok(uploads)))
    }
}
