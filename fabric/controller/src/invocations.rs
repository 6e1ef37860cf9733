//! Routes invocations to a node, counts and times them, and commits what they used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weft_control::Command;
use weft_core::Problem;
use weft_protocol::{InvokeReply, InvokeRequest, OUTPUT_BYTES_MAX};
use weft_runtime::link::{Body, InvokeAnswer, Invoker, NoReply, StreamEvent};
use weft_runtime::{Room, Taken};

use crate::metrics::Metrics;
use crate::replica::Replica;
use crate::tenant;

/// Time between two commits of usage. A dying node's uncommitted usage is the platform's loss.
const METERING_PERIOD: Duration = Duration::from_secs(1);
/// Bytes of stored outputs that are sent again and not yet taken by their clients.
const REPLAYED_BYTES_MAX: usize = 128 << 20;

/// Invocations, as the API sees them. Clones share them.
#[derive(Clone)]
pub(crate) struct Invocations {
    node: Arc<dyn Invoker>,
    metrics: Arc<Metrics>,
    replayed: Room,
}

impl Invocations {
    pub(crate) fn new(node: Arc<dyn Invoker>, metrics: Arc<Metrics>) -> Self {
        let held = metrics.output_held.clone();
        let replayed = Room::new(REPLAYED_BYTES_MAX, move |change| {
            held.inc_by(change);
        });
        Self {
            node,
            metrics,
            replayed,
        }
    }

    /// Name of the process that makes invocations.
    pub(crate) fn incarnation(&self) -> &str {
        self.node.incarnation()
    }

    /// Waits for room for the largest output that may be replayed.
    pub(crate) async fn replay_room(&self) -> Taken {
        self.replayed.take(OUTPUT_BYTES_MAX).await
    }

    /// Invokes a function once, see [`Invoker::invoke`].
    pub(crate) async fn invoke(
        &self,
        request: InvokeRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<InvokeAnswer, Problem> {
        let began = Instant::now();
        let answer = self.node.invoke(request, input, deadline).await;
        let problem = match &answer {
            Ok((reply, _)) => reply.result.as_ref().err(),
            Err(problem) => Some(problem),
        };
        self.metrics.invoked(problem, began.elapsed());
        answer
    }

    /// Invokes a map function once, see [`Invoker::stream`].
    pub(crate) async fn stream(
        &self,
        request: InvokeRequest,
        body: Body<'_>,
        deadline: Duration,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply> {
        let began = Instant::now();
        let reply = self.node.stream(request, body, deadline, client).await;
        let problem = match &reply {
            Ok(reply) => reply.result.as_ref().err(),
            Err(NoReply::Failed(problem)) => Some(problem),
            Err(NoReply::Left) => return reply,
        };
        self.metrics.invoked(problem, began.elapsed());
        reply
    }

    /// Commits usage once a period, until it is aborted.
    pub(crate) async fn keep_metering(self, replica: Replica) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(METERING_PERIOD);
        loop {
            ticks.tick().await;
            let usage = self.node.take_usage();
            if usage.is_empty() {
                continue;
            }
            self.metrics.used(&usage);
            let command = Command::MeterInvocations { usage };
            if let Err(problem) = replica.propose(&tenant(), command).await {
                tracing::error!(%problem, "usage of invocations is lost");
            }
        }
    }
}
