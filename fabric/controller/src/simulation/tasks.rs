//! Futures that the world polls, in an order that the seed decides.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use crate::scheduler::tests::random::Random;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    /// The controller that runs it, and dies with it.
    owner: u64,
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

/// Futures by number.
#[derive(Default)]
pub(super) struct Tasks {
    next: u64,
    tasks: BTreeMap<u64, Task>,
}

impl Tasks {
    pub(super) fn spawn(&mut self, owner: u64, future: impl Future<Output = ()> + 'static) {
        self.next += 1;
        let task = Task {
            owner,
            future: Box::pin(future),
            woken: Arc::new(Woken(AtomicBool::new(true))),
        };
        self.tasks.insert(self.next, task);
    }

    /// Polls what was woken, once, of owners that run.
    pub(super) fn poll(&mut self, random: &mut Random, runs: impl Fn(u64) -> bool) {
        let woken = self
            .tasks
            .iter()
            .filter(|(_, task)| runs(task.owner) && task.woken.0.load(Ordering::Relaxed));
        let mut woken: Vec<u64> = woken.map(|(number, _)| *number).collect();
        while !woken.is_empty() {
            let number = woken.swap_remove(random.below(woken.len()));
            let Some(task) = self.tasks.get_mut(&number) else {
                continue;
            };
            task.woken.0.store(false, Ordering::Relaxed);
            let waker = Waker::from(Arc::clone(&task.woken));
            let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                self.tasks.remove(&number);
            }
        }
    }

    /// The owner is gone, and all that it did.
    pub(super) fn drop_of(&mut self, owner: u64) {
        self.tasks.retain(|_, task| task.owner != owner);
    }
}
