//! A store that fails, hangs, or holds writes of the WAL back, as it is told to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store_slate::memory::InMemory;
use object_store_slate::path::Path;
use object_store_slate::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;
use weft_core::lock;

/// The requests that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    None,
    WalPuts,
    All,
}

/// Objects in memory behind faults.
#[derive(Debug)]
pub(crate) struct Faulty {
    objects: Arc<dyn ObjectStore>,
    is_away: AtomicBool,
    failures: Mutex<u64>,
    requests: AtomicU64,
    wal_puts: AtomicU64,
    /// Requests that wait now.
    waiting: watch::Sender<u64>,
    held: watch::Sender<Held>,
}

impl Faulty {
    pub(crate) fn in_memory() -> Arc<Self> {
        Self::over(Arc::new(InMemory::new()))
    }

    /// Another way to the same objects, with faults of its own.
    pub(crate) fn beside(&self) -> Arc<Self> {
        Self::over(Arc::clone(&self.objects))
    }

    fn over(objects: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self {
            objects,
            is_away: AtomicBool::new(false),
            failures: Mutex::new(0),
            requests: AtomicU64::new(0),
            wal_puts: AtomicU64::new(0),
            waiting: watch::Sender::new(0),
            held: watch::Sender::new(Held::None),
        })
    }

    /// Fails all requests, or none.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, SeqCst);
    }

    /// Fails as many requests.
    pub(crate) fn fail_next(&self, requests: u64) {
        *lock(&self.failures) = requests;
    }

    /// Answers nothing any more.
    pub(crate) fn hold_all(&self) {
        self.held.send_replace(Held::All);
    }

    /// Lets writes of the WAL linger on their way.
    pub(crate) fn hold_wal_puts(&self) {
        self.held.send_replace(Held::WalPuts);
    }

    /// Lets them arrive.
    pub(crate) fn release(&self) {
        self.held.send_replace(Held::None);
    }

    /// Waits until a request is held back.
    pub(crate) async fn is_holding(&self) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|waiting| *waiting > 0).await;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    /// Objects of the WAL that were sent.
    pub(crate) fn wal_puts(&self) -> u64 {
        self.wal_puts.load(SeqCst)
    }

    /// Passes a request on, or fails.
    async fn pass(&self, is_wal_put: bool) -> Result<()> {
        self.requests.fetch_add(1, SeqCst);
        if is_wal_put {
            self.wal_puts.fetch_add(1, SeqCst);
        }
        let is_held = |held: &Held| match held {
            Held::None => false,
            Held::WalPuts => is_wal_put,
            Held::All => true,
        };
        let mut held = self.held.subscribe();
        if is_held(&held.borrow()) {
            self.waiting.send_modify(|waiting| *waiting += 1);
            let _ = held.wait_for(|held| !is_held(held)).await;
        }
        self.fail()
    }

    /// Fails if it is time to.
    fn fail(&self) -> Result<()> {
        let mut failures = lock(&self.failures);
        let is_failing = *failures > 0;
        *failures = failures.saturating_sub(1);
        if is_failing || self.is_away.load(SeqCst) {
            return Err(Error::Generic {
                store: "faulty",
                source: "the store is away".into(),
            });
        }
        Ok(())
    }
}

impl std::fmt::Display for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("faulty")
    }
}

fn is_wal(location: &Path) -> bool {
    location.as_ref().contains("/wal/")
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.pass(is_wal(location)).await?;
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.pass(is_wal(location)).await?;
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass(false).await?;
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.requests.fetch_add(1, SeqCst);
        match self.fail() {
            Err(error) => stream::iter([Err(error)]).boxed(),
            Ok(()) => self.objects.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass(false).await?;
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.pass(false).await?;
        self.objects.copy_opts(from, to, options).await
    }
}
