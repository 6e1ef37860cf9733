//! Streams of HTTP/2, of which one connection has many: they are counted, bounded over all connections, and end if
//! their client does not take the answer.
//!
//! ```text
//! connection ──▶ executor: a task for each stream ──▶ admit: refused, or ──▶ handlers
//!                  ▲ dropped if the client takes nothing                        │
//!                  └──────────── when the last piece was given ◀── pieces ◀─────┘
//! ```

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use weft_core::{ErrorCode, Problem, lock};
use weft_runtime::{OnError, Tasks};

use super::STALLED_MS_MAX;
use super::reply::Failure;

/// Streams of all connections at a time: as many as there are connections, each of which is one request in HTTP/1.1.
const ALL_STREAMS_MAX: usize = 1024;
/// How long a client may take nothing of an answer. The kernel sees to it only if the whole connection stalls.
const STALLED: Duration = Duration::from_millis(STALLED_MS_MAX as u64);
/// Bytes of an answer that are given to the connection at a time: what a slow client takes is seen that often.
const PIECE_BYTES_MAX: usize = 64 << 10;

tokio::task_local! {
    /// The stream whose request is answered.
    static STREAM: Arc<Stream>;
}

/// Room for the streams of all connections. Clones share it.
#[derive(Clone)]
pub(super) struct Streams {
    room: Arc<Semaphore>,
    tasks: Tasks,
}

