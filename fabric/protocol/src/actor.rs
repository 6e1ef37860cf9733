//! Turns of actors, calls that guests make, and the lease under which an executor serves shards.
//!
//! ```text
//! API ──Invoker::actor──▶ agent ──ToExecutor::Actor──▶ executor of the shard ──Invoked, NotHere──▶ API
//! executor ──FromExecutor::Call──▶ agent ──Invoker::next_call──▶ controller: pins, routes
//!          ◀─ToExecutor::CallAnswered──   ◀──Invoker::answer_call──
//! agent ──Renew──▶ leader ──Renewed──▶ agent ──ToExecutor::Lease──▶ executors that it names
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_core::{ActorRef, Digest, Epoch, Limits};

/// Time for which an executor may answer for its shards after a renewal was asked for. Less than the time after which a
/// leader gives a silent node up.
pub const ACTOR_LEASE: Duration = Duration::from_millis(2_000);
/// Time between two renewals.
pub const RENEW_PERIOD: Duration = Duration::from_millis(400);
/// Actors that wait for each other's answers, the first one included.
pub const MAX_CHAIN: usize = 16;
/// Futures of futures: how deep spawners may be nested.
pub const MAX_SPAWN_DEPTH: u32 = 16;
/// Bytes of an input or an answer of an actor, and of a future's.
pub const MAX_TURN_BYTES: usize = 1 << 20;
/// Actors of one page of a list.
pub const MAX_LISTED: u32 = 1_000;

/// A component's version, as it stands for an actor or a task function now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The component.
    pub digest: Digest,
    /// Digest of its artefact.
    pub artefact: Digest,
    /// `component@version/function`.
    pub label: String,
    /// Limits of one invocation or turn.
    pub limits: Limits,
}

/// A question to the executor that serves an actor's shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActorRequest {
    /// Pairs the answer with the question; the agent numbers it.
    pub request: u64,
    /// Executor that was granted the shard: any other answers [`NotHere`](crate::FromExecutor::NotHere).
    pub executor: Epoch,
    /// The shard.
    pub shard: u32,
    /// The question.
    pub ask: ActorAsk,
    /// Milliseconds that its client waits.
    pub deadline_ms: u64,
}

/// Question to a shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorAsk {
    /// A turn of an actor. Its input is the frame's payload.
    Invoke(Box<ActorInvoke>),
    /// Description of an actor, as JSON: [`ActorStatus`].
    Show(ActorRef),
    /// Removes an actor with its state, its alarm and its messages that have not been sent.
    Delete(ActorRef),
    /// Actors of the shard by key, as JSON: a list of [`ActorStatus`].
    List {
        /// The component.
        component: String,
        /// The actor function.
        actor: String,
        /// Keys after this one.
        after: Option<String>,
        /// As many, at most [`MAX_LISTED`].
        limit: u32,
    },
}

/// A turn that is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActorInvoke {
    /// The actor.
    pub actor: ActorRef,
    /// The version that is to serve it: a resident instance of another one goes.
    pub pin: Pin,
    /// The method.
    pub method: String,
    /// Idempotency key, if its client gave one.
    pub once: Option<Once>,
    /// Number of the message, if it is one.
    pub message: Option<MessageId>,
    /// Actors that wait for the answer, outermost first.
    pub chain: Vec<ActorRef>,
}

/// An invocation that is made once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The client's key.
    pub key: String,
    /// Digest of its request.
    pub digest: String,
    /// Seconds for which its answer is kept.
    pub ttl_s: u32,
}

/// Place of a message in the outbox of a shard: numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId {
    /// Shard of the sender.
    pub shard: u32,
    /// The number.
    pub number: u64,
}

/// An actor, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorStatus {
    /// The key.
    pub key: String,
    /// The shard.
    pub shard: u32,
    /// An instance is in memory.
    pub resident: bool,
    /// When the alarm is due, in Unix milliseconds.
    pub alarm_ms: Option<u64>,
    /// Turns that wrote something, of its whole life.
    pub turns: u64,
    /// When it wrote last, in Unix milliseconds.
    pub changed_ms: u64,
    /// Entries of its state. Counted for one actor alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
    /// Bytes of its keys and values. Counted for one actor alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
    /// The last messages of its shard, sent by it, that their receivers refused as often as they were tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<DeadLetter>,
}

/// A message that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The receiver.
    pub to: ActorRef,
    /// The method.
    pub method: String,
    /// Bytes of its input.
    pub input_bytes: u64,
    /// The last refusal.
    pub reason: String,
    /// When it was given up, in Unix milliseconds.
    pub at_ms: u64,
}

/// A call of a guest that leaves its executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Pairs the answer with the call, within the executor.
    pub call: u64,
    /// The callee. An input is the frame's payload.
    pub to: CallTo,
    /// Milliseconds until nobody waits any more.
    pub deadline_ms: u64,
}

/// Callee of a call.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallTo {
    /// The version that serves a function now, as JSON: [`Pin`].
    Pin {
        /// `component/function`.
        function: String,
    },
    /// A turn of an actor, pinned by the controller.
    Actor {
        /// The actor.
        actor: ActorRef,
        /// The method.
        method: String,
        /// Number of the message, if it is one.
        message: Option<MessageId>,
        /// Actors that wait for the answer, outermost first.
        chain: Vec<ActorRef>,
    },
    /// An invocation of a task function, on any node.
    Task {
        /// `component/function`.
        function: String,
        /// How deep its spawners are nested.
        depth: u32,
    },
}
