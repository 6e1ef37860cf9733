//! Bounds each request to a store by time. SlateDB repeats what fails, for ever or a number of times: the one hangs
//! without a word, the other gives a shard up after half a second without a store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store_slate::path::Path;
use object_store_slate::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use tokio::time::{sleep, timeout};

/// Time for one request with its repetitions. Longer than the restart of a store's server mostly takes.
pub(crate) const STORE_DEADLINE: Duration = Duration::from_secs(20);
/// Pauses between two tries: the first one, and the longest.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A store whose requests are repeated until a deadline, and end there. Clones share the store.
#[derive(Debug, Clone)]
pub(crate) struct DeadlineStore {
    store: Arc<dyn ObjectStore>,
    limit: Duration,
}

impl DeadlineStore {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, limit: Duration) -> Self {
        Self { store, limit }
    }

    /// Tries a request until it is answered, or the time is over.
    async fn tried<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        what: &'static str,
        mut request: impl FnMut() -> F + Send,
    ) -> Result<T> {
        let mut failure = None;
        let answered = timeout(self.limit, async {
            let mut pause = MIN_PAUSE;
            loop {
                match request().await {
                    Err(error) if may_be_repeated(&error) => {
                        tracing::debug!(what, %error, "a request of a shard failed");
                        failure = Some(error);
                        sleep(pause).await;
                        pause = MAX_PAUSE.min(pause * 2);
                    }
                    answer => return answer,
                }
            }
        });
        let answered = answered.await;
        answered.unwrap_or_else(|_| Err(late(what, self.limit, failure)))
    }
}

/// Returns whether a request may succeed later. Repeating a conditional one is right, too: SlateDB knows its own object
/// by a mark, or takes a lost answer for a lost race, and opens the shard anew.
fn may_be_repeated(error: &Error) -> bool {
    !matches!(
        error,
        Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::NotFound { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::InvalidPath { .. }
    )
}

/// The error of a request whose time is over.
fn late(what: &'static str, limit: Duration, failure: Option<Error>) -> Error {
    let last = match failure {
        Some(error) => format!(", and failed before: {error}"),
        None => String::new(),
    };
    Error::Generic {
        store: "shard",
        source: format!("{what} took more than {limit:?}{last}").into(),
    }
}

/// Ends a step of an upload that takes too long. Stores repeat parts by themselves.
async fn within<T>(
    what: &'static str,
    limit: Duration,
    step: impl Future<Output = Result<T>>,
) -> Result<T> {
    let done = timeout(limit, step).await;
    done.unwrap_or_else(|_| Err(late(what, limit, None)))
}

/// Reads the body of an answer, so that its time counts. Bodies are of some megabytes.
async fn whole(found: GetResult) -> Result<GetResult> {
    let (meta, range) = (found.meta.clone(), found.range.clone());
    let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
    let bytes = found.bytes().await?;
    Ok(GetResult {
        payload: GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed()),
        meta,
        range,
        attributes,
        extensions,
    })
}

/// A list that was fetched as a whole: a part of one cannot be repeated.
fn listed(
    found: impl Future<Output = Result<Vec<ObjectMeta>>> + Send + 'static,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let found = stream::once(found);
    let found = found.map_ok(|found| stream::iter(found.into_iter().map(Ok::<_, Error>)));
    found.try_flatten().boxed()
}

impl std::fmt::Display for DeadlineStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.store, f)
    }
}

#[async_trait]
impl ObjectStore for DeadlineStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let store = &self.store;
        self.tried("a write", || {
            store.put_opts(location, payload.clone(), options.clone())
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let store = &self.store;
        let started = self.tried("the start of an upload", || {
            store.put_multipart_opts(location, options.clone())
        });
        Ok(Box::new(Upload {
            upload: started.await?,
            limit: self.limit,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let store = &self.store;
        self.tried("a read", || {
            let options = options.clone();
            async move {
                let is_head = options.head;
                let found = store.get_opts(location, options).await?;
                if is_head {
                    return Ok(found);
                }
                whole(found).await
            }
        })
        .await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.then(move |location| {
            let this = this.clone();
            async move {
                let location = location?;
                let one = || stream::iter([Ok(location.clone())]).boxed();
                let removed = this
                    .tried("a removal", || {
                        this.store.delete_stream(one()).try_collect::<Vec<_>>()
                    })
                    .await?;
                drop(removed);
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        listed(async move {
            this.tried("a list", || {
                this.store.list(prefix.as_ref()).try_collect::<Vec<_>>()
            })
            .await
        })
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix, offset) = (self.clone(), prefix.cloned(), offset.clone());
        listed(async move {
            let list = || this.store.list_with_offset(prefix.as_ref(), &offset);
            this.tried("a list", || list().try_collect::<Vec<_>>())
                .await
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let store = &self.store;
        self.tried("a list", || store.list_with_delimiter(prefix))
            .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let store = &self.store;
        self.tried("a copy", || store.copy_opts(from, to, options.clone()))
            .await
    }
}

/// An upload whose steps have a deadline each.
#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    limit: Duration,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        within(
            "a part of an upload",
            self.limit,
            self.upload.put_part(data),
        )
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        within("the end of an upload", self.limit, self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        within("the end of an upload", self.limit, self.upload.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use object_store_slate::ObjectStoreExt;

    use super::*;
    use crate::tests::Faulty;

    fn path() -> Path {
        Path::from("shards/default/0/wal/1.sst")
    }

    /// Time that a store which never answers costs a test.
    const LIMIT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_store_that_is_back_in_time_answers() {
        let faulty = Faulty::in_memory();
        let store = DeadlineStore::new(faulty.clone(), STORE_DEADLINE);
        faulty.fail_next(2);
        let put = store.put(&path(), "text".into()).await;
        put.expect("it is repeated");
        faulty.fail_next(2);
        let found = store.get(&path()).await.expect("it is repeated");
        assert_eq!(found.bytes().await.expect("it is read"), "text");
        faulty.fail_next(2);
        let found: Vec<ObjectMeta> = store.list(None).try_collect().await.expect("it lists");
        assert_eq!(found.len(), 1);
    }

    #[tokio::test]
    async fn a_store_that_stays_away_ends_a_request_with_its_reason() {
        let faulty = Faulty::in_memory();
        let store = DeadlineStore::new(faulty.clone(), LIMIT);
        faulty.set_away(true);
        let failed = store.put(&path(), "text".into()).await;
        let text = failed.expect_err("the store is away").to_string();
        assert!(text.contains("200ms") && text.contains("away"), "{text}");
    }

    #[tokio::test]
    async fn a_request_that_hangs_ends() {
        let faulty = Faulty::in_memory();
        let store = DeadlineStore::new(faulty.clone(), LIMIT);
        faulty.hold_all();
        let failed = store.get(&path()).await;
        let text = failed.expect_err("nobody answers").to_string();
        assert!(text.contains("more than 200ms"), "{text}");
    }

    #[tokio::test]
    async fn a_missing_object_is_told_at_once() {
        let faulty = Faulty::in_memory();
        let store = DeadlineStore::new(faulty.clone(), STORE_DEADLINE);
        let missing = store.get(&path()).await;
        assert!(matches!(missing, Err(Error::NotFound { .. })));
        assert_eq!(faulty.requests(), 1);
    }
}
