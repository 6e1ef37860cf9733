//! Problems as RFC 9457 answers.

use axum::Json;
use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use weft_core::{ErrorCode, Problem};

const PROBLEM_JSON: &str = "application/problem+json";
/// Seconds after which to try again, if the problem does not say.
const RETRY_AFTER_S: u64 = 1;
/// Bytes of what the framework says of a request that it refuses.
const REFUSAL_BYTES_MAX: usize = 4096;

/// What handlers answer with.
pub(crate) type ApiResult<T> = Result<T, Failure>;

/// A problem on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure {
    problem: Problem,
    /// Where it is not the one of the code.
    status: Option<StatusCode>,
}

impl Failure {
    /// A problem with a status that tells more than its code's.
    pub(crate) fn with_status(problem: Problem, status: StatusCode) -> Self {
        Self {
            problem,
            status: Some(status),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        failure.problem
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            status: None,
        }
    }
}

/// A problem as JSON, with the members that RFC 9457 asks for.
pub(crate) fn problem_json(problem: &Problem) -> Value {
    let mut json = serde_json::to_value(problem).unwrap_or_else(|_| json!({}));
    let code = json
        .get("code")
        .and_then(Value::as_str)
        .unwrap_or("internal")
        .to_owned();
    if let Value::Object(members) = &mut json {
        members.insert(
            "type".into(),
            Value::String(format!("urn:weft:problem:{code}")),
        );
        members.insert("title".into(), Value::String(code.replace('_', " ")));
        members.insert("status".into(), json!(problem.code.http_status()));
    }
    json
}

/// Tells what the framework refuses by itself, such as a body over its bound, like every other problem.
pub(crate) async fn framework_refusal(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if !response.status().is_client_error() || kind.is_some_and(|kind| kind == PROBLEM_JSON) {
        return response;
    }
    let status = response.status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let most = super::JOB_BYTES_MAX >> 20;
        let detail = format!("the body is larger than {most} MiB");
        return Failure::from(Problem::new(ErrorCode::TooLarge, detail)).into_response();
    }
    let said = to_bytes(response.into_body(), REFUSAL_BYTES_MAX).await;
    let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
    let detail = format!("the request cannot be read: {said}");
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        _ => ErrorCode::InvalidJob,
    };
    Failure::with_status(Problem::new(code, detail), status).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure { problem, status } = self;
        let of_code = StatusCode::from_u16(problem.code.http_status());
        let status = status.unwrap_or(of_code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        let mut json = problem_json(&problem);
        json["status"] = json!(status.as_u16());
        let mut response = (status, Json(json)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if matches!(problem.code, ErrorCode::Busy | ErrorCode::StoreUnavailable) {
            let seconds = problem.retry_after_s.unwrap_or(RETRY_AFTER_S);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // Clients of another protocol are told in its own way.
        response.extensions_mut().insert(problem);
        response
    }
}
