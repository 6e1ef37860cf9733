//! Calls that wait for a thread. One function holds as many threads as the executor has slots, while others
//! have theirs: what waits or spins in one function does not keep another one's calls.
//!
//! ```text
//! agent ──push──▶ by function, in order ──take, functions in turn──▶ [`THREADS_PER_SLOT`] a slot
//! ```
//!
//! The agent bounds what waits: a few calls of each function. Threads are started when they are needed, and stay; what
//! runs shares the cores as the system sees fit. A call that waits for its futures gives its room to others meanwhile
//! ([`Permit`]), so that those it waits for find some.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;
use weft_core::lock;
use weft_protocol::InvokeRequest;

mod permit;

pub(crate) use permit::{MAX_SPAWNERS, Permit, Seat, Share};
#[cfg(test)]
pub(crate) use tests::call;

/// Threads for calls, for each slot: so many functions may have all of theirs at work.
const THREADS_PER_SLOT: u32 = 8;
/// All of them, but for twice as many as there are slots: two functions have theirs. Each runs a sandbox, of which an
/// executor has 512.
const THREADS_MAX: u32 = 64;
/// Calls that wait. The agent sends a few of each function, and more only of those that clients give up.
const WAITING_MAX: usize = 4096;

/// An invocation with its input.
pub(crate) type Call = (Box<InvokeRequest>, Vec<u8>);

/// A call that waits, and since when.
type Waiting = (Call, Instant);

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, VecDeque<Waiting>>,
    n_waiting: usize,
    /// Functions of which calls wait and more may run; each is there once.
    turns: VecDeque<String>,
    /// Calls that run, by function.
    running: HashMap<String, u32>,
    /// All of them.
    n_running: u32,
    /// Calls that have waited for their futures and would go on, by function.
    returning: HashMap<String, VecDeque<oneshot::Sender<()>>>,
    /// Threads whose calls wait for their futures.
    paused: u32,
    /// Calls that have futures.
    spawners: usize,
    threads: u32,
    idle: u32,
}

impl State {
    fn running(&self, label: &str) -> u32 {
        self.running.get(label).copied().unwrap_or(0)
    }

    fn take_room(&mut self, label: &str) {
        self.n_running += 1;
        *self.running.entry(label.to_owned()).or_default() += 1;
    }

    fn free_room(&mut self, label: &str) {
        self.n_running -= 1;
        let running = self.running.get_mut(label);
        let running = running.expect("a function that runs is counted");
        *running -= 1;
        if *running == 0 {
            self.running.remove(label);
        }
    }

    /// The call of the function that has waited longest to go on.
    fn next_returning(&mut self, label: &str) -> Option<oneshot::Sender<()>> {
        let returning = self.returning.get_mut(label)?;
        let next = returning.pop_front();
        if returning.is_empty() {
            self.returning.remove(label);
        }
        next
    }
}

/// Calls that wait. Clones share them.
#[derive(Clone)]
pub(crate) struct Calls {
    slots: u32,
    threads_max: u32,
    state: Arc<Mutex<State>>,
    pushed: Arc<Condvar>,
}

/// A call that was taken: its function holds a thread until this is dropped.
pub(crate) struct Running {
    pub(crate) call: Call,
    /// When it came.
    pub(crate) since: Instant,
    calls: Calls,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls.ended(&self.call.0.label);
    }
}

impl Calls {
    pub(crate) fn new(slots: u32) -> Calls {
        Calls {
            slots,
            threads_max: (slots * THREADS_PER_SLOT).min(THREADS_MAX.max(2 * slots)),
            state: Arc::default(),
            pushed: Arc::default(),
        }
    }

    /// Adds a call. Returns whether another thread is wanted for it, which counts from now on: whoever cannot start it
    /// says so by [`Calls::thread_failed`]. Errors: the call, if too many wait.
    pub(crate) fn push(&self, call: Call) -> Result<bool, Call> {
        let mut state = lock(&self.state);
        if state.n_waiting >= WAITING_MAX {
            return Err(call);
        }
        state.n_waiting += 1;
        let label = call.0.label.clone();
        let waiting = state.waiting.entry(label.clone()).or_default();
        // Deeper ones come first: calls that hold sandboxes wait for them.
        let before = waiting.partition_point(|((other, _), _)| other.depth >= call.0.depth);
        waiting.insert(before, (call, Instant::now()));
        self.give_turn(&mut state, &label);
        self.pushed.notify_one();
        Ok(self.wants_thread(&mut state))
    }

    /// Returns whether another thread is wanted, and counts it.
    fn wants_thread(&self, state: &mut State) -> bool {
        let at_work = state.threads.saturating_sub(state.paused);
        let wanted = state.idle < self.runnable(state) && at_work < self.threads_max;
        state.threads += u32::from(wanted);
        wanted
    }

    /// Calls that could run now, if there were threads.
    fn runnable(&self, state: &State) -> u32 {
        let of = |label: &String| {
            let waiting = state.waiting.get(label).map_or(0, VecDeque::len);
            let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
            waiting.min(self.slots.saturating_sub(state.running(label)))
        };
        state.turns.iter().map(of).sum()
    }

    /// Takes a call back that no thread will take: there is none, and none can be started.
    pub(crate) fn take_back(&self) -> Option<Call> {
        let mut state = lock(&self.state);
        if state.threads > 0 {
            return None;
        }
        let label = state.turns.pop_front()?;
        let running = self.start(&mut state, &label);
        drop(state);
        Some(running.call.clone())
    }

