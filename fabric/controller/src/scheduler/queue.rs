//! Work that waits for an executor, by tenant. Tenants take turns.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::oneshot;
use weft_control::Effect;
use weft_core::{Description, Digest, JobId, Problem, TaskId, TenantId};
use weft_protocol::PlanRequest;

use super::Steps;
use super::io::CheckAnswer;

/// A component that waits to describe itself.
pub(super) struct Describe {
    pub(super) digest: Digest,
    pub(super) compatibility: String,
    pub(super) artefact: Digest,
    pub(super) answer: oneshot::Sender<Result<Description, Problem>>,
}

/// Waiting work of one tenant.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) tasks: VecDeque<TaskId>,
    pub(super) steps: Steps,
    pub(super) describes: VecDeque<Describe>,
    pub(super) checks: VecDeque<(Box<PlanRequest>, CheckAnswer)>,
}

impl Waiting {
    /// Returns whether an executor is needed.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
            && self.steps.is_empty()
            && self.describes.is_empty()
            && self.checks.is_empty()
    }
}

/// Waiting work of all tenants.
#[derive(Default)]
pub(super) struct Queue {
    by_tenant: BTreeMap<TenantId, Waiting>,
    /// The tenant that had its turn last.
    last: Option<TenantId>,
    /// How often each task waits.
    tasks: BTreeMap<TaskId, u32>,
}

impl Queue {
    pub(super) fn of(&mut self, tenant: &TenantId) -> &mut Waiting {
        // Looked up first: most tenants are known, and an entry needs a copy of the id.
        if !self.by_tenant.contains_key(tenant) {
            self.by_tenant.insert(tenant.clone(), Waiting::default());
        }
        self.by_tenant.get_mut(tenant).expect("it is there")
    }

    /// Adds a task at the end.
    pub(super) fn push(&mut self, tenant: &TenantId, task: TaskId) {
        *self.tasks.entry(task.clone()).or_default() += 1;
        self.of(tenant).tasks.push_back(task);
    }

    /// Adds a task that comes next.
    pub(super) fn push_front(&mut self, tenant: &TenantId, task: TaskId) {
        *self.tasks.entry(task.clone()).or_default() += 1;
        self.of(tenant).tasks.push_front(task);
    }

    /// Adds a step, unless the same one waits.
    pub(super) fn push_step(&mut self, tenant: &TenantId, step: Effect) {
        let steps = &mut self.of(tenant).steps;
        if !steps.contains(&step) {
            steps.push_back(step);
        }
    }

    /// Takes the tenant's next task out.
    pub(super) fn pop(&mut self, tenant: &TenantId) -> Option<TaskId> {
        let task = self.by_tenant.get_mut(tenant)?.tasks.pop_front()?;
        if let Some(n) = self.tasks.get_mut(&task) {
            *n -= 1;
            if *n == 0 {
                self.tasks.remove(&task);
            }
        }
        Some(task)
    }

    /// Returns whether the task waits.
    pub(super) fn holds(&self, task: &TaskId) -> bool {
        self.tasks.contains_key(task)
    }

    /// Tenants with waiting work.
    pub(super) fn busy(&self) -> impl Iterator<Item = &TenantId> {
        let busy = |(_, waiting): &(&TenantId, &Waiting)| !waiting.is_empty();
        let tenants = self.by_tenant.iter().filter(busy);
        tenants.map(|(tenant, _)| tenant)
    }

    /// Tenants with waiting work, in the order of their turns.
    pub(super) fn tenants(&self) -> Vec<TenantId> {
        let mut tenants: Vec<TenantId> = self.busy().cloned().collect();
        let after = tenants.partition_point(|tenant| Some(tenant) <= self.last.as_ref());
        tenants.rotate_left(after);
        tenants
    }

    /// The tenant had its turn.
    pub(super) fn had_turn(&mut self, tenant: &TenantId) {
        self.last = Some(tenant.clone());
    }

    /// Tasks of a tenant that wait, and other work of it.
    pub(super) fn waiting(&self, tenant: &TenantId) -> (usize, usize) {
        self.by_tenant.get(tenant).map_or((0, 0), |one| {
            let steps = one.steps.len() + one.describes.len() + one.checks.len();
            (one.tasks.len(), steps)
        })
    }

    /// Tasks that wait.
    pub(super) fn n_tasks(&self) -> usize {
        self.by_tenant.values().map(|one| one.tasks.len()).sum()
    }

    /// Other work that waits.
    pub(super) fn n_steps(&self) -> usize {
        let steps = |one: &Waiting| one.steps.len() + one.describes.len() + one.checks.len();
        self.by_tenant.values().map(steps).sum()
    }

    /// Drops a job's tasks and steps.
    pub(super) fn forget(&mut self, tenant: &TenantId, job: &JobId) {
        let Some(waiting) = self.by_tenant.get_mut(tenant) else {
            return;
        };
        if waiting.tasks.iter().any(|task| task.job == *job) {
            waiting.tasks.retain(|task| task.job != *job);
            self.tasks.retain(|task, _| task.job != *job);
        }
        waiting.steps.retain(|step| step.job() != job);
    }

    /// Drops a check that nobody waits for.
    pub(super) fn forget_check(&mut self, job: &JobId) {
        for waiting in self.by_tenant.values_mut() {
            waiting.checks.retain(|(request, _)| request.job != *job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().expect("it is a tenant's id")
    }

    fn task(task: u32) -> TaskId {
        TaskId {
            job: JobId::new(1, 1),
            stage: 0,
            task,
        }
    }

    #[test]
    fn tenants_take_turns() {
        let mut queue = Queue::default();
        for (name, number) in [("a", 1), ("b", 2), ("c", 3)] {
            queue.push(&tenant(name), task(number));
        }
        assert_eq!(queue.tenants(), ["a", "b", "c"].map(tenant));
        queue.had_turn(&tenant("a"));
        assert_eq!(queue.tenants(), ["b", "c", "a"].map(tenant));
        assert_eq!(queue.pop(&tenant("b")), Some(task(2)));
        assert_eq!(queue.tenants(), ["c", "a"].map(tenant));
    }

    #[test]
    fn a_task_may_wait_twice_and_is_forgotten_with_its_job() {
        let (mut queue, a) = (Queue::default(), tenant("a"));
        queue.push(&a, task(1));
        queue.push_front(&a, task(1));
        assert_eq!(queue.pop(&a), Some(task(1)));
        assert!(queue.holds(&task(1)));
        queue.push_step(&a, Effect::PublishJob { job: task(1).job });
        queue.push_step(&a, Effect::PublishJob { job: task(1).job });
        assert_eq!((queue.n_tasks(), queue.n_steps()), (1, 1));
        queue.forget(&a, &task(1).job);
        assert!(!queue.holds(&task(1)));
        assert_eq!((queue.n_tasks(), queue.n_steps()), (0, 0));
        assert_eq!(queue.tenants(), []);
    }
}
