//! Futures of an invocation: invocations of tasks that it spawns, on any node, while it goes on.
//!
//! ```text
//! spawn ──▶ queued ──[`MAX_RUNNING`]──▶ under way, tried again where the platform fails ──▶ ended ──join──▶ taken
//! ```
//!
//! Calls run on the executor's I/O runtime, because the thread of the invocation is its guest's. While the guest waits,
//! its room is given to others.

mod set;

use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::time::Instant;
use weft_core::{ErrorCode, LimitKind, Problem};
use weft_protocol::{DEADLINE_MAX, InvokeRequest, MAX_SPAWN_DEPTH, MAX_TURN_BYTES};
use weft_sandbox::{Asked, Fault, Futures, Refusal};

use self::set::{Set, Work};
use crate::calls::{MAX_SPAWNERS, Permit, Seat};
use crate::outward::Outward;

/// Bytes of the name of a function, with its component's.
const MAX_FUNCTION_BYTES: usize = 256;

/// Futures of one invocation. Dropping them cancels what was not joined.
pub(crate) struct SpawnedFutures {
    set: Set,
    permit: Permit,
    /// Taken with the first future.
    seat: Option<Seat>,
    /// Component of the invocation.
    component: String,
    /// How deep the futures are nested.
    depth: u32,
}

fn told<T>(message: impl Into<String>) -> Asked<T> {
    Err(Refusal::Told(message.into()))
}

fn stopped<T>(value: String) -> Asked<T> {
    Err(Refusal::Stopped(Fault::limit(LimitKind::Futures, value)))
}

/// The component of a label, `component@version/function`.
fn component(label: &str) -> &str {
    label.split(['@', '/']).next().unwrap_or(label)
}

impl SpawnedFutures {
    /// None yet. `permit`: of the invocation. `io`: runs the calls. `since`: when the invocation came. Its futures have
    /// the time that it has, so that all that they spawn ends with it.
    pub(crate) fn new(
        outward: Outward,
        request: &InvokeRequest,
        permit: Permit,
        io: Handle,
        since: Instant,
    ) -> Self {
        let depth = request.depth.saturating_add(1);
        let wall = Duration::from_millis(request.limits.wall_ms).min(DEADLINE_MAX);
        Self {
            set: Set::new(outward, depth, io, permit.share(), since + wall),
            permit,
            seat: None,
            component: component(&request.label).to_owned(),
            depth,
        }
    }

    /// `component/function` of a name.
    fn function(&self, name: &str) -> Asked<String> {
        if name.is_empty() || name.len() > MAX_FUNCTION_BYTES {
            let bytes = name.len();
            return told(format!(
                "the name of a function has 1 to {MAX_FUNCTION_BYTES} bytes, not {bytes}"
            ));
        }
        match name.contains('/') {
            true => Ok(name.to_owned()),
            false => Ok(format!("{}/{name}", self.component)),
        }
    }

    fn check(&self, input: &[u8]) -> Asked<()> {
        if self.depth > MAX_SPAWN_DEPTH {
            return stopped(format!("{MAX_SPAWN_DEPTH} nested spawners"));
        }
        if input.len() > MAX_TURN_BYTES {
            let (bytes, mib) = (input.len(), MAX_TURN_BYTES >> 20);
            return told(format!(
                "the input of a future has {bytes} bytes; it may have {mib} MiB: put more into a store, and pass its name"
            ));
        }
        Ok(())
    }

    fn sit(&mut self) -> Asked<()> {
        if self.seat.is_none() {
            self.seat = self.permit.seat();
        }
        match self.seat {
            Some(_) => Ok(()),
            None => {
                let detail = format!(
                    "{MAX_SPAWNERS} invocations on this executor have futures already; try again"
                );
                Err(Refusal::Failed(Problem::new(ErrorCode::Busy, detail)))
            }
        }
    }

    /// Waits until there is an answer. Others have the room of the invocation meanwhile.
    async fn wait_for<T>(&self, ready: impl Fn(&Set) -> Option<T>) -> T {
        if let Some(answer) = ready(&self.set) {
            return answer;
        }
        let pause = self.permit.pause();
        let answer = loop {
            self.set.changed().await;
            if let Some(answer) = ready(&self.set) {
                break answer;
            }
        };
        pause.end().await;
        answer
    }
}

#[async_trait]
impl Futures for SpawnedFutures {
    async fn spawn(&mut self, function: &str, input: Vec<u8>) -> Asked<u64> {
        let function = self.function(function)?;
        self.check(&input)?;
        self.sit()?;
        let bytes = input.len();
        self.wait_for(move |set| set.room_for(bytes)).await?;
        Ok(self.set.add(Work {
            function,
            input: input.into(),
        }))
    }

    async fn join(&mut self, future: u64) -> Asked<Vec<u8>> {
        let answer = self.wait_for(move |set| set.take(future)).await;
        match answer? {
            Ok(output) => Ok(output.into()),
            Err(problem) if problem.code.is_platform_fault() => Err(Refusal::Failed(problem)),
            Err(problem) => told(problem.detail),
        }
    }

    async fn select(&mut self, futures: &[u64]) -> Asked<u32> {
        self.wait_for(|set| set.first_ended(futures)).await
    }

    fn cancel(&mut self, future: u64) {
        self.set.cancel(future);
    }
}

#[cfg(test)]
mod tests;
