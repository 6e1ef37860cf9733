//! `/metrics`, `/v1/usage` and `/v1/nodes`: what those ask who run the server.

use std::collections::BTreeMap;
use std::ops::Range;

use axum::Json;
use axum::body::Body;
use axum::extract::{MatchedPath, Path, Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use weft_control::{NodeRecord, UsageSums};
use weft_core::{
    Amounts, ErrorCode, FunctionUsage, JobId, NodeId, PriceSheet, Problem, Receipt, ReceiptLine,
};

use super::auth::Principal;
use super::reply::{ApiResult, Failure};
use super::{Api, jobs, views};
use crate::membership::{self, Wanted};
use crate::metrics::{RequestLabels, RouteLabels, StatusLabels};
use crate::scheduler::why::WhyOf;
use crate::traces::RequestTrace;
use weft_runtime::clock::{rfc3339, unix_ms};

/// Requests that no route takes share one label.
const NO_ROUTE: &str = "none";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const MINUTE_MS: u64 = 60_000;

/// Names a request by what it is, not by what clients make up: its method and its route.
fn kind(request: &Request) -> (String, String) {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST") => known.to_owned(),
        _ => "other".into(),
    };
    (method, route)
}

/// Traces requests, of those who may ask.
pub(crate) async fn trace(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    if !api.traces.are_on() {
        request.extensions_mut().insert(RequestTrace::default());
        return next.run(request).await;
    }
    let (method, route) = kind(&request);
    let trace = api.traces.request(&method, &route, request.headers());
    request.extensions_mut().insert(trace.clone());
    let response = next.run(request).await;
    api.traces.answered(&trace, response.status().as_u16());
    response
}

/// Counts and times requests, by route.
pub(crate) async fn measure(State(api): State<Api>, request: Request, next: Next) -> Response {
    let (method, route) = kind(&request);
    let began = Instant::now();
    let response = next.run(request).await;
    let took = began.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    let labels = RouteLabels {
        route: route.clone(),
    };
    api.metrics
        .request_seconds
        .get_or_create(&labels)
        .observe(took);
    let labels = RequestLabels {
        route,
        method,
        status,
    };
    api.metrics.requests.get_or_create(&labels).inc();
    response
}

/// All metrics, as Prometheus reads them.
pub(crate) async fn metrics(State(api): State<Api>) -> ApiResult<Response> {
    {
        let state = api.replica.state();
        let tenants = || state.tenants.values();
        let mut jobs: BTreeMap<&'static str, i64> = BTreeMap::new();
        for job in tenants().flat_map(|tenant| tenant.jobs.values()) {
            *jobs.entry(views::status(job)).or_default() += 1;
        }
        for job in tenants().flat_map(|tenant| tenant.ended.values()) {
            *jobs.entry(views::outcome(job.outcome)).or_default() += 1;
        }
        for status in views::STATUSES {
            let labels = StatusLabels { status };
            let n = jobs.get(status).copied().unwrap_or(0);
            api.metrics.jobs.get_or_create(&labels).set(n);
        }
        let components: usize = tenants().map(|one| one.catalog.iter().count()).sum();
        let components = i64::try_from(components).unwrap_or(i64::MAX);
        api.metrics.components.set(components);
    }
    measure_keys(&api);
    if let Ok(disk) = rustix::fs::statvfs(&api.folders.root) {
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
        let free = disk.f_bavail.saturating_mul(disk.f_frsize) as f64;
        api.metrics.free_bytes.set(free);
    }
    let text = api.registry.text().map_err(|error| {
        Problem::new(
            ErrorCode::Internal,
            format!("the metrics cannot be written: {error}"),
        )
    })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// Sets the gauges of idempotency keys of invocations.
fn measure_keys(api: &Api) {
    let now_ms = api.replica.now_ms();
    let (mut keys, mut bytes) = (0_u64, 0_u64);
    for tenant in api.replica.state().tenants.values() {
        let held = tenant.calls.held(now_ms);
        keys += held.keys;
        bytes += held.key_bytes + held.output_bytes;
    }
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    api.metrics.idempotency_keys.set(number(keys));
    api.metrics.idempotency_bytes.set(number(bytes));
}

/// Which minutes are summed up.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UsageQuery {
    /// The first minute, in Unix milliseconds; all that is kept without it.
    from_ms: Option<u64>,
    /// The minute after the last one; now without it.
    to_ms: Option<u64>,
}

