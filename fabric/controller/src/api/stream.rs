//! Answers of map functions, which go to the client while its body still comes.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use weft_core::job::{CsvFormat, InputFormat, OutputFormat, UnknownFields};
use weft_core::{ErrorCode, Problem, TenantId};
use weft_protocol::{InvokeRequest, StreamFormats};

use super::Api;
use super::invoke::{METERS, add_meters, name_function};
use super::reply::{ApiResult, Failure, problem_json};
use crate::traces::RequestTrace;
use weft_runtime::OnError;
use weft_runtime::link::{NoReply, StreamEvent as Event};

/// Pieces of an answer that wait for the client.
const PIECES_MAX: usize = 1;
/// How much of a body is read that nobody wants any more, and for how long.
const PASSED_OVER_BYTES_MAX: usize = 256 << 20;
const PASSED_OVER_WITHIN: Duration = Duration::from_secs(5);
/// The trailer that tells why an answer ends before it is whole.
pub(super) const PROBLEM: &str = "x-weft-problem";

pub(super) const ARROW: &str = "application/vnd.apache.arrow.stream";
pub(super) const CSV: &str = "text/csv";
pub(super) const JSON: &str = "application/x-ndjson";
const BINARY: &str = "application/octet-stream";
/// Programs that say nothing of types say the last of these.
const TEXT: [&str; 3] = ["", "text/plain", "application/x-www-form-urlencoded"];

/// What comes and what goes, as the headers say. Errors: `invalid_job` where the input is of a type that is not read, or the call is
/// none that can stream.
pub(super) fn formats(headers: &HeaderMap, version: Version) -> Result<StreamFormats, Failure> {
    let invalid = |detail: &str| Err(Problem::new(ErrorCode::InvalidJob, detail).into());
    if headers.contains_key("idempotency-key") {
        return invalid(
            "calls of map functions have no `Idempotency-Key`: they change nothing, and their answers are not kept",
        );
    }
    if version < Version::HTTP_11 {
        return invalid(
            "calls of map functions need HTTP/1.1: before that, an answer that is cut off looks like one that is whole",
        );
    }
    let text = |name| {
        let values = headers.get_all(name).iter();
        values.filter_map(|value: &HeaderValue| value.to_str().ok())
    };
    let kind = text(header::CONTENT_TYPE).next().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let encoding = text(header::CONTENT_ENCODING).next();
    let columns = Vec::new();
    let input = match kind.to_ascii_lowercase().as_str() {
        _ if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) => {
            return Err(unread("it is compressed: send it as it is"));
        }
        kind if TEXT.contains(&kind) => InputFormat::Text { utf8: true },
        BINARY => InputFormat::Text { utf8: false },
        CSV => InputFormat::Csv(CsvFormat {
            header: true,
            delimiter: b',',
            quote: Some(b'"'),
            columns,
        }),
        JSON | "application/jsonl" | "application/json-lines" => InputFormat::Json {
            columns,
            unknown_fields: UnknownFields::default(),
        },
        ARROW => InputFormat::Arrow {
            columns: Vec::new(),
        },
        _ => {
            let what = format!(
                "`content-type` is one of `text/plain`, `{BINARY}`, `{CSV}`, `{JSON}` and `{ARROW}`"
            );
            return Err(unread(&what));
        }
    };
    let accepted = text(header::ACCEPT).flat_map(|accept| accept.split(','));
    let mut accepted = accepted.filter_map(|one| match one.split(';').next()?.trim() {
        ARROW => Some(OutputFormat::Arrow),
        CSV => Some(OutputFormat::Csv),
        JSON => Some(OutputFormat::Json),
        _ => None,
    });
    let output = accepted.next().unwrap_or(OutputFormat::Json);
    Ok(StreamFormats { input, output })
}

