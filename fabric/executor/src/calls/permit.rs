//! Room of a call that spawns futures: given to others while it waits for them, and taken again before theirs.
//!
//! ```text
//! runs ──pause──▶ waits, keeps its thread and its sandbox ──end──▶ waits for room ──▶ runs
//! ```

use std::sync::Arc;

use tokio::sync::oneshot;
use weft_core::lock;

use super::{Calls, Running};

/// Calls of one executor that have futures: each keeps a sandbox while it waits, of which an executor has 512. Actors
/// that are in memory have 256 of them, and calls that run 64.
pub(crate) const MAX_SPAWNERS: usize = 128;
/// Futures of these calls that are under way, in equal parts. A node takes 1,024 spawned invocations of one depth: with
/// more under way, a function that spawns spawners would be refused what it waits for.
const MAX_UNDER_WAY: usize = 512;

/// Leave of a call to run.
pub(crate) struct Permit {
    calls: Calls,
    label: String,
    /// Starts a thread that takes calls.
    more: Arc<dyn Fn() + Send + Sync>,
}

/// One of the calls that may have futures, until it is dropped.
pub(crate) struct Seat(Calls);

/// Part of a call in the futures that an executor may have under way.
pub(crate) struct Share(Calls);

/// Time in which a call does not run.
pub(crate) struct Pause<'a> {
    permit: &'a Permit,
    /// Comes when there is room again.
    returning: Option<oneshot::Receiver<()>>,
    has_room: bool,
}

impl Running {
    /// Leave of this call to run. `more`: starts a thread that takes calls, because the call's own waits in a pause.
    pub(crate) fn permit(&self, more: Arc<dyn Fn() + Send + Sync>) -> Permit {
        Permit {
            calls: self.calls.clone(),
            label: self.call.0.label.clone(),
            more,
        }
    }
}

impl Permit {
    /// Lets the call have futures. Nothing if too many calls have some.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let mut state = lock(&self.calls.state);
        if state.spawners >= MAX_SPAWNERS {
            return None;
        }
        state.spawners += 1;
        Some(Seat(self.calls.clone()))
    }

    /// The call's part in what may be under way.
    pub(crate) fn share(&self) -> Share {
        Share(self.calls.clone())
    }

    /// Gives the room of the call to others. Whoever drops the pause has it back at once: the call ends then.
    pub(crate) fn pause(&self) -> Pause<'_> {
        let wants_thread = {
            let mut state = lock(&self.calls.state);
            state.paused += 1;
            self.calls.give_back(&mut state, &self.label);
            self.calls.wants_thread(&mut state)
        };
        if wants_thread {
            (self.more)();
        }
        Pause {
            permit: self,
            returning: None,
            has_room: false,
        }
    }

    /// Takes room, or gets in line for it.
    fn return_to_room(&self) -> Option<oneshot::Receiver<()>> {
        let mut state = lock(&self.calls.state);
        if state.running(&self.label) < self.calls.slots {
            state.take_room(&self.label);
            state.paused -= 1;
            return None;
        }
        let (room, returning) = oneshot::channel();
        let line = state.returning.entry(self.label.clone()).or_default();
        line.push_back(room);
        Some(returning)
    }
}

impl Share {
    /// Futures that the call may have under way: as many as every other one that has some.
    pub(crate) fn futures(&self) -> usize {
        let spawners = lock(&self.0.state).spawners;
        MAX_UNDER_WAY / spawners.max(1)
    }
}

impl Pause<'_> {
    /// Waits until there is room for the call.
    pub(crate) async fn end(mut self) {
        self.returning = self.permit.return_to_room();
        if let Some(returning) = &mut self.returning
            && returning.await.is_err()
        {
            return;
        }
        self.has_room = true;
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if self.has_room {
            return;
        }
        let mut state = lock(&self.permit.calls.state);
        let returning = self.returning.as_mut();
        let was_given = returning.is_some_and(|returning| returning.try_recv().is_ok());
        if !was_given {
            state.take_room(&self.permit.label);
            state.paused -= 1;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.0.state).spawners -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::poll;

    use super::*;
    use crate::calls::call;

    /// A call of the function that runs, and its permit.
    fn running(calls: &Calls, label: &str) -> (Running, Permit) {
        calls.push(call(label)).expect("there is room");
        let running = calls.take();
        let permit = running.permit(Arc::new(|| {}));
        (running, permit)
    }

    fn turns(calls: &Calls) -> usize {
        lock(&calls.state).turns.len()
    }

    #[tokio::test]
    async fn a_function_may_wait_for_itself() {
        let calls = Calls::new(1);
        let (parent, permit) = running(&calls, "f");
        calls.push(call("f")).expect("there is room");
        assert_eq!(turns(&calls), 0, "one runs");
        let pause = permit.pause();
        assert_eq!(turns(&calls), 1, "it waits, so another one may run");
        drop(calls.take());
        pause.end().await;
        calls.push(call("f")).expect("there is room");
        assert_eq!(turns(&calls), 0, "it runs again");
        drop(parent);
        assert_eq!(turns(&calls), 1);
    }

    #[tokio::test]
    async fn whoever_has_waited_goes_on_before_others_begin() {
        let calls = Calls::new(1);
        let (parent, permit) = running(&calls, "f");
        let pause = permit.pause();
        let (child, _) = running(&calls, "f");
        calls.push(call("f")).expect("there is room");
        let mut end = pin!(pause.end());
        assert!(poll!(&mut end).is_pending(), "the child runs");
        drop(child);
        assert!(poll!(&mut end).is_ready());
        assert_eq!(turns(&calls), 0, "the other one waits for the parent");
        drop(parent);
        assert_eq!(turns(&calls), 1);
    }

    #[tokio::test]
    async fn calls_that_end_in_a_pause_leave_the_counts_right() {
        let calls = Calls::new(1);
        // While it waits for a future, in line, and after it was given room.
        for step in 0..3 {
            let (parent, permit) = running(&calls, "f");
            let pause = permit.pause();
            let (child, _) = running(&calls, "f");
            if step == 0 {
                drop(pause);
                drop(child);
            } else {
                let mut end = Box::pin(pause.end());
                assert!(poll!(&mut end).is_pending());
                let child = (step == 1).then_some(child);
                drop(end);
                drop(child);
            }
            drop(parent);
            let state = lock(&calls.state);
            let counts = (state.n_running, state.paused, state.running.len());
            assert_eq!(counts, (0, 0, 0), "step {step}");
        }
    }

    #[test]
    fn a_pause_asks_for_a_thread_if_calls_wait() {
        let calls = Calls::new(1);
        calls.push(call("f")).expect("there is room");
        let parent = calls.take();
        let started = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&started);
        let permit = parent.permit(Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        drop(permit.pause());
        assert_eq!(started.load(Ordering::Relaxed), 0, "nothing waits");
        calls.push(call("f")).expect("there is room");
        let _pause = permit.pause();
        assert_eq!(started.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn spawners_are_bounded() {
        let calls = Calls::new(1);
        let (_parent, permit) = running(&calls, "f");
        let mut seats: Vec<Seat> = (0..MAX_SPAWNERS).filter_map(|_| permit.seat()).collect();
        assert_eq!(seats.len(), MAX_SPAWNERS);
        assert!(permit.seat().is_none());
        assert_eq!(permit.share().futures(), MAX_UNDER_WAY / MAX_SPAWNERS);
        seats.pop();
        assert!(permit.seat().is_some());
        seats.truncate(2);
        assert_eq!(permit.share().futures(), MAX_UNDER_WAY / 2);
    }
}