/// Usage and its cost, by function. Minutes are kept for 31 days; what is older is in the sums
/// without `from_ms`.
pub(crate) async fn usage(
    State(api): State<Api>,
    principal: Principal,
    Query(query): Query<UsageQuery>,
) -> ApiResult<Json<Value>> {
    let now = unix_ms();
    let (from, to) = (query.from_ms.unwrap_or(0), query.to_ms.unwrap_or(u64::MAX));
    if from > to {
        let detail = format!("`from_ms` {from} is later than `to_ms` {to}");
        let problem = Problem::new(ErrorCode::InvalidJob, detail);
        return Err(Failure::with_status(problem, StatusCode::BAD_REQUEST));
    }
    let lines = {
        let state = api.replica.state();
        let kept = state.tenant(&principal.tenant).map(|tenant| &tenant.usage);
        let last = to.div_ceil(MINUTE_MS).max(from / MINUTE_MS);
        kept.map_or_else(Vec::new, |usage| {
            usage_lines(usage, from / MINUTE_MS..last, query.from_ms.is_none())
        })
    };
    let Receipt {
        plan,
        price_sheet,
        lines,
        billed,
        platform,
        amount_micro,
        amount_per_millisecond_micro,
        ..
    } = Receipt::of_lines(String::new(), lines, PriceSheet::default(), false);
    Ok(Json(json!({
        "at": rfc3339(now),
        "plan": plan,
        "price_sheet": price_sheet,
        "lines": lines,
        "billed": billed,
        "platform": platform,
        "amount_micro": amount_micro,
        "amount_per_millisecond_micro": amount_per_millisecond_micro,
    })))
}

/// Usage and costs by function in some minutes, and of all that is older.
fn usage_lines(usage: &UsageSums, minutes: Range<u64>, with_older: bool) -> Vec<ReceiptLine> {
    let mut lines: BTreeMap<&str, ReceiptLine> = BTreeMap::new();
    fn line<'a, 'u>(
        lines: &'a mut BTreeMap<&'u str, ReceiptLine>,
        function: &'u str,
    ) -> &'a mut ReceiptLine {
        lines.entry(function).or_insert_with(|| ReceiptLine {
            usage: FunctionUsage {
                function: function.to_owned(),
                ..FunctionUsage::default()
            },
            amounts: Amounts::default(),
        })
    }
    let older = Some(&usage.older).filter(|_| with_older);
    let kept = usage.minutes.range(minutes.clone()).map(|(_, used)| used);
    for (function, used) in kept.chain(older).flatten() {
        line(&mut lines, function).usage.add(used);
    }
    let older = Some(&usage.older_costs).filter(|_| with_older);
    let older = older.into_iter().flatten();
    let kept = usage.costs.range(minutes).flat_map(|(_, costs)| costs);
    let kept = kept.map(|(function, cost)| (function, &cost.amounts));
    for (function, amounts) in kept.chain(older) {
        let line = line(&mut lines, function);
        line.amounts = line.amounts.add(amounts);
    }
    lines.into_values().collect()
}

/// The nodes that the state knows, as far as this controller reaches them.
pub(crate) async fn nodes(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "items": node_views(&api), "next_cursor": null }))
}

/// Part of a job that is to be explained.
#[derive(Debug, Deserialize)]
pub(crate) struct WhyQuery {
    /// Name of a stage.
    stage: Option<String>,
    /// Number of a task of the stage.
    task: Option<u32>,
}

