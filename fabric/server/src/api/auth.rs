//! Who may ask: the bearer of the token, from this host's own pages or from none.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use weft_core::{ErrorCode, Problem};

use super::Api;
use super::reply::Failure;

/// Checks host, origin, content type and token, in this order, before a handler sees the request.
pub(crate) async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    let checked = check_source(request.headers(), api.address)
        .and_then(|()| {
            check_content_type(request.method(), request.uri().path(), request.headers())
        })
        .and_then(|()| {
            if request.uri().path() == "/v1/health" {
                Ok(())
            } else {
                check_token(request.headers(), &api.token)
            }
        });
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => Failure(problem).into_response(),
    }
}

fn refused(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::Unauthorized, detail)
}

fn header<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A page of another site must not reach the API by way of the user's browser, not even by rebinding a name.
fn check_source(headers: &HeaderMap, address: SocketAddr) -> Result<(), Problem> {
    let host =
        header(headers, &header::HOST).ok_or_else(|| refused("the request has no `Host`"))?;
    if !is_ours(host, address) {
        return Err(refused(format!(
            "`Host: {}` is not this server",
            host.escape_debug()
        )));
    }
    match header(headers, &header::ORIGIN) {
        None => Ok(()),
        Some(origin)
            if origin
                .strip_prefix("http://")
                .is_some_and(|origin| is_ours(origin, address)) =>
        {
            Ok(())
        }
        Some(origin) => Err(refused(format!(
            "`Origin: {}` is foreign",
            origin.escape_debug()
        ))),
    }
}

fn is_ours(host: &str, address: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, Some(80)),
    };
    let own = address.ip().to_string();
    let named =
        ["localhost", "127.0.0.1", "[::1]"].contains(&name) || name.trim_matches(['[', ']']) == own;
    named && port == Some(address.port())
}

fn check_content_type(method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
    // An invocation's body is the function's affair.
    if *method != Method::POST || path.ends_with("/cancel") || path.starts_with("/v1/invoke/") {
        return Ok(());
    }
    let found = header(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    let wanted: &[&str] = if path == "/v1/components" {
        &["application/wasm", "application/octet-stream"]
    } else {
        &["application/json"]
    };
    if wanted.contains(&essence) {
        return Ok(());
    }
    Err(refused(format!(
        "`Content-Type: {}` may not change state here; send `{}`",
        found.escape_debug(),
        wanted[0]
    )))
}

fn check_token(headers: &HeaderMap, token: &str) -> Result<(), Problem> {
    let sent =
        header(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    match sent {
        Some(sent) if equal(sent.as_bytes(), token.as_bytes()) => Ok(()),
        Some(_) => Err(refused(
            "the token is not this server's; the right one is in the file `token` of its data folder",
        )),
        None => Err(refused(
            "the request carries no token: send `Authorization: Bearer …`; `weft up` keeps it in the file `token` of its data folder",
        )),
    }
}

/// Compares without telling by its time where the difference is.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins() {
        let address: SocketAddr = "127.0.0.1:7070".parse().expect("an address");
        for ours in ["127.0.0.1:7070", "localhost:7070", "[::1]:7070"] {
            assert!(is_ours(ours, address), "{ours}");
        }
        for foreign in [
            "evil.example:7070",
            "127.0.0.1:80",
            "127.0.0.1",
            "localhost.evil.example:7070",
            "",
        ] {
            assert!(!is_ours(foreign, address), "{foreign}");
        }
    }
}
