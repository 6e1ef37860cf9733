//! Makes the calls of guests that leave their executors: pins functions, asks actors, invokes tasks.
//!
//! ```text
//! node ──next_call──▶ loops ──▶ a task for each call ──▶ pins, ActorRouter, Invocations
//!      ◀─answer_call──────────────┘
//! ```
//!
//! A call that finds no room is refused at once: calls that wait for room could hold up those that they wait for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use weft_core::{ActorRef, ErrorCode, FunctionKind, Problem, TenantId};
use weft_protocol::{
    ActorAsk, ActorInvoke, Call, CallTo, DEADLINE_MAX, InvokeRequest, MAX_CHAIN, MAX_SPAWN_DEPTH,
    MessageId,
};
use weft_runtime::clock::unix_ms;
use weft_runtime::link::Worker;
use weft_runtime::{OnError, Room, Scoped, Tasks, random};

use super::{ActorRouter, ShardQuestion, check_input, check_method};
use crate::invocations::Invocations;
use crate::pins::Pins;

/// Calls of one node that are waited for at a time.
const CALL_LOOPS: usize = 32;
/// Calls that a controller makes at a time.
const MAX_CALLS_UNDER_WAY: usize = 8_192;
/// Bytes of their inputs.
const MAX_INPUT_BYTES: usize = 256 << 20;
/// Pause after a node could not be asked for calls: its connection is about to be given up.
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// Makes calls of guests. Clones share it.
#[derive(Clone)]
pub(crate) struct GuestCalls {
    router: ActorRouter,
    pins: Pins,
    invocations: Invocations,
    tasks: Tasks,
    under_way: Arc<Semaphore>,
    inputs: Room,
}

/// A turn that a guest asks for.
struct Turn {
    actor: ActorRef,
    method: String,
    message: Option<MessageId>,
    chain: Vec<ActorRef>,
}

impl GuestCalls {
    pub(crate) fn new(
        router: &ActorRouter,
        pins: &Pins,
        invocations: &Invocations,
        tasks: &Tasks,
    ) -> Self {
        Self {
            router: router.clone(),
            pins: pins.clone(),
            invocations: invocations.clone(),
            tasks: tasks.clone(),
            under_way: Arc::new(Semaphore::new(MAX_CALLS_UNDER_WAY)),
            inputs: Room::new(MAX_INPUT_BYTES, |_| {}),
        }
    }

    /// Takes calls of a node's guests until the result is dropped. Those that were taken come to their end.
    pub(crate) fn serve(&self, worker: &Worker) -> Scoped {
        let (calls, worker) = (self.clone(), worker.clone());
        Scoped::new(async move {
            join_all((0..CALL_LOOPS).map(|_| calls.take_calls(&worker))).await;
        })
    }

    async fn take_calls(&self, worker: &Worker) {
        loop {
            match worker.invoker.next_call().await {
                Ok((tenant, call, input)) => self.begin(worker, tenant, call, input).await,
                Err(problem) => {
                    tracing::debug!(problem = problem.detail, "no calls come from a node");
                    tokio::time::sleep(ASK_PAUSE).await;
                }
            }
        }
    }

    /// Begins to make a call, or refuses it.
    async fn begin(&self, worker: &Worker, tenant: TenantId, call: Call, input: Bytes) {
        let number = call.call;
        let permit = Arc::clone(&self.under_way).try_acquire_owned().ok();
        let held = permit.zip(self.inputs.try_take(input.len()));
        let Some(held) = held else {
            let detail = "too many calls of guests are under way on this controller; try again";
            let refused = Err(Problem::new(ErrorCode::Busy, detail));
            worker.invoker.answer_call(&tenant, number, refused).await;
            return;
        };
        let (calls, worker) = (self.clone(), worker.clone());
        self.tasks
            .spawn("call of a guest", OnError::Log, async move {
                let _held = held;
                let answer = Box::pin(calls.make(&tenant, call, input)).await;
                worker.invoker.answer_call(&tenant, number, answer).await;
                Ok(())
            });
    }

