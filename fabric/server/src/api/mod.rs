//! The HTTP API under `/v1`: connections, routes, and what all requests have in common.

mod auth;
mod components;
mod events;
mod invoke;
mod jobs;
mod reply;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware;
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, Problem};
use weft_shuffle::Blobs;

use crate::components::Components;
use crate::folder::DataFolder;
use crate::invocations::Invocations;
use crate::replica::Replica;
use crate::tasks::{OnError, Tasks};

use reply::ApiResult;

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take for its headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
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
    pub(crate) folder: Arc<DataFolder>,
    pub(crate) invocations: Arc<Invocations>,
    pub(crate) tasks: Tasks,
    pub(crate) token: Arc<str>,
    pub(crate) address: SocketAddr,
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route(
            "/v1/components",
            get(components::list)
                .post(components::upload)
                .layer(DefaultBodyLimit::disable()),
        )
        .route("/v1/components/{name}", get(components::show_newest))
        .route("/v1/components/{name}/{version}", get(components::show))
        .route(
            "/v1/jobs",
            get(jobs::list)
                .post(jobs::submit)
                .layer(DefaultBodyLimit::max(JOB_BYTES_MAX)),
        )
        .route(
            "/v1/jobs/check",
            post(jobs::check).layer(DefaultBodyLimit::max(JOB_BYTES_MAX)),
        )
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/jobs/{id}/stages", get(jobs::stages))
        .route("/v1/jobs/{id}/tasks", get(jobs::tasks))
        .route("/v1/jobs/{id}/events", get(events::stream))
        .route("/v1/jobs/{id}/logs", get(jobs::logs))
        .route("/v1/jobs/{id}/receipt", get(jobs::receipt))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route(
            "/v1/invoke/{component}/{function}",
            post(invoke::invoke).layer(DefaultBodyLimit::max(invoke::BODY_BYTES_MAX)),
        )
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        .layer(middleware::map_response(reply::framework_refusal))
        .layer(middleware::from_fn_with_state(api.clone(), auth::check))
        .with_state(api)
}

async fn health(State(_api): State<Api>) -> axum::Json<Value> {
    axum::Json(json!({ "status": "ready", "version": env!("CARGO_PKG_VERSION") }))
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
    let router = router(api);
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
        let service = TowerToHyperService::new(router.clone());
        tasks.spawn("connection", OnError::Log, async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "connection ended");
            }
            Ok(())
        });
    }
}
