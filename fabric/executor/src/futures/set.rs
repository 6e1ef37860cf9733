//! The futures of one invocation by number: those that wait, those under way, and those whose answers nobody has taken.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use weft_core::{ErrorCode, LimitKind, Problem, lock};
use weft_protocol::{CallTo, MAX_TURN_BYTES};
use weft_sandbox::Asked;

use super::{stopped, told};
use crate::calls::Share;
use crate::outward::Outward;

/// Futures of one invocation that were not joined.
pub(super) const MAX_FUTURES: usize = 16_384;
/// Calls of one invocation that are under way, or fewer if others have futures. Others wait for them.
pub(super) const MAX_RUNNING: usize = 256;
/// Bytes of inputs of futures that have not ended.
pub(super) const MAX_INPUT_BYTES: usize = 32 << 20;
/// Bytes of answers that nobody has taken: with more, no further calls begin but those that are waited for.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 20;
/// How often a call is made again that the platform failed.
const MAX_RETRIES: u32 = 3;
/// Pause before the first of these, and the factor from each to the next.
const RETRY_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
const RETRY_FACTOR: u32 = 5;

type Answer = Result<Bytes, Problem>;

/// An invocation to make.
pub(super) struct Work {
    /// `component/function`.
    pub(super) function: String,
    pub(super) input: Bytes,
}

enum Phase {
    Queued(Work),
    UnderWay { call: AbortHandle, bytes: usize },
    Ended(Answer),
}

#[derive(Default)]
struct State {
    next: u64,
    futures: HashMap<u64, Phase>,
    /// Numbers of those that wait for their turn.
    queued: BTreeSet<u64>,
    n_running: usize,
    input_bytes: usize,
    answer_bytes: usize,
}

struct Shared {
    outward: Outward,
    depth: u32,
    io: Handle,
    share: Share,
    /// No answer is waited for after this.
    deadline: Instant,
    state: Mutex<State>,
    changed: Notify,
}

/// Futures of one invocation.
pub(super) struct Set(Arc<Shared>);

fn bytes_of(answer: &Answer) -> usize {
    answer.as_ref().map_or(0, Bytes::len)
}

/// The problem of a future whose spawner has no time left. It is not called: those that spawn without end would go on
/// in what they have spawned.
fn too_late(function: &str) -> Problem {
    let detail = format!("`{function}` is not called: the deadline of its spawner is over");
    let problem = Problem::new(ErrorCode::LimitExceeded, detail);
    problem.of_limit(LimitKind::Wall, "the deadline of the spawner")
}

fn unknown<T>(future: u64) -> Asked<T> {
    told(format!(
        "there is no future {future}: it was joined or cancelled, or never spawned"
    ))
}

