//! Routes invocations to a node, counts and times them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weft_core::{Problem, TenantId, lock};
use weft_protocol::{InvokeReply, InvokeRequest, OUTPUT_BYTES_MAX, RowsRequest};
use weft_runtime::link::{Body, InvokeAnswer, NoReply, StreamEvent};
use weft_runtime::{Room, Taken};

use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::scheduler::{Request, Requests};

/// Bytes of stored outputs that are sent again and not yet taken by their clients.
const REPLAYED_BYTES_MAX: usize = 128 << 20;

/// Invocations, as the API sees them. Clones share them.
#[derive(Clone)]
pub(crate) struct Invocations {
    nodes: Nodes,
    metrics: Arc<Metrics>,
    replayed: Room,
    requests: Requests,
    /// Keyed invocations that are being made here.
    keyed: Arc<Mutex<HashSet<(TenantId, String)>>>,
}

impl Invocations {
    pub(crate) fn new(nodes: Nodes, requests: Requests, metrics: Arc<Metrics>) -> Self {
        let held = metrics.output_held.clone();
        let replayed = Room::new(REPLAYED_BYTES_MAX, move |change| {
            held.inc_by(change);
        });
        Self {
            nodes,
            metrics,
            replayed,
            requests,
            keyed: Arc::default(),
        }
    }

    /// Marks an invocation with an idempotency key as being made here, until the mark is dropped.
    /// Returns nothing if it is.
    pub(crate) fn begin_keyed(&self, tenant: &TenantId, key: &str) -> Option<Keyed> {
        let id = (tenant.clone(), key.to_owned());
        lock(&self.keyed).insert(id.clone()).then(|| Keyed {
            keyed: Arc::clone(&self.keyed),
            id,
        })
    }

    /// Has an executor started for a tenant that has none.
    fn want(&self, tenant: &TenantId) {
        if !self.nodes.is_ready(tenant) {
            // If the queue is full, one of those before may ask for the same.
            self.requests.tell(Request::Want(tenant.clone()));
        }
    }

    /// Waits for room for the largest output that may be replayed.
    pub(crate) async fn replay_room(&self) -> Taken {
        self.replayed.take(OUTPUT_BYTES_MAX).await
    }

    /// Invokes a function once, see [`weft_runtime::link::Invoker::invoke`].
    pub(crate) async fn invoke(
        &self,
        tenant: &TenantId,
        request: InvokeRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<InvokeAnswer, Problem> {
        self.want(tenant);
        let label = request.label.clone();
        let began = Instant::now();
        let node = self.nodes.for_invocation(tenant)?;
        let invoker = &node.worker.invoker;
        let answer = invoker.invoke(tenant, request, input, deadline).await;
        let problem = match &answer {
            Ok((reply, _)) => reply.result.as_ref().err(),
            Err(problem) => Some(problem),
        };
        self.metrics.invoked(&label, problem, began.elapsed());
        answer
    }

    /// Invokes a map function once, see [`weft_runtime::link::Invoker::stream`].
    pub(crate) async fn stream(
        &self,
        tenant: &TenantId,
        request: InvokeRequest,
        body: Body<'_>,
        deadline: Duration,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply> {
        self.want(tenant);
        let label = request.label.clone();
        let began = Instant::now();
        let node = self.nodes.for_invocation(tenant)?;
        let invoker = &node.worker.invoker;
        let streamed = invoker.stream(tenant, request, body, deadline, client);
        let reply = streamed.await;
        let problem = match &reply {
            Ok(reply) => reply.result.as_ref().err(),
            Err(NoReply::Failed(problem)) => Some(problem),
            Err(NoReply::Left) => return reply,
        };
        self.metrics.invoked(&label, problem, began.elapsed());
        reply
    }

    /// Sends rows of an output, see [`weft_runtime::link::Invoker::rows`].
    pub(crate) async fn rows(
        &self,
        tenant: &TenantId,
        request: RowsRequest,
        deadline: Duration,
        client: &mpsc::Sender<Bytes>,
    ) -> Result<(), NoReply> {
        self.want(tenant);
        let node = self.nodes.for_invocation(tenant)?;
        let invoker = &node.worker.invoker;
        invoker.rows(tenant, request, deadline, client).await
    }
}

/// An invocation with an idempotency key that is being made.
pub(crate) struct Keyed {
    keyed: Arc<Mutex<HashSet<(TenantId, String)>>>,
    id: (TenantId, String),
}

impl Drop for Keyed {
    fn drop(&mut self) {
        lock(&self.keyed).remove(&self.id);
    }
}
