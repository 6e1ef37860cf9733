//! Threads for calls, beside the slots for tasks, so that a call need not wait until a task has ended.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use weft_core::{ErrorCode, Problem};
use weft_engine::Executor;
use weft_protocol::FromExecutor;
use weft_sandbox::Futures;

use crate::calls::{Call, Calls, Running};
use crate::executor::{Reply, slot_runtime};
use crate::futures::SpawnedFutures;
use crate::outward::Outward;

/// Calls with their threads. Clones share them.
#[derive(Clone)]
pub(crate) struct CallThreads {
    executor: Executor,
    calls: Calls,
    outward: Outward,
    /// Makes the calls of futures.
    io: Handle,
    replies: mpsc::Sender<Reply>,
}

impl CallThreads {
    /// None yet: they are started with the first calls. The runtime that this is called in makes the calls of futures.
    pub(crate) fn new(
        executor: &Executor,
        slots: u32,
        outward: &Outward,
        replies: &mpsc::Sender<Reply>,
    ) -> Self {
        Self {
            executor: executor.clone(),
            calls: Calls::new(slots),
            outward: outward.clone(),
            io: Handle::current(),
            replies: replies.clone(),
        }
    }

    /// Has a call wait for a thread, and starts one for it if there are not enough. Returns the answer to one that
    /// cannot wait.
    pub(crate) fn call(&self, call: Call) -> Option<Reply> {
        match self.calls.push(call) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(call) => return self.refuse(call, "too many calls wait; try again".into()),
        }
        let error = self.start().err()?;
        // Other threads take it, if there are any.
        let call = self.calls.take_back()?;
        let detail = format!("no thread can be started for the call: {error}; try again");
        self.refuse(call, detail)
    }

    fn refuse(&self, (request, _): Call, detail: String) -> Option<Reply> {
        let problem = Problem::new(ErrorCode::Busy, detail);
        let reply = self.executor.refuse(&request, problem);
        Some((FromExecutor::Invoked(Box::new(reply)), Vec::new()))
    }

    /// Starts a thread that was wanted.
    fn start(&self) -> std::io::Result<()> {
        let threads = self.clone();
        let thread = std::thread::Builder::new().name("weft-call".into());
        let started = thread.spawn(move || threads.take_calls());
        if started.is_err() {
            self.calls.thread_failed();
        }
        started.map(drop)
    }

    fn take_calls(&self) {
        let runtime = slot_runtime();
        loop {
            let running = self.calls.take();
            let futures: Box<dyn Futures> = Box::new(self.futures(&running));
            let (request, input) = &running.call;
            let answer = self.executor.invoke(request, input, Some(futures));
            let (reply, output) = runtime.block_on(answer);
            drop(running);
            let reply = FromExecutor::Invoked(Box::new(reply));
            if self.replies.blocking_send((reply, output)).is_err() {
                return;
            }
        }
    }

    /// Futures of a call: none yet.
    fn futures(&self, running: &Running) -> SpawnedFutures {
        let threads = self.clone();
        let more = move || {
            if let Err(error) = threads.start() {
                // Others take the calls that wait when they are done with theirs.
                tracing::warn!(%error, "no thread can be started for calls");
            }
        };
        SpawnedFutures::new(
            self.outward.clone(),
            &running.call.0,
            running.permit(Arc::new(more)),
            self.io.clone(),
            running.since,
        )
    }
}
