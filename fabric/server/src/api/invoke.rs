//! `/v1/invoke/{component}/{function}`: one call, its input the body, its output the answer's.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use weft_control::Tenant;
use weft_core::{ErrorCode, Limits, Meters, Problem};
use weft_engine::InvokeRequest;

use super::Api;
use super::reply::{ApiResult, Failure};
use crate::clock::unix_ms;
use crate::folder::tenant;

/// Bytes of an input, and of an output.
pub(crate) const BODY_BYTES_MAX: usize = 8 << 20;
/// How long a call may take, waiting included, unless it says so.
const DEADLINE: Duration = Duration::from_secs(30);
const DEADLINE_MAX: Duration = Duration::from_secs(600);
/// What every function may use.
const LIMITS: Limits = Limits {
    memory_bytes: 256 << 20,
    cpu_ms: 30_000,
    wall_ms: 600_000,
    output_bytes: BODY_BYTES_MAX as u64,
};

/// Calls a task function. Parameters of the query are the function's, but for `deadline_ms`.
pub(crate) async fn invoke(
    State(api): State<Api>,
    Path((component, function)): Path<(String, String)>,
    Query(mut params): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    input: Bytes,
) -> ApiResult<Response> {
    if headers.contains_key("idempotency-key") {
        let detail = "invocations with an `Idempotency-Key` are not offered by this version; a job with one task is done once";
        return Err(Problem::new(ErrorCode::InvalidJob, detail).into());
    }
    let deadline = deadline(&mut params)?;
    let reference = format!("{component}/{function}");
    let pinned = match api.replica.state().tenant(&tenant()) {
        Some(tenant) => tenant.pin_task(&reference),
        None => Tenant::default().pin_task(&reference),
    }?;
    api.components
        .ensure_artefacts(std::slice::from_ref(&pinned.digest))
        .await?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)
        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    let label = pinned.label();
    let request = InvokeRequest {
        request: 0,
        digest: pinned.digest,
        function: pinned.function.name,
        label: label.clone(),
        params,
        limits: LIMITS,
        seed: u64::from_le_bytes(seed),
        started_ms: unix_ms(),
    };
    let (reply, output) = api.invocations.invoke(request, input, deadline).await?;
    for line in &reply.log {
        tracing::info!(target: "invocation", function = line.function, level = line.level, "{}", line.message);
    }
    if reply.log_dropped > 0 {
        tracing::info!(target: "invocation", function = label, dropped = reply.log_dropped, "lines dropped");
    }
    let mut response = match reply.result {
        Ok(()) => {
            let octets = HeaderValue::from_static("application/octet-stream");
            ([(header::CONTENT_TYPE, octets)], Body::from(output)).into_response()
        }
        Err(problem) => Failure(problem).into_response(),
    };
    add_meters(response.headers_mut(), &reply.meters);
    if let Ok(label) = HeaderValue::from_str(&label) {
        response.headers_mut().insert("x-weft-function", label);
    }
    Ok(response)
}

fn deadline(params: &mut Vec<(String, String)>) -> Result<Duration, Problem> {
    let Some(at) = params.iter().position(|(name, _)| name == "deadline_ms") else {
        return Ok(DEADLINE);
    };
    let (_, text) = params.remove(at);
    let deadline = text.parse().map(Duration::from_millis).ok();
    let deadline =
        deadline.filter(|deadline| (1..=DEADLINE_MAX.as_millis()).contains(&deadline.as_millis()));
    deadline.ok_or_else(|| {
        let most = DEADLINE_MAX.as_millis();
        let detail = format!(
            "`deadline_ms` is a whole number from 1 to {most}, not `{}`",
            text.escape_debug()
        );
        Problem::new(ErrorCode::InvalidJob, detail)
    })
}

fn add_meters(headers: &mut HeaderMap, meters: &Meters) {
    let meters = [
        ("x-weft-guest-cpu-ns", meters.guest_cpu_ns),
        (
            "x-weft-cpu-ns",
            meters.guest_cpu_ns.saturating_add(meters.native_cpu_ns),
        ),
        ("x-weft-wall-ns", meters.wall_ns),
        ("x-weft-memory-peak-bytes", meters.memory_peak_bytes),
    ];
    for (name, value) in meters {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
}
