//! `/v1/jobs`: submit, list, show, cancel, and what belongs to one job.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::{Extension, Json};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weft_control::{Answer, Command, EndedJob, Job, Tenant};
use weft_core::PinnedFunction;
use weft_core::job::JobSpec;
use weft_core::{Digest, ErrorCode, JobId, Problem, Receipt, TenantId, job};
use weft_protocol::StageShape;
use weft_protocol::{Columns, PlanRequest};

use super::auth::Principal;
use super::components::{PageQuery, no_cursor, page};
use super::reply::ApiResult;
use super::{Api, PAGE_MAX, views};
use crate::archive;
use crate::traces::RequestTrace;
use weft_runtime::clock::unix_ms;
use weft_runtime::random;

/// Bytes of an idempotency key.
const KEY_BYTES_MAX: usize = 255;

/// A job, from the state or from its archive.
pub(crate) async fn find(api: &Api, tenant: &TenantId, id: &str) -> Result<Job, Problem> {
    look(api, tenant, id, Job::clone).await
}

/// What `look` sees in a job, without a copy of it.
pub(crate) async fn look<T>(
    api: &Api,
    tenant: &TenantId,
    id: &str,
    look: impl FnOnce(&Job) -> T,
) -> Result<T, Problem> {
    look_where(api, tenant, id, |job, _| look(job)).await
}

/// Makes sure that a job is known here, if any member has accepted it. Requests that read have the same by
/// [`look_again`](super::operations::look_again).
pub(super) async fn catch_up_on(api: &Api, tenant: &TenantId, id: &str) -> Result<(), Problem> {
    let is_here = || {
        let id: JobId = id.parse().ok()?;
        let state = api.replica.state();
        let of = state.tenant(tenant)?;
        (of.jobs.contains_key(&id) || of.ended.contains_key(&id)).then_some(())
    };
    match is_here().is_none() && api.replica.may_lag() {
        true => api.replica.catch_up().await,
        false => Ok(()),
    }
}

/// As [`look`], which is also told whether the job was archived: it has ended, and nothing of it runs any more.
async fn look_where<T>(
    api: &Api,
    tenant: &TenantId,
    id: &str,
    look: impl FnOnce(&Job, bool) -> T,
) -> Result<T, Problem> {
    let missing = || {
        Problem::new(
            ErrorCode::NotFound,
            format!("there is no job `{}`", id.escape_debug()),
        )
    };
    let id: JobId = id.parse().map_err(|_| missing())?;
    let archived = {
        let state = api.replica.state();
        let tenant = state.tenant(tenant).ok_or_else(missing)?;
        if let Some(job) = tenant.jobs.get(&id) {
            return Ok(look(job, false));
        }
        tenant.ended.get(&id).map(|line| line.archive.clone())
    };
    let archived = archived.ok_or_else(missing)?;
    Ok(look(&*api.archives.job(&id, &archived).await?, true))
}

