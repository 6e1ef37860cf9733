//! Calls of guests that leave the executor: numbered, sent to the agent, answered by a controller.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use weft_core::{ErrorCode, Problem, lock};
use weft_protocol::{Call, CallTo, FromExecutor};

/// Calls that wait for their answers.
const MAX_CALLS: usize = 16_384;

type Answer = Result<Bytes, Problem>;

/// The way out of the executor. Clones share it.
#[derive(Clone)]
pub(crate) struct Outward(Arc<Shared>);

struct Shared {
    replies: mpsc::Sender<(FromExecutor, Vec<u8>)>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
}

/// Cancels a call whose caller has gone.
struct Waiting<'a> {
    shared: &'a Shared,
    call: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if lock(&self.shared.waiting).remove(&self.call).is_some() {
            // If the queue is full, the call comes to its end, and nobody hears of it.
            let cancel = FromExecutor::CancelCall { call: self.call };
            let _ = self.shared.replies.try_send((cancel, Vec::new()));
        }
    }
}

impl Outward {
    /// Calls go into `replies`, the queue of messages to the agent.
    pub(crate) fn new(replies: mpsc::Sender<(FromExecutor, Vec<u8>)>) -> Self {
        Self(Arc::new(Shared {
            replies,
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
        }))
    }

    /// Makes a call, and waits for its answer. Dropping the future cancels it.
    ///
    /// Errors: those of the callee, `busy` if too many calls wait, and at the deadline.
    pub(crate) async fn call(&self, to: CallTo, input: Vec<u8>, deadline: Duration) -> Answer {
        let shared = &*self.0;
        let (answer, answered) = oneshot::channel();
        let call = shared.next.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = lock(&shared.waiting);
            if waiting.len() >= MAX_CALLS {
                let detail = format!("{MAX_CALLS} calls of guests wait for answers; try again");
                return Err(Problem::new(ErrorCode::Busy, detail));
            }
            waiting.insert(call, answer);
        }
        let _waiting = Waiting { shared, call };
        let message = FromExecutor::Call(Box::new(Call {
            call,
            to,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        }));
        let gone = || Problem::new(ErrorCode::Busy, "the executor ends; try again");
        let made = async {
            let sent = shared.replies.send((message, input)).await;
            sent.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        tokio::time::timeout(deadline, made)
            .await
            .unwrap_or_else(|_| {
                let detail = format!("a call had no answer after {} ms", deadline.as_millis());
                Err(Problem::new(ErrorCode::Busy, detail))
            })
    }

    /// An answer has come. One that nobody waits for is dropped.
    pub(crate) fn answered(&self, call: u64, result: Result<(), Problem>, output: Vec<u8>) {
        if let Some(waiting) = lock(&self.0.waiting).remove(&call) {
            let _ = waiting.send(result.map(|()| output.into()));
        }
    }
}