impl Set {
    /// `depth`: how deep the futures are nested. `deadline`: until then they have time.
    pub(super) fn new(
        outward: Outward,
        depth: u32,
        io: Handle,
        share: Share,
        deadline: Instant,
    ) -> Self {
        Self(Arc::new(Shared {
            outward,
            depth,
            io,
            share,
            deadline,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Waits until a future has ended since this was last waited for.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Returns whether another future fits in, as far as that is known. Nothing if some have to end first.
    pub(super) fn room_for(&self, input_bytes: usize) -> Option<Asked<()>> {
        let state = self.state();
        if state.futures.len() >= MAX_FUTURES {
            return Some(stopped(format!(
                "{MAX_FUTURES} futures that are not joined"
            )));
        }
        if state.input_bytes + input_bytes <= MAX_INPUT_BYTES {
            return Some(Ok(()));
        }
        // None begins until answers are taken.
        let is_stuck = state.n_running == 0;
        is_stuck.then(|| {
            let mib = MAX_ANSWER_BYTES >> 20;
            stopped(format!("{mib} MiB of answers that are not joined"))
        })
    }

    /// Adds a future, and returns its number.
    pub(super) fn add(&self, work: Work) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.input_bytes += work.input.len();
        state.futures.insert(number, Phase::Queued(work));
        state.queued.insert(number);
        self.0.start_more(&mut state);
        number
    }

    /// Takes the answer of a future. One whose turn has not come has it now, because it is waited for.
    pub(super) fn take(&self, future: u64) -> Option<Asked<Answer>> {
        let mut state = self.state();
        match state.futures.remove(&future) {
            None => Some(unknown(future)),
            Some(Phase::Ended(answer)) => {
                state.answer_bytes -= bytes_of(&answer);
                self.0.start_more(&mut state);
                Some(Ok(answer))
            }
            Some(phase) => {
                state.futures.insert(future, phase);
                self.0.start(&mut state, future);
                None
            }
        }
    }

    /// The position of a future that has ended. If no turn of theirs has come, the first has it now.
    pub(super) fn first_ended(&self, futures: &[u64]) -> Option<Asked<u32>> {
        let Some(first) = futures.first() else {
            return Some(told("there are no futures to select from"));
        };
        if futures.len() > MAX_FUTURES {
            let n = futures.len();
            return Some(told(format!(
                "{n} futures to select from; {MAX_FUTURES} are allowed"
            )));
        }
        let mut state = self.state();
        let mut all_queued = true;
        for (position, future) in (0..).zip(futures) {
            match state.futures.get(future) {
                None => return Some(unknown(*future)),
                Some(Phase::Ended(_)) => return Some(Ok(position)),
                Some(Phase::UnderWay { .. }) => all_queued = false,
                Some(Phase::Queued(_)) => {}
            }
        }
        if all_queued {
            self.0.start(&mut state, *first);
        }
        None
    }

    /// Cancels a future that has not ended.
    pub(super) fn cancel(&self, future: u64) {
        let mut state = self.state();
        let call = match state.futures.remove(&future) {
            None => return,
            Some(ended @ Phase::Ended(_)) => {
                state.futures.insert(future, ended);
                return;
            }
            Some(Phase::Queued(work)) => {
                state.queued.remove(&future);
                state.input_bytes -= work.input.len();
                None
            }
            Some(Phase::UnderWay { call, bytes }) => {
                state.n_running -= 1;
                state.input_bytes -= bytes;
                Some(call)
            }
        };
        self.0.start_more(&mut state);
        drop(state);
        if let Some(call) = call {
            call.abort();
        }
    }

    #[cfg(test)]
    pub(super) fn n_running(&self) -> usize {
        self.state().n_running
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let futures = std::mem::take(&mut *self.state()).futures;
        for phase in futures.into_values() {
            if let Phase::UnderWay { call, .. } = phase {
                call.abort();
            }
        }
    }
}

impl Shared {
    /// Has futures begin whose turn has come.
    fn start_more(self: &Arc<Self>, state: &mut State) {
        let most = self.share.futures().min(MAX_RUNNING);
        while state.n_running < most
            && state.answer_bytes < MAX_ANSWER_BYTES
            && let Some(next) = state.queued.first().copied()
        {
            self.start(state, next);
        }
    }

    /// Has a future begin that is queued.
    fn start(self: &Arc<Self>, state: &mut State, future: u64) {
        if !state.queued.remove(&future) {
            return;
        }
        if let Some(Phase::Queued(work)) = state.futures.remove(&future) {
            let bytes = work.input.len();
            let shared = Arc::clone(self);
            let call = self.io.spawn(async move {
                let answer = shared.perform(&work).await;
                shared.end(future, answer);
            });
            let call = call.abort_handle();
            state.n_running += 1;
            state
                .futures
                .insert(future, Phase::UnderWay { call, bytes });
        }
    }

    /// Calls, and calls again if the platform fails.
    async fn perform(&self, work: &Work) -> Answer {
        for retry in 0..MAX_RETRIES {
            match self.call(work).await {
                Err(problem) if problem.code.is_platform_fault() => {
                    let pause = RETRY_PAUSE * RETRY_FACTOR.pow(retry);
                    tokio::time::sleep(pause).await;
                }
                answer => return answer,
            }
        }
        self.call(work).await
    }

    async fn call(&self, work: &Work) -> Answer {
        let to = CallTo::Task {
            function: work.function.clone(),
            depth: self.depth,
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_late(&work.function));
        }
        let output = self.outward.call(to, work.input.to_vec(), left).await?;
        if output.len() > MAX_TURN_BYTES {
            let (function, bytes, mib) = (&work.function, output.len(), MAX_TURN_BYTES >> 20);
            let detail = format!(
                "`{function}` answered a future with {bytes} bytes; it may have {mib} MiB: put more into a store, and answer with its name"
            );
            return Err(Problem::new(ErrorCode::TooLarge, detail));
        }
        Ok(output)
    }

    /// A future has ended, unless it was cancelled meanwhile.
    fn end(self: &Arc<Self>, future: u64, answer: Answer) {
        let mut state = lock(&self.state);
        if let Some(Phase::UnderWay { bytes, .. }) = state.futures.remove(&future) {
            state.n_running -= 1;
            state.input_bytes -= bytes;
            state.answer_bytes += bytes_of(&answer);
            state.futures.insert(future, Phase::Ended(answer));
        }
        self.start_more(&mut state);
        drop(state);
        self.changed.notify_one();
    }
}
