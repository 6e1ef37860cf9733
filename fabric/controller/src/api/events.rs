//! `/v1/jobs/{id}/events`: what happened to a job, and the job itself whenever it changes, as server-sent events until it has
//! ended; what happened so far as a list, for those who ask for JSON.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::watch;
use weft_control::Job;
use weft_core::TenantId;

use super::auth::Principal;
use super::reply::ApiResult;
use super::{Api, jobs, views};

/// Changes that come closer together than this are told as one, but for the last, which clients wait for.
const COALESCE: Duration = Duration::from_millis(100);

struct Follow {
    /// Events that wait to be sent.
    waiting: VecDeque<Event>,
    /// How many of what happened have been sent.
    told: usize,
    api: Api,
    tenant: TenantId,
    id: String,
    version: watch::Receiver<u64>,
    endings: watch::Receiver<u64>,
    last: Option<Value>,
    ended: bool,
}

/// Streams a job, or lists what happened to it.
pub(crate) async fn stream(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let accept = accept.unwrap_or("text/event-stream");
    let wants_list = accept.contains("application/json") && !accept.contains("text/event-stream");
    let list = |job: &Job| {
        wants_list.then(|| {
            let items: Vec<Value> = job.events.iter().map(views::event).collect();
            json!({ "items": items, "next_cursor": null, "dropped": job.events_dropped })
        })
    };
    if let Some(list) = jobs::look(&api, &principal.tenant, &id, list).await? {
        return Ok(Json(list).into_response());
    }
    let (version, endings) = (api.replica.version(), api.replica.endings());
    let follow = Follow {
        waiting: VecDeque::new(),
        told: 0,
        api,
        tenant: principal.tenant,
        id,
        version,
        endings,
        last: None,
        ended: false,
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(10));
    let stream = Sse::new(unfold(follow, next)).keep_alive(keep_alive);
    Ok(stream.into_response())
}

async fn next(mut follow: Follow) -> Option<(Result<Event, Infallible>, Follow)> {
    loop {
        if let Some(event) = follow.waiting.pop_front() {
            return Some((Ok(event), follow));
        }
        if follow.ended {
            return None;
        }
        // Marked as seen before the state is read: what comes after wakes the next round.
        follow.version.borrow_and_update();
        follow.endings.borrow_and_update();
        let told = follow.told;
        let look = |job: &Job| {
            let new = job.events.iter().skip(told);
            let new: Vec<Value> = new.map(views::event).collect();
            (views::job(job), views::has_ended(job), new)
        };
        let (view, ended, new) = jobs::look(&follow.api, &follow.tenant, &follow.id, look)
            .await
            .ok()?;
        follow.told += new.len();
        let event = |name: &str, data: &Value| Event::default().event(name).data(data.to_string());
        let happened = new.iter().map(|one| event("happened", one));
        follow.waiting.extend(happened);
        if ended {
            follow.ended = true;
            follow.waiting.push_back(event("end", &view));
        } else if follow.last.as_ref() != Some(&view) {
            follow.waiting.push_back(event("job", &view));
            follow.last = Some(view);
        } else if follow.waiting.is_empty() {
            follow.pause().await?;
        }
    }
}

impl Follow {
    /// Waits until there may be news, and for what comes right after it, unless the job has ended. Answers nothing where the
    /// server stops, or the job has gone.
    async fn pause(&mut self) -> Option<()> {
        let mut enough = std::pin::pin!(tokio::time::sleep(COALESCE));
        self.version.changed().await.ok()?;
        loop {
            tokio::select! {
                biased;
                () = &mut enough => return Some(()),
                changed = self.endings.changed() => changed.ok()?,
            }
            if jobs::look(&self.api, &self.tenant, &self.id, views::has_ended)
                .await
                .ok()?
            {
                return Some(());
            }
        }
    }
}
