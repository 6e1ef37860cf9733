//! Answers of an open shard, in the order of its batches: each waits until its batch is durable and the lease stands.

use std::sync::Arc;

use tokio::sync::mpsc;
use weft_core::{ActorRef, Problem};
use weft_shard::Written;

use super::answer::{Asker, Outcome};
use super::open_shard::OpenShard;

/// Something that waits until what was accepted before it is durable.
#[derive(Default)]
pub(super) struct Settling {
    /// Number of the batch, if it is of one.
    pub(super) batch: Option<u64>,
    /// The batch, if it has changes.
    pub(super) written: Option<Written>,
    /// The actor whose turn it was.
    pub(super) actor: Option<ActorRef>,
    pub(super) answer: Option<(Asker, Outcome)>,
    /// Shards of receivers and numbers of its messages.
    pub(super) told: Vec<(u32, u64)>,
}

/// Settles one after the other.
pub(super) struct Settler(pub(super) Arc<OpenShard>);

impl Settler {
    /// Settles until the shard is closed. Errors: the shard has failed, and nobody knows what is durable.
    pub(super) async fn run(self, mut queue: mpsc::Receiver<Settling>) -> Result<(), Problem> {
        while let Some(settling) = queue.recv().await {
            self.settle(settling).await?;
            self.0.settled();
        }
        Ok(())
    }

    async fn settle(&self, settling: Settling) -> Result<(), Problem> {
        if let Some(written) = &settling.written {
            written.durable().await?;
            weft_failpoint::hit("actor-durable");
        }
        if let Some(batch) = settling.batch {
            self.0.batch_durable(batch);
        }
        for (to_shard, number) in settling.told {
            self.0.lanes.durable(to_shard, number);
        }
        if let Some(actor) = &settling.actor {
            self.0.actor_settled(actor);
        }
        if let Some((asker, outcome)) = settling.answer {
            self.0.lease.stands().await;
            asker.answer(outcome).await;
        }
        Ok(())
    }
}
