//! `/v1/jobs/{id}/outputs/{name}/rows`: rows of a published output, as an executor reads and encodes them.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use weft_control::{Job, JobState, Outcome};
use weft_core::job::{OutputFormat, OutputSpec};
use weft_core::{ErrorCode, JobId, Problem, TenantId};
use weft_protocol::{OutputRows, RowsFormat, RowsOf, RowsRequest};
use weft_runtime::OnError;
use weft_runtime::link::NoReply;

use super::auth::Principal;
use super::reply::{ApiResult, Failure};
use super::stream::{ARROW, CSV, JSON, PROBLEM, last, takes_trailers};
use super::{Api, jobs, views};
use crate::kept_outputs::KeptOutputs;

/// Pieces that wait for the client.
const PIECES_MAX: usize = 1;
/// Longest time that one answer may take.
const MAX_ROWS_WALL: Duration = Duration::from_secs(3_600);

/// Rows that are wanted.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RowsQuery {
    format: Option<String>,
    offset: Option<u64>,
    limit: Option<u64>,
}

/// How reading ended.
pub(super) type Ended = oneshot::Receiver<Result<(), NoReply>>;
/// Rows as they come, and how that ended.
pub(super) type Coming = (mpsc::Receiver<Bytes>, Ended);

/// Streams rows of an output, in the order of tasks and rows.
pub(crate) async fn rows(
    State(api): State<Api>,
    principal: Principal,
    Path((id, name)): Path<(String, String)>,
    Query(query): Query<RowsQuery>,
    version: Version,
    headers: HeaderMap,
) -> ApiResult<Response> {
    if version < Version::HTTP_11 {
        let detail = "rows need HTTP/1.1: before that, an answer that is cut off looks like one that is whole";
        return Err(Problem::new(ErrorCode::InvalidJob, detail).into());
    }
    let (format, kind) = format(query.format.as_deref(), &headers)?;
    let (job, output) = find(&api, &principal.tenant, &id, &name).await?;
    let of = RowsOf::Output(Box::new(OutputRows {
        job,
        output,
        offset: query.offset.unwrap_or(0),
        limit: query.limit,
    }));
    let (mut pieces, ended) = start(&api, principal.tenant, of, RowsFormat::File(format));
    let body = match pieces.recv().await {
        Some(first) => {
            let frames = frames(first, pieces, ended, takes_trailers(&headers));
            Body::new(StreamBody::new(frames))
        }
        None => match result(ended).await {
            Ok(()) => Body::empty(),
            Err(problem) => return Err(problem.into()),
        },
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::TRAILER, HeaderValue::from_static(PROBLEM)),
    ];
    Ok((headers, body).into_response())
}

/// The output of a job whose rows can be read now. Errors: those of [`wanted`].
pub(super) async fn find(
    api: &Api,
    tenant: &TenantId,
    id: &str,
    name: &str,
) -> ApiResult<(JobId, OutputSpec)> {
    let (kept, now_ms) = (api.kept_outputs, api.replica.now_ms());
    let look = |job: &Job| wanted(job, name, &kept, now_ms);
    jobs::look(api, tenant, id, look).await?
}

/// Has rows read and encoded, as far as their receiver takes them; without the receiver, that ends.
pub(super) fn start(api: &Api, tenant: TenantId, of: RowsOf, format: RowsFormat) -> Coming {
    let request = RowsRequest {
        request: 0,
        of,
        format,
    };
    let (client, pieces) = mpsc::channel(PIECES_MAX);
    let (end, ended) = oneshot::channel();
    let invocations = api.invocations.clone();
    api.tasks.spawn("rows", OnError::Log, async move {
        let sent = invocations.rows(&tenant, request, MAX_ROWS_WALL, &client);
        let sent = sent.await;
        drop(client);
        // The client may have gone.
        let _ = end.send(sent);
        Ok(())
    });
    (pieces, ended)
}

