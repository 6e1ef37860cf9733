//! The way of invocations and messages to other actors: to a shard of this executor, or out of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_core::{ActorRef, ErrorCode, Problem};
use weft_protocol::{CallTo, MessageId};

use super::answer::{Asker, too_many};
use super::bounds::{MAX_MAILBOX, MESSAGE_GRACE, TURN_WALL};
use super::mailbox::{Ask, Invocation, Refused, Request};
use super::outbox::Delivery;
use super::shared::Shared;
use super::stored::Message;
use super::turn::Others;

/// Tries to put a request into a shard that is closed meanwhile.
const MAX_OPENINGS: usize = 3;

/// An invocation on its way.
struct Routed {
    to: ActorRef,
    method: String,
    input: Vec<u8>,
    message: Option<MessageId>,
    chain: Vec<ActorRef>,
    deadline: Instant,
}

/// Finds the executor of an actor.
pub(super) struct Router(pub(super) Arc<Shared>);

impl Router {
    async fn route(&self, routed: Routed) -> Result<Vec<u8>, Problem> {
        let shard = routed.to.shard();
        if self.0.hosts.is_granted(shard) {
            return self.0.invoke_here(routed).await;
        }
        let left = routed.deadline.saturating_duration_since(Instant::now());
        let to = CallTo::Actor {
            actor: routed.to,
            method: routed.method,
            message: routed.message,
            chain: routed.chain,
        };
        let answer = self.0.outward.call(to, routed.input, left).await?;
        Ok(answer.to_vec())
    }
}

#[async_trait]
impl Others for Router {
    async fn invoke(
        &self,
        to: ActorRef,
        method: String,
        input: Vec<u8>,
        chain: Vec<ActorRef>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Problem> {
        let from = chain.last().expect("the caller is in the chain");
        let _waiting = self.0.waits.begin(from, &to)?;
        // As with answers: nobody acts on what an executor has read that may have lost its shards.
        self.0.lease.stands().await;
        let routed = Routed {
            to,
            method,
            input,
            message: None,
            chain,
            deadline,
        };
        self.route(routed).await
    }
}

#[async_trait]
impl Delivery for Router {
    async fn deliver(&self, id: MessageId, message: Message) -> Result<(), Problem> {
        let routed = Routed {
            to: message.to,
            method: message.method,
            input: message.input,
            message: Some(id),
            chain: Vec::new(),
            deadline: Instant::now() + TURN_WALL + MESSAGE_GRACE,
        };
        self.route(routed).await.map(drop)
    }
}

fn no_answer(wall: Duration) -> Problem {
    let detail = format!("the actor gave no answer within {} ms", wall.as_millis());
    Problem::new(ErrorCode::Busy, detail)
}

fn not_open() -> Problem {
    let detail = "the shard of the actor was not opened in time, and nothing was done; try again";
    Problem::new(ErrorCode::Busy, detail)
}

impl Shared {
    /// Invokes an actor of this executor, and waits for its answer. Dropping the future stops the turn.
    async fn invoke_here(self: &Arc<Self>, routed: Routed) -> Result<Vec<u8>, Problem> {
        let began = Instant::now();
        let pin = self.pin(&routed.to.function()).await?;
        let (asker, answered) = Asker::here(self.replies.clone());
        let cancel = CancellationToken::new();
        let _stop = cancel.clone().drop_guard();
        let deadline = routed.deadline;
        let invocation = Invocation {
            pin,
            method: routed.method,
            input: routed.input,
            once: None,
            message: routed.message,
        };
        let request = Request {
            actor: routed.to,
            ask: Ask::Invoke(Box::new(invocation)),
            chain: routed.chain,
            deadline,
            cancel,
            asker,
            place: Some(self.place()?),
        };
        self.submit(request).await;
        let late = || no_answer(deadline.saturating_duration_since(began));
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }

    /// Puts a request into its actor's mailbox, once the shard is open.
    pub(super) async fn submit(self: &Arc<Self>, request: Request) {
        let mut request = Box::new(request);
        for _ in 0..MAX_OPENINGS {
            let opened = timeout_at(request.deadline, self.opened(request.actor.shard()));
            let opened = tokio::select! {
                opened = opened => opened.unwrap_or_else(|_| Err(not_open())),
                // Nobody waits.
                () = request.cancel.cancelled() => return,
            };
            let open = match opened {
                Ok(open) => open,
                Err(problem) => return request.asker.refuse(problem).await,
            };
            match open.push(*request) {
                Ok(()) => return,
                Err(Refused::Full(refused)) => return refuse_full(*refused).await,
                Err(Refused::Closed(refused)) => {
                    // The next look finds it closing, and waits.
                    self.hosts.closing(&open);
                    request = refused;
                }
            }
        }
        // The asker hears that the shard failed.
        drop(request);
    }
}

/// The answer to a request whose mailbox is full.
pub(super) async fn refuse_full(request: Request) {
    let problem = too_many(format!(
        "{MAX_MAILBOX} requests wait for `{}`, the most for one actor; try again, or spread the work over more keys",
        request.actor
    ));
    request.asker.refuse(problem).await;
}