fn unread(what: &str) -> Failure {
    let detail = format!("the input of a map function cannot be read: {what}");
    let problem = Problem::new(ErrorCode::InvalidJob, detail);
    Failure::with_status(problem, StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// Calls a map function, and answers as soon as there is output, or as it has ended.
pub(super) async fn call(
    api: Api,
    tenant: TenantId,
    request: InvokeRequest,
    body: Body,
    deadline: Duration,
    trace: &RequestTrace,
    headers: &HeaderMap,
) -> ApiResult<Response> {
    let takes_trailers = takes_trailers(headers);
    let kind = match request.stream.as_ref().map(|formats| formats.output) {
        Some(OutputFormat::Arrow) => ARROW,
        Some(OutputFormat::Csv) => CSV,
        _ => JSON,
    };
    let label = request.label.clone();
    let span = api.traces.call(&label, trace);
    let (client, mut events) = mpsc::channel(PIECES_MAX);
    let tasks = api.tasks.clone();
    tasks.spawn("call that streams", OnError::Log, async move {
        run(&api, &tenant, request, body, deadline, &span, client).await;
        Ok(())
    });
    let stopped = || Problem::new(ErrorCode::Busy, "the server stops; try again");
    let first = events.recv().await.ok_or_else(stopped)?;
    let typed = |body| {
        (
            [(header::CONTENT_TYPE, HeaderValue::from_static(kind))],
            body,
        )
    };
    let mut response = match first {
        Event::Failed(problem) => return Err(problem.into()),
        Event::Ended(reply) => {
            let mut response = match reply.result {
                Ok(()) => typed(Body::empty()).into_response(),
                Err(problem) => Failure::from(problem).into_response(),
            };
            add_meters(response.headers_mut(), &reply.meters);
            response
        }
        Event::Output(first) => {
            let frames = frames(first, events, takes_trailers);
            let mut response = typed(Body::new(StreamBody::new(frames))).into_response();
            let trailers = [&METERS[..], &[PROBLEM]].concat().join(", ");
            if let Ok(trailers) = HeaderValue::try_from(trailers) {
                response.headers_mut().insert(header::TRAILER, trailers);
            }
            response
        }
    };
    name_function(response.headers_mut(), &label);
    Ok(response)
}

/// True where hyper sends trailers: it wants this word as it is.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// Runs a call, and tells the client how it ended.
async fn run(
    api: &Api,
    tenant: &TenantId,
    request: InvokeRequest,
    mut body: Body,
    deadline: Duration,
    span: &RequestTrace,
    client: mpsc::Sender<Event>,
) {
    let ended = {
        let pieces = std::pin::pin!(pieces(&mut body));
        api.invocations
            .stream(tenant, request, pieces, deadline, &client)
            .await
    };
    let event = match ended {
        Ok(reply) => {
            api.traces.called(span, Ok(&reply));
            Event::Ended(Box::new(reply))
        }
        Err(NoReply::Failed(problem)) => {
            api.traces.called(span, Err(&problem));
            Event::Failed(problem)
        }
        Err(NoReply::Left) => return,
    };
    // The client may have gone.
    let _ = client.send(event).await;
    drop(client);
    pass_over(body).await;
}

/// The body's pieces as they come. Errors: `invalid_job` if it is cut off.
fn pieces(body: &mut Body) -> impl Stream<Item = Result<Bytes, Problem>> {
    let state = (body, 0);
    futures::stream::unfold(state, |(body, n_bytes)| async move {
        loop {
            let piece = match body.frame().await? {
                Ok(frame) => frame.into_data().ok(),
                Err(error) => {
                    let detail = format!("the input was cut off after {n_bytes} bytes: {error}");
                    let problem = Problem::new(ErrorCode::InvalidJob, detail);
                    return Some((Err(problem), (body, n_bytes)));
                }
            };
            if let Some(piece) = piece {
                let n_bytes = n_bytes + piece.len();
                return Some((Ok(piece), (body, n_bytes)));
            }
        }
    })
}

/// Reads what comes with a call that is refused before it begins.
pub(super) fn refuse(api: &Api, body: Body) {
    api.tasks
        .spawn("body of a refused call", OnError::Log, async {
            pass_over(body).await;
            Ok(())
        });
}

/// Reads on where a call has failed: many clients look for an answer when they have sent all, and find none on a connection that was
/// closed on them.
async fn pass_over(mut body: Body) {
    let mut left = PASSED_OVER_BYTES_MAX;
    let passing = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(PASSED_OVER_WITHIN, passing).await;
}

/// An answer's frames: its pieces, and what the call used as trailers.
fn frames(
    first: Bytes,
    events: mpsc::Receiver<Event>,
    takes_trailers: bool,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    let state = (Some(Event::Output(first)), Some(events));
    futures::stream::unfold(state, move |(first, events)| async move {
        let mut events = events?;
        let event = match first {
            Some(first) => Some(first),
            None => events.recv().await,
        };
        let (frame, events) = match event {
            Some(Event::Output(piece)) => (Ok(Frame::data(piece)), Some(events)),
            Some(Event::Ended(reply)) => {
                let mut trailers = HeaderMap::new();
                add_meters(&mut trailers, &reply.meters);
                (last(trailers, reply.result, takes_trailers), None)
            }
            Some(Event::Failed(problem)) => {
                (last(HeaderMap::new(), Err(problem), takes_trailers), None)
            }
            None => (Err(io::Error::other("the server stops")), None),
        };
        if frame.is_err() {
            // Where it has to wait for more, hyper sends what it has, which an error would have it drop.
            tokio::task::yield_now().await;
        }
        Some((frame, (None, events)))
    })
}

/// How an answer ends. One that is not whole ends like one that is only for those who look at the trailers; for all others it
/// is cut off.
pub(super) fn last(
    mut trailers: HeaderMap,
    result: Result<(), Problem>,
    takes_trailers: bool,
) -> io::Result<Frame<Bytes>> {
    if let Err(problem) = result {
        tracing::info!(target: "invocation", %problem, "an answer is cut off");
        let told = HeaderValue::try_from(problem_json(&problem).to_string());
        match (takes_trailers, told) {
            (true, Ok(told)) => trailers.insert(HeaderName::from_static(PROBLEM), told),
            _ => return Err(io::Error::other(problem.detail)),
        };
    }
    Ok(Frame::trailers(trailers))
}
