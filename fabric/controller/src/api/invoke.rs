//! `/v1/invoke/{component}/{function}`: one call, its input the body, its output the answer's. Those of map functions stream.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use weft_control::{Answer, Begun, CallOutcome, Command, IDEMPOTENCY_MS, InlineOutput, Tenant};
use weft_core::{
    Digest, ErrorCode, FunctionKind, Limits, Meters, PinnedFunction, Problem, TenantId,
};
use weft_protocol::{InvokeReply, InvokeRequest};

use super::auth::Principal;
use super::reply::{ApiResult, Failure};
use super::{Api, stream};
use crate::sweep::CALL_OUTPUTS;
use crate::traces::RequestTrace;
use weft_protocol::{DEADLINE_MAX, OUTPUT_BYTES_MAX};
use weft_runtime::clock::unix_ms;
use weft_runtime::random;

/// Bytes of an input.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 20;
/// How long a call may take, waiting included, unless it says so.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// What every function may use.
const LIMITS: Limits = Limits {
    memory_bytes: 256 << 20,
    cpu_ms: 30_000,
    wall_ms: 600_000,
    output_bytes: OUTPUT_BYTES_MAX as u64,
};

/// What a map function may use, whose memory does not grow with what passes through it. The deadline is what bounds it most.
const STREAM_LIMITS: Limits = Limits {
    cpu_ms: 600_000,
    output_bytes: 64 << 30,
    ..LIMITS
};

/// Calls a task or map function. Parameters of the query are the function's, but for `deadline_ms`.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a part of the request that the framework takes apart"
)]
pub(crate) async fn invoke(
    State(api): State<Api>,
    principal: Principal,
    Path((component, function)): Path<(String, String)>,
    Query(mut params): Query<Vec<(String, String)>>,
    Extension(trace): Extension<RequestTrace>,
    version: Version,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let deadline = deadline(&mut params)?;
    let ttl_s = ttl(&headers)?;
    let reference = format!("{component}/{function}");
    let tenant = &principal.tenant;
    let pinned = pin(&api, tenant, &reference).await?;
    let artefact = api.components.artefact(tenant, &pinned.digest).await?;
    let streams = pinned.function.kind == FunctionKind::MapBatches;
    let mut request = InvokeRequest {
        request: 0,
        label: pinned.label(),
        digest: pinned.digest,
        artefact,
        function: pinned.function.name,
        params,
        limits: LIMITS,
        seed: u64::from_le_bytes(random::bytes()?),
        started_ms: unix_ms(),
        stream: None,
        depth: 0,
    };
    if streams {
        match stream::formats(&headers, version) {
            Ok(formats) => request.stream = Some(formats),
            Err(failure) => {
                stream::refuse(&api, body);
                return Err(failure);
            }
        }
        request.limits = STREAM_LIMITS;
        let deadline = deadline.unwrap_or(DEADLINE_MAX);
        let tenant = principal.tenant;
        return stream::call(api, tenant, request, body, deadline, &trace, &headers).await;
    }
    let deadline = deadline.unwrap_or(DEADLINE);
    let (input, _held) = api.bodies.take_in(body).await?;
    let call = api.traces.call(&request.label, &trace);
    let answer = match keyed(&headers, &reference, &request.params, &input)? {
        Some((key, digest)) => {
            let key = Key {
                tenant: tenant.clone(),
                key,
                digest,
                ttl_s,
            };
            let once = once(api.clone(), key, request, input, deadline);
            let ended = api.tasks.run_to_end("invocation", once).await;
            ended.and_then(|answer| answer)
        }
        None => {
            api.invocations
                .invoke(tenant, request, input, deadline)
                .await
        }
    };
    let reply = answer.as_ref().map(|(reply, _)| reply);
    api.traces.called(&call, reply);
    Ok(respond(answer?))
}

/// The function that a reference means now. It may have been deployed a moment ago, through another controller.
///
/// Errors: `busy` if nobody can say.
async fn pin(api: &Api, tenant: &TenantId, reference: &str) -> Result<PinnedFunction, Problem> {
    let pin = || match api.replica.state().tenant(tenant) {
        Some(tenant) => tenant.pin_call(reference),
        None => Tenant::default().pin_call(reference),
    };
    match pin() {
        Err(_) if api.replica.may_lag() => {
            api.replica.catch_up().await?;
            pin()
        }
        pinned => pinned,
    }
}

