//! Calls of the API.
//!
//! Every call but an invocation may be sent twice: reads change nothing, a job carries an
//! idempotency key, an upload is known by its digest, and cancelling twice is cancelling once. So
//! whatever is lost on the way is sent again, to each endpoint in turn, for about a second; then
//! the server counts as unreachable.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited, StreamBody};
use hyper::HeaderMap;
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, TE,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::answer_stream::AnswerStream;
use crate::endpoint::{Endpoint, encode};
use crate::error::Error;
use crate::model;
use crate::problem::ApiProblem;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Waits between attempts while nobody answers.
const RETRY_DELAYS_MS: [u64; 3] = [100, 300, 600];
/// Attempts while the server says that it is busy.
const BUSY_ATTEMPTS: u32 = 5;
/// Longest wait that a busy server may ask for.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For all calls but uploads and streams.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// An upload may wait for the component to be compiled.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Piece of a file that is read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// How the reason begins where nothing was sent.
const CONNECT: &str = "connecting: ";

/// One call: what to send, independent of where to.
pub struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    payload: Payload,
}

enum Payload {
    Nothing,
    Json(Bytes),
    /// Input of a function, whose call must not be sent twice.
    Octets(Bytes),
    Wasm {
        file: PathBuf,
        size_bytes: u64,
    },
}

impl Call {
    /// Reads `path`, as [`path`](crate::path) makes it.
    pub fn get(path: String) -> Self {
        Self::new(Method::GET, path, Payload::Nothing)
    }

    /// Posts without a body.
    pub fn post(path: String) -> Self {
        Self::new(Method::POST, path, Payload::Nothing)
    }

    /// Puts without a body.
    pub fn put(path: String) -> Self {
        Self::new(Method::PUT, path, Payload::Nothing)
    }

    /// Deletes.
    pub fn delete(path: String) -> Self {
        Self::new(Method::DELETE, path, Payload::Nothing)
    }

    /// Posts a JSON document.
    pub fn post_json(path: String, document: &Value) -> Self {
        let json = Bytes::from(document.to_string());
        Self::new(Method::POST, path, Payload::Json(json))
    }

    /// Posts the first `size_bytes` of a file, which is read while it is sent.
    pub fn post_wasm(path: String, file: PathBuf, size_bytes: u64) -> Self {
        Self::new(Method::POST, path, Payload::Wasm { file, size_bytes })
    }

    /// Posts bytes to something that may only happen once.
    pub fn post_octets(path: String, bytes: Vec<u8>) -> Self {
        Self::new(Method::POST, path, Payload::Octets(Bytes::from(bytes)))
    }

    /// Adds parameters to the path.
    pub fn query(mut self, parameters: &[(&str, String)]) -> Self {
        for (position, (name, value)) in parameters.iter().enumerate() {
            let sign = if position == 0 { '?' } else { '&' };
            self.path += &format!("{sign}{}={}", encode(name), encode(value));
        }
        self
    }

    /// True where it may have happened although no answer came, and must not happen again.
    fn is_once(&self) -> bool {
        matches!(self.payload, Payload::Octets(_))
    }

    fn new(method: Method, path: String, payload: Payload) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            payload,
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn timeout(&self) -> Duration {
        match self.payload {
            Payload::Wasm { .. } => UPLOAD_TIMEOUT,
            Payload::Octets(_) => UPLOAD_TIMEOUT,
            Payload::Nothing | Payload::Json(_) => ANSWER_TIMEOUT,
        }
    }
}

/// An answer, whole.
pub struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The document as it was sent, down to the last digit of its numbers.
    pub fn text(&self) -> Result<&str, Error> {
        let text = std::str::from_utf8(&self.body).map(str::trim);
        text.map_err(|_| Error::other("the server's answer is not text"))
    }

    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// A header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The document.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        model::read(&self.body)
    }

    /// True where the call made something that was not there before.
    pub fn is_created(&self) -> bool {
        self.status == StatusCode::CREATED
    }

    fn asks_to_wait(&self) -> Option<Duration> {
        let busy = matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        self.retry_after
            .filter(|wait| busy && *wait <= BUSY_WAIT_MAX)
    }

    fn accepted(self) -> Result<Self, Error> {
        match self.status.is_success() {
            true => Ok(self),
            false => Err(self.problem()),
        }
    }

    /// The refusal that it is.
    fn problem(&self) -> Error {
        let problem = ApiProblem::from_answer(self.status.as_u16(), &self.body);
        Error::Problem(Box::new(problem))
    }
}

