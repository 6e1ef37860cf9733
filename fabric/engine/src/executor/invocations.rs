//! Invocations that an executor was given: how each is stopped, and fed if it streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use weft_core::lock;

use tokio_util::sync::CancellationToken;

use crate::stream::Pipe;

/// Invocations by number, those that wait for a slot included.
#[derive(Default)]
pub(super) struct Invocations(Mutex<HashMap<u64, Invocation>>);

#[derive(Default)]
struct Invocation {
    /// Stops it.
    cancel: CancellationToken,
    /// The other end of one that streams.
    pipe: Option<Arc<Pipe>>,
}

impl Invocations {
    fn held(&self) -> MutexGuard<'_, HashMap<u64, Invocation>> {
        lock(&self.0)
    }

    /// Records an invocation that is about to wait for a slot.
    pub(super) fn expect(&self, request: u64) {
        self.held().insert(request, Invocation::default());
    }

    /// Records an invocation that streams and is about to start.
    pub(super) fn expect_stream(&self, request: u64) {
        let invocation = Invocation {
            pipe: Some(Pipe::new()),
            ..Invocation::default()
        };
        self.held().insert(request, invocation);
    }

    /// Stops an invocation, whether it runs or still waits.
    pub(super) fn abandon(&self, request: u64) {
        if let Some(invocation) = self.held().get(&request) {
            invocation.cancel.cancel();
            if let Some(pipe) = &invocation.pipe {
                pipe.close();
            }
        }
    }

    /// Returns what stops an invocation.
    pub(super) fn cancel(&self, request: u64) -> Option<CancellationToken> {
        let held = self.held();
        held.get(&request)
            .map(|invocation| invocation.cancel.clone())
    }

    /// Returns the pipe of an invocation that streams.
    pub(super) fn pipe(&self, request: u64) -> Option<Arc<Pipe>> {
        self.held().get(&request)?.pipe.clone()
    }

    /// Drops an invocation that has ended.
    pub(super) fn forget(&self, request: u64) {
        self.held().remove(&request);
    }
}