/// A job in a list: one that has been archived, or one that has not.
enum Listed<'a> {
    Kept(&'a Job),
    Archived(&'a EndedJob),
}

/// Lists jobs, the newest first.
pub(crate) async fn list(
    State(api): State<Api>,
    principal: Principal,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<Value>> {
    let state = api.replica.state();
    let tenant = state.tenant(&principal.tenant);
    let mut jobs: Vec<(&str, Listed<'_>)> = Vec::new();
    if let Some(tenant) = tenant {
        let kept = tenant.jobs.values();
        jobs.extend(kept.map(|job| (job.id.as_str(), Listed::Kept(job))));
        let archived = tenant.ended.values();
        jobs.extend(archived.map(|job| (job.id.as_str(), Listed::Archived(job))));
    }
    // Ids sort by time, so a page goes on where it should even if its last job has gone.
    if let Some(cursor) = query.cursor.as_deref() {
        let after: JobId = cursor.parse().map_err(|_| no_cursor(cursor))?;
        jobs.retain(|(id, _)| *id < after.as_str());
    }
    jobs.sort_unstable_by(|a, b| b.0.cmp(a.0));
    let next = jobs.get(PAGE_MAX - 1).filter(|_| jobs.len() > PAGE_MAX);
    let next = next.map(|(id, _)| (*id).to_owned());
    let line = |(_, job): &(&str, Listed<'_>)| match job {
        Listed::Kept(job) => views::line(job),
        Listed::Archived(job) => views::ended(job),
    };
    let items: Vec<Value> = jobs.iter().take(PAGE_MAX).map(line).collect();
    Ok(Json(json!({ "items": items, "next_cursor": next })))
}

/// Accepts a job.
pub(crate) async fn submit(
    State(api): State<Api>,
    principal: Principal,
    Extension(trace): Extension<RequestTrace>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<(StatusCode, [(HeaderName, String); 1], Json<Value>)> {
    let spec = decode(&api, &body)?;
    let idempotency = idempotency(&headers, &body)?;
    let tenant = &principal.tenant;
    let (id, new) = accept(&api, tenant, &trace, new_id()?, spec, idempotency).await?;
    let view = look(&api, tenant, id.as_str(), views::job).await?;
    Ok((
        if new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        },
        [(header::LOCATION, format!("/v1/jobs/{id}"))],
        Json(view),
    ))
}

/// Proposes a job, and waits until it is known here. Returns its id, which is another one if the client's key is known,
/// and whether it is new.
pub(super) async fn accept(
    api: &Api,
    tenant: &TenantId,
    trace: &RequestTrace,
    id: JobId,
    spec: JobSpec,
    idempotency: Option<(String, String)>,
) -> Result<(JobId, bool), Problem> {
    let mut submitted = api.traces.submitted(&id, trace);
    let submit = Command::SubmitJob {
        job: id.clone(),
        spec,
        idempotency,
    };
    let answer = api.replica.propose(tenant, submit).await;
    submitted.accepted = matches!(answer, Ok(Answer::Job { new: true, .. }));
    let answer = answer?;
    let Answer::Job { job: id, new } = answer else {
        let detail = format!("submitting answered with {answer:?}");
        return Err(Problem::new(ErrorCode::Internal, detail));
    };
    catch_up_on(api, tenant, id.as_str()).await?;
    Ok((id, new))
}

/// Plans a job without running it: says what it would read, do and write, or what is wrong with it.
pub(crate) async fn check(
    State(api): State<Api>,
    principal: Principal,
    body: Bytes,
) -> ApiResult<Json<Value>> {
    let spec = decode(&api, &body)?;
    let of_tenant = |tenant: &Tenant| {
        let functions = tenant.pin_functions(&spec)?;
        Ok::<_, Problem>((functions, tenant.tables.definitions(&spec)))
    };
    let (functions, tables) = match api.replica.state().tenant(&principal.tenant) {
        Some(tenant) => of_tenant(tenant),
        None => of_tenant(&Tenant::default()),
    }?;
    let request = PlanRequest {
        job: new_id()?,
        spec,
        functions: functions.clone(),
        artefacts: BTreeMap::new(),
        started_ms: unix_ms(),
        check: true,
        tables,
        max_kept_bytes: api.kept_outputs.max_bytes,
    };
    let reply = api.components.check(&principal.tenant, request).await?;
    let plan = reply.result?;
    let stage = |(position, stage): (usize, &StageShape)| {
        let text = reply.texts.get(position);
        json!({ "name": stage.name, "tasks_total": stage.n_tasks, "plan": text })
    };
    let columns = |columns: &Columns| {
        let list = columns.columns.iter();
        let list = list.map(|(name, data_type)| json!({ "name": name, "type": data_type }));
        json!({ "of": columns.of, "columns": list.collect::<Vec<_>>() })
    };
    Ok(Json(json!({
        "input_bytes": plan.input_bytes,
        "functions": functions.iter().map(PinnedFunction::label).collect::<Vec<_>>(),
        "stages": plan.stages.iter().enumerate().map(stage).collect::<Vec<_>>(),
        "columns": reply.columns.iter().map(columns).collect::<Vec<_>>(),
    })))
}

/// A job out of its document. What the cluster keeps of it has the bounds of this controller.
fn decode(api: &Api, body: &[u8]) -> Result<JobSpec, Problem> {
    let document: Value = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is not JSON: {error}");
        Problem::new(ErrorCode::InvalidJob, detail)
    })?;
    read(api, &document)
}

/// As [`decode`], of a document that has been parsed.
pub(super) fn read(api: &Api, document: &Value) -> Result<JobSpec, Problem> {
    let mut spec = job::decode(document)?;
    spec.bound_kept(api.kept_outputs.max_bytes);
    Ok(spec)
}

pub(super) fn new_id() -> Result<JobId, Problem> {
    Ok(JobId::new(unix_ms(), u128::from_le_bytes(random::bytes()?)))
}

/// The client's key, with the digest of what it asks for.
pub(super) fn idempotency(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<(String, String)>, Problem> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= KEY_BYTES_MAX);
    let key = key.ok_or_else(|| {
        Problem::new(
            ErrorCode::InvalidJob,
            format!("`Idempotency-Key` must be 1 to {KEY_BYTES_MAX} visible characters"),
        )
    })?;
    let digest = Digest::from_sha256(&Sha256::digest(body).into());
    Ok(Some((key.to_owned(), digest.to_string())))
}

