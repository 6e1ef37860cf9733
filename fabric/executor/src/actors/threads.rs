//! Threads on which turns run, each with a runtime of its own: they are started when they are needed, and stay.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use weft_core::{ActorRef, lock};

use super::bounds::MAX_TURNS;
use super::open_shard::OpenShard;

/// An actor that is to have a turn.
pub(super) struct Ready {
    pub(super) open: Arc<OpenShard>,
    pub(super) actor: ActorRef,
}

struct State<T> {
    ready: VecDeque<T>,
    threads: usize,
    idle: usize,
}

/// Actors that are to have turns, in order, and the threads that take them.
pub(super) struct Threads<T = Ready> {
    state: Mutex<State<T>>,
    pushed: Condvar,
}

impl<T> Default for Threads<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                threads: 0,
                idle: 0,
            }),
            pushed: Condvar::new(),
        }
    }
}

impl<T> Threads<T> {
    /// Adds a turn. Returns whether another thread is to be started for it, which counts as started.
    pub(super) fn push(&self, ready: T) -> bool {
        let mut state = lock(&self.state);
        state.ready.push_back(ready);
        self.pushed.notify_one();
        let is_wanted = state.idle < state.ready.len() && state.threads < MAX_TURNS;
        state.threads += usize::from(is_wanted);
        is_wanted
    }

    /// A thread could not be started. Returns the turns that nobody will take, if there is no other thread.
    pub(super) fn not_started(&self) -> VecDeque<T> {
        let mut state = lock(&self.state);
        state.threads -= 1;
        match state.threads {
            0 => std::mem::take(&mut state.ready),
            _ => VecDeque::new(),
        }
    }

    /// Waits for a turn.
    pub(super) fn take(&self) -> T {
        let mut state = lock(&self.state);
        loop {
            if let Some(ready) = state.ready.pop_front() {
                return ready;
            }
            state.idle += 1;
            let waited = self.pushed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_wanted_until_there_are_enough() {
        let threads = Threads::default();
        let wanted = (0..MAX_TURNS + 10).filter(|n| threads.push(*n)).count();
        assert_eq!(wanted, MAX_TURNS);
        assert_eq!((threads.take(), threads.take()), (0, 1));
    }

    #[test]
    fn turns_that_no_thread_can_take_come_back() {
        let threads = Threads::default();
        assert!(threads.push('a') && threads.push('b'));
        assert!(
            threads.not_started().is_empty(),
            "the other thread takes both"
        );
        assert_eq!(threads.not_started(), ['a', 'b']);
        assert!(threads.push('c'));
    }
}
