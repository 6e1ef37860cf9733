//! All spawning goes through here: tasks have names, stop with their parent, and a panic ends the server rather than half of it.

use std::future::Future;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, Problem, lock};

/// What the end of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The server stops: it cannot go on without the task.
    Stop,
    /// The error is logged.
    Log,
}

/// The tasks of the server. Clones share them.
#[derive(Clone)]
pub struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
    cancel: CancellationToken,
}

impl Tasks {
    /// No tasks yet. `cancel` is cancelled if one that the process needs fails.
    pub fn new(cancel: CancellationToken) -> Self {
        Self {
            set: Arc::default(),
            cancel,
        }
    }

    /// Spawns `future`; it is aborted when the server ends.
    pub fn spawn(
        &self,
        name: &'static str,
        on_error: OnError,
        future: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let cancel = self.cancel.clone();
        let watched = async move {
            // The inner task is joined, so that a panic in it comes back as an error; it is aborted when this one is dropped.
            let mut inner = JoinSet::new();
            inner.spawn(future);
            let failed = match inner.join_next().await {
                Some(Ok(Err(error))) => format!("{error:#}"),
                Some(Err(error)) => error.to_string(),
                Some(Ok(Ok(()))) | None => return,
            };
            tracing::error!(task = name, error = failed, "task failed");
            if on_error == OnError::Stop {
                cancel.cancel();
            }
        };
        let mut set = lock(&self.set);
        while set.try_join_next().is_some() {}
        set.spawn(watched);
    }

    /// Runs `future` to its end, whoever goes away meanwhile. Errors: the server stops, or it panicked.
    pub async fn run_to_end<T: Send + 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        self.spawn(name, OnError::Log, async move {
            // Nobody may be waiting any more.
            let _ = answer.send(future.await);
            Ok(())
        });
        answered.await.map_err(|_| {
            let detail = format!("`{name}` did not come to its end");
            Problem::new(ErrorCode::Internal, detail)
        })
    }

    /// Aborts what still runs.
    pub fn abort(&self) {
        lock(&self.set).abort_all();
    }
}

/// A task that ends with its owner.
pub struct Scoped(#[expect(dead_code, reason = "it is held")] JoinSet<()>);

impl Scoped {
    /// Runs `future` beside its owner, and aborts it when this is dropped.
    pub fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut set = JoinSet::new();
        set.spawn(future);
        Self(set)
    }
}