/// The format that the query names, or else the headers, and its content type. Errors: `invalid_job` for one that is
/// not offered.
fn format(
    named: Option<&str>,
    headers: &HeaderMap,
) -> Result<(OutputFormat, &'static str), Problem> {
    let accepted = || {
        let values = headers.get_all(header::ACCEPT).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        let mut kinds = texts.flat_map(|accept| accept.split(','));
        kinds.find_map(|kind| match kind.split(';').next()?.trim() {
            ARROW => Some("arrow"),
            CSV => Some("csv"),
            JSON => Some("json"),
            _ => None,
        })
    };
    match named.or_else(accepted).unwrap_or("json") {
        "arrow" => Ok((OutputFormat::Arrow, ARROW)),
        "csv" => Ok((OutputFormat::Csv, CSV)),
        "json" => Ok((OutputFormat::Json, JSON)),
        other => {
            let detail = format!(
                "`format` is `arrow`, `json` or `csv`, not `{}`",
                other.escape_debug()
            );
            Err(Problem::new(ErrorCode::InvalidJob, detail))
        }
    }
}

/// The output of a job whose rows can be read now.
///
/// Errors: `not_found` if it has no such output, or no rows (any more); with status 409 if it has none yet.
fn wanted(
    job: &Job,
    name: &str,
    kept: &KeptOutputs,
    now_ms: u64,
) -> Result<(JobId, OutputSpec), Failure> {
    let (id, status) = (&job.id, views::status(job));
    let missing = |detail: String| Problem::new(ErrorCode::NotFound, detail);
    let Some(output) = job.spec.outputs.iter().find(|output| output.name == name) else {
        let names = job.spec.outputs.iter().map(|output| output.name.as_str());
        let detail = format!(
            "the job `{id}` has no output `{}`; it has `{}`",
            name.escape_debug(),
            names.collect::<Vec<_>>().join("`, `")
        );
        return Err(missing(detail).into());
    };
    let JobState::Ending(ending) = &job.state else {
        let detail = format!(
            "the output `{name}` is not there yet, the job is {status}: ask again when it has ended, as `/v1/jobs/{id}/events` tells"
        );
        return Err(Failure::with_status(missing(detail), StatusCode::CONFLICT));
    };
    if ending.outcome != Outcome::Succeeded {
        let detail = format!("the job `{id}` has {status}: it has no rows");
        return Err(missing(detail).into());
    }
    if output.path().is_none() && job.change.is_some() {
        let detail = format!("the rows of `{name}` are those of a table: read it by a query");
        return Err(missing(detail).into());
    }
    if output.path().is_none() && kept.have_expired(ending.ended_ms, now_ms) {
        let hours = kept.kept_for.as_secs() / 3_600;
        let detail = format!(
            "the rows of `{name}` are not kept any more, {hours} h after the job has ended: run it again, or give the output a `uri`"
        );
        return Err(missing(detail).into());
    }
    Ok((id.clone(), output.clone()))
}

/// Waits for the end of reading.
pub(super) async fn result(ended: Ended) -> Result<(), Problem> {
    match ended.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(NoReply::Failed(problem))) => Err(problem),
        Ok(Err(NoReply::Left)) | Err(_) => {
            Err(Problem::new(ErrorCode::Busy, "the server stops; try again"))
        }
    }
}

