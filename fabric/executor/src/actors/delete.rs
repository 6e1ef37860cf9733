//! Deletion of an actor: its state, record and alarm, its messages that have not been sent, and those that were given
//! up.

use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::oneshot;
use weft_core::{ActorRef, ErrorCode, Problem};
use weft_shard::keys::{self, KeyRange};

use super::bounds::MAX_DELETES;
use super::commit::Commit;
use super::committer::Step;
use super::open_shard::OpenShard;
use super::stored::{Message, Record, decode, encode};

/// Entries that are read at a time: values may be large.
const PAGE: usize = 16;

/// Removes an actor. Returns the last batch of it: a small actor goes in this one alone. A large one goes piece by
/// piece, and the first piece marks its record, so that no turn sees a part of its state, whatever fails meanwhile.
pub(super) async fn delete(
    open: &Arc<OpenShard>,
    actor: &ActorRef,
    record: &Record,
) -> Result<Commit, Problem> {
    let mut commit = Commit::default();
    let mut alarm_ms = record.alarm_ms;
    let mut range = keys::states(actor);
    while next_keys(open, &mut range, &mut commit).await? {
        commit.move_alarm(actor, alarm_ms.take(), None);
        commit.put(keys::record(actor), encode(&deleted(record)));
        open.step(Step::Commit(Box::new(commit))).await?;
        commit = Commit::default();
    }
    commit.move_alarm(actor, alarm_ms, None);
    commit.delete(keys::record(actor));
    remove_messages(open, actor, &mut commit).await?;
    let mut letters = keys::dead_letters_of(actor);
    while next_keys(open, &mut letters, &mut commit).await? {}
    Ok(commit)
}

/// Removes what is left of an actor whose deletion did not come to its end, and waits until that is durable: whoever
/// reads that nothing is there has not written it.
pub(super) async fn finish(
    open: &Arc<OpenShard>,
    actor: &ActorRef,
    record: &Record,
) -> Result<(), Problem> {
    let mut commit = delete(open, actor, record).await?;
    let (accepted, waiting) = oneshot::channel();
    commit.accepted = Some(accepted);
    open.step(Step::Commit(Box::new(commit))).await?;
    waiting.await.map_err(|_| {
        let detail = "the shard failed while an actor was deleted; try again";
        Problem::new(ErrorCode::Busy, detail)
    })?;
    open.reads.durable().await
}

fn deleted(record: &Record) -> Record {
    Record {
        alarm_ms: None,
        is_deleted: true,
        ..record.clone()
    }
}

/// Adds the keys of a range to what is removed. Returns whether there may be more than fit.
async fn next_keys(
    open: &OpenShard,
    range: &mut KeyRange,
    commit: &mut Commit,
) -> Result<bool, Problem> {
    loop {
        let page = open.reads.scan(range.clone(), PAGE).await?;
        for (key, _) in &page {
            commit.delete(key.to_vec());
        }
        let Some((last, _)) = page.last().filter(|_| page.len() == PAGE) else {
            return Ok(false);
        };
        range.0 = Bound::Excluded(last.to_vec());
        if commit.changes.len() >= MAX_DELETES {
            return Ok(true);
        }
    }
}

async fn remove_messages(
    open: &OpenShard,
    actor: &ActorRef,
    commit: &mut Commit,
) -> Result<(), Problem> {
    let mut range = keys::messages();
    loop {
        let page = open.reads.scan(range.clone(), PAGE).await?;
        for (key, message) in &page {
            let message: Message = decode("message", message)?;
            if message.from == *actor {
                commit.removed.push(key.to_vec());
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => range.0 = Bound::Excluded(last.to_vec()),
            _ => return Ok(()),
        }
    }
}