    async fn make(&self, tenant: &TenantId, call: Call, input: Bytes) -> Result<Bytes, Problem> {
        let deadline = Duration::from_millis(call.deadline_ms).min(DEADLINE_MAX);
        let made = async {
            match call.to {
                CallTo::Pin { function } => self.pin(tenant, &function).await,
                CallTo::Actor {
                    actor,
                    method,
                    message,
                    chain,
                } => {
                    let turn = Turn {
                        actor,
                        method,
                        message,
                        chain,
                    };
                    self.ask(tenant, turn, input, deadline).await
                }
                CallTo::Task { function, depth } => {
                    self.invoke(tenant, &function, depth, input, deadline).await
                }
            }
        };
        timeout(deadline, made).await.unwrap_or_else(|_| {
            let detail = format!("a call had no answer after {} ms", deadline.as_millis());
            Err(Problem::new(ErrorCode::Busy, detail))
        })
    }

    /// The version that serves a function now, as JSON.
    async fn pin(&self, tenant: &TenantId, function: &str) -> Result<Bytes, Problem> {
        let kinds = [FunctionKind::Actor, FunctionKind::Task];
        let pinned = self.pins.pin(tenant, function, &kinds).await?;
        let json = serde_json::to_vec(&pinned.pin);
        let json = json.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        Ok(json.into())
    }

    /// One turn of an actor. Executors are not trusted: all bounds are checked.
    async fn ask(
        &self,
        tenant: &TenantId,
        turn: Turn,
        input: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, Problem> {
        let Turn {
            actor,
            method,
            message,
            chain,
        } = turn;
        let actor = valid(actor)?;
        check_method(&method)?;
        check_input(&input)?;
        if chain.len() > MAX_CHAIN {
            let detail =
                format!("`{actor}`: more than {MAX_CHAIN} actors wait for each other's answers");
            return Err(Problem::new(ErrorCode::InvalidJob, detail));
        }
        let pin = self.pins.actor(tenant, &actor).await?;
        let question = ShardQuestion {
            shard: actor.shard(),
            ask: ActorAsk::Invoke(Box::new(ActorInvoke {
                actor,
                pin,
                method,
                once: None,
                message,
                chain,
            })),
            input,
            deadline,
        };
        let (reply, output) = self.router.ask(tenant, question).await?;
        reply.result.map(|()| output)
    }

    /// One invocation of a task, on any node.
    async fn invoke(
        &self,
        tenant: &TenantId,
        function: &str,
        depth: u32,
        input: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, Problem> {
        check_input(&input)?;
        if !(1..=MAX_SPAWN_DEPTH).contains(&depth) {
            let detail = format!(
                "`{function}` is spawned at depth {depth}: futures of futures may be nested {MAX_SPAWN_DEPTH} deep"
            );
            return Err(Problem::new(ErrorCode::InvalidJob, detail));
        }
        let pinned = self
            .pins
            .pin(tenant, function, &[FunctionKind::Task])
            .await?;
        let request = InvokeRequest {
            request: 0,
            label: pinned.pin.label,
            digest: pinned.pin.digest,
            artefact: pinned.pin.artefact,
            function: pinned.function,
            params: Vec::new(),
            limits: pinned.pin.limits,
            seed: u64::from_le_bytes(random::bytes()?),
            started_ms: unix_ms(),
            stream: None,
            depth,
        };
        let invoked = self.invocations.invoke(tenant, request, input, deadline);
        let (reply, output) = invoked.await?;
        reply.result.map(|()| output)
    }
}

fn valid(actor: ActorRef) -> Result<ActorRef, Problem> {
    let checked = ActorRef::new(actor.component, actor.actor, actor.key);
    checked.map_err(|invalid| Problem::new(ErrorCode::InvalidJob, invalid.to_string()))
}
