//! Parameters of queries: one that a route does not know is refused, because whoever sends it expects it to do
//! something.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use weft_core::{ErrorCode, Problem};

use super::reply::Failure;

/// Routes whose queries are read, and their parameters. Invocations pass theirs on to the function.
const PARAMETERS: [(&str, &[&str]); 10] = [
    ("/v1/actors/{component}/{actor}", &["after", "limit"]),
    ("/v1/components", &["cursor"]),
    ("/v1/jobs", &["cursor"]),
    ("/v1/jobs/{id}/tasks", &["cursor"]),
    ("/v1/jobs/{id}/why", &["stage", "task"]),
    ("/v1/jobs/{id}/logs", &["cursor"]),
    (
        "/v1/jobs/{id}/outputs/{name}/rows",
        &["format", "offset", "limit"],
    ),
    ("/v1/tables", &["cursor"]),
    ("/v1/tasks/{id}/results", &["format", "offset", "limit"]),
    ("/v1/usage", &["from_ms", "to_ms"]),
];
/// Load balancers add what they like.
const HEALTH: &str = "/v1/health";
/// Methods of actors have no parameters.
const ACTOR: &str = "/v1/actors/{component}/{actor}/{key}/{method}";
const INVOKE: &str = "/v1/invoke/{component}/{function}";

/// Refuses a request with a parameter that its route does not know.
pub(crate) async fn check(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let query = request.uri().query().unwrap_or_default();
    let known = known(route, request.method());
    if ["", INVOKE, HEALTH].contains(&route) {
        return next.run(request).await;
    }
    match unknown(query, known) {
        None => next.run(request).await,
        Some(name) => {
            let takes = match known {
                [] => "none".to_owned(),
                known => format!("`{}`", known.join("`, `")),
            };
            let detail = format!(
                "`{route}` has no query parameter `{}`; it takes {takes}",
                name.escape_debug()
            );
            let problem = Problem::new(ErrorCode::InvalidJob, detail);
            Failure::with_status(problem, StatusCode::BAD_REQUEST).into_response()
        }
    }
}

fn known(route: &str, method: &Method) -> &'static [&'static str] {
    if route == ACTOR && *method == Method::POST {
        return &["deadline_ms"];
    }
    let of_route = PARAMETERS.iter().find(|(known, _)| *known == route);
    match of_route {
        Some((_, parameters)) if *method == Method::GET || *method == Method::HEAD => parameters,
        _ => &[],
    }
}

fn unknown<'a>(query: &'a str, known: &[&str]) -> Option<&'a str> {
    let names = query.split('&').filter(|part| !part.is_empty());
    let mut names = names.map(|part| part.split('=').next().unwrap_or_default());
    names.find(|name| !known.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_by_route() {
        let check = |route: &str, query: &'static str, expected: Option<&str>| {
            assert_eq!(
                unknown(query, known(route, &Method::GET)),
                expected,
                "{route}?{query}"
            );
        };
        check("/v1/jobs", "cursor=x", None);
        check("/v1/jobs", "cursor=x&status=failed", Some("status"));
        check("/v1/jobs/{id}", "verbose", Some("verbose"));
        check("/v1/usage", "from_ms=1&to_ms=2", None);
        check("/v1/usage", "", None);
        check("/v1/actors/{component}/{actor}", "after=a&limit=1", None);
        assert_eq!(known(ACTOR, &Method::POST), ["deadline_ms"]);
        assert_eq!(known("/v1/jobs", &Method::POST), &[] as &[&str]);
    }
}
