//! `/v1/tasks`: sets of tasks without a job document. Each is a job of one stage, whose results the cluster keeps.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Version, header};
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use weft_core::job::{JobSpec, nearest};
use weft_core::{ErrorCode, FieldError, Problem, TenantId};

use super::auth::Principal;
use super::reply::ApiResult;
use super::rows::{self, RowsQuery};
use super::{Api, jobs, views};
use crate::traces::RequestTrace;

/// Name of the stage, and of the job if it has no other.
const STAGE: &str = "tasks";
/// Name of the output.
pub(super) const RESULTS: &str = "results";
/// Key of the function in the document.
const FUNCTION: &str = "function";
/// Keys of the document that are the stage's in a job document.
const OF_STAGE: [&str; 3] = ["count", "input", "input_base64"];
/// Keys of the document that are the job's.
const OF_JOB: [&str; 5] = ["name", "seed", "tags", "params", "limits"];
/// Path of the stage in errors.
const STAGE_PATH: &str = "stage[0].";

/// Accepts a set.
pub(crate) async fn submit(
    State(api): State<Api>,
    principal: Principal,
    Extension(trace): Extension<RequestTrace>,
    headers: HeaderMap,
    body: Bytes,
) -> ApiResult<(StatusCode, [(HeaderName, String); 1], Json<Value>)> {
    let spec = decode(&api, &body)?;
    let idempotency = jobs::idempotency(&headers, &body)?;
    let tenant = &principal.tenant;
    let (id, new) = jobs::accept(&api, tenant, &trace, jobs::new_id()?, spec, idempotency).await?;
    let view = view(&api, tenant, id.as_str()).await?;
    let status = match new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let location = [(header::LOCATION, format!("/v1/tasks/{id}"))];
    Ok((status, location, Json(view)))
}

/// Shows a set.
pub(crate) async fn show(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(view(&api, &principal.tenant, &id).await?))
}

/// Streams the results of a set that has succeeded.
pub(crate) async fn results(
    api: State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    query: Query<RowsQuery>,
    version: Version,
    headers: HeaderMap,
) -> ApiResult<Response> {
    view(&api, &principal.tenant, &id).await?;
    let output = Path((id, RESULTS.to_owned()));
    rows::rows(api, principal, output, query, version, headers).await
}

/// Asks a set to stop. One that has ended stays as it is.
pub(crate) async fn cancel(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let tenant = &principal.tenant;
    jobs::catch_up_on(&api, tenant, &id).await?;
    view(&api, tenant, &id).await?;
    jobs::stop(&api, tenant, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(view(&api, tenant, &id).await?)))
}

/// A set as it stands. Errors: `not_found` for a job that is none.
async fn view(api: &Api, tenant: &TenantId, id: &str) -> Result<Value, Problem> {
    let view = jobs::look(api, tenant, id, views::task_set).await?;
    view.ok_or_else(|| {
        let detail = format!("the job `{id}` is no set of tasks: `/v1/jobs/{id}` shows it");
        Problem::new(ErrorCode::NotFound, detail)
    })
}

/// The job of a set, out of the set's document.
fn decode(api: &Api, body: &[u8]) -> Result<JobSpec, Problem> {
    let body: Value = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is not JSON: {error}");
        Problem::new(ErrorCode::InvalidJob, detail)
    })?;
    let document = document(body)?;
    jobs::read(api, &document).map_err(of_set)
}

/// The job document of a set. Errors: `invalid_job` for keys that are unknown or missing.
fn document(body: Value) -> Result<Value, Problem> {
    let Value::Object(keys) = body else {
        let detail = "the body is not a JSON object";
        return Err(Problem::new(ErrorCode::InvalidJob, detail));
    };
    let mut errors = Vec::new();
    let mut stage = Map::from_iter([("name".to_owned(), json!(STAGE))]);
    stage.insert("count".into(), json!(1));
    let mut job = Map::from_iter([("name".to_owned(), json!(STAGE))]);
    for (key, value) in keys {
        let name = key.as_str();
        if name == FUNCTION {
            stage.insert("task".into(), value);
        } else if OF_STAGE.contains(&name) {
            stage.insert(key, value);
        } else if OF_JOB.contains(&name) {
            job.insert(key, value);
        } else {
            errors.push(unknown_key(name));
        }
    }
    if !stage.contains_key("task") {
        errors.push(FieldError {
            path: FUNCTION.into(),
            message: "is missing".into(),
            suggestion: None,
        });
    }
    if !errors.is_empty() {
        let detail = "the set of tasks has unknown or missing keys";
        return Err(Problem {
            errors,
            ..Problem::new(ErrorCode::InvalidJob, detail)
        });
    }
    job.insert("stage".into(), json!([stage]));
    job.insert("output".into(), json!({ RESULTS: { "from": STAGE } }));
    Ok(Value::Object(job))
}

fn unknown_key(key: &str) -> FieldError {
    let known = OF_STAGE.into_iter().chain(OF_JOB).chain([FUNCTION]);
    let shown: String = key.chars().take(64).collect();
    FieldError {
        suggestion: nearest(key, known),
        message: format!("unknown key `{}`", shown.escape_debug()),
        path: shown,
    }
}

/// A problem of the job, told of the keys of the set.
fn of_set(mut problem: Problem) -> Problem {
    for error in &mut problem.errors {
        if let Some(key) = error.path.strip_prefix(STAGE_PATH) {
            error.path = match key {
                "task" => FUNCTION.to_owned(),
                other => other.to_owned(),
            };
        }
    }
    problem
}

#[cfg(test)]
mod tests {
    use weft_core::job::{Work, decode};

    use super::*;

    #[test]
    fn a_set_is_a_job_of_one_stage_whose_results_are_kept() {
        let body = json!({
            "function": "hello/echo", "input": "hi", "params": { "a": "b" }, "tags": { "team": "x" },
            "seed": 7, "limits": { "memory": "64MiB" },
        });
        let spec = decode(&document(body).expect("it is right")).expect("it is a job");
        assert_eq!((spec.name.as_str(), spec.seed), ("tasks", 7));
        assert_eq!(spec.params["a"], "b");
        assert_eq!(spec.tags["team"], "x");
        let expected = Work::Tasks {
            function: "hello/echo".into(),
            count: 1,
            input: b"hi".to_vec(),
        };
        assert_eq!(spec.stages[0].work, expected);
        assert_eq!(spec.outputs[0].name, RESULTS);
        assert!(spec.outputs[0].path().is_none(), "the cluster keeps it");
    }

    #[test]
    fn errors_name_the_keys_of_the_set() {
        let check = |body: Value, path: &str, message: &str| {
            let refused = document(body).and_then(|job| decode(&job).map_err(of_set));
            let refused = refused.expect_err("it is wrong");
            let [error] = &refused.errors[..] else {
                panic!("{refused}")
            };
            assert_eq!(error.path, path, "{refused}");
            let told = format!("{} {:?}", error.message, error.suggestion);
            assert!(told.contains(message), "{told}");
        };
        check(json!({}), "function", "is missing");
        let echo = "hello/echo";
        check(json!({ "function": "echo" }), "function", "component");
        let count = json!({ "function": echo, "count": 100_001 });
        check(count, "count", "1 to 100000");
        let both = json!({ "function": echo, "input": "a", "input_base64": "YQ==" });
        check(both, "input_base64", "leave one out");
        let unknown = json!({ "function": echo, "conut": 3 });
        check(unknown, "conut", "count");
        let limits = json!({ "function": echo, "limits": { "memory": "much" } });
        check(limits, "limits.memory", "not a size");
    }
}
