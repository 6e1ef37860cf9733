//! The outbox of a shard: messages that were committed with turns, on their way to their receivers. The messages to one
//! shard are a lane: they are delivered one after the other, in the order of their numbers.
//!
//! ```text
//! turn ──Commit──▶ o/3/17, o/3/18 ──durable──▶ lane 3 ──▶ shard 3: h/source = 17 ──Ok──▶ o/3/17 is removed
//! ```
//!
//! A message that is delivered twice is a repeat at its receiver, which knows the highest number that it has applied.
//! So a message may be sent again whenever nobody knows what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use weft_core::{Problem, SHARDS};
use weft_protocol::{DeadLetter, MessageId};
use weft_runtime::clock::unix_ms;
use weft_shard::keys;

use super::bounds::{MAX_MESSAGE_ATTEMPTS, MAX_OUTBOX};
use super::commit::Commit;
use super::committer::Step;
use super::reads::Reads;
use super::stored::{Message, decode};

/// Pause after the first failure of a message.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Pause after many.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Room for messages. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

impl Room {
    /// Takes room for messages that are there already.
    pub(super) fn fill(&self, messages: usize) {
        self.0.fetch_add(messages, Ordering::Relaxed);
    }

    /// Gives room back.
    pub(super) fn free(&self, messages: usize) {
        let before = self.0.fetch_sub(messages, Ordering::Relaxed);
        debug_assert!(before >= messages, "what leaves the outbox was in it");
    }

    /// Messages in the outbox, or about to be.
    pub(super) fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Room that is given back unless its messages are written.
    pub(super) fn reserve(&self) -> Reserved {
        Reserved {
            room: self.clone(),
            messages: 0,
        }
    }
}

/// Room for the messages of a turn, which is given back when it is dropped.
pub(super) struct Reserved {
    room: Room,
    messages: usize,
}

impl Reserved {
    /// Takes room for another message. Returns whether there is any.
    pub(super) fn one_more(&mut self) -> bool {
        let add = |taken: usize| (taken < MAX_OUTBOX).then_some(taken + 1);
        let room = &self.room.0;
        let taken = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        self.messages += usize::from(taken.is_ok());
        taken.is_ok()
    }

    /// The messages have been written: whoever removes them gives their room back.
    pub(super) fn keep(mut self) {
        self.messages = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.free(self.messages);
    }
}

/// The highest durable message to each shard.
pub(super) struct Lanes(Vec<watch::Sender<u64>>);

impl Lanes {
    /// All messages up to `number` are durable.
    pub(super) fn new(number: u64) -> Self {
        Self((0..SHARDS).map(|_| watch::Sender::new(number)).collect())
    }

    /// A message to a shard has become durable.
    pub(super) fn durable(&self, to_shard: u32, number: u64) {
        if let Some(lane) = self.0.get(to_shard as usize) {
            lane.send_modify(|highest| *highest = number.max(*highest));
        }
    }

    /// Follows the messages to a shard.
    pub(super) fn follow(&self, to_shard: u32) -> watch::Receiver<u64> {
        self.0[to_shard as usize].subscribe()
    }
}

/// Takes messages to their receivers.
#[async_trait]
pub(super) trait Delivery: Send + Sync {
    /// Delivers a message. Once it returns, what the receiver did about it is durable.
    async fn deliver(&self, id: MessageId, message: Message) -> Result<(), Problem>;
}

/// The messages from one shard to another.
pub(super) struct Lane {
    /// The sender's shard.
    pub(super) from_shard: u32,
    pub(super) to_shard: u32,
    /// The highest durable message.
    pub(super) durable: watch::Receiver<u64>,
    pub(super) reads: Arc<dyn Reads>,
    pub(super) delivery: Arc<dyn Delivery>,
    pub(super) steps: mpsc::Sender<Step>,
    /// Pause after the first failure of a message; it doubles with each.
    pub(super) first_pause: Duration,
}

impl Lane {
    /// Delivers messages until the shard is closed. Errors: the shard cannot be read.
    pub(super) async fn run(mut self) -> Result<(), Problem> {
        let mut last = 0;
        loop {
            let durable = *self.durable.borrow_and_update();
            while let Some((number, message)) = self.after(last, durable).await? {
                self.send(number, message).await;
                last = number;
            }
            last = last.max(durable);
            if self.durable.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// The first message after one, as far as messages are durable.
    async fn after(&self, last: u64, durable: u64) -> Result<Option<(u64, Message)>, Problem> {
        if last >= durable {
            return Ok(None);
        }
        let after = std::ops::Bound::Excluded(keys::message(self.to_shard, last));
        let until = std::ops::Bound::Included(keys::message(self.to_shard, durable));
        let found = self.reads.scan((after, until), 1).await?;
        let Some((key, message)) = found.into_iter().next() else {
            return Ok(None);
        };
        let Some((_, number)) = keys::message_of(&key) else {
            return Ok(None);
        };
        Ok(Some((number, decode("message", &message)?)))
    }

    /// Delivers a message, or gives it up, and removes it. One whose sender was deleted meanwhile is not sent again.
    async fn send(&self, number: u64, message: Message) {
        let id = MessageId {
            shard: self.from_shard,
            number,
        };
        let (mut refusals, mut pause) = (0, self.first_pause);
        loop {
            match self.delivery.deliver(id, message.clone()).await {
                Ok(()) => return self.remove(number, None).await,
                // The platform's failure, of which nobody knows how far the message came.
                Err(problem) if problem.code.is_platform_fault() => {
                    let to = &message.to;
                    tracing::debug!(%to, number, problem = problem.detail, "a message is not delivered yet");
                }
                Err(problem) => {
                    refusals += 1;
                    if refusals >= MAX_MESSAGE_ATTEMPTS {
                        return self.remove(number, Some((message, problem))).await;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(MAX_PAUSE);
            if self.is_withdrawn(number).await {
                return;
            }
        }
    }

    /// Returns whether a message has left the outbox. One that cannot be looked for is taken to be there.
    async fn is_withdrawn(&self, number: u64) -> bool {
        let found = self.reads.get(keys::message(self.to_shard, number)).await;
        found.is_ok_and(|found| found.is_none())
    }

    async fn remove(&self, number: u64, given_up: Option<(Message, Problem)>) {
        let mut commit = Commit {
            removed: vec![keys::message(self.to_shard, number)],
            ..Commit::default()
        };
        commit.dead = given_up.map(|(message, problem)| {
            let (from, to) = (&message.from, &message.to);
            tracing::warn!(%from, %to, problem = problem.detail, "a message was given up");
            (message.from.clone(), dead_letter(&message, &problem))
        });
        // If the shard is gone, whoever has it next sends the message again.
        let _ = self.steps.send(Step::Commit(Box::new(commit))).await;
    }
}

fn dead_letter(message: &Message, problem: &Problem) -> DeadLetter {
    DeadLetter {
        to: message.to.clone(),
        method: message.method.clone(),
        input_bytes: message.input.len() as u64,
        reason: problem.to_string(),
        at_ms: unix_ms(),
    }
}

#[cfg(test)]
mod tests;
