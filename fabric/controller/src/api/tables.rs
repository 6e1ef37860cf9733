//! `/v1/tables`: list, show and drop tables and views. Statements make them: a job with `CREATE VIEW`, say.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde_json::{Value, json};
use weft_control::{Command, TableRecord, Tables};
use weft_protocol::TableChange;

use super::Api;
use super::auth::Principal;
use super::components::{PageQuery, page};
use super::reply::ApiResult;
use weft_runtime::clock::rfc3339;

/// Lists tables and views by name.
pub(crate) async fn list(
    State(api): State<Api>,
    principal: Principal,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<Value>> {
    let state = api.replica.state();
    let tenant = state.tenant(&principal.tenant).into_iter();
    let tables = tenant.flat_map(|tenant| tenant.tables.iter());
    let items = tables.map(|(name, record)| (name, line(name, record)));
    Ok(Json(page(items, query.cursor.as_deref())?))
}

/// Shows one, with its definition.
pub(crate) async fn show(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    let state = api.replica.state();
    let none = Tables::default();
    let tables = state
        .tenant(&principal.tenant)
        .map_or(&none, |tenant| &tenant.tables);
    let record = tables.get(&name).ok_or_else(|| tables.missing(&name))?;
    let mut shown = line(&name, record);
    // Executors wrote it; what is not JSON is shown as it is.
    shown["definition"] = serde_json::from_str(&record.definition)
        .unwrap_or_else(|_| Value::from(record.definition.as_str()));
    Ok(Json(shown))
}

/// Forgets one. Files of a table stay where they are, rows that the cluster keeps for it go.
pub(crate) async fn remove(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<String>,
) -> ApiResult<Json<Value>> {
    let change = TableChange::Drop {
        name: name.clone(),
        kind: None,
        if_exists: false,
    };
    let command = Command::ChangeTables { change };
    api.replica.propose(&principal.tenant, command).await?;
    Ok(Json(json!({ "name": name })))
}

/// A table or view in a list. Rows that the cluster keeps for it are counted.
fn line(name: &str, record: &TableRecord) -> Value {
    let mut line = json!({
        "name": name,
        "kind": record.kind,
        "changed_at": rfc3339(record.changed_ms),
    });
    if let Some(kept) = &record.kept {
        line["kept_bytes"] = kept.bytes.into();
    }
    line
}
