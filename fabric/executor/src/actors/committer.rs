//! The one writer of an open shard. It numbers messages and writes batches one after the other, so an actor's turns
//! commit in the order in which they ran, and numbers of messages only grow.
//!
//! ```text
//! turns, lanes ──Step──▶ Committer ──accepted──▶ the actor's next turn
//!                            └──────Settling──▶ Settler ──durable, lease stands──▶ answers, lanes
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use weft_core::Problem;
use weft_runtime::clock::unix_ms;
use weft_shard::{Batch, keys};

use super::bounds::MAX_DEAD_LETTERS;
use super::commit::{Commit, Ended};
use super::open_shard::OpenShard;
use super::reads::for_each;
use super::settler::Settling;
use super::stored::decode_number;

/// Answers of idempotency keys that one step forgets.
const MAX_EXPIRED: usize = 256;

/// One step of the writer.
pub(super) enum Step {
    Commit(Box<Commit>),
    /// Forget answers of idempotency keys whose time is over.
    Expire,
}

/// The writer.
pub(super) struct Committer {
    pub(super) open: Arc<OpenShard>,
    /// Number of the next message.
    pub(super) next_message: u64,
    /// Keys of messages that were given up, by number.
    pub(super) dead_letters: BTreeMap<u64, Vec<u8>>,
    /// Number of the last batch.
    pub(super) last_batch: u64,
}

impl Committer {
    /// Writes until the shard is closed. Errors: the shard has failed.
    pub(super) async fn run(mut self, mut steps: mpsc::Receiver<Step>) -> Result<(), Problem> {
        while let Some(step) = steps.recv().await {
            match step {
                Step::Commit(commit) => self.commit(*commit).await?,
                Step::Expire => self.expire(unix_ms()).await?,
            }
        }
        Ok(())
    }

    async fn commit(&mut self, mut commit: Commit) -> Result<(), Problem> {
        if let Some(mark) = commit.mark
            && mark.number <= self.open.applied(mark.shard)
        {
            return self.repeated(commit).await;
        }
        self.keep_those_left(&mut commit).await?;
        let (mut batch, next) = commit.batch(self.next_message);
        self.drop_old_letters(&commit, next, &mut batch);
        if batch.is_empty() {
            return self.accepted(commit, next, None).await;
        }
        if let Some(turn) = &mut commit.turn {
            turn.asker.may_be_written();
        }
        weft_failpoint::hit("actor-commit");
        let written = self.open.shard.write(batch).await?;
        weft_failpoint::hit("actor-accepted");
        self.accepted(commit, next, Some(written)).await
    }

    /// Keeps, of messages that are to be removed, those that are still there. One that went with its sender is neither
    /// counted twice nor given up.
    async fn keep_those_left(&self, commit: &mut Commit) -> Result<(), Problem> {
        if commit.removed.is_empty() {
            return Ok(());
        }
        let mut left = Vec::new();
        for key in std::mem::take(&mut commit.removed) {
            if self.open.shard.get(&key).await?.is_some() {
                left.push(key);
            }
        }
        if left.is_empty() {
            commit.dead = None;
        }
        commit.removed = left;
        Ok(())
    }

    /// Makes room for a message that is given up.
    fn drop_old_letters(&mut self, commit: &Commit, next: u64, batch: &mut Batch) {
        let Some((sender, _)) = &commit.dead else {
            return;
        };
        // It has the last number of the batch.
        let key = keys::dead_letter(sender, next - 1);
        self.dead_letters.insert(next - 1, key);
        while self.dead_letters.len() > MAX_DEAD_LETTERS {
            if let Some((_, oldest)) = self.dead_letters.pop_first() {
                batch.delete(oldest);
            }
        }
    }

