//! Actors of a shard, for people.

use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;
use weft_core::{ActorRef, ErrorCode, Problem};
use weft_protocol::{ActorStatus, DeadLetter, MAX_LISTED};
use weft_shard::keys;

use super::bounds::MAX_COUNTED;
use super::open_shard::OpenShard;
use super::reads::for_each;
use super::shared::Shared;
use super::stored::{Record, decode};

/// Entries that are read at a time: values may be large.
const PAGE: usize = 16;

/// A page of actors of one function.
pub(super) struct Listed {
    pub(super) component: String,
    pub(super) actor: String,
    pub(super) after: Option<String>,
    pub(super) limit: u32,
}

impl Shared {
    /// Describes an actor, as JSON. Errors: it has written nothing so far.
    pub(super) async fn show(self: &Arc<Self>, actor: &ActorRef) -> Result<Vec<u8>, Problem> {
        let open = self.opened(actor.shard()).await?;
        let status = self.whole_status(actor, &open).await;
        // Also before it is said that there is no such actor.
        open.settled_so_far().await?;
        json(&status?)
    }

    async fn whole_status(
        &self,
        actor: &ActorRef,
        open: &OpenShard,
    ) -> Result<ActorStatus, Problem> {
        let found = open.shard.get(&keys::record(actor)).await?;
        let record = found.map(|record| decode::<Record>("record", &record));
        let record = record.transpose()?.filter(|record| !record.is_deleted);
        let Some(record) = record else {
            let detail = format!("there is no actor `{actor}`, or it has kept nothing so far");
            return Err(Problem::new(ErrorCode::NotFound, detail));
        };
        let mut status = self.status(actor, open, &record);
        let counted = count(open, actor).await?;
        status.entries = counted.map(|(entries, _)| entries);
        status.state_bytes = counted.map(|(_, bytes)| bytes);
        status.dead_letters = dead_letters(open, actor).await?;
        Ok(status)
    }

    /// Lists actors of a shard by key, as JSON.
    pub(super) async fn list(
        self: &Arc<Self>,
        shard: u32,
        listed: &Listed,
    ) -> Result<Vec<u8>, Problem> {
        let open = self.opened(shard).await?;
        let Listed {
            component, actor, ..
        } = listed;
        let range = keys::records(component, actor, listed.after.as_deref());
        let limit = listed.limit.min(MAX_LISTED) as usize;
        let mut found = Vec::new();
        for (key, record) in open.shard.scan(range, limit).await? {
            let record: Record = decode("record", &record)?;
            if let Some(actor) = keys::record_actor(&key) {
                found.push(self.status(&actor, &open, &record));
            }
        }
        open.settled_so_far().await?;
        json(&found)
    }

    fn status(&self, actor: &ActorRef, open: &OpenShard, record: &Record) -> ActorStatus {
        ActorStatus {
            key: actor.key.clone(),
            shard: open.number,
            resident: self.residents.has(actor),
            alarm_ms: record.alarm_ms,
            turns: record.turns,
            changed_ms: record.changed_ms,
            entries: None,
            state_bytes: None,
            dead_letters: Vec::new(),
        }
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| {
        let detail = format!("the description of an actor has no JSON: {error}");
        Problem::new(ErrorCode::Internal, detail)
    })
}

/// Entries of an actor's state, and bytes of their keys and values. None if there are too many to count.
async fn count(open: &OpenShard, actor: &ActorRef) -> Result<Option<(u64, u64)>, Problem> {
    let (mut entries, mut bytes) = (0, 0);
    let mut range = keys::states(actor);
    loop {
        let page = open.shard.scan(range.clone(), PAGE).await?;
        for (key, value) in &page {
            let key = keys::user_key(actor, key).unwrap_or_default();
            entries += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        if entries > MAX_COUNTED as u64 {
            return Ok(None);
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => range.0 = Bound::Excluded(last.to_vec()),
            _ => return Ok(Some((entries, bytes))),
        }
    }
}

async fn dead_letters(open: &OpenShard, actor: &ActorRef) -> Result<Vec<DeadLetter>, Problem> {
    let mut letters = Vec::new();
    let mut unreadable = None;
    let range = keys::dead_letters_of(actor);
    for_each(&open.shard, range, |_, letter| {
        match decode("message that was given up", letter) {
            Ok(letter) => letters.push(letter),
            Err(problem) => unreadable = Some(problem),
        }
    })
    .await?;
    match unreadable {
        Some(problem) => Err(problem),
        None => Ok(letters),
    }
}
