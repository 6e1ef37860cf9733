//! `/v1/actors`: invokes actors, lists, shows and removes them.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use weft_control::IDEMPOTENCY_MS;
use weft_core::{ActorRef, ErrorCode, Problem, TenantId};
use weft_protocol::{ActorAsk, ActorInvoke, ActorStatus, DeadLetter, Once};

use super::Api;
use super::auth::Principal;
use super::invoke::{DEADLINE, deadline, keyed, respond, ttl};
use super::reply::ApiResult;
use crate::actors::{ActorPage, ShardQuestion, check_input, check_method, read};
use crate::traces::RequestTrace;
use weft_runtime::clock::rfc3339;

/// Actors of one page.
const MAX_PAGE: u32 = 500;
/// The same, unless the client says so.
const PAGE: u32 = 100;

/// Invokes a method of an actor.
pub(crate) async fn invoke(
    State(api): State<Api>,
    principal: Principal,
    Path((component, actor, key, method)): Path<(String, String, String, String)>,
    Query(mut params): Query<Vec<(String, String)>>,
    Extension(trace): Extension<RequestTrace>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Response> {
    let deadline = deadline(&mut params)?.unwrap_or(DEADLINE);
    let ttl_s = ttl(&headers)?;
    let tenant = &principal.tenant;
    let actor = actor_ref(component, actor, key)?;
    check_method(&method)?;
    let pin = api.pins.actor(tenant, &actor).await?;
    let (input, _held) = api.bodies.take_in(body).await?;
    check_input(&input)?;
    let once = once(&headers, &actor, &method, &input, ttl_s)?;
    let call = api.traces.call(&pin.label, &trace);
    let question = ShardQuestion {
        shard: actor.shard(),
        ask: ActorAsk::Invoke(Box::new(ActorInvoke {
            actor,
            pin,
            method,
            once,
            message: None,
            chain: Vec::new(),
        })),
        input,
        deadline,
    };
    let answer = api.actors.ask(tenant, question).await;
    let reply = answer.as_ref().map(|(reply, _)| reply);
    api.traces.called(&call, reply);
    Ok(respond(answer?))
}

/// The client's idempotency key, with a digest of what it asks for.
fn once(
    headers: &HeaderMap,
    actor: &ActorRef,
    method: &str,
    input: &Bytes,
    ttl_s: Option<u32>,
) -> Result<Option<Once>, Problem> {
    let reference = format!("{actor}/{method}");
    let longest = u32::try_from(IDEMPOTENCY_MS / 1_000).unwrap_or(u32::MAX);
    let keyed = keyed(headers, &reference, &[], input)?;
    Ok(keyed.map(|(key, digest)| Once {
        key,
        digest,
        ttl_s: ttl_s.unwrap_or(longest),
    }))
}

fn actor_ref(component: String, actor: String, key: String) -> Result<ActorRef, Problem> {
    let named = ActorRef::new(component, actor, key);
    named.map_err(|invalid| Problem::new(ErrorCode::InvalidJob, invalid.to_string()))
}

/// Shows an actor.
pub(crate) async fn show(
    State(api): State<Api>,
    principal: Principal,
    Path((component, actor, key)): Path<(String, String, String)>,
) -> ApiResult<Json<Value>> {
    let actor = actor_ref(component, actor, key)?;
    let asked = ask_of_known(
        &api,
        &principal.tenant,
        &actor,
        ActorAsk::Show(actor.clone()),
    );
    let Some(output) = asked.await? else {
        return Err(missing(&actor).into());
    };
    let status: ActorStatus = read(&output)?;
    if status.turns == 0 {
        return Err(missing(&actor).into());
    }
    Ok(Json(shown(&actor.component, &actor.actor, &status)))
}

/// Removes an actor, with its state. One that is not there stays so.
pub(crate) async fn remove(
    State(api): State<Api>,
    principal: Principal,
    Path((component, actor, key)): Path<(String, String, String)>,
) -> ApiResult<StatusCode> {
    let actor = actor_ref(component, actor, key)?;
    ask_of_known(
        &api,
        &principal.tenant,
        &actor,
        ActorAsk::Delete(actor.clone()),
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks about an actor. Returns nothing if it is not there, or nobody has ever used its shard.
async fn ask_of_known(
    api: &Api,
    tenant: &TenantId,
    actor: &ActorRef,
    ask: ActorAsk,
) -> Result<Option<Bytes>, Problem> {
    let shard = actor.shard();
    if !api.actors.is_known(tenant, shard).await? {
        return Ok(None);
    }
    let question = ShardQuestion {
        shard,
        ask,
        input: Bytes::new(),
        deadline: DEADLINE,
    };
    let (reply, output) = api.actors.ask(tenant, question).await?;
    match reply.result {
        Ok(()) => Ok(Some(output)),
        Err(problem) if problem.code == ErrorCode::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn missing(actor: &ActorRef) -> Problem {
    let detail = format!("the actor `{actor}` has no state");
    Problem::new(ErrorCode::NotFound, detail)
}

/// Beginning and length of a page of a list.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    after: Option<String>,
    limit: Option<u32>,
}

/// Lists actors of a function by key.
pub(crate) async fn list(
    State(api): State<Api>,
    principal: Principal,
    Path((component, actor)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Value>> {
    let tenant = &principal.tenant;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        let detail = format!("`limit` is a whole number from 1 to {MAX_PAGE}, not {limit}");
        return Err(Problem::new(ErrorCode::InvalidJob, detail).into());
    }
    let page = ActorPage {
        component,
        actor,
        after: query.after,
        // One more says whether there is a next page.
        limit: limit + 1,
    };
    let mut actors = api.actors.list(tenant, &page, DEADLINE).await?;
    let ActorPage {
        component, actor, ..
    } = page;
    if actors.is_empty() {
        let reference = format!("{component}/{actor}");
        api.pins.check_actor(tenant, &reference).await?;
    }
    let has_more = actors.len() > limit as usize;
    actors.truncate(limit as usize);
    let next = actors.last().filter(|_| has_more).map(|last| &last.key);
    let lines = actors.iter().map(|one| shown(&component, &actor, one));
    Ok(Json(
        json!({ "actors": lines.collect::<Vec<_>>(), "next": next }),
    ))
}

/// An actor, as clients see it.
fn shown(component: &str, actor: &str, status: &ActorStatus) -> Value {
    json!({
        "component": component,
        "actor": actor,
        "key": status.key,
        "shard": status.shard,
        "resident": status.resident,
        "alarm_at": status.alarm_ms.map(rfc3339),
        "turns": status.turns,
        "changed_at": rfc3339(status.changed_ms),
        "entries": status.entries,
        "state_bytes": status.state_bytes,
        "dead_letters": status.dead_letters.iter().map(letter).collect::<Vec<_>>(),
    })
}

fn letter(letter: &DeadLetter) -> Value {
    json!({
        "to": letter.to.to_string(),
        "method": letter.method,
        "input_bytes": letter.input_bytes,
        "reason": letter.reason,
        "at": rfc3339(letter.at_ms),
    })
}
