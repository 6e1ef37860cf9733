//! One batch of a shard: what a turn, or what goes on beside turns, changes as one.
//!
//! ```text
//! effects of a turn ──TurnEnd::commit──▶ Commit ──Committer: numbers of messages──▶ Batch ──▶ shard
//! ```

use tokio::sync::oneshot;
use weft_core::{ActorRef, Problem};
use weft_protocol::{DeadLetter, MessageId};
use weft_shard::{Batch, keys};

use super::answer::{Asker, Outcome};
use super::backlog::Queued;
use super::bounds::{ALARM_GAP_MS, MAX_ALARM_ATTEMPTS};
use super::outbox::Reserved;
use super::stored::{KeptAnswer, Message, Record, encode, encode_number};
use super::turn::Effects;

/// An entry that is set, or removed where it has no value.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// Changes that are made as one.
#[derive(Default)]
pub(super) struct Commit {
    pub(super) changes: Vec<Change>,
    /// Messages that get their numbers as they are written, and their room in the outbox.
    pub(super) messages: Vec<Message>,
    pub(super) reserved: Option<Reserved>,
    /// A message that is given up, and its sender.
    pub(super) dead: Option<(ActorRef, DeadLetter)>,
    /// The message that the turn was.
    pub(super) mark: Option<MessageId>,
    /// When an alarm is due that was set.
    pub(super) alarm_ms: Option<u64>,
    /// Keys of messages that leave the outbox, if they are still there.
    pub(super) removed: Vec<Vec<u8>>,
    /// Told once it is accepted, and so visible.
    pub(super) accepted: Option<oneshot::Sender<()>>,
    /// The turn that ends so.
    pub(super) turn: Option<Ended>,
    /// Part that it takes of the backlog.
    pub(super) queued: Option<Queued>,
}

/// A turn that has ended, and its answer.
pub(super) struct Ended {
    pub(super) actor: ActorRef,
    pub(super) asker: Asker,
    pub(super) outcome: Outcome,
    /// The answer need not wait until the batch is durable.
    pub(super) is_early: bool,
}

impl Commit {
    /// Returns whether nothing is changed.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.messages.is_empty()
            && self.removed.is_empty()
            && self.mark.is_none()
            && self.dead.is_none()
    }

    /// Bytes of what is changed, about.
    pub(super) fn bytes(&self) -> usize {
        let value = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let changes = self.changes.iter();
        let changes: usize = changes.map(|(key, set)| key.len() + value(set)).sum();
        let removed: usize = self.removed.iter().map(Vec::len).sum();
        let messages = self.messages.iter();
        let messages: usize = messages.map(|message| message.input.len()).sum();
        changes + removed + messages
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push((key, Some(value)));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.changes.push((key, None));
    }

    /// Moves an actor's alarm, from where its record says that it is.
    pub(super) fn move_alarm(&mut self, actor: &ActorRef, from: Option<u64>, to: Option<u64>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.delete(keys::due(from, actor));
        }
        if let Some(to) = to {
            self.put(keys::due(to, actor), Vec::new());
            self.alarm_ms = Some(to);
        }
    }

    /// Keeps the answer of an idempotency key. `replaces`: the end of the life of the one before.
    pub(super) fn keep(&mut self, actor: &ActorRef, key: &[u8], kept: &Kept) {
        if let Some(before) = kept.replaces {
            self.delete(keys::expiry(before, actor, key));
        }
        self.put(keys::expiry(kept.answer.until_ms, actor, key), Vec::new());
        self.put(keys::answer(actor, key), encode(&kept.answer));
    }

    /// The batch, into which the changes go. Messages are numbered from `next` on, and so is a message that is given
    /// up. Returns the next number.
    pub(super) fn batch(&mut self, mut next: u64) -> (Batch, u64) {
        let mut batch = Batch::default();
        for (key, value) in self.changes.drain(..) {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.removed.iter().for_each(|key| batch.delete(key));
        let first = next;
        for message in &self.messages {
            batch.put(keys::message(message.to.shard(), next), encode(message));
            next += 1;
        }
        if let Some((sender, letter)) = &self.dead {
            batch.put(keys::dead_letter(sender, next), encode(letter));
            next += 1;
        }
        if next > first {
            batch.put(keys::next_message(), encode_number(next));
        }
        if let Some(mark) = self.mark {
            let highest = keys::highest_message(mark.shard);
            batch.put(highest, encode_number(mark.number));
        }
        (batch, next)
    }
}