/// An executor's answer as an answer of the API, with what was used.
pub(super) fn respond((reply, output): (InvokeReply, Bytes)) -> Response {
    let mut response = match reply.result {
        Ok(()) => {
            let octets = HeaderValue::from_static("application/octet-stream");
            ([(header::CONTENT_TYPE, octets)], Body::from(output)).into_response()
        }
        Err(problem) => Failure::from(problem).into_response(),
    };
    add_meters(response.headers_mut(), &reply.meters);
    name_function(response.headers_mut(), &reply.label);
    response
}

/// Says which version of a function was called.
pub(super) fn name_function(headers: &mut HeaderMap, label: &str) {
    if let Ok(label) = HeaderValue::from_str(label) {
        headers.insert("x-weft-function", label);
    }
}

/// The client's key, with a digest of all that it asks for: as it was asked, so that a newer version is no other request.
pub(super) fn keyed(
    headers: &HeaderMap,
    reference: &str,
    params: &[(String, String)],
    input: &[u8],
) -> Result<Option<(String, String)>, Problem> {
    if !headers.contains_key("idempotency-key") {
        return Ok(None);
    }
    let params = serde_json::to_vec(&(reference, params));
    let mut asked = params.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    asked.push(0);
    asked.extend_from_slice(input);
    super::jobs::idempotency(headers, &asked)
}

/// Seconds for which the answer of a key is to be kept, if the client says so. Errors: `invalid_job` if
/// there is no key, or the value is invalid.
pub(super) fn ttl(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let Some(text) = headers.get("idempotency-key-ttl") else {
        return Ok(None);
    };
    if !headers.contains_key("idempotency-key") {
        let detail = "`Idempotency-Key-TTL` needs an `Idempotency-Key`";
        return Err(Problem::new(ErrorCode::InvalidJob, detail));
    }
    let most = IDEMPOTENCY_MS / 1_000;
    let seconds = text.to_str().ok().and_then(|text| text.parse::<u32>().ok());
    let seconds = seconds.filter(|seconds| (1..=most).contains(&u64::from(*seconds)));
    seconds.map(Some).ok_or_else(|| {
        let detail =
            format!("`Idempotency-Key-TTL` must be a whole number of seconds from 1 to {most}");
        Problem::new(ErrorCode::InvalidJob, detail)
    })
}

/// Idempotency key of an invocation.
struct Key {
    tenant: TenantId,
    key: String,
    /// Digest of the request that came with it.
    digest: String,
    /// Seconds for which its answer is kept.
    ttl_s: Option<u32>,
}

