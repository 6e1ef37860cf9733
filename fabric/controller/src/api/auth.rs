//! Who may ask: the bearer of the token, from this host's own pages or from none.

use std::net::SocketAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use weft_core::{ErrorCode, Problem, TenantId};

use super::Api;
use super::reply::Failure;

/// Hosts and origins beside the server's own.
#[derive(Debug, Clone, Default)]
pub struct AllowedSources {
    /// Names, or addresses, by which clients may ask for the server; with a port, or without one for any.
    pub hosts: Vec<String>,
    /// Origins whose pages may use the server, such as `https://app.example.com`.
    pub origins: Vec<String>,
}

impl AllowedSources {
    fn has_host(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_it = |allowed: &String| {
            allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(name)
        };
        self.hosts.iter().any(is_it)
    }

    fn has_origin(&self, origin: &str) -> bool {
        let is_it = |allowed: &String| allowed.eq_ignore_ascii_case(origin);
        self.origins.iter().any(is_it)
    }
}

/// Checks host, origin and token, in this order, before a handler sees the request. Whether the server is there may
/// be asked by everybody.
pub(crate) async fn check(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    if request.uri().path() == "/v1/health" {
        return next.run(request).await;
    }
    let authority = request.uri().authority().map(Authority::as_str);
    let checked = check_source(request.headers(), authority, api.address, &api.allowed);
    if let Err(problem) = checked {
        // A token would not help.
        return Failure::with_status(problem, StatusCode::FORBIDDEN).into_response();
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = |origin: &HeaderValue| {
        let text = origin.to_str().ok();
        text.is_some_and(|origin| api.allowed.has_origin(origin))
    };
    let origin = origin.filter(allowed);
    let is_preflight = *request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match principal(request.headers(), &api.token) {
        // Browsers ask without the token whether they may send it.
        _ if is_preflight && origin.is_some() => StatusCode::NO_CONTENT.into_response(),
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(problem) => Failure::from(problem).into_response(),
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        for (name, value) in CROSS_ORIGIN {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

/// Headers for browsers whose pages are of an allowed origin.
const CROSS_ORIGIN: [(HeaderName, &str); 5] = [
    (header::VARY, "origin"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "authorization, content-type, accept, idempotency-key, idempotency-key-ttl, last-event-id, traceparent",
    ),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "*"),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// Rights of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// May do everything, in all tenants.
    Admin,
}

/// Who asks. The tenant of a request comes from here and from nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) tenant: TenantId,
    pub(crate) role: Role,
}

/// The principal whom the request's token names: the bearer of the one token is the default tenant,
/// and runs the server.
fn principal(headers: &HeaderMap, token: &str) -> Result<Principal, Problem> {
    check_token(headers, token)?;
    Ok(Principal {
        tenant: TenantId::default_tenant(),
        role: Role::Admin,
    })
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let principal = parts.extensions.get::<Principal>().cloned();
        principal.ok_or_else(|| refused("the request was not checked").into())
    }
}

/// Bodies that change state say what they are: a page of another site cannot send these types unasked.
pub(crate) async fn json_only(request: Request, next: Next) -> Response {
    let wanted = &["application/json"];
    content_type(request, next, wanted, ErrorCode::InvalidJob).await
}

/// The same for components.
pub(crate) async fn wasm_only(request: Request, next: Next) -> Response {
    let wanted = &["application/wasm", "application/octet-stream"];
    content_type(request, next, wanted, ErrorCode::InvalidComponent).await
}

async fn content_type(request: Request, next: Next, wanted: &[&str], code: ErrorCode) -> Response {
    let found = header(request.headers(), &header::CONTENT_TYPE).unwrap_or_default();
    let essence = found.split(';').next().unwrap_or_default().trim();
    let fits = |wanted: &&str| wanted.eq_ignore_ascii_case(essence);
    if *request.method() != Method::POST || wanted.iter().any(fits) {
        return next.run(request).await;
    }
    let detail = format!(
        "`Content-Type: {}` is not taken here; send `{}`",
        found.escape_debug(),
        wanted[0]
    );
    let problem = Problem::new(code, detail);
    Failure::with_status(problem, StatusCode::UNSUPPORTED_MEDIA_TYPE).into_response()
}

fn refused(detail: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::Unauthorized, detail)
}

fn header<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A page of another site must not reach the API by way of the user's browser, not even by rebinding a name.
/// `authority` stands for `Host` in HTTP/2.
fn check_source(
    headers: &HeaderMap,
    authority: Option<&str>,
    address: SocketAddr,
    allowed: &AllowedSources,
) -> Result<(), Problem> {
    let host = header(headers, &header::HOST).or(authority);
    let host = host.ok_or_else(|| refused("the request has no `Host`"))?;
    if !is_ours(host, address) && !allowed.has_host(host) {
        return Err(refused(format!(
            "`Host: {}` is not this server; ask for 127.0.0.1, localhost or the address that it listens on, with its port, or start it with `--allow-host`",
            host.escape_debug()
        )));
    }
    match header(headers, &header::ORIGIN) {
        None => Ok(()),
        Some(origin) if allowed.has_origin(origin) => Ok(()),
        Some(origin)
            if origin
                .strip_prefix("http://")
                .is_some_and(|origin| is_ours(origin, address)) =>
        {
            Ok(())
        }
        Some(origin) => Err(refused(format!(
            "`Origin: {}` is foreign: pages of other sites may not use this server unless it is started with `--allow-origin`",
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

fn check_token(headers: &HeaderMap, token: &str) -> Result<(), Problem> {
    let bearer = |value: &'_ str| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned())
    };
    let sent = header(headers, &header::AUTHORIZATION).and_then(bearer);
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
        let allowed = AllowedSources {
            hosts: vec!["weft.example.com".into(), "10.0.0.7:7070".into()],
            origins: vec!["https://app.example.com".into()],
        };
        for host in ["weft.example.com", "WEFT.example.com:443", "10.0.0.7:7070"] {
            assert!(allowed.has_host(host), "{host}");
        }
        for host in ["example.com", "10.0.0.7:80", "x.weft.example.com", ""] {
            assert!(!allowed.has_host(host), "{host}");
        }
        assert!(allowed.has_origin("https://app.example.com"));
        assert!(!allowed.has_origin("http://app.example.com"));
    }
}
