//! Requests to the scheduler, as the rest of the controller makes them. On a follower the driver passes
//! them on to the leader.

use tokio::sync::{mpsc, oneshot};
use weft_core::{Description, Digest, ErrorCode, NodeId, Problem, TenantId};

use super::io::Request;
use super::why::{Why, WhyOf};

/// The asking end of the scheduler. Clones share it.
#[derive(Clone)]
pub(crate) struct Requests(mpsc::Sender<Request>);

impl Requests {
    /// At most `max` requests wait; they come out of the receiver.
    pub(crate) fn new(max: usize) -> (Self, mpsc::Receiver<Request>) {
        let (requests, waiting) = mpsc::channel(max);
        (Self(requests), waiting)
    }

    /// Has a component describe itself, in an executor.
    ///
    /// Errors: its own, or `busy` if the executor or the leader is gone.
    pub(crate) async fn describe(
        &self,
        tenant: &TenantId,
        digest: &Digest,
        compatibility: String,
        artefact: Digest,
    ) -> Result<Description, Problem> {
        let request = |answer| Request::Describe {
            tenant: tenant.clone(),
            digest: digest.clone(),
            compatibility,
            artefact,
            answer,
        };
        self.ask(request).await?
    }

    /// Explains where a job, a stage or a task is, or the tenant's queue.
    pub(crate) async fn why(&self, tenant: &TenantId, of: Option<WhyOf>) -> Result<Why, Problem> {
        let request = |answer| Request::Why {
            tenant: tenant.clone(),
            of,
            answer,
        };
        self.ask(request).await?
    }

    /// Has a node take no new work, and end once what it has is done.
    pub(crate) async fn drain(&self, node: NodeId) -> Result<(), Problem> {
        self.ask(|answer| Request::Drain { node, answer }).await?
    }

    /// Has a shard of the tenant's actors granted to an executor, if nobody serves it. The state shows who does:
    /// whoever waits for it asks again by and by, because the request may be lost.
    pub(crate) fn shard(&self, tenant: &TenantId, shard: u32) {
        let tenant = tenant.clone();
        self.tell(Request::Shard { tenant, shard });
    }

    /// Makes a request, and waits for its answer. Errors: `busy` if there is none.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let gone = || {
            let detail = "the executor or the leader is gone; try again";
            Problem::new(ErrorCode::Busy, detail)
        };
        self.0.send(request(answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Makes a request without an answer. If the queue is full, it is dropped.
    pub(crate) fn tell(&self, request: Request) {
        let _ = self.0.try_send(request);
    }
}
