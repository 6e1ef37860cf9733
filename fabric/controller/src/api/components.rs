//! `/v1/components`: upload, list, show.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;
use weft_core::{COMPONENT_BYTES_MAX, Digest, ErrorCode, Problem, TenantId};

use super::auth::Principal;
use super::reply::{ApiResult, Failure};
use super::{Api, PAGE_MAX, views};
use weft_runtime::random;

/// Where a page starts.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageQuery {
    pub(crate) cursor: Option<String>,
}

/// A cursor that is none, or that names what has gone.
pub(crate) fn no_cursor(cursor: &str) -> Failure {
    let detail = format!(
        "the cursor `{}` leads nowhere: list from the start",
        cursor.escape_debug()
    );
    let problem = Problem::new(ErrorCode::NotFound, detail);
    Failure::with_status(problem, StatusCode::BAD_REQUEST)
}

/// The page that starts after `cursor`, out of items with the keys that cursors are made of.
pub(crate) fn page<K: AsRef<str>>(
    mut items: impl Iterator<Item = (K, Value)>,
    cursor: Option<&str>,
) -> ApiResult<Value> {
    if let Some(cursor) = cursor
        && !items.any(|(key, _)| key.as_ref() == cursor)
    {
        return Err(no_cursor(cursor));
    }
    let mut items = items.peekable();
    let mut page = Vec::new();
    let mut last = None;
    while page.len() < PAGE_MAX
        && let Some((key, item)) = items.next()
    {
        last = Some(key.as_ref().to_owned());
        page.push(item);
    }
    let next = if items.peek().is_some() { last } else { None };
    Ok(json!({ "items": page, "next_cursor": next }))
}

/// Lists the versions of all components.
pub(crate) async fn list(
    State(api): State<Api>,
    principal: Principal,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<Value>> {
    let state = api.replica.state();
    let records = state
        .tenant(&principal.tenant)
        .into_iter()
        .flat_map(|tenant| tenant.catalog.iter());
    let page = page(
        records.map(|record| {
            (
                format!("{}@{}", record.name, record.version),
                views::component(record),
            )
        }),
        query.cursor.as_deref(),
    );
    Ok(Json(page?))
}

fn find(api: &Api, tenant: &TenantId, name: &str, version: Option<&str>) -> ApiResult<Json<Value>> {
    let state = api.replica.state();
    let catalog = state.tenant(tenant).map(|tenant| &tenant.catalog);
    let record = catalog.and_then(|catalog| catalog.find(name, version));
    let missing = || {
        let all = catalog.into_iter().flat_map(|catalog| catalog.iter());
        let versions = all.filter(|record| record.name == name);
        let versions: Vec<&str> = versions.map(|record| record.version.as_str()).collect();
        let name = name.escape_debug();
        let detail = match (version, versions.as_slice()) {
            (None, _) | (_, []) => format!("there is no component `{name}`"),
            (Some(version), versions) => format!(
                "the component `{name}` has no version {}; it has {}",
                version.escape_debug(),
                versions.join(", ")
            ),
        };
        Problem::new(ErrorCode::NotFound, detail)
    };
    Ok(Json(views::component(record.ok_or_else(missing)?)))
}

/// Shows the newest version.
pub(crate) async fn show_newest(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    find(&api, &principal.tenant, &name, None)
}

/// Shows one version.
pub(crate) async fn show(
    State(api): State<Api>,
    principal: Principal,
    Path((name, version)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    find(&api, &principal.tenant, &name, Some(&version))
}

/// A file that is removed unless it is renamed first.
struct Upload(std::path::PathBuf);

impl Drop for Upload {
    fn drop(&mut self) {
        // Gone already where the component was stored.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Takes a component: 201 where the version is new, 200 where these bytes are known.
pub(crate) async fn upload(
    State(api): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<(StatusCode, [(HeaderName, String); 1], Json<Value>)> {
    let announced = headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|bytes| bytes.to_str().ok()?.parse().ok());
    let announced = announced.unwrap_or(0);
    let name = random::name::<16>()?;
    let upload = Upload(api.folders.uploads.join(format!("{name}.part")));
    let (digest, size_bytes) = receive(body, announced, &upload.0).await?;
    if let Some(expected) = headers
        .get("x-weft-digest")
        .and_then(|value| value.to_str().ok())
        && expected != digest.as_str()
    {
        let detail = format!(
            "the upload has digest {digest}, the client says `{}`: send it again",
            expected.escape_debug()
        );
        return Err(Problem::new(ErrorCode::InvalidComponent, detail).into());
    }
    let components = Arc::clone(&api.components);
    let register = async move {
        components
            .register(&principal.tenant, &upload.0, digest, size_bytes)
            .await
    };
    let (record, new) = api.tasks.run_to_end("register", register).await??;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = format!("/v1/components/{}/{}", record.name, record.version);
    Ok((
        status,
        [(header::LOCATION, location)],
        Json(views::component(&record)),
    ))
}

/// Streams the body to a synced file, hashing on the way.
async fn receive(
    mut body: Body,
    announced: u64,
    path: &std::path::Path,
) -> Result<(Digest, u64), Problem> {
    let full = |error: std::io::Error| {
        Problem::new(
            ErrorCode::StoreUnavailable,
            format!("the upload cannot be written: {error}"),
        )
    };
    let too_large = || {
        let most = COMPONENT_BYTES_MAX >> 20;
        Problem::new(
            ErrorCode::TooLarge,
            format!("the component is larger than {most} MiB"),
        )
    };
    // What is announced as too large is refused before any of it is stored.
    if announced > COMPONENT_BYTES_MAX {
        return Err(too_large());
    }
    let mut file = tokio::fs::File::create(path).await.map_err(full)?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(
                ErrorCode::InvalidComponent,
                format!("the upload was cut off after {bytes} bytes: {error}"),
            )
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        weft_failpoint::hit("upload");
        bytes += data.len() as u64;
        if bytes > COMPONENT_BYTES_MAX {
            return Err(too_large());
        }
        hash.update(data);
        file.write_all(data).await.map_err(full)?;
    }
    file.flush().await.map_err(full)?;
    file.sync_all().await.map_err(full)?;
    Ok((Digest::from_sha256(&hash.finalize().into()), bytes))
}