impl Streams {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            room: Arc::new(Semaphore::new(ALL_STREAMS_MAX)),
            tasks,
        }
    }

    /// Runs the streams of a new connection.
    pub(super) fn executor(&self) -> StreamExecutor {
        StreamExecutor {
            all: self.clone(),
            n_open: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// Runs the streams of one connection as tasks. Clones share them.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    all: Streams,
    n_open: Arc<watch::Sender<usize>>,
}

impl StreamExecutor {
    /// How many streams are open.
    pub(super) fn n_open(&self) -> watch::Receiver<usize> {
        self.n_open.subscribe()
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let open = Open::new(&self.n_open);
        let room = Arc::clone(&self.all.room).try_acquire_owned();
        let stream = Arc::new(Stream::new(room.ok()));
        let tasks = &self.all.tasks;
        tasks.spawn("stream of HTTP/2", OnError::Log, async move {
            let _open = open;
            tokio::select! {
                biased;
                _ = STREAM.scope(Arc::clone(&stream), future) => {}
                () = stream.stalled() => tracing::debug!("a client took nothing of an answer, which is cut off"),
            }
            Ok(())
        });
    }
}

/// Counts a stream until this is dropped.
struct Open(Arc<watch::Sender<usize>>);

impl Open {
    fn new(n_open: &Arc<watch::Sender<usize>>) -> Self {
        n_open.send_modify(|n| *n += 1);
        Self(Arc::clone(n_open))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Waits until no stream has been open for so long.
pub(super) async fn idle(n_open: &mut watch::Receiver<usize>, after: Duration) {
    loop {
        let n = *n_open.borrow_and_update();
        let changed = match n {
            0 => tokio::time::timeout(after, n_open.changed()).await,
            _ => Ok(n_open.changed().await),
        };
        // The time is over, or the connection has gone.
        if !matches!(changed, Ok(Ok(()))) {
            return;
        }
    }
}

/// One stream.
struct Stream {
    /// The stream's place among all; without one, its request is refused.
    room: Option<OwnedSemaphorePermit>,
    /// When the piece was given that the client has not taken yet.
    given: Mutex<Option<Instant>>,
}

impl Stream {
    fn new(room: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            room,
            given: Mutex::new(None),
        }
    }

    /// When the client will have stalled, if it takes nothing from now on.
    fn stalls_at(&self, now: Instant) -> Instant {
        lock(&self.given).unwrap_or(now) + STALLED
    }

    /// Waits until the client has taken nothing for too long.
    async fn stalled(&self) {
        loop {
            let now = Instant::now();
            let stalls_at = self.stalls_at(now);
            if stalls_at <= now {
                return;
            }
            tokio::time::sleep_until(stalls_at).await;
        }
    }
}

/// Refuses a request of HTTP/2 if there are too many, and watches how its answer is taken. Of HTTP/1.1 there are no
/// more requests than connections, and the kernel watches those.
pub(super) async fn admit(request: Request, next: Next) -> Response {
    let Ok(stream) = STREAM.try_with(Arc::clone) else {
        return next.run(request).await;
    };
    if stream.room.is_none() {
        let detail =
            format!("{ALL_STREAMS_MAX} requests of HTTP/2 are being answered here; try again");
        return Failure::from(Problem::new(ErrorCode::Busy, detail)).into_response();
    }
    let response = next.run(request).await;
    response.map(|body| {
        Body::new(Pieces {
            body,
            rest: Bytes::new(),
            stream,
        })
    })
}

/// An answer in small pieces, each of which is asked for once the one before is taken.
struct Pieces {
    body: Body,
    /// Bytes that have come and are not given yet.
    rest: Bytes,
    stream: Arc<Stream>,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        *lock(&this.stream.given) = None;
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let n_bytes = this.rest.len().min(PIECE_BYTES_MAX);
        let piece = this.rest.split_to(n_bytes);
        *lock(&this.stream.given) = Some(Instant::now());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, coming) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(coming.lower().saturating_add(rest));
        if let Some(upper) = coming.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware;
    use axum::routing::get;
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;
    use hyper_util::service::TowerToHyperService;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_if_no_stream_is_open() {
        let streams = Streams::new(Tasks::new(CancellationToken::new()));
        let executor = streams.executor();
        let mut n_open = executor.n_open();
        let open = Open::new(&executor.n_open);
        assert!(idle(&mut n_open, Duration::ZERO).now_or_never().is_none());
        drop(open);
        idle(&mut n_open, Duration::ZERO).await;
        // Each stream begins the time anew, even one that has ended before anybody looks.
        drop(Open::new(&executor.n_open));
        assert!(n_open.has_changed().expect("the executor is there"));
    }

    async fn fails() {
        panic!("a handler fails");
    }

    #[tokio::test]
    async fn a_stream_is_open_until_its_task_ends_however_it_ends() {
        let streams = Streams::new(Tasks::new(CancellationToken::new()));
        let executor = streams.executor();
        let mut n_open = executor.n_open();
        executor.execute(std::future::pending::<()>());
        executor.execute(fails());
        let waited = n_open.wait_for(|n| *n == 1).await;
        assert_eq!(*waited.expect("the executor is there"), 1);
        drop(streams.room.try_acquire_many(1_023).expect("one is taken"));
        assert!(streams.room.try_acquire_many(1_024).is_err());
    }

    #[tokio::test]
    async fn a_client_stalls_if_it_does_not_ask_for_more() {
        let stream = Arc::new(Stream::new(None));
        let mut pieces = Pieces {
            body: Body::from(vec![7_u8; PIECE_BYTES_MAX + 1]),
            rest: Bytes::new(),
            stream: Arc::clone(&stream),
        };
        let whole = pieces.size_hint().exact();
        assert_eq!(whole, Some(PIECE_BYTES_MAX as u64 + 1));
        let later = Instant::now() + Duration::from_secs(3_600);
        let has_stalled = || stream.stalls_at(later) <= later;
        assert!(!has_stalled(), "nothing was given");
        for n_bytes in [PIECE_BYTES_MAX, 1] {
            assert!(!pieces.is_end_stream());
            let piece = pieces.frame().await.expect("more").expect("it is there");
            assert_eq!(piece.into_data().expect("bytes").len(), n_bytes);
            assert!(has_stalled(), "it was not taken");
        }
        assert!(pieces.is_end_stream());
        assert!(pieces.frame().await.is_none());
        assert!(!has_stalled(), "all was taken");
    }

    #[tokio::test]
    async fn requests_over_the_bound_are_refused() {
        let room = Arc::new(Semaphore::new(1));
        let router: Router = Router::new()
            .route("/", get(|| async { "answered" }))
            .layer(middleware::from_fn(admit));
        let service = TowerToHyperService::new(router);
        let status = |stream: Stream| {
            let request: Request = Request::new(Body::empty());
            let answered = hyper::service::Service::call(&service, request);
            let answered = STREAM.scope(Arc::new(stream), answered);
            async move { answered.await.expect("it never fails").status() }
        };
        let permit = Arc::clone(&room).try_acquire_owned().ok();
        assert_eq!(status(Stream::new(permit)).await, StatusCode::OK);
        let refused = status(Stream::new(None)).await;
        assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(room.available_permits(), 1, "it is free again");
    }
}
