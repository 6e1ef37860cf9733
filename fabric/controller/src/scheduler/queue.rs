//! Tasks that wait for a slot, in the order in which their stages became ready.

use std::collections::{BTreeMap, VecDeque};

use weft_core::{JobId, TaskId};

/// Waiting tasks, and how often each task was started.
#[derive(Default)]
pub(crate) struct ReadyQueue {
    waiting: VecDeque<TaskId>,
    attempts: BTreeMap<TaskId, u32>,
}

impl ReadyQueue {
    /// Adds a task at the end.
    pub(crate) fn push(&mut self, task: TaskId) {
        self.waiting.push_back(task);
    }

    /// Adds a task that comes next.
    pub(crate) fn push_front(&mut self, task: TaskId) {
        self.waiting.push_front(task);
    }

    /// How many tasks wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True where the task waits.
    pub(crate) fn holds(&self, task: &TaskId) -> bool {
        self.waiting.contains(task)
    }

    /// The task that comes next.
    pub(crate) fn first(&self) -> Option<&TaskId> {
        self.waiting.front()
    }

    /// The next task and the number of its attempt, counted from 0.
    pub(crate) fn pop(&mut self) -> Option<(TaskId, u32)> {
        let task = self.waiting.pop_front()?;
        let attempts = self.attempts.entry(task.clone()).or_default();
        let attempt = *attempts;
        *attempts += 1;
        Some((task, attempt))
    }

    /// Drops all that is known of a job.
    pub(crate) fn forget(&mut self, job: &JobId) {
        self.waiting.retain(|task| task.job != *job);
        self.attempts.retain(|task, _| task.job != *job);
    }
}