/// Explains where a job is, or one of its stages or tasks.
pub(crate) async fn why_job(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    Query(WhyQuery { stage, task }): Query<WhyQuery>,
) -> ApiResult<Json<Value>> {
    if task.is_some() && stage.is_none() {
        let detail = "`task` is the number of a task of a stage: name the stage with `stage`";
        return Err(Problem::new(ErrorCode::InvalidJob, detail).into());
    }
    let status = jobs::look(&api, &principal.tenant, &id, views::status).await?;
    let job: Option<JobId> = id.parse().ok();
    let of = job.map(|job| WhyOf { job, stage, task });
    let explained = api.requests.why(&principal.tenant, of).await?;
    let mut document = json!(explained);
    document["status"] = status.into();
    Ok(Json(document))
}

/// Explains what waits.
pub(crate) async fn why_queue(
    State(api): State<Api>,
    principal: Principal,
) -> ApiResult<Json<Value>> {
    Ok(Json(json!(
        api.requests.why(&principal.tenant, None).await?
    )))
}

/// Has a node take no new work, and end once what it has is done.
pub(crate) async fn drain(
    State(api): State<Api>,
    Path(node): Path<String>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let id: NodeId = node.parse().map_err(|_| {
        let detail = format!("there is no node `{}`", node.escape_debug());
        Problem::new(ErrorCode::NotFound, detail)
    })?;
    api.requests.drain(id.clone()).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "id": id, "status": "draining" })),
    ))
}

/// Adds a controller to the group, without a vote until it has caught up.
pub(crate) async fn add_member(
    State(api): State<Api>,
    Path(member): Path<String>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let member = member_number(&member)?;
    membership::change(&api.replica, Wanted::Add(member)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "member": member }))))
}

/// Removes a controller from the group.
pub(crate) async fn remove_member(
    State(api): State<Api>,
    Path(member): Path<String>,
) -> ApiResult<Json<Value>> {
    let member = member_number(&member)?;
    membership::change(&api.replica, Wanted::Remove(member)).await?;
    Ok(Json(json!({ "member": member })))
}

fn member_number(text: &str) -> Result<u64, Problem> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| {
        let detail = format!("there is no controller `{}`", text.escape_debug());
        Problem::new(ErrorCode::NotFound, detail)
    })
}

fn node_views(api: &Api) -> Vec<Value> {
    let state = api.replica.state();
    let node = |(id, record): (&NodeId, &NodeRecord)| {
        json!({
            "id": id,
            "status": api.nodes.status(id),
            "version": env!("CARGO_PKG_VERSION"),
            "slots": record.slots,
            "invocations_under_way": api.nodes.under_way(id),
        })
    };
    state.nodes.iter().map(node).collect()
}

/// The group of controllers as this one sees it, and the nodes.
pub(crate) async fn cluster(State(api): State<Api>) -> Json<Value> {
    let status = api.replica.status();
    let members = api.replica.handle().watch_members().borrow().clone();
    Json(json!({
        "member": api.member,
        "members": members.voters,
        "learners": members.learners,
        "leader": status.leader_id,
        "leads": status.is_leader,
        "term": status.term,
        "applied": status.applied_index,
        "nodes": node_views(&api),
    }))
}

/// Asks again for what a member of a group did not find, once everything shows that any member has
/// acknowledged: a client may have made it a moment ago on another. If nobody can say what was, the answer
/// is `busy`: a 404 is taken for the truth.
pub(crate) async fn look_again(State(api): State<Api>, request: Request, next: Next) -> Response {
    if request.method() != Method::GET || !api.replica.may_lag() {
        return next.run(request).await;
    }
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    let found = next.clone().run(request).await;
    if found.status() != StatusCode::NOT_FOUND {
        return found;
    }
    match api.replica.catch_up().await {
        Ok(()) => next.run(again).await,
        Err(problem) => Failure::from(problem).into_response(),
    }
}