    /// A thread that was wanted could not be started.
    pub(crate) fn thread_failed(&self) {
        lock(&self.state).threads -= 1;
    }

    /// Waits for a call that may run.
    pub(crate) fn take(&self) -> Running {
        let mut state = lock(&self.state);
        loop {
            if let Some(label) = self.next_turn(&mut state) {
                return self.start(&mut state, &label);
            }
            state.idle += 1;
            let waited = self.pushed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// The next function that may run now.
    fn next_turn(&self, state: &mut State) -> Option<String> {
        while state.n_running < self.threads_max {
            let label = state.turns.pop_front()?;
            // A call that went on may have taken the room. There is another turn when there is room again.
            if state.running(&label) < self.slots {
                return Some(label);
            }
        }
        None
    }

    fn start(&self, state: &mut State, label: &str) -> Running {
        let waiting = state.waiting.get_mut(label);
        let waiting = waiting.expect("a function with a turn has calls");
        let (call, since) = waiting
            .pop_front()
            .expect("a function with a turn has calls");
        if waiting.is_empty() {
            state.waiting.remove(label);
        }
        state.n_waiting -= 1;
        state.take_room(label);
        self.give_turn(state, label);
        Running {
            call,
            since,
            calls: self.clone(),
        }
    }

    /// Lets a function have its turn, behind the others, if calls wait and more may run.
    fn give_turn(&self, state: &mut State, label: &str) {
        let waits = state.waiting.contains_key(label);
        if waits && state.running(label) < self.slots && !state.turns.iter().any(|of| of == label) {
            state.turns.push_back(label.to_owned());
        }
    }

    fn ended(&self, label: &str) {
        self.give_back(&mut lock(&self.state), label);
    }

    /// Gives the room of a call to one that would go on, or else to one that waits.
    fn give_back(&self, state: &mut State, label: &str) {
        state.free_room(label);
        while state.running(label) < self.slots
            && let Some(returning) = state.next_returning(label)
        {
            // One that is gone has taken its room back itself.
            if returning.send(()).is_ok() {
                state.take_room(label);
                state.paused -= 1;
            }
        }
        self.give_turn(state, label);
        self.pushed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use weft_core::{Digest, Limits};

    use super::*;

    pub(crate) fn call(label: &str) -> Call {
        let request = InvokeRequest {
            request: 0,
            digest: Digest::from_sha256(&[0; 32]),
            artefact: Digest::from_sha256(&[1; 32]),
            function: "f".into(),
            label: label.into(),
            params: Vec::new(),
            limits: Limits::default(),
            seed: 0,
            started_ms: 0,
            stream: None,
            depth: 0,
        };
        (Box::new(request), Vec::new())
    }

    fn label(running: &Running) -> &str {
        &running.call.0.label
    }

    #[test]
    fn a_function_holds_its_share_and_others_have_theirs() {
        let calls = Calls::new(2);
        for _ in 0..8 {
            calls.push(call("spin")).expect("there is room");
        }
        let spinning: Vec<Running> = (0..2).map(|_| calls.take()).collect();
        assert!(
            lock(&calls.state).turns.is_empty(),
            "two of one function run"
        );
        calls.push(call("other")).expect("there is room");
        let other = calls.take();
        assert_eq!(label(&other), "other");
        drop(spinning);
        // Those that wait come when others end.
        let next = calls.take();
        assert_eq!(label(&next), "spin");
    }

    #[test]
    fn functions_take_turns() {
        let calls = Calls::new(2);
        for of in ["a", "a", "b", "a", "b"] {
            calls.push(call(of)).expect("there is room");
        }
        let taken: Vec<Running> = (0..4).map(|_| calls.take()).collect();
        let order: Vec<&str> = taken.iter().map(label).collect();
        assert_eq!(order, ["a", "b", "a", "b"]);
    }

    #[test]
    fn threads_are_wanted_until_there_are_enough() {
        let calls = Calls::new(1);
        let mut threads = 0;
        for number in 0..20 {
            if calls
                .push(call(&number.to_string()))
                .expect("there is room")
            {
                threads += 1;
            }
        }
        assert_eq!(threads, THREADS_PER_SLOT);
    }

    #[test]
    fn a_thread_that_waits_does_not_stand_for_all_calls_of_a_function() {
        let calls = Calls::new(4);
        {
            let mut state = lock(&calls.state);
            (state.threads, state.idle) = (1, 1);
        }
        let pushed = (0..6).map(|_| calls.push(call("a")).expect("there is room"));
        let wanted: Vec<bool> = pushed.collect();
        assert_eq!(wanted, [false, true, true, true, true, true]);
    }

    #[test]
    fn deeper_calls_of_a_function_come_first() {
        let calls = Calls::new(4);
        for (number, depth) in [(1, 0), (2, 1), (3, 0), (4, 2), (5, 1)] {
            let (mut request, input) = call("a");
            (request.request, request.depth) = (number, depth);
            calls.push((request, input)).expect("there is room");
        }
        let taken: Vec<Running> = (0..4).map(|_| calls.take()).collect();
        let order: Vec<u64> = taken.iter().map(|one| one.call.0.request).collect();
        assert_eq!(order, [4, 2, 5, 1]);
    }

    #[test]
    fn more_calls_than_may_wait_come_back() {
        let calls = Calls::new(1);
        for _ in 0..WAITING_MAX {
            calls.push(call("a")).expect("there is room");
        }
        let (request, _) = calls.push(call("b")).expect_err("too many wait");
        assert_eq!(request.label, "b");
    }
}
