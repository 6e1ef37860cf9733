//! `/v1/openapi.json`: the reference of this API. `server/tests/it/openapi.rs` holds it against the router and its answers.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("openapi.json");

/// The document, as it lies in the source.
pub(crate) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}
