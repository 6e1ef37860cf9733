//! Rows of outputs: asked for by a controller, sent by a node.

use std::convert::identity;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::sleep;
use weft_core::TenantId;
use weft_protocol::RowsRequest;
use weft_runtime::link::NoReply;

use super::{
    DEADLINE_GRACE, PIECES_WAITING, ROWS, RemoteNode, WorkSettings, answer_with, kind, piece,
    piece_of,
};
use crate::rpc::{self, BoxBody, lost, read_whole};

/// The head of a question.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    tenant: TenantId,
    request: RowsRequest,
    deadline_ms: u64,
}

/// Sends rows; the answer ends with what came of it. If the connection drops the answer, reading ends
/// with it.
pub(super) fn on_node(body: Incoming, settings: WorkSettings) -> Response<BoxBody> {
    let (pieces, waiting) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let running = async move {
        let last = match run(body, &settings, &pieces).await {
            Ok(()) => piece_of(kind::ENDED, &()),
            Err(NoReply::Failed(problem)) => piece_of(kind::FAILED, &problem),
            Err(NoReply::Left) => return,
        };
        // The controller may have gone.
        let _ = pieces.send(last).await;
    };
    answer_with(running, waiting)
}

async fn run(
    body: Incoming,
    settings: &WorkSettings,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<(), NoReply> {
    let (asked, _) = read_whole::<Asked>(body).await?;
    let (client, mut rows) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let deadline = Duration::from_millis(asked.deadline_ms);
    let running = async move {
        let (tenant, request) = (&asked.tenant, asked.request);
        let rows = settings.invoker.rows(tenant, request, deadline, &client);
        let ended = rows.await;
        drop(client);
        ended
    };
    let passing = async move {
        while let Some(rows) = rows.recv().await {
            if pieces.send(piece(kind::OUTPUT, &rows)).await.is_err() {
                // Without its receiver, the reader sees that its client has gone.
                return;
            }
        }
    };
    tokio::join!(running, passing).0
}

impl RemoteNode {
    /// Has the node send rows, and passes them on as they come.
    pub(super) async fn take_rows(
        &self,
        tenant: &TenantId,
        request: RowsRequest,
        deadline: Duration,
        client: &mpsc::Sender<Bytes>,
    ) -> Result<(), NoReply> {
        let asked = Asked {
            tenant: tenant.clone(),
            request,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let receiving = async {
            let answer = self.asker.open(ROWS, rpc::whole(&asked, &[])?).await;
            let answer = answer.map_err(|problem| self.gone(problem))?;
            self.take_answer(answer, client, identity).await
        };
        tokio::select! {
            ended = receiving => ended,
            () = client.closed() => Err(NoReply::Left),
            () = sleep(deadline + DEADLINE_GRACE) => {
                Err(self.gone(lost(&"it is silent")).into())
            }
        }
    }
}
