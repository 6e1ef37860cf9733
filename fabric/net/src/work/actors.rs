//! Questions to actors, and calls that guests of a node make.
//!
//! ```text
//! /actor   ──▶ request, input   ◀── reply, output, or nothing if the shard is elsewhere
//! /call    ──▶                  ◀── a call of a guest and its input, or nothing after a while
//! /answer  ──▶ result, output   ◀──
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use weft_core::{ErrorCode, Problem, TenantId, lock};
use weft_protocol::{ActorRequest, Call, InvokeReply};
use weft_runtime::link::{InvokeAnswer, Invoker};

use super::{ACTOR, ANSWER, CALL, DEADLINE_GRACE, RemoteNode, WorkSettings};
use crate::rpc::{self, BoxBody, lost, read_whole};

/// Time after which a controller that waits for a call asks anew.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// The head of a question to an actor.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    tenant: TenantId,
    request: ActorRequest,
    deadline_ms: u64,
}

/// A call that is handed out. Its input is the payload.
#[derive(Debug, Serialize, Deserialize)]
struct HandedCall {
    tenant: TenantId,
    call: Call,
}

/// The answer to a call. Its output is the payload.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    tenant: TenantId,
    call: u64,
    result: Result<(), Problem>,
}

/// Calls that were handed out and have no answer, by tenant and number.
type Unanswered = BTreeSet<(TenantId, u64)>;

/// Calls that one connection has handed out and not answered; nothing once it has ended. Clones share them.
#[derive(Clone)]
pub(super) struct Handed(Arc<Mutex<Option<Unanswered>>>);

impl Handed {
    /// No calls yet.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(BTreeSet::new()))))
    }

    /// Records a call. Returns false if the connection has ended.
    fn add(&self, tenant: &TenantId, call: u64) -> bool {
        match &mut *lock(&self.0) {
            Some(calls) => {
                calls.insert((tenant.clone(), call));
                true
            }
            None => false,
        }
    }

    fn remove(&self, tenant: &TenantId, call: u64) {
        if let Some(calls) = &mut *lock(&self.0) {
            calls.remove(&(tenant.clone(), call));
        }
    }

    /// Answers what has no answer: the controller went away with it.
    pub(super) async fn give_up(&self, invoker: &dyn Invoker) {
        let calls = lock(&self.0).take();
        for (tenant, call) in calls.into_iter().flatten() {
            invoker.answer_call(&tenant, call, Err(went_away())).await;
        }
    }
}

fn went_away() -> Problem {
    let detail =
        "the controller that made the call went away, and nobody knows what came of it; try again";
    Problem::new(ErrorCode::Busy, detail)
}

/// Asks an actor on this node.
pub(super) async fn ask_on_node(body: Incoming, settings: &WorkSettings) -> Response<BoxBody> {
    let answered = async {
        let (question, input) = read_whole::<Question>(body).await?;
        let deadline = Duration::from_millis(question.deadline_ms);
        let invoker = &settings.invoker;
        let asked = invoker.actor(&question.tenant, question.request, input, deadline);
        asked.await
    };
    match answered.await {
        Ok(Some((reply, output))) => rpc::answered(&Ok::<_, Problem>(Some(reply)), &output),
        Ok(None) => rpc::answered(&Ok::<Option<InvokeReply>, Problem>(None), &[]),
        Err(problem) => rpc::answered(&Err::<Option<InvokeReply>, _>(problem), &[]),
    }
}

/// Hands a call out, if one comes in a while.
pub(super) async fn call_on_node(settings: &WorkSettings, handed: &Handed) -> Response<BoxBody> {
    let invoker = &settings.invoker;
    let none = || rpc::answered(&Ok::<Option<HandedCall>, Problem>(None), &[]);
    let (tenant, call, input) = match timeout(CALL_PATIENCE, invoker.next_call()).await {
        Err(_) => return none(),
        Ok(Err(problem)) => return rpc::answered(&Err::<Option<HandedCall>, _>(problem), &[]),
        Ok(Ok(next)) => next,
    };
    if !handed.add(&tenant, call.call) {
        invoker
            .answer_call(&tenant, call.call, Err(went_away()))
            .await;
        return none();
    }
    rpc::answered(&Ok::<_, Problem>(Some(HandedCall { tenant, call })), &input)
}