    /// The batch counts, unless the shard fails: what follows from it.
    async fn accepted(
        &mut self,
        commit: Commit,
        next: u64,
        written: Option<weft_shard::Written>,
    ) -> Result<(), Problem> {
        let told = (self.next_message..).zip(&commit.messages);
        let told = told.map(|(number, message)| (message.to.shard(), number));
        let mut settling = Settling {
            told: told.collect(),
            written,
            ..Settling::default()
        };
        self.next_message = next;
        self.last_batch += 1;
        settling.batch = Some(self.last_batch);
        if let Some(reserved) = commit.reserved {
            reserved.keep();
        }
        self.open.room.free(commit.removed.len());
        if let Some(mark) = commit.mark {
            self.open.apply(mark);
        }
        if let Some(due_ms) = commit.alarm_ms {
            self.open.alarms.set(due_ms);
        }
        if let Some(accepted) = commit.accepted {
            // Whoever waited may have gone.
            let _ = accepted.send(());
        }
        self.end_turn(commit.turn, settling).await
    }

    /// Hands the answer on, and lets the actor have its next turn.
    async fn end_turn(&self, turn: Option<Ended>, mut settling: Settling) -> Result<(), Problem> {
        let Some(turn) = turn else {
            return self.open.settle(settling).await;
        };
        let Ended {
            actor,
            asker,
            outcome,
            is_early,
        } = turn;
        settling.actor = Some(actor.clone());
        match is_early {
            true => self.open.answer_now(asker, outcome),
            false => settling.answer = Some((asker, outcome)),
        }
        // First, so that an answer of the actor's next turn comes after this one.
        self.open.settle(settling).await?;
        self.open.end_turn(&actor, Some(self.last_batch));
        Ok(())
    }

    /// The message was applied before: nothing of this turn counts, and its instance is not what the state is.
    async fn repeated(&self, commit: Commit) -> Result<(), Problem> {
        let Some(mut turn) = commit.turn else {
            return Ok(());
        };
        self.open.forget_resident(&turn.actor);
        turn.outcome.result = Ok(Vec::new());
        self.end_turn(Some(turn), Settling::default()).await
    }

    /// Forgets answers whose time is over, without reading them. An answer has one end, which goes with the batch that
    /// keeps it anew, and nobody else writes meanwhile: so none that was kept anew is met.
    async fn expire(&mut self, now_ms: u64) -> Result<(), Problem> {
        let range = keys::expired_until(now_ms);
        let mut batch = Batch::default();
        let expired = self.open.shard.scan(range, MAX_EXPIRED).await?;
        for (key, _) in &expired {
            if let Some((_, actor, digest)) = keys::expiry_of(key) {
                batch.delete(keys::answer(&actor, &digest));
            }
            batch.delete(key);
        }
        if !batch.is_empty() {
            self.open.shard.write(batch).await?;
        }
        if expired.len() == MAX_EXPIRED {
            // The rest goes behind the batches that wait by now. Otherwise more could come than go.
            self.open.try_step(Step::Expire);
        }
        Ok(())
    }
}

/// Contents of a shard that its writer must know.
pub(super) struct Inventory {
    pub(super) next_message: u64,
    pub(super) n_messages: usize,
    pub(super) dead_letters: BTreeMap<u64, Vec<u8>>,
}

impl Inventory {
    /// Reads it from a shard that was just opened.
    pub(super) async fn read(shard: &weft_shard::Shard) -> Result<Self, Problem> {
        let next = shard.get(&keys::next_message()).await?;
        let next_message = match next {
            Some(next) => decode_number("number of messages", &next)?,
            None => 1,
        };
        let mut n_messages = 0;
        for_each(shard, keys::messages(), |_, _| n_messages += 1).await?;
        let mut dead_letters = BTreeMap::new();
        let keep = |key: &[u8], _: &[u8]| {
            if let Some((_, number)) = keys::dead_letter_of(key) {
                dead_letters.insert(number, key.to_vec());
            }
        };
        for_each(shard, keys::dead_letters(), keep).await?;
        Ok(Self {
            next_message,
            n_messages,
            dead_letters,
        })
    }
}