/// Pause of an alarm that has failed for the first time, in milliseconds. It doubles up to [`MAX_ALARM_PAUSE_MS`].
const ALARM_PAUSE_MS: u64 = 1_000;
const MAX_ALARM_PAUSE_MS: u64 = 60_000;

/// An alarm whose guest failed: it is due again after a pause, or given up.
pub(super) fn failed_alarm(
    actor: &ActorRef,
    record: &Record,
    problem: &Problem,
    now_ms: u64,
) -> Commit {
    let mut commit = Commit::default();
    let attempts = record.alarm_attempts + 1;
    let pause_ms = (ALARM_PAUSE_MS << attempts.min(16).saturating_sub(1)).min(MAX_ALARM_PAUSE_MS);
    let mut after = Record {
        alarm_ms: Some(now_ms.saturating_add(pause_ms)),
        alarm_attempts: attempts,
        ..record.clone()
    };
    if attempts >= MAX_ALARM_ATTEMPTS {
        tracing::warn!(%actor, problem = problem.detail, "an alarm was given up");
        (after.alarm_ms, after.alarm_attempts) = (None, 0);
        let letter = DeadLetter {
            to: actor.clone(),
            method: "alarm".into(),
            input_bytes: 0,
            reason: problem.to_string(),
            at_ms: now_ms,
        };
        commit.dead = Some((actor.clone(), letter));
    }
    commit.move_alarm(actor, record.alarm_ms, after.alarm_ms);
    commit.put(keys::record(actor), encode(&after));
    commit
}

/// The answer of an idempotency key, as it is to be kept.
pub(super) struct Kept {
    pub(super) answer: KeptAnswer,
    pub(super) replaces: Option<u64>,
}

/// A turn that ended well.
pub(super) struct TurnEnd<'a> {
    pub(super) actor: &'a ActorRef,
    pub(super) record: &'a Record,
    /// `component@version/actor`.
    pub(super) label: &'a str,
    pub(super) now_ms: u64,
    /// It was the actor's alarm.
    pub(super) is_alarm: bool,
}

impl TurnEnd<'_> {
    /// Changes of the turn, and the actor's record as it is after them.
    pub(super) fn commit(&self, effects: Effects) -> (Commit, Record) {
        let mut commit = Commit::default();
        if effects.is_empty() && !self.is_alarm {
            return (commit, self.record.clone());
        }
        let record = self.record_after(&effects);
        commit.move_alarm(self.actor, self.record.alarm_ms, record.alarm_ms);
        commit.put(keys::record(self.actor), encode(&record));
        for (key, value) in effects.writes {
            commit.changes.push((keys::state(self.actor, &key), value));
        }
        commit.messages = effects.messages;
        commit.reserved = Some(effects.reserved);
        (commit, record)
    }

    fn record_after(&self, effects: &Effects) -> Record {
        let fired_ms = match self.is_alarm {
            true => self.now_ms,
            false => self.record.fired_ms,
        };
        let (alarm_ms, alarm_attempts) = match (effects.alarm, self.is_alarm) {
            (Some(alarm), _) => (alarm.map(|at| self.due(at, fired_ms)), 0),
            (None, true) => (None, 0),
            (None, false) => (self.record.alarm_ms, self.record.alarm_attempts),
        };
        Record {
            alarm_ms,
            alarm_attempts,
            fired_ms,
            turns: self.record.turns + 1,
            changed_ms: self.now_ms,
            label: self.label.to_owned(),
            is_deleted: false,
        }
    }

    /// When an alarm fires that was set for a time: not in the past, and not at once after the one before. That one may
    /// seem to have fired in the future, by a clock that was wrong: it must not keep this one back until then.
    fn due(&self, at_ms: u64, fired_ms: u64) -> u64 {
        let earliest = fired_ms.min(self.now_ms).saturating_add(ALARM_GAP_MS);
        at_ms.max(self.now_ms).max(earliest)
    }
}

#[cfg(test)]
mod tests;
