//! Routes questions about actors to the executors that were granted their shards.
//!
//! ```text
//! API, guests ──▶ ActorRouter ── holder of the shard, by the state here ──▶ node ──▶ executor ──▶ answer
//!                   ▲     └ nobody: Request::Shard ──▶ leader, which grants it      │
//!                   └───────────── the state here has changed ◀── not here, not reached
//! ```
//!
//! A question is asked again only if nothing was done about it. Once an executor has it, an error is the answer.

mod guest_calls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use weft_core::{Epoch, ErrorCode, MAX_METHOD_BYTES, NodeId, Problem, TenantId, lock};
use weft_protocol::{ActorAsk, ActorRequest, ActorStatus, MAX_TURN_BYTES};
use weft_runtime::link::InvokeAnswer;

use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::replica::Replica;
use crate::scheduler::Requests;

pub(crate) use guest_calls::GuestCalls;

/// Shortest wait for a change after nobody could be asked.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for a change.
const MAX_PAUSE: Duration = Duration::from_millis(400);

/// Asks executors about actors. Clones share it.
#[derive(Clone)]
pub(crate) struct ActorRouter {
    replica: Replica,
    nodes: Nodes,
    requests: Requests,
    wanted: Arc<Wanted>,
    metrics: Arc<Metrics>,
}

/// Shards that the leader was asked for a moment ago. Thousands of questions may wait for one, and ask for it as one.
#[derive(Default)]
struct Wanted(Mutex<BTreeMap<(TenantId, u32), Instant>>);

impl Wanted {
    /// Returns whether the leader is to be asked for a shard now.
    fn is_due(&self, tenant: &TenantId, shard: u32, now: Instant) -> bool {
        let mut asked = lock(&self.0);
        asked.retain(|_, at| now < *at + MIN_PAUSE);
        let key = (tenant.clone(), shard);
        let is_due = !asked.contains_key(&key);
        if is_due {
            asked.insert(key, now);
        }
        is_due
    }
}

/// A question about one shard of a tenant's actors.
#[derive(Clone)]
pub(crate) struct ShardQuestion {
    /// The shard.
    pub(crate) shard: u32,
    /// The question.
    pub(crate) ask: ActorAsk,
    /// Input of an invocation.
    pub(crate) input: Bytes,
    /// Time for its answer, waiting included.
    pub(crate) deadline: Duration,
}

/// A part of the list of an actor function's instances.
#[derive(Debug, Clone)]
pub(crate) struct ActorPage {
    /// The component.
    pub(crate) component: String,
    /// The actor function.
    pub(crate) actor: String,
    /// Keys after this one.
    pub(crate) after: Option<String>,
    /// As many.
    pub(crate) limit: u32,
}

/// Result of one try: the answer, or the executor that could not be asked, if there is one.
enum Tried {
    Answered(Box<InvokeAnswer>),
    Missed(Option<Epoch>),
}

/// Checks the name of a method. Errors: `invalid_job`.
pub(crate) fn check_method(method: &str) -> Result<(), Problem> {
    let is_valid =
        (1..=MAX_METHOD_BYTES).contains(&method.len()) && !method.chars().any(char::is_control);
    match is_valid {
        true => Ok(()),
        false => {
            let shown: String = method
                .chars()
                .take(64)
                .flat_map(char::escape_debug)
                .collect();
            let detail = format!(
                "`{shown}` is not a method of an actor: 1 to {MAX_METHOD_BYTES} bytes without control characters"
            );
            Err(Problem::new(ErrorCode::InvalidJob, detail))
        }
    }
}

/// Checks the size of the input of a turn, or of a future. Errors: `too_large`.
pub(crate) fn check_input(input: &Bytes) -> Result<(), Problem> {
    match input.len() <= MAX_TURN_BYTES {
        true => Ok(()),
        false => {
            let most = MAX_TURN_BYTES >> 20;
            let detail =
                format!("the input is larger than the {most} MiB that an actor or a future takes");
            Err(Problem::new(ErrorCode::TooLarge, detail))
        }
    }
}

