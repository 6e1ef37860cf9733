//! Problems as RFC 9457 answers.

use axum::Json;
use axum::body::to_bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use weft_core::{ErrorCode, Problem};

const PROBLEM_JSON: &str = "application/problem+json";
/// Bytes of what the framework says of a request that it refuses.
const REFUSAL_BYTES_MAX: usize = 4096;

/// What handlers answer with.
pub(crate) type ApiResult<T> = Result<T, Failure>;

/// A problem on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
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
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = format!(
            "the body is larger than {} MiB, or {} MiB for an invocation",
            super::JOB_BYTES_MAX >> 20,
            super::invoke::BODY_BYTES_MAX >> 20
        );
        return Failure(Problem::new(ErrorCode::TooLarge, detail)).into_response();
    }
    let said = to_bytes(response.into_body(), REFUSAL_BYTES_MAX).await;
    let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
    let detail = format!("the request names nothing that there is: {said}");
    Failure(Problem::new(ErrorCode::NotFound, detail)).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(problem_json(&self.0))).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.0.code == ErrorCode::Busy {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