/// Shows one job.
pub(crate) async fn show(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(look(&api, &principal.tenant, &id, views::job).await?))
}

/// The stages of a job.
pub(crate) async fn stages(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let stages = look(&api, &principal.tenant, &id, views::stages).await?;
    Ok(Json(json!({ "items": stages })))
}

/// The committed tasks of a job.
pub(crate) async fn tasks(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<Value>> {
    let tasks = |job: &Job| {
        let tasks = views::tasks(job).enumerate();
        page(
            tasks.map(|(position, task)| (position.to_string(), task)),
            query.cursor.as_deref(),
        )
    };
    Ok(Json(look(&api, &principal.tenant, &id, tasks).await??))
}

/// The log of a job, line by line.
pub(crate) async fn logs(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<Value>> {
    let job = find(&api, &principal.tenant, &id).await?;
    let log = archive::log(&api.archives, &api.blobs, &job).await?;
    let start: usize = match query.cursor.as_deref() {
        None => 0,
        Some(cursor) => cursor.parse().map_err(|_| no_cursor(cursor))?,
    };
    let lines: Vec<_> = log.lines.iter().skip(start).take(PAGE_MAX).collect();
    let next = (start + lines.len() < log.lines.len()).then(|| (start + lines.len()).to_string());
    Ok(Json(
        json!({ "items": lines, "next_cursor": next, "dropped": log.dropped }),
    ))
}

/// What a job used and costs.
pub(crate) async fn receipt(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
) -> ApiResult<Json<Receipt>> {
    Ok(Json(
        look_where(&api, &principal.tenant, &id, views::receipt).await?,
    ))
}

/// Has a job cancelled that has not ended.
pub(super) async fn stop(api: &Api, tenant: &TenantId, id: &str) -> Result<(), Problem> {
    let of_job = |job: &Job| (job.id.clone(), views::has_ended(job));
    let (job, ended) = look(api, tenant, id, of_job).await?;
    if ended {
        return Ok(());
    }
    match api
        .replica
        .propose(tenant, Command::CancelJob { job })
        .await
    {
        // It ended this very moment, and was archived before the command came: nothing to cancel.
        Err(problem) if problem.code == ErrorCode::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Asks a job to stop. One that has ended stays as it is.
pub(crate) async fn cancel(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    catch_up_on(&api, &principal.tenant, &id).await?;
    stop(&api, &principal.tenant, &id).await?;
    let view = look(&api, &principal.tenant, &id, views::job).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}