/// Makes an invocation whose key is new, and answers as before if it is known. Comes to its end
/// without its client, too.
async fn once(
    api: Api,
    Key {
        tenant,
        key,
        digest,
        ttl_s,
    }: Key,
    request: InvokeRequest,
    input: Bytes,
    deadline: Duration,
) -> Result<(InvokeReply, Bytes), Problem> {
    let made = || {
        let detail = format!("the call with the key `{key}` is being made; try again");
        Problem::new(ErrorCode::Busy, detail)
    };
    let _here = api
        .invocations
        .begin_keyed(&tenant, &key)
        .ok_or_else(made)?;
    let by = format!("{}:{}", api.member, api.replica.incarnation());
    let begin = Command::BeginCall {
        key: key.clone(),
        request: digest,
        by: by.clone(),
        ttl_s,
    };
    match api.replica.propose(&tenant, begin).await? {
        // Running, and not here: an earlier attempt of this process did not hear that it had begun.
        Answer::Call {
            begun: Begun::New | Begun::Running,
        } => {}
        Answer::Call {
            begun: Begun::Elsewhere,
        } => return Err(made_elsewhere(&key)),
        Answer::Call {
            begun: Begun::Ended(outcome),
        } => return replay(&api, *outcome, deadline).await,
        other => {
            let detail = format!("beginning a call answered with {other:?}");
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
    }
    let label = request.label.clone();
    let answer = api
        .invocations
        .invoke(&tenant, request, input, deadline)
        .await;
    let outcome = match &answer {
        Ok((reply, output)) => outcome(&api, &tenant, &key, label, reply, output).await,
        // Nothing of it is an answer: it may be made again.
        Err(problem) if problem.code.is_platform_fault() => Ok(None),
        // A deadline is the caller's own, and this its answer.
        Err(problem) => Ok(Some(without_output(label, problem))),
    };
    let end = |outcome| Command::EndCall { key, by, outcome };
    match outcome {
        Ok(outcome) => match api.replica.propose(&tenant, end(outcome)).await? {
            // An earlier try had been recorded without our hearing of it: the answer is one.
            Answer::Call {
                begun: Begun::Ended(stands),
            } => replay(&api, *stands, deadline).await,
            _ => answer,
        },
        Err(problem) => {
            api.replica.propose(&tenant, end(None)).await?;
            Err(problem)
        }
    }
}

fn made_elsewhere(key: &str) -> Problem {
    let detail = format!(
        "another controller makes the call with the key `{key}`, or died over it a while ago; try again"
    );
    Problem::new(ErrorCode::Busy, detail)
}

/// Outcome of an invocation that no executor answered.
fn without_output(label: String, problem: &Problem) -> CallOutcome {
    CallOutcome {
        label,
        problem: Some(Box::new(problem.clone())),
        output: None,
        output_bytes: 0,
        inline: None,
        meters: Meters::default(),
    }
}

/// Returns the part of an answer that is kept: nothing if the platform is to blame. A small output is
/// kept with it, a larger one is stored. Errors: `busy` if there is no room for that.
async fn outcome(
    api: &Api,
    tenant: &TenantId,
    key: &str,
    label: String,
    reply: &InvokeReply,
    output: &Bytes,
) -> Result<Option<CallOutcome>, Problem> {
    let problem = reply.result.as_ref().err().cloned();
    if problem
        .as_ref()
        .is_some_and(|problem| problem.code.is_platform_fault())
    {
        return Ok(None);
    }
    let mut outcome = CallOutcome {
        label,
        problem: problem.map(Box::new),
        output: None,
        output_bytes: 0,
        inline: InlineOutput::new(output),
        meters: reply.meters,
    };
    if outcome.inline.is_none() {
        outcome.output_bytes = output.len() as u64;
        let now_ms = api.replica.now_ms();
        if let Some(tenant) = api.replica.state().tenant(tenant) {
            tenant.calls.check_output(outcome.output_bytes, now_ms)?;
        }
        let object = format!(
            "{CALL_OUTPUTS}/{}",
            Digest::from_sha256(&Sha256::digest(format!("{tenant}/{key}")).into()).hex()
        );
        let put = api.blobs.put_durable(&object, output.clone()).await;
        put.map_err(|error| error.problem())?;
        outcome.output = Some(object);
    }
    Ok(Some(outcome))
}

async fn replay(
    api: &Api,
    outcome: CallOutcome,
    deadline: Duration,
) -> Result<(InvokeReply, Bytes), Problem> {
    let room = tokio::time::timeout(deadline, api.invocations.replay_room()).await;
    let room = room.map_err(|_| {
        let detail = "outputs that their clients do not take leave no room for others; try again";
        Problem::new(ErrorCode::Busy, detail)
    })?;
    let output = match (&outcome.inline, &outcome.output) {
        (Some(inline), _) => inline.as_bytes().to_vec(),
        (None, Some(object)) => {
            let stored = api.blobs.get(object).await;
            stored.map_err(|error| error.problem())?.into()
        }
        (None, None) => Vec::new(),
    };
    let reply = InvokeReply {
        request: 0,
        label: outcome.label,
        result: outcome.problem.map_or(Ok(()), |problem| Err(*problem)),
        meters: outcome.meters,
        log: Vec::new(),
        log_dropped: 0,
        began_ns: 0,
    };
    Ok((reply, room.keep(output)))
}

/// Takes the deadline out of the parameters of the query. Errors: `invalid_job`.
pub(super) fn deadline(params: &mut Vec<(String, String)>) -> Result<Option<Duration>, Problem> {
    let Some(at) = params.iter().position(|(name, _)| name == "deadline_ms") else {
        return Ok(None);
    };
    let (_, text) = params.remove(at);
    let deadline = text.parse().map(Duration::from_millis).ok();
    let deadline =
        deadline.filter(|deadline| (1..=DEADLINE_MAX.as_millis()).contains(&deadline.as_millis()));
    deadline.map(Some).ok_or_else(|| {
        let most = DEADLINE_MAX.as_millis();
        let detail = format!(
            "`deadline_ms` is a whole number from 1 to {most}, not `{}`",
            text.escape_debug()
        );
        Problem::new(ErrorCode::InvalidJob, detail)
    })
}

/// The headers that tell what a call used.
pub(super) const METERS: [&str; 4] = [
    "x-weft-guest-cpu-ns",
    "x-weft-cpu-ns",
    "x-weft-wall-ns",
    "x-weft-memory-peak-bytes",
];

pub(super) fn add_meters(headers: &mut HeaderMap, meters: &Meters) {
    let values = [
        meters.guest_cpu_ns,
        meters.guest_cpu_ns.saturating_add(meters.native_cpu_ns),
        meters.wall_ns,
        meters.memory_peak_bytes,
    ];
    for (name, value) in METERS.into_iter().zip(values) {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}
