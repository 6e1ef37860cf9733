//! Calls of map functions: the body goes to the executor as it comes, and what the function emits to the client as it goes.
//!
//! ```text
//! body ──pieces, as many as the call has room for──▶ executor ──pieces, as many as the client takes──▶ answer
//! ```
//!
//! Nothing of either is held beyond a window for each direction, so that neither has a size that it may have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc, oneshot};
use weft_core::Problem;
use weft_protocol::{
    InvokeReply, InvokeRequest, PIECE_BYTES_MAX, PIECES_MAX, ToExecutor, WINDOW_BYTES, piece_weight,
};
use weft_runtime::link::{Body, NoReply, StreamEvent};
use weft_telemetry::UnderWay;

use super::{OfTenant, busy, lock, too_late};
use crate::executor_process::Outbound;

/// This side's ends of a call that streams.
pub(super) struct Ends {
    /// Holds no more than a window: the executor sends as much as it was told that the client has taken.
    outputs: mpsc::Sender<Bytes>,
    /// What input the call has room for.
    room: Arc<Semaphore>,
}

impl Ends {
    /// Ends of a call whose output comes by the receiver, and whose input is sent as there is room.
    pub(super) fn new() -> (Self, mpsc::Receiver<Bytes>, Arc<Semaphore>) {
        let (outputs, output) = mpsc::channel(PIECES_MAX);
        let room = Arc::new(Semaphore::new(WINDOW_BYTES));
        let ends = Self {
            outputs,
            room: Arc::clone(&room),
        };
        (ends, output, room)
    }
}

/// A call that an executor was sent. Takes it back unless it has ended.
pub(super) struct Sent<'a> {
    pub(super) invocations: &'a OfTenant,
    pub(super) request: u64,
    /// Room on the link for taking it back: without it, the call would wait for its client for ever.
    pub(super) abandon: Option<mpsc::OwnedPermit<Outbound>>,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.invocations.pending);
        pending.streams.remove(&self.request);
        pending.answers.remove(&self.request);
        pending.rows.remove(&self.request);
        drop(pending);
        if let Some(permit) = self.abandon.take() {
            let abandon = ToExecutor::Abandon {
                request: self.request,
            };
            permit.send((abandon, Bytes::new()));
        }
    }
}

impl OfTenant {
    /// A piece of output has come.
    pub(crate) fn output(&self, request: u64, piece: Bytes) {
        let mut pending = lock(&self.pending);
        let Some(ends) = pending.streams.get(&request) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(_)) = ends.outputs.try_send(piece) {
            // More than was allowed: the answer would not be whole, and so there is none.
            tracing::error!(
                request,
                "an executor sends more output than there is room for"
            );
            pending.streams.remove(&request);
            pending.answers.remove(&request);
            pending.rows.remove(&request);
        }
    }

    /// A call has taken input.
    pub(crate) fn input_read(&self, request: u64, bytes: usize) {
        if let Some(ends) = lock(&self.pending).streams.get(&request) {
            let taken = WINDOW_BYTES.saturating_sub(ends.room.available_permits());
            ends.room.add_permits(piece_weight(bytes).min(taken));
        }
    }

    pub(super) async fn admit_stream(
        &self,
        request: InvokeRequest,
        body: Body<'_>,
        deadline: Duration,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply> {
        let most = self.shared.streams_max;
        let _stream = self
            .shared
            .streams
            .try_acquire()
            .map_err(|_| busy(format!("{most} calls stream; try again")))?;
        let admission = self.admission(&request.label);
        let _of_function = admission.streams.try_acquire().map_err(|_| {
            let (label, most) = (&request.label, most.div_ceil(2));
            busy(format!("{most} calls of `{label}` stream; try again"))
        })?;
        let _streaming = UnderWay::new(&self.shared.metrics.invocations_streaming);
        let label = request.label.clone();
        let call = self.run_stream(request, body, client);
        let ended = tokio::time::timeout(deadline, call).await;
        ended.unwrap_or_else(|_| Err(too_late(label, deadline).into()))
    }

    async fn run_stream(
        &self,
        mut request: InvokeRequest,
        body: Body<'_>,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply> {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        request.request = number;
        let (ends, mut output, room) = Ends::new();
        let link = lock(&self.pending).link.clone();
        let (executor, link) = link.ok_or_else(|| busy("no executor is ready; try again"))?;
        let abandon = link.clone().reserve_owned().await;
        let mut sent = Sent {
            invocations: self,
            request: number,
            abandon: Some(abandon.map_err(|_| busy("the executor ended; try again"))?),
        };
        let (answer, answered) = oneshot::channel();
        {
            let mut pending = lock(&self.pending);
            if pending.link.as_ref().is_none_or(|(id, _)| *id != executor) {
                return Err(busy("the executor ended; try again").into());
            }
            pending.streams.insert(number, ends);
            pending.answers.insert(number, answer);
            pending.labels.insert(number, request.label.clone());
        }
        let invoke = ToExecutor::Invoke(Box::new(request));
        send(&link, invoke, Bytes::new()).await?;
        let sending = send_input(number, body, &room, &link);
        let receiving = async {
            while let Some(piece) = output.recv().await {
                let bytes = piece.len();
                // Waits as long as the client does not take what came before.
                if client.send(StreamEvent::Output(piece)).await.is_err() {
                    return Err(NoReply::Left);
                }
                let taken = ToExecutor::OutputTaken {
                    request: number,
                    bytes,
                };
                send(&link, taken, Bytes::new()).await?;
            }
            let lost = |_| busy("the executor ended while the function ran; try again");
            let (reply, _) = answered.await.map_err(lost)?;
            Ok(reply)
        };
        let reply = tokio::select! {
            reply = receiving => reply?,
            problem = sending => return Err(problem.into()),
            () = client.closed() => return Err(NoReply::Left),
        };
        sent.abandon = None;
        Ok(reply)
    }
}

/// Sends the body as it comes, as far as the call has room. Comes to an end where the body does not, and says why.
async fn send_input(
    request: u64,
    mut body: Body<'_>,
    room: &Semaphore,
    link: &mpsc::Sender<Outbound>,
) -> Problem {
    let sent = async {
        while let Some(data) = body.next().await {
            let mut data = data?;
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
                let weight = u32::try_from(piece_weight(piece.len())).unwrap_or(u32::MAX);
                let permits = room.acquire_many(weight).await;
                permits.expect("it is never closed").forget();
                send(link, ToExecutor::Input { request }, piece).await?;
            }
        }
        send(link, ToExecutor::Input { request }, Bytes::new()).await
    };
    match sent.await {
        Ok(()) => std::future::pending().await,
        Err(problem) => problem,
    }
}

pub(super) async fn send(
    link: &mpsc::Sender<Outbound>,
    message: ToExecutor,
    payload: Bytes,
) -> Result<(), Problem> {
    let sent = link.send((message, payload)).await;
    sent.map_err(|_| busy("the executor ended while the function ran; try again"))
}
