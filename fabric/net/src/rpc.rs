//! Questions and answers over HTTP/2: many at a time on one connection, with flow control, and a
//! question that its asker drops is cancelled on the other side.
//!
//! A body is one head, as JSON with its length (four bytes, little endian) before it, and a payload
//! behind it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weft_core::{ErrorCode, Problem};
use weft_protocol::frame::FRAME_BYTES_MAX;

use crate::security::Wire;

/// Bytes of the length of a head.
pub(crate) const LENGTH_BYTES: usize = 4;
/// Bytes that one question or answer may have on its way that the other side has not taken.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same, for all of a connection: as much as its questions may have together, so that none holds up
/// another.
const CONNECTION_WINDOW_BYTES: u32 = QUESTIONS_MAX * STREAM_WINDOW_BYTES;
/// Questions at a time on one connection.
pub(crate) const QUESTIONS_MAX: u32 = 4_096;
/// Time between two signs of life on a connection that is otherwise silent.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Time without one after which the connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Body of a question or an answer.
pub(crate) type BoxBody = UnsyncBoxBody<Bytes, Problem>;

/// The asking end of a connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Asker {
    sender: hyper::client::conn::http2::SendRequest<BoxBody>,
}

/// A head and a payload in one body.
pub(crate) fn whole(head: &impl Serialize, payload: &[u8]) -> Result<BoxBody, Problem> {
    let mut bytes = head_bytes(head)?;
    bytes.extend_from_slice(payload);
    Ok(Full::new(bytes.freeze())
        .map_err(|never| match never {})
        .boxed_unsync())
}

/// A head with its length before it.
pub(crate) fn head_bytes(head: &impl Serialize) -> Result<BytesMut, Problem> {
    let mut bytes = BytesMut::zeroed(LENGTH_BYTES);
    let encoded = serde_json::to_writer((&mut bytes).writer(), head);
    encoded.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    let length = bytes.len() - LENGTH_BYTES;
    let Ok(length) = u32::try_from(length) else {
        let detail = format!("a message of {length} bytes cannot be sent");
        return Err(Problem::new(ErrorCode::TooLarge, detail));
    };
    bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Reads a body of one head and a payload.
pub(crate) async fn read_whole<T: DeserializeOwned>(body: Incoming) -> Result<(T, Bytes), Problem> {
    let limit = 2 * FRAME_BYTES_MAX as usize;
    let collected = Limited::new(body, limit).collect().await;
    let mut bytes = collected.map_err(|error| lost(&error))?.to_bytes();
    let malformed = |what: &str| Problem::new(ErrorCode::Internal, format!("a message is {what}"));
    if bytes.len() < LENGTH_BYTES {
        return Err(malformed("cut off"));
    }
    let length = bytes.split_to(LENGTH_BYTES);
    let length = u32::from_le_bytes(length[..].try_into().expect("four bytes")) as usize;
    if bytes.len() < length {
        return Err(malformed("cut off"));
    }
    let head = serde_json::from_slice(&bytes.split_to(length));
    let head = head.map_err(|error| malformed(&error.to_string()))?;
    Ok((head, bytes))
}

/// The connection broke: nobody knows what came of the question.
pub(crate) fn lost(error: &dyn std::fmt::Display) -> Problem {
    let detail = format!("the connection broke: {error}; try again");
    Problem::new(ErrorCode::Busy, detail)
}

impl Asker {
    /// Begins to ask on a connection. The future ends with it; it ends soon after the last asker is gone.
    pub(crate) async fn new(
        wire: Wire,
    ) -> anyhow::Result<(Self, impl Future<Output = hyper::Result<()>> + Send + use<>)> {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_max_send_streams(QUESTIONS_MAX as usize)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(SILENCE_MAX)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(wire))
            .await?;
        Ok((Self { sender }, connection))
    }

    /// Returns whether the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Asks, and returns the answer's body as it comes.
    ///
    /// Errors: `busy` if the connection broke, and nobody knows whether the question arrived.
    pub(crate) async fn open(&self, path: &str, body: BoxBody) -> Result<Incoming, Problem> {
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|error| lost(&error))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://weft{path}"));
        let request = request.body(body).map_err(|error| lost(&error))?;
        let answer = sender.send_request(request).await;
        let answer: Response<Incoming> = answer.map_err(|error| lost(&error))?;
        match answer.status() {
            StatusCode::OK => Ok(answer.into_body()),
            status => {
                let detail = format!("`{path}` was answered with {status}");
                Err(Problem::new(ErrorCode::Internal, detail))
            }
        }
    }

    /// Asks with one head and a payload, and reads an answer of the same form.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        path: &str,
        head: &impl Serialize,
        payload: &[u8],
    ) -> Result<(A, Bytes), Problem> {
        let answer = self.open(path, whole(head, payload)?).await?;
        read_whole(answer).await
    }
}

/// Answers the questions of a connection until it ends.
pub(crate) async fn answer<F, B>(
    wire: Wire,
    answer: impl Fn(Request<Incoming>) -> F + Clone,
) -> hyper::Result<()>
where
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Problem> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let answered = answer(request);
        async move { Ok::<_, std::convert::Infallible>(answered.await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(QUESTIONS_MAX)
        // Askers are other processes of the cluster, and drop questions whose clients have gone.
        .max_pending_accept_reset_streams(Some(QUESTIONS_MAX as usize))
        .max_local_error_reset_streams(None)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(SILENCE_MAX)
        .serve_connection(TokioIo::new(wire), service)
        .await
}

/// An answer of one head and a payload.
pub(crate) fn answered(head: &impl Serialize, payload: &[u8]) -> Response<BoxBody> {
    match whole(head, payload) {
        Ok(body) => Response::new(body),
        Err(problem) => {
            tracing::error!(problem = problem.detail, "an answer cannot be sent");
            refused(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// An answer without a body.
pub(crate) fn refused(status: StatusCode) -> Response<BoxBody> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}