impl ActorRouter {
    pub(crate) fn new(
        replica: &Replica,
        nodes: &Nodes,
        requests: &Requests,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            replica: replica.clone(),
            nodes: nodes.clone(),
            requests: requests.clone(),
            wanted: Arc::default(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Asks the executor that was granted the shard, and has it granted if it is nobody's.
    ///
    /// Errors: `busy` if nobody serves the shard until the deadline, and as those of
    /// [`weft_runtime::link::Invoker::actor`]. What the actor refuses is in the answer.
    pub(crate) async fn ask(
        &self,
        tenant: &TenantId,
        question: ShardQuestion,
    ) -> Result<InvokeAnswer, Problem> {
        let label = match &question.ask {
            ActorAsk::Invoke(invoke) => Some(invoke.pin.label.clone()),
            ActorAsk::Show(_) | ActorAsk::Delete(_) | ActorAsk::List { .. } => None,
        };
        let began = Instant::now();
        let answer = Box::pin(self.route(tenant, question, began)).await;
        if let Some(label) = label {
            let problem = match &answer {
                Ok((reply, _)) => reply.result.as_ref().err(),
                Err(problem) => Some(problem),
            };
            self.metrics.invoked(&label, problem, began.elapsed());
        }
        answer
    }

    async fn route(
        &self,
        tenant: &TenantId,
        question: ShardQuestion,
        began: Instant,
    ) -> Result<InvokeAnswer, Problem> {
        let mut version = self.replica.version();
        let mut pause = MIN_PAUSE;
        loop {
            version.mark_unchanged();
            let left = question.deadline.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Err(unserved(&question));
            }
            let missed = match self.try_once(tenant, &question, left).await? {
                Tried::Answered(answer) => return Ok(*answer),
                Tried::Missed(missed) => missed,
            };
            if self.replica.may_lag() {
                // If nobody leads, the next try may wait for it.
                let _ = timeout(left, self.replica.catch_up()).await;
            }
            let changed = self.changed(tenant, question.shard, missed, &mut version);
            let _ = timeout(pause.min(left), changed).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn try_once(
        &self,
        tenant: &TenantId,
        question: &ShardQuestion,
        left: Duration,
    ) -> Result<Tried, Problem> {
        let Some((executor, node)) = self.holder(tenant, question.shard) else {
            // The request may be lost: it is made again with the next try.
            if self.wanted.is_due(tenant, question.shard, Instant::now()) {
                self.requests.shard(tenant, question.shard);
            }
            return Ok(Tried::Missed(None));
        };
        let Some(node) = self.nodes.of(&node) else {
            return Ok(Tried::Missed(Some(executor)));
        };
        let request = ActorRequest {
            request: 0,
            executor,
            shard: question.shard,
            ask: question.ask.clone(),
            deadline_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        };
        let invoker = &node.worker.invoker;
        let answer = invoker.actor(tenant, request, question.input.clone(), left);
        Ok(match answer.await? {
            Some(answer) => Tried::Answered(Box::new(answer)),
            None => Tried::Missed(Some(executor)),
        })
    }

    /// The executor that serves the shard, and its node, as far as is known here.
    fn holder(&self, tenant: &TenantId, shard: u32) -> Option<(Epoch, NodeId)> {
        let state = self.replica.state();
        let executor = state.shard_holder(tenant, shard)?;
        let lease = state.leases.get(executor)?;
        Some((executor, lease.node.clone()))
    }

    /// Waits until somebody else than `missed` holds the shard, as far as is known here.
    async fn changed(
        &self,
        tenant: &TenantId,
        shard: u32,
        missed: Option<Epoch>,
        version: &mut watch::Receiver<u64>,
    ) {
        let holder = || self.holder(tenant, shard).map(|(executor, _)| executor);
        while holder() == missed {
            if version.changed().await.is_err() {
                // The replica has ended.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns whether a shard was ever granted: one that was not holds no actor.
    ///
    /// Errors: `busy` if nobody can say.
    pub(crate) async fn is_known(&self, tenant: &TenantId, shard: u32) -> Result<bool, Problem> {
        Ok(self.known(tenant).await?.contains(&shard))
    }

    async fn known(&self, tenant: &TenantId) -> Result<Vec<u32>, Problem> {
        if self.replica.may_lag() {
            self.replica.catch_up().await?;
        }
        let state = self.replica.state();
        let Some(tenant) = state.tenant(tenant) else {
            return Ok(Vec::new());
        };
        Ok(tenant.shards.keys().copied().collect())
    }

    /// Lists actors by key, of all shards together.
    pub(crate) async fn list(
        &self,
        tenant: &TenantId,
        page: &ActorPage,
        deadline: Duration,
    ) -> Result<Vec<ActorStatus>, Problem> {
        let question = |shard| ShardQuestion {
            shard,
            ask: ActorAsk::List {
                component: page.component.clone(),
                actor: page.actor.clone(),
                after: page.after.clone(),
                limit: page.limit,
            },
            input: Bytes::new(),
            deadline,
        };
        let known = self.known(tenant).await?;
        let asked = known
            .into_iter()
            .map(|shard| self.ask(tenant, question(shard)));
        let mut actors = Vec::new();
        for (reply, output) in try_join_all(asked).await? {
            reply.result?;
            actors.extend(read::<Vec<ActorStatus>>(&output)?);
        }
        actors.sort_by(|one: &ActorStatus, other| one.key.cmp(&other.key));
        actors.truncate(page.limit as usize);
        Ok(actors)
    }
}

/// Reads what an executor says of actors. Errors: `internal`.
pub(crate) fn read<T: serde::de::DeserializeOwned>(output: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(output).map_err(|error| {
        let detail = format!("an executor describes actors in a strange way: {error}");
        Problem::new(ErrorCode::Internal, detail)
    })
}

fn unserved(question: &ShardQuestion) -> Problem {
    let (shard, within) = (question.shard, question.deadline.as_millis());
    let detail = format!(
        "no executor served shard {shard} of the tenant's actors within {within} ms, and nothing was done; try again"
    );
    Problem::new(ErrorCode::Busy, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_questions_ask_for_a_shard_as_one() {
        let (wanted, tenant) = (Wanted::default(), TenantId::default_tenant());
        let mut now = Instant::now();
        for round in 0..3 {
            assert!(wanted.is_due(&tenant, 1, now), "{round}");
            assert!(!wanted.is_due(&tenant, 1, now), "{round}");
            assert!(wanted.is_due(&tenant, 2, now), "another shard");
            now += MIN_PAUSE;
        }
        wanted.is_due(&tenant, 3, now);
        assert_eq!(lock(&wanted.0).len(), 1, "the others are over");
    }

    #[test]
    fn methods_have_a_name_of_a_bounded_length() {
        for method in ["deposit", "a b", "überweisen"] {
            check_method(method).expect("it is a name");
        }
        for method in ["", "a\nb", &"x".repeat(MAX_METHOD_BYTES + 1)] {
            let refused = check_method(method).expect_err("refused");
            assert!(refused.detail.contains("not a method"), "{refused}");
        }
    }
}