/// Why a call brought no answer.
pub(crate) enum Lost {
    /// The connection failed, or broke; another attempt may do.
    Connection(String),
    /// Something on this side is wrong.
    Here(Error),
}

/// A client of one or more servers, which are tried in turn.
pub struct Client {
    http: HttpClient<HttpConnector, Body>,
    endpoints: Vec<Endpoint>,
    /// Position of the endpoint that answered last: it is asked first.
    current: AtomicUsize,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the first of `endpoints` that answers.
    ///
    /// Errors: `Invalid` where an endpoint or the token cannot be one. Panics without an endpoint.
    pub fn new(endpoints: &[String], token: Option<&str>) -> Result<Self, Error> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let endpoints: Vec<Endpoint> = endpoints
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()?;
        assert!(!endpoints.is_empty(), "there is a default endpoint");
        Ok(Self {
            http: HttpClient::builder(TokioExecutor::new()).build(connector),
            endpoints,
            current: AtomicUsize::new(0),
            authorization: token.map(bearer).transpose()?,
        })
    }

    /// Sends a call until it is answered, and answers with what came back.
    ///
    /// Errors: `Problem` where the server refuses, `Unreachable` where none answers. Safe to drop:
    /// the server may or may not have done what was asked.
    pub async fn send(&self, call: &Call) -> Result<Answer, Error> {
        for _ in 1..BUSY_ATTEMPTS {
            let answer = self.send_while_lost(call).await?;
            match answer.asks_to_wait() {
                Some(wait) => {
                    // Another controller may be less busy, or know a leader.
                    let next = (self.current.load(Ordering::Relaxed) + 1) % self.endpoints.len();
                    self.current.store(next, Ordering::Relaxed);
                    tokio::time::sleep(wait).await;
                }
                None => return answer.accepted(),
            }
        }
        self.send_while_lost(call).await?.accepted()
    }

    /// Sends a call to each endpoint in turn, once, until one answers. For those who ask again themselves.
    ///
    /// Errors: as those of [`Client::send`].
    pub async fn send_once(&self, call: &Call) -> Result<Answer, Error> {
        match self.first_answer(call).await {
            Ok(answer) => answer.accepted(),
            Err(Lost::Here(failure)) => Err(failure),
            Err(Lost::Connection(reason)) => Err(unreachable(&reason)),
        }
    }

    async fn send_while_lost(&self, call: &Call) -> Result<Answer, Error> {
        let mut delays = RETRY_DELAYS_MS.iter().copied().map(Duration::from_millis);
        loop {
            let reason = match self.first_answer(call).await {
                Ok(answer) => return Ok(answer),
                Err(Lost::Here(failure)) => return Err(failure),
                Err(Lost::Connection(reason)) => reason,
            };
            match delays.next() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(unreachable(&reason)),
            }
        }
    }

    /// One round over the endpoints.
    async fn first_answer(&self, call: &Call) -> Result<Answer, Lost> {
        let whole = async |endpoint: &Endpoint| {
            let exchange = async { whole_answer(self.exchange(endpoint, call).await?).await };
            let silence =
                |_| Lost::Connection(format!("no answer in {} s", call.timeout().as_secs()));
            let answered = tokio::time::timeout(call.timeout(), exchange).await;
            match answered.map_err(silence).flatten() {
                Err(Lost::Connection(reason)) if call.is_once() && !reason.starts_with(CONNECT) => {
                    Err(Lost::Here(Error::other(format!(
                        "no answer came ({reason}); the function may have run, or not"
                    ))))
                }
                answered => answered,
            }
        };
        self.first_of(whole).await
    }

    /// Posts what comes, while it comes, to the endpoint that answered last; once, because what was
    /// sent is gone. Answers as soon as the head of the answer is there.
    ///
    /// Errors: `Problem` where the server refuses, `Unreachable` where it is gone.
    pub async fn stream(
        &self,
        call: &Call,
        content_type: &'static str,
        input: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<AnswerStream, Error> {
        let endpoint = &self.endpoints[self.current.load(Ordering::Relaxed)];
        let mut request = Request::post(endpoint.uri(&call.path))
            .header(CONTENT_TYPE, content_type)
            .header(TE, "trailers");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let pieces = futures::stream::unfold(input, |mut input| async {
            let piece = input.recv().await?;
            Some((piece.map(Frame::data), input))
        });
        let request = request.body(StreamBody::new(pieces).boxed_unsync());
        let answered = self.http.request(request.map_err(Error::other)?).await;
        let response = answered.map_err(|error| match error.is_connect() {
            true => unreachable(&format!("{endpoint} ({})", innermost(&error))),
            false => Error::other(format!("no answer came: {}", innermost(&error))),
        })?;
        if response.status().is_success() {
            return Ok(AnswerStream::new(response.into_body()));
        }
        let refused = match whole_answer(response).await {
            Ok(answer) => answer.accepted(),
            Err(Lost::Connection(reason)) => Err(Error::other(reason)),
            Err(Lost::Here(failure)) => Err(failure),
        };
        Err(refused
            .err()
            .unwrap_or_else(|| unreachable!("the status is no success")))
    }

    /// Opens rows, which come piece by piece. Reading may be tried again: while the server is busy it is.
    ///
    /// Errors: `Problem` where the server refuses, `Unreachable` where none answers.
    pub async fn open_rows(&self, call: &Call) -> Result<AnswerStream, Error> {
        let mut left = BUSY_ATTEMPTS;
        loop {
            left -= 1;
            let refused = match self.try_open_rows(call).await? {
                Ok(rows) => return Ok(rows),
                Err(refused) => refused,
            };
            match refused.asks_to_wait() {
                Some(wait) if left > 0 => tokio::time::sleep(wait).await,
                _ => return Err(refused.problem()),
            }
        }
    }

    /// One round over the endpoints: the answer as soon as its head is there, or the refusal.
    async fn try_open_rows(&self, call: &Call) -> Result<Result<AnswerStream, Answer>, Error> {
        let open = async |endpoint: &Endpoint| {
            let exchange = async {
                let mut request = self.request(endpoint, call).await.map_err(Lost::Here)?;
                let trailers = HeaderValue::from_static("trailers");
                request.headers_mut().insert(TE, trailers);
                let answered = self.http.request(request).await;
                answered.map_err(|error| Lost::Connection(innermost(&error)))
            };
            let silence = |_| Lost::Connection("no answer".into());
            let opened = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await;
            opened.map_err(silence)?
        };
        let response = match self.first_of(open).await {
            Ok(response) => response,
            Err(Lost::Connection(reason)) => return Err(unreachable(&reason)),
            Err(Lost::Here(failure)) => return Err(failure),
        };
        if response.status().is_success() {
            return Ok(Ok(AnswerStream::new(response.into_body())));
        }
        match whole_answer(response).await {
            Ok(refusal) => Ok(Err(refusal)),
            Err(Lost::Connection(reason)) => Err(Error::other(reason)),
            Err(Lost::Here(failure)) => Err(failure),
        }
    }

    /// Opens a stream: one round over the endpoints, and the answer as soon as its head is there.
    ///
    /// Errors: `Here` with a `Problem` where the server refuses for good.
    pub(crate) async fn open(&self, call: &Call) -> Result<Incoming, Lost> {
        let open = async |endpoint: &Endpoint| {
            let exchange = self.exchange(endpoint, call);
            let silence = |_| Lost::Connection("no answer".into());
            tokio::time::timeout(ANSWER_TIMEOUT, exchange)
                .await
                .map_err(silence)?
        };
        let response = self.first_of(open).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        // A server that starts or is busy is one to come back to.
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Lost::Connection(format!("status {status}")));
        }
        let refused = whole_answer(response).await?.accepted();
        Err(refused.map_or_else(Lost::Here, |_| unreachable!("the status is no success")))
    }

    /// Tries the endpoints in order, beginning with the one that answered last.
    async fn first_of<T>(
        &self,
        attempt: impl AsyncFn(&Endpoint) -> Result<T, Lost>,
    ) -> Result<T, Lost> {
        let first = self.current.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for offset in 0..self.endpoints.len() {
            let position = (first + offset) % self.endpoints.len();
            let endpoint = &self.endpoints[position];
            match attempt(endpoint).await {
                Err(Lost::Connection(reason)) => reasons.push(format!("{endpoint} ({reason})")),
                answered => {
                    self.current.store(position, Ordering::Relaxed);
                    return answered;
                }
            }
        }
        Err(Lost::Connection(reasons.join(", ")))
    }

    async fn exchange(&self, endpoint: &Endpoint, call: &Call) -> Result<Response<Incoming>, Lost> {
        let request = self.request(endpoint, call).await.map_err(Lost::Here)?;
        let lost = |error: hyper_util::client::legacy::Error| match error.is_connect() {
            true => Lost::Connection(format!("{CONNECT}{}", innermost(&error))),
            false => Lost::Connection(innermost(&error)),
        };
        self.http.request(request).await.map_err(lost)
    }

    async fn request(&self, endpoint: &Endpoint, call: &Call) -> Result<Request<Body>, Error> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(endpoint.uri(&call.path));
        request = request.header(
            ACCEPT,
            "application/json, application/problem+json, text/event-stream",
        );
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let (content_type, size_bytes, body) = body(&call.payload).await?;
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if call.method != Method::GET {
            request = request.header(CONTENT_LENGTH, size_bytes);
        }
        request.body(body).map_err(Error::other)
    }
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value
        .map_err(|_| Error::Invalid("the token holds characters that none can have".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreachable(reason: &str) -> Error {
    let reason = reason.replace(CONNECT, "");
    Error::Unreachable(format!(
        "cannot reach a server at {reason}; start one with `weft up`, or name one with `--endpoint`"
    ))
}

async fn body(payload: &Payload) -> Result<(Option<&'static str>, u64, Body), Error> {
    match payload {
        Payload::Nothing => Ok((
            None,
            0,
            Empty::new().map_err(|never| match never {}).boxed_unsync(),
        )),
        Payload::Octets(bytes) => {
            let body = Full::new(bytes.clone())
                .map_err(|never| match never {})
                .boxed_unsync();
            Ok((Some("application/octet-stream"), bytes.len() as u64, body))
        }
        Payload::Json(json) => {
            let body = Full::new(json.clone())
                .map_err(|never| match never {})
                .boxed_unsync();
            Ok((Some("application/json"), json.len() as u64, body))
        }
        Payload::Wasm { file, size_bytes } => {
            let body = file_body(file, *size_bytes).await?;
            Ok((Some("application/wasm"), *size_bytes, body))
        }
    }
}

async fn file_body(path: &PathBuf, size_bytes: u64) -> Result<Body, Error> {
    let opened = tokio::fs::File::open(path).await;
    let file = opened
        .map_err(|error| Error::other(format!("cannot read `{}`: {error}", path.display())))?;
    let frames = futures::stream::try_unfold(file.take(size_bytes), async |mut file| {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        (&mut file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)
            .await?;
        let more = !chunk.is_empty();
        io::Result::Ok(more.then(|| (Frame::data(Bytes::from(chunk)), file)))
    });
    Ok(StreamBody::new(frames).boxed_unsync())
}

async fn whole_answer(response: Response<Incoming>) -> Result<Answer, Lost> {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let headers = response.headers().clone();
    let collected = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = collected
        .map_err(|error| Lost::Connection(innermost(&*error)))?
        .to_bytes();
    Ok(Answer {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        headers,
        body,
    })
}

/// The last link of a chain of errors: `Connection refused` rather than `client error`.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
