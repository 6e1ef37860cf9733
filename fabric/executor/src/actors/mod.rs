//! Actors: the shards of the tenant that were granted to this executor, and the turns of the actors in them.
//!
//! ```text
//! agent ──ActorRequest──▶ Actors ──▶ open shard: mailboxes ──▶ threads: turns, in residents
//!                                       ▲    ▲                          │ effects
//!               alarms that are due ────┘    │                          ▼
//!               messages, invocations ───────┘◀── router ◀── outbox ◀── committer ──▶ settler ──▶ answers
//! ```
//!
//! An actor has one turn at a time, and its turns commit in the order in which they ran. No answer leaves before its
//! batch is durable, and none while the lease does not stand. If a shard fails, all that waits is answered `busy`, and
//! the shard is opened anew.

mod alarms;
mod answer;
mod backlog;
mod bounds;
mod commit;
mod committer;
mod deadlines;
mod delete;
mod guests;
mod mailbox;
mod once;
mod open_shard;
mod outbox;
mod pins;
mod reads;
mod residents;
mod router;
mod settler;
mod shard_host;
mod shared;
mod show;
mod stopwatch;
mod stored;
mod threads;
mod turn;
mod turns;
mod waits;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_core::{ActorRef, ErrorCode, Problem, SHARDS};
use weft_engine::Executor;
use weft_protocol::{ActorAsk, ActorInvoke, ActorRequest, FromExecutor};

use self::answer::{Asker, Outcome};
use self::guests::{Instances, Sandboxes};
use self::mailbox::{Ask, Invocation, Refused, Request};
use self::router::refuse_full;
use self::shared::Shared;
use self::show::Listed;

pub(crate) use self::shared::ActorSettings;

/// Longest time that a request may wait and run.
const MAX_DEADLINE: Duration = Duration::from_secs(600);

/// Actors of the executor's tenant. Clones share them.
#[derive(Clone)]
pub(crate) struct Actors(Arc<Shared>);

impl Actors {
    /// Actors that run in sandboxes of `executor`.
    pub(crate) fn new(settings: ActorSettings, executor: Executor) -> Self {
        Self::with(settings, Arc::new(Sandboxes(executor)))
    }

    fn with(settings: ActorSettings, instances: Arc<dyn Instances>) -> Self {
        Self(Shared::start(settings, instances))
    }

    /// These shards were granted to the executor. Each is looked at for what is due in it.
    pub(crate) fn serve(&self, shards: &[u32]) {
        for shard in shards.iter().filter(|shard| **shard < SHARDS) {
            self.0.hosts.grant(*shard);
            self.0.look(*shard);
        }
    }

    /// Nobody waits for the answer to this request any more.
    pub(crate) fn abandon(&self, request: u64) {
        self.0.asked.abandon(request);
    }

    /// Takes a question. The answer goes to the agent.
    pub(crate) async fn ask(&self, request: ActorRequest, input: Vec<u8>) {
        let shared = &self.0;
        let ActorRequest {
            request,
            executor,
            shard,
            ask,
            deadline_ms,
        } = request;
        if executor != shared.epoch || shard >= SHARDS {
            let not_here = FromExecutor::NotHere { request };
            // Where nobody reads replies any more, the process ends.
            let _ = shared.replies.send((not_here, Vec::new())).await;
            return;
        }
        shared.hosts.grant(shard);
        let (expected, cancel) = shared.asked.expect(request);
        let asked = Question {
            asker: Asker::agent(expected, shared.replies.clone()),
            cancel,
            deadline: Instant::now() + Duration::from_millis(deadline_ms).min(MAX_DEADLINE),
            shard,
        };
        match ask {
            ActorAsk::Invoke(invoke) => self.invoke(asked, *invoke, input).await,
            ActorAsk::Delete(actor) => self.submit(asked, actor, Ask::Delete, Vec::new()).await,
            ActorAsk::Show(actor) => {
                let shared = Arc::clone(shared);
                self.answer(asked, async move { shared.show(&actor).await });
            }
            ActorAsk::List {
                component,
                actor,
                after,
                limit,
            } => {
                let listed = Listed {
                    component,
                    actor,
                    after,
                    limit,
                };
                let shared = Arc::clone(shared);
                self.answer(asked, async move { shared.list(shard, &listed).await });
            }
        }
    }

    async fn invoke(&self, question: Question, invoke: ActorInvoke, input: Vec<u8>) {
        let ActorInvoke {
            actor,
            pin,
            method,
            once,
            message,
            chain,
        } = invoke;
        self.0.pins.learn(actor.function(), pin.clone());
        let invocation = Invocation {
            pin,
            method,
            input,
            once,
            message,
        };
        let ask = Ask::Invoke(Box::new(invocation));
        self.submit(question, actor, ask, chain).await;
    }

    /// Puts a request into its actor's mailbox: at once if the shard is open, so that requests keep their order.
    async fn submit(&self, question: Question, actor: ActorRef, ask: Ask, chain: Vec<ActorRef>) {
        let place = self.0.place().and_then(|place| {
            check_shard(&actor, question.shard)?;
            Ok(place)
        });
        let place = match place {
            Ok(place) => Some(place),
            Err(problem) => return question.asker.refuse(problem).await,
        };
        let request = Request {
            actor,
            ask,
            chain,
            deadline: question.deadline,
            cancel: question.cancel,
            asker: question.asker,
            place,
        };
        let Some(open) = self.0.hosts.open_now(question.shard) else {
            return self.submit_later(request);
        };
        match open.push(request) {
            Ok(()) => {}
            Err(Refused::Full(request)) => refuse_full(*request).await,
            Err(Refused::Closed(request)) => self.submit_later(*request),
        }
    }

    /// The same, once the shard is open.
    fn submit_later(&self, request: Request) {
        let shared = Arc::clone(&self.0);
        self.0.spawn("request to an actor", async move {
            shared.submit(request).await;
        });
    }

    /// Answers a question that needs no turn.
    fn answer(
        &self,
        question: Question,
        answer: impl Future<Output = Result<Vec<u8>, Problem>> + Send + 'static,
    ) {
        let Question {
            asker,
            cancel,
            deadline,
            ..
        } = question;
        self.0.spawn("question about actors", async move {
            let result = tokio::select! {
                result = timeout_at(deadline, answer) => result,
                // Nobody waits.
                () = cancel.cancelled() => return,
            };
            let late = |_| {
                let detail = "the shard of the actors did not answer in time; try again";
                Err(Problem::new(ErrorCode::Busy, detail))
            };
            let result = result.unwrap_or_else(late);
            asker.answer(Outcome::unserved(result)).await;
        });
    }
}

fn check_shard(actor: &ActorRef, shard: u32) -> Result<(), Problem> {
    let own = actor.shard();
    if own == shard {
        return Ok(());
    }
    let detail = format!("shard {shard} was asked for `{actor}`, which is in shard {own}");
    Err(Problem::new(ErrorCode::Internal, detail))
}

/// A question of the agent.
struct Question {
    asker: Asker,
    cancel: CancellationToken,
    deadline: Instant,
    shard: u32,
}