/// Passes the answer to a call on.
pub(super) async fn answer_on_node(
    body: Incoming,
    settings: &WorkSettings,
    handed: &Handed,
) -> Response<BoxBody> {
    let answered = async {
        let (answer, output) = read_whole::<Answer>(body).await?;
        handed.remove(&answer.tenant, answer.call);
        let output = answer.result.map(|()| output);
        let invoker = &settings.invoker;
        invoker
            .answer_call(&answer.tenant, answer.call, output)
            .await;
        Ok::<_, Problem>(())
    };
    rpc::answered(&answered.await, &[])
}

impl RemoteNode {
    /// Asks an actor on the node.
    pub(super) async fn ask_actor(
        &self,
        tenant: &TenantId,
        request: ActorRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<Option<InvokeAnswer>, Problem> {
        if self.asker.is_closed() {
            // Nothing is sent: the caller may look for another node.
            return Ok(None);
        }
        let question = Question {
            tenant: tenant.clone(),
            request,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let asked = self
            .asker
            .ask::<Result<Option<InvokeReply>, Problem>>(ACTOR, &question, &input);
        let asked = timeout(deadline + DEADLINE_GRACE, asked).await;
        let asked = asked.unwrap_or_else(|_| Err(lost(&"it is silent")));
        let (reply, output) = asked.map_err(|problem| self.gone(problem))?;
        Ok(reply?.map(|reply| (reply, output)))
    }

    /// Waits for the next call of a guest of the node.
    pub(super) async fn wait_for_call(&self) -> Result<(TenantId, Call, Bytes), Problem> {
        loop {
            let asked = self
                .asker
                .ask::<Result<Option<HandedCall>, Problem>>(CALL, &(), &[]);
            let asked = timeout(CALL_PATIENCE + DEADLINE_GRACE, asked).await;
            let asked = asked.unwrap_or_else(|_| Err(lost(&"it is silent")));
            let (next, input) = asked.map_err(|problem| self.gone(problem))?;
            if let Some(HandedCall { tenant, call }) = next? {
                return Ok((tenant, call, input));
            }
        }
    }

    /// Sends the answer to a call. If the connection breaks, the node gives the call up.
    pub(super) async fn send_answer(
        &self,
        tenant: &TenantId,
        call: u64,
        answer: Result<Bytes, Problem>,
    ) {
        let (result, output) = match answer {
            Ok(output) => (Ok(()), output),
            Err(problem) => (Err(problem), Bytes::new()),
        };
        let answer = Answer {
            tenant: tenant.clone(),
            call,
            result,
        };
        let sent = self
            .asker
            .ask::<Result<(), Problem>>(ANSWER, &answer, &output);
        match timeout(DEADLINE_GRACE, sent).await {
            Ok(Ok((Ok(()), _))) => {}
            Ok(Ok((Err(problem), _)) | Err(problem)) => {
                tracing::debug!(node = %self.node, problem = problem.detail, "an answer is lost");
            }
            Err(_) => tracing::debug!(node = %self.node, "a node does not take an answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_connection_that_has_ended_are_not_recorded() {
        let handed = Handed::new();
        let tenant = TenantId::default_tenant();
        assert!(handed.add(&tenant, 1) && handed.add(&tenant, 2));
        handed.remove(&tenant, 1);
        let left = lock(&handed.0).take();
        assert_eq!(left, Some(BTreeSet::from([(tenant.clone(), 2)])));
        assert!(!handed.add(&tenant, 3));
    }
}
