//! The HTTP API under `/v1`: connections, routes, and what all requests have in common.

mod actors;
mod auth;
pub(crate) mod body;
mod components;
mod connection;
mod events;
pub(crate) mod flight;
mod http2;
mod invoke;
mod jobs;
mod openapi;
mod operations;
mod plan;
mod query;
mod reply;
mod rows;
mod stream;
mod tables;
mod tasks;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post, put};
use rustix::net::sockopt::set_tcp_user_timeout;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::RequestBodyTimeoutLayer;
use weft_core::{ErrorCode, Problem};
use weft_store::Blobs;

use crate::actors::ActorRouter;
use crate::archive::Archives;
use crate::components::Components;
use crate::folders::Folders;
use crate::invocations::Invocations;
use crate::kept_outputs::KeptOutputs;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::pins::Pins;
use crate::replica::Replica;
use crate::scheduler::Requests;
use crate::traces::Traces;
use weft_runtime::{OnError, Tasks};
use weft_telemetry::{Registry, UnderWay};

pub use auth::AllowedSources;
use body::Bodies;
use http2::Streams;
use reply::{ApiResult, Failure};

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take for its headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a body may pause.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what it is sent, in milliseconds.
const STALLED_MS_MAX: u32 = 60_000;
/// Bytes of headers.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a job document.
const JOB_BYTES_MAX: usize = 1 << 20;
/// Items of one page.
pub(crate) const PAGE_MAX: usize = 500;

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) replica: Replica,
    pub(crate) components: Arc<Components>,
    pub(crate) blobs: Blobs,
    pub(crate) archives: Arc<Archives>,
    pub(crate) folders: Folders,
    pub(crate) nodes: Nodes,
    pub(crate) requests: Requests,
    /// Number of this controller.
    pub(crate) member: u64,
    pub(crate) invocations: Invocations,
    pub(crate) actors: ActorRouter,
    pub(crate) pins: Pins,
    pub(crate) statements: flight::Statements,
    pub(crate) bodies: Bodies,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    pub(crate) traces: Arc<Traces>,
    pub(crate) token: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) allowed: Arc<AllowedSources>,
    pub(crate) kept_outputs: KeptOutputs,
}

/// Routes of `/v1/jobs`.
fn routes_of_jobs() -> Router<Api> {
    Router::new()
        .route(
            "/v1/jobs",
            get(jobs::list)
                .post(jobs::submit)
                .layer(DefaultBodyLimit::max(JOB_BYTES_MAX))
                .layer(middleware::from_fn(auth::json_only)),
        )
        .route(
            "/v1/jobs/check",
            post(jobs::check)
                .layer(DefaultBodyLimit::max(JOB_BYTES_MAX))
                .layer(middleware::from_fn(auth::json_only)),
        )
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/jobs/{id}/stages", get(jobs::stages))
        .route("/v1/jobs/{id}/plan", get(plan::show))
        .route("/v1/jobs/{id}/tasks", get(jobs::tasks))
        .route("/v1/jobs/{id}/events", get(events::stream))
        .route("/v1/jobs/{id}/logs", get(jobs::logs))
        .route("/v1/jobs/{id}/receipt", get(jobs::receipt))
        .route("/v1/jobs/{id}/outputs/{name}/rows", get(rows::rows))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/why", get(operations::why_job))
}

/// Routes of `/v1/tasks`.
fn routes_of_tasks() -> Router<Api> {
    Router::new()
        .route(
            "/v1/tasks",
            post(tasks::submit)
                .layer(DefaultBodyLimit::max(JOB_BYTES_MAX))
                .layer(middleware::from_fn(auth::json_only)),
        )
        .route("/v1/tasks/{id}", get(tasks::show).delete(tasks::cancel))
        .route("/v1/tasks/{id}/results", get(tasks::results))
}

/// Routes of `/v1/actors`.
fn routes_of_actors() -> Router<Api> {
    Router::new()
        .route("/v1/actors/{component}/{actor}", get(actors::list))
        .route(
            "/v1/actors/{component}/{actor}/{key}",
            get(actors::show).delete(actors::remove),
        )
        .route(
            "/v1/actors/{component}/{actor}/{key}/{method}",
            post(actors::invoke),
        )
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route(
            "/v1/components",
            get(components::list)
                .post(components::upload)
                .layer(DefaultBodyLimit::disable())
                .layer(middleware::from_fn(auth::wasm_only)),
        )
        .route("/v1/components/{name}", get(components::show_newest))
        .route("/v1/components/{name}/{version}", get(components::show))
        .merge(routes_of_jobs())
        .merge(routes_of_tasks())
        .merge(flight::routes())
        .route("/v1/tables", get(tables::list))
        .route(
            "/v1/tables/{name}",
            get(tables::show).delete(tables::remove),
        )
        .route("/v1/usage", get(operations::usage))
        .route("/v1/nodes", get(operations::nodes))
        .route("/v1/queue", get(operations::why_queue))
        .route("/v1/nodes/{id}/drain", post(operations::drain))
        .route(
            "/v1/cluster/members/{member}",
            put(operations::add_member).delete(operations::remove_member),
        )
        .route("/v1/cluster", get(operations::cluster))
        .route("/v1/openapi.json", get(openapi::document))
        .route("/metrics", get(operations::metrics))
        .layer(RequestBodyTimeoutLayer::new(BODY_TIMEOUT))
        // Inputs of task functions have the same bound; rows of map functions may come when there are some.
        .route("/v1/invoke/{component}/{function}", post(invoke::invoke))
        .merge(routes_of_actors())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::map_response(reply::framework_refusal))
        .layer(middleware::from_fn_with_state(
            api.clone(),
            operations::look_again,
        ))
        .layer(middleware::from_fn_with_state(
            api.clone(),
            operations::trace,
        ))
        .layer(middleware::from_fn(query::check))
        .layer(middleware::from_fn_with_state(api.clone(), auth::check))
        .layer(middleware::from_fn(http2::admit))
        .layer(middleware::from_fn_with_state(
            api.clone(),
            operations::measure,
        ))
        .layer(middleware::from_fn(flight::translate))
        .with_state(api)
}

async fn health(State(_api): State<Api>) -> axum::Json<Value> {
    axum::Json(json!({ "status": "ready", "version": env!("CARGO_PKG_VERSION") }))
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Failure {
    let detail = format!(
        "`{}` is not there for `{method}`; `Allow` says what for",
        uri.path()
    );
    let problem = Problem::new(ErrorCode::NotFound, detail);
    Failure::with_status(problem, StatusCode::METHOD_NOT_ALLOWED)
}

async fn unknown(method: axum::http::Method, uri: axum::http::Uri) -> ApiResult<()> {
    Err(Problem::new(
        ErrorCode::NotFound,
        format!("there is no `{method} {}`", uri.path()),
    )
    .into())
}

/// Accepts connections until cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Api,
    tasks: Tasks,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let connections = api.metrics.connections.clone();
    let router = router(api);
    let streams = Streams::new(tasks.clone());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let accepted = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, say: the clients wait, and some handle is closed soon.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connections = connections.clone();
        let (router, streams) = (router.clone(), streams.clone());
        tasks.spawn("connection", OnError::Log, async move {
            let _permit = permit;
            let _open = UnderWay::new(&connections);
            let _ = stream.set_nodelay(true);
            let _ = set_tcp_user_timeout(&stream, STALLED_MS_MAX);
            if let Err(error) = connection::serve(stream, router, &streams).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
            Ok(())
        });
    }
}