/// The pieces of an answer. One that is not whole does not end like one that is, see [`last`].
fn frames(
    first: Bytes,
    pieces: mpsc::Receiver<Bytes>,
    ended: Ended,
    takes_trailers: bool,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
    let state = Some((Some(first), pieces, ended));
    futures::stream::unfold(state, move |state| async move {
        let (first, mut pieces, ended) = state?;
        let piece = match first {
            Some(first) => Some(first),
            None => pieces.recv().await,
        };
        if let Some(piece) = piece {
            return Some((Ok(Frame::data(piece)), Some((None, pieces, ended))));
        }
        let problem = result(ended).await.err()?;
        let frame = last(HeaderMap::new(), Err(problem), takes_trailers);
        if frame.is_err() {
            // Where it has to wait for more, hyper sends what it has, which an error would have it drop.
            tokio::task::yield_now().await;
        }
        Some((frame, None))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;
    use weft_control::{Ending, Planning};

    use super::*;

    /// A job that stands at `state`, with the output `result`, which the cluster keeps.
    fn job(state: JobState) -> Job {
        let stage = json!({ "name": "query", "sql": "SELECT 1 AS one" });
        let document = json!({
            "name": "sql", "stage": [stage], "output": { "result": { "from": "query" } },
        });
        Job {
            id: JobId::new(1, 2),
            spec: weft_core::job::decode(&document).expect("it is right"),
            functions: Vec::new(),
            submitted_ms: 0,
            usage: Vec::new(),
            events: Vec::new(),
            events_dropped: 0,
            settled: BTreeSet::new(),
            change: None,
            state,
        }
    }

    fn ended(outcome: Outcome) -> JobState {
        JobState::Ending(Ending {
            outcome,
            problem: None,
            plan: None,
            stages: Vec::new(),
            started_ms: None,
            ended_ms: 1_000,
            outputs: Vec::new(),
            failed_logs: Vec::new(),
        })
    }

    #[test]
    fn rows_are_there_while_a_job_that_succeeded_is_kept() {
        let kept = KeptOutputs::default();
        let expires_ms = 1_000 + u64::try_from(kept.kept_for.as_millis()).expect("some days");
        let status = |state: JobState, name: &str, now_ms: u64| {
            let found = wanted(&job(state), name, &kept, now_ms);
            found.map_or_else(
                |failure| failure.into_response().status(),
                |_| StatusCode::OK,
            )
        };
        let succeeded = || ended(Outcome::Succeeded);
        assert_eq!(
            status(succeeded(), "result", expires_ms - 1),
            StatusCode::OK
        );
        for (state, name, now_ms) in [
            (succeeded(), "result", expires_ms),
            (succeeded(), "other", 1_000),
            (ended(Outcome::Failed), "result", 1_000),
            (ended(Outcome::Cancelled), "result", 1_000),
        ] {
            assert_eq!(status(state, name, now_ms), StatusCode::NOT_FOUND, "{name}");
        }
        let planning = JobState::Planning(Planning::default());
        assert_eq!(status(planning, "result", 1_000), StatusCode::CONFLICT);
    }

    #[test]
    fn a_format_is_named_by_the_query_or_by_the_headers() {
        let check = |named: Option<&str>, accept: &str, expected: &str| {
            let mut headers = HeaderMap::new();
            let accept = HeaderValue::try_from(accept).expect("a header");
            headers.insert(header::ACCEPT, accept);
            let (found, kind) = format(named, &headers).expect("it is offered");
            assert_eq!(found.name(), expected, "{named:?}");
            assert!(kind.contains('/'));
        };
        check(None, "*/*", "json");
        check(None, "text/html, text/csv;q=0.5", "csv");
        check(None, ARROW, "arrow");
        check(Some("csv"), ARROW, "csv");
        let refused = format(Some("parquet"), &HeaderMap::new()).expect_err("not offered");
        assert!(refused.detail.contains("`parquet`"), "{refused}");
    }

    async fn read(takes_trailers: bool, end: Option<Result<(), NoReply>>) -> (usize, Vec<bool>) {
        use futures::StreamExt as _;

        let (client, pieces) = mpsc::channel(4);
        client.try_send(Bytes::from("b")).expect("there is room");
        drop(client);
        let (sender, ended) = oneshot::channel();
        match end {
            Some(end) => drop(sender.send(end)),
            None => drop(sender),
        }
        let frames = frames(Bytes::from("a"), pieces, ended, takes_trailers);
        let all: Vec<io::Result<Frame<Bytes>>> = frames.collect().await;
        let data = all.iter().flatten().filter(|frame| frame.is_data()).count();
        let rest = all.iter().skip(data);
        (data, rest.map(Result::is_ok).collect())
    }

    #[tokio::test]
    async fn an_answer_that_is_not_whole_does_not_look_like_one() {
        let failed = || {
            let problem = Problem::new(ErrorCode::BadRecord, "it is damaged");
            Some(Err(NoReply::Failed(problem)))
        };
        assert_eq!(read(false, Some(Ok(()))).await, (2, vec![]));
        assert_eq!(read(true, Some(Ok(()))).await, (2, vec![]));
        assert_eq!(read(false, failed()).await, (2, vec![false]));
        assert_eq!(read(true, failed()).await, (2, vec![true]), "a trailer");
        assert_eq!(read(false, None).await, (2, vec![false]), "it was aborted");
    }
}
