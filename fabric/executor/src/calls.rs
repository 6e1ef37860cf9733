//! Calls that wait for a thread. One function holds as many threads as the executor has slots, while others
//! have theirs: what waits or spins in one function does not keep another one's calls.
//!
//! ```text
//! agent ──push──▶ by function, in order ──take, functions in turn──▶ [`THREADS_PER_SLOT`] a slot
//! ```
//!
//! The agent bounds what waits: a few calls of each function. Threads are started when they are needed, and stay; what
//! runs shares the cores as the system sees fit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use weft_core::lock;
use weft_protocol::InvokeRequest;

/// Threads for calls, for each slot: so many functions may have all of theirs at work.
const THREADS_PER_SLOT: u32 = 8;
/// All of them, but for twice as many as there are slots: two functions have theirs. Each runs a sandbox, of which an
/// executor has 512.
const THREADS_MAX: u32 = 64;
/// Calls that wait. The agent sends a few of each function, and more only of those that clients give up.
const WAITING_MAX: usize = 4096;

/// An invocation with its input.
pub(crate) type Call = (Box<InvokeRequest>, Vec<u8>);

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, VecDeque<Call>>,
    n_waiting: usize,
    /// Functions of which calls wait and more may run; each is there once.
    turns: VecDeque<String>,
    /// Calls that run, by function.
    running: HashMap<String, u32>,
    threads: u32,
    idle: u32,
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

    /// Adds a call. Returns whether another thread is wanted for it: whoever starts it says so by
    /// [`Calls::thread_started`]. Errors: the call, if too many wait.
    pub(crate) fn push(&self, call: Call) -> Result<bool, Call> {
        let mut state = lock(&self.state);
        if state.n_waiting >= WAITING_MAX {
            return Err(call);
        }
        state.n_waiting += 1;
        let label = call.0.label.clone();
        state
            .waiting
            .entry(label.clone())
            .or_default()
            .push_back(call);
        self.give_turn(&mut state, &label);
        self.pushed.notify_one();
        let wanted = state.idle < self.runnable(&state) && state.threads < self.threads_max;
        Ok(wanted)
    }

    /// Calls that could run now, if there were threads.
    fn runnable(&self, state: &State) -> u32 {
        let of = |label: &String| {
            let waiting = state.waiting.get(label).map_or(0, VecDeque::len);
            let running = state.running.get(label).copied().unwrap_or(0);
            let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
            waiting.min(self.slots.saturating_sub(running))
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

    /// A thread takes calls from now on.
    pub(crate) fn thread_started(&self) {
        lock(&self.state).threads += 1;
    }

    /// Waits for a call that may run.
    pub(crate) fn take(&self) -> Running {
        let mut state = lock(&self.state);
        loop {
            if let Some(label) = state.turns.pop_front() {
                return self.start(&mut state, &label);
            }
            state.idle += 1;
            let waited = self.pushed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn start(&self, state: &mut State, label: &str) -> Running {
        let waiting = state.waiting.get_mut(label);
        let waiting = waiting.expect("a function with a turn has calls");
        let call = waiting
            .pop_front()
            .expect("a function with a turn has calls");
        if waiting.is_empty() {
            state.waiting.remove(label);
        }
        state.n_waiting -= 1;
        *state.running.entry(label.to_owned()).or_default() += 1;
        self.give_turn(state, label);
        Running {
            call,
            calls: self.clone(),
        }
    }

    /// Lets a function have its turn, behind the others, if calls wait and more may run.
    fn give_turn(&self, state: &mut State, label: &str) {
        let runs = state.running.get(label).copied().unwrap_or(0);
        let waits = state.waiting.contains_key(label);
        if waits && runs < self.slots && !state.turns.iter().any(|of| of == label) {
            state.turns.push_back(label.to_owned());
        }
    }

    fn ended(&self, label: &str) {
        let mut state = lock(&self.state);
        if let Some(running) = state.running.get_mut(label) {
            *running -= 1;
            if *running == 0 {
                state.running.remove(label);
            }
        }
        self.give_turn(&mut state, label);
        self.pushed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use weft_core::{Digest, Limits};

    use super::*;

    fn call(label: &str) -> Call {
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
                calls.thread_started();
                threads += 1;
            }
        }
        assert_eq!(threads, THREADS_PER_SLOT);
    }

    #[test]
    fn a_thread_that_waits_does_not_stand_for_all_calls_of_a_function() {
        let calls = Calls::new(4);
        lock(&calls.state).idle = 1;
        calls.thread_started();
        let pushed = (0..6).map(|_| calls.push(call("a")).expect("there is room"));
        let wanted: Vec<bool> = pushed.collect();
        assert_eq!(wanted, [false, true, true, true, true, true]);
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
