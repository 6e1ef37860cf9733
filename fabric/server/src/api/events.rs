//! `/v1/jobs/{id}/events`: the job as server-sent events, whenever it changes, until it has ended.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream::unfold;
use serde_json::Value;
use tokio::sync::watch;
use weft_control::Job;

use super::reply::ApiResult;
use super::{Api, jobs, views};

/// Changes that come closer together than this are told as one.
const COALESCE: Duration = Duration::from_millis(100);

struct Follow {
    api: Api,
    id: String,
    version: watch::Receiver<u64>,
    last: Option<Value>,
    ended: bool,
}

/// Streams a job.
pub(crate) async fn stream(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> ApiResult<Sse<impl Stream<Item = Result<Event, Infallible>>>> {
    jobs::look(&api, &id, |_| ()).await?;
    let version = api.replica.version();
    let follow = Follow {
        api,
        id,
        version,
        last: None,
        ended: false,
    };
    Ok(Sse::new(unfold(follow, next))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(10))))
}

async fn next(mut follow: Follow) -> Option<(Result<Event, Infallible>, Follow)> {
    if follow.ended {
        return None;
    }
    loop {
        // Marked as seen before the state is read: what comes after wakes the next round.
        follow.version.borrow_and_update();
        let look = |job: &Job| (views::job(job), views::has_ended(job));
        let (view, ended) = jobs::look(&follow.api, &follow.id, look).await.ok()?;
        if ended {
            follow.ended = true;
            return Some((
                Ok(Event::default().event("end").data(view.to_string())),
                follow,
            ));
        }
        if follow.last.as_ref() != Some(&view) {
            let event = Event::default().event("job").data(view.to_string());
            follow.last = Some(view);
            return Some((Ok(event), follow));
        }
        tokio::time::sleep(COALESCE).await;
        if follow.version.changed().await.is_err() {
            return None;
        }
    }
}
