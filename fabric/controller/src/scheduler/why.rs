//! Reasons why a job is where it is, out of the data that decides.

use serde::{Deserialize, Serialize};
use weft_control::{Job, JobState, Running, Step};
use weft_core::{ErrorCode, JobId, NodeId, Problem, TenantId};

use super::dispatch::MAX_RECORDING;
use super::leadership::Phase;
use super::nodes::NodeView;
use super::quarantine::is_trusted;
use super::{AHEAD, Scheduler, Turn, job};

/// Knowledge of the leader's scheduler of a job, or of a tenant's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Why {
    /// Reasons, for people.
    pub(crate) reasons: Vec<String>,
    /// Tasks of the tenant that wait for a slot.
    pub(crate) tasks_waiting: usize,
    /// Plans, publications, descriptions and checks of the tenant that wait for an executor.
    pub(crate) steps_waiting: usize,
    /// The nodes, and whether they take more work of the tenant.
    pub(crate) nodes: Vec<WhyNode>,
}

/// Reason why a node takes work of a tenant, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WhyNode {
    pub(crate) id: NodeId,
    pub(crate) slots: u32,
    /// Tasks that it was sent.
    pub(crate) tasks: usize,
    /// Whether it takes one more.
    pub(crate) takes_work: bool,
    /// Reason, for people.
    pub(crate) reason: String,
}

impl Why {
    /// The explanation of a job of which the scheduler knows nothing any more.
    pub(crate) fn of_archived() -> Self {
        Self {
            reasons: vec!["it has ended, and is archived".into()],
            tasks_waiting: 0,
            steps_waiting: 0,
            nodes: Vec::new(),
        }
    }
}

impl Scheduler {
    /// Explains where a job is, or the tenant's queue without one.
    ///
    /// Errors: there is no such job here: it was archived, or never was.
    pub(super) fn why(
        &self,
        turn: &Turn<'_>,
        tenant: &TenantId,
        id: Option<&JobId>,
    ) -> Result<Why, Problem> {
        let mut reasons = Vec::new();
        match id {
            Some(id) => match job(turn.state, tenant, id) {
                Some(job) => self.of_job(job, &mut reasons),
                None => {
                    let detail = format!("the job `{id}` has ended and is archived, or never was");
                    return Err(Problem::new(ErrorCode::NotFound, detail));
                }
            },
            None => self.of_queue(tenant, &mut reasons),
        }
        match &self.phase {
            Phase::Leading { .. } => {}
            Phase::Waiting(_) => reasons.push(
                "a new leader has taken over, and waits for nodes to report, 2.5 s at most".into(),
            ),
            Phase::Following => reasons.push("this controller does not lead".into()),
        }
        if self.recording.len() >= MAX_RECORDING {
            reasons.push(format!(
                "{MAX_RECORDING} results are being recorded: no tasks are sent until some are"
            ));
        }
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|(id, view)| self.of_node(turn, tenant, id, view));
        let (tasks_waiting, steps_waiting) = self.queue.waiting(tenant);
        Ok(Why {
            reasons,
            tasks_waiting,
            steps_waiting,
            nodes: nodes.collect(),
        })
    }

    fn of_queue(&self, tenant: &TenantId, reasons: &mut Vec<String>) {
        let (tasks, steps) = self.queue.waiting(tenant);
        reasons.push(match (tasks, steps) {
            (0, 0) => "nothing waits".into(),
            (tasks, steps) => format!(
                "{tasks} tasks wait for a slot, and {steps} plans, publications or checks for an executor"
            ),
        });
        let others = self.queue.busy().filter(|other| *other != tenant).count();
        if others > 0 {
            reasons.push(format!("{others} other tenants have work: they take turns"));
        }
    }

    fn of_job(&self, job: &Job, reasons: &mut Vec<String>) {
        match &job.state {
            JobState::Planning(_) if self.preparing.contains(&job.id) => {
                reasons.push("its components are being compiled for the nodes' engine".into());
            }
            JobState::Planning(_) => reasons.push(self.of_step(&job.id, Step::Plan, "planned")),
            JobState::Running(running) => self.of_stages(&job.id, running, reasons),
            JobState::Publishing(_) => {
                reasons.push(self.of_step(&job.id, Step::Publish, "published"));
            }
            JobState::Ending(_) => {
                reasons.push("it has ended, and is being cleaned up and archived".into());
            }
        }
    }

    fn of_step(&self, id: &JobId, step: Step, done: &str) -> String {
        let key = (id.clone(), step);
        let at = self.nodes.iter().find(|(_, view)| {
            let mut executors = view.executors.values();
            executors.any(|executor| executor.steps.contains(&key))
        });
        match at {
            Some((node, _)) => format!("it is being {done} on `{node}`"),
            None if self.steps.contains(&key) => {
                format!("it was {done}, and that is being recorded")
            }
            None => format!("it waits for an executor to be {done}"),
        }
    }

    fn of_stages(&self, id: &JobId, running: &Running, reasons: &mut Vec<String>) {
        let is_done = |stage: usize| {
            let n_tasks = running.plan.stages[stage].n_tasks as usize;
            running.stages[stage].commits.len() == n_tasks
        };
        for (position, shape) in running.plan.stages.iter().enumerate() {
            if is_done(position) {
                continue;
            }
            let mut reads = shape.reads.iter().map(|edge| edge.stage as usize);
            if let Some(before) = reads.find(|stage| !is_done(*stage)) {
                let before = &running.plan.stages[before].name;
                reasons.push(format!("stage `{}` waits for stage `{before}`", shape.name));
                continue;
            }
            let of_stage =
                |task: &weft_core::TaskId| task.job == *id && task.stage as usize == position;
            let done = running.stages[position].commits.len();
            let sent = self.nodes.values().flat_map(|view| view.executors.values());
            let sent = sent.flat_map(|one| &one.running);
            let sent = sent.filter(|(task, _)| of_stage(task)).count();
            let suspects = self.suspects.iter().filter(|task| of_stage(task)).count();
            let mut reason = format!(
                "stage `{}`: {done} of {} tasks are done, {sent} were sent to nodes, {} wait",
                shape.name,
                shape.n_tasks,
                (shape.n_tasks as usize).saturating_sub(done + sent)
            );
            if suspects > 0 {
                reason += &format!(
                    "; {suspects} ran when their executor died, and run alone, one after the other"
                );
            }
            let failures: u32 = running.stages[position].failures.values().sum();
            if failures > 0 {
                reason += &format!("; {failures} attempts were lost to the platform");
            }
            reasons.push(reason);
        }
    }

    fn of_node(&self, turn: &Turn<'_>, tenant: &TenantId, id: &NodeId, view: &NodeView) -> WhyNode {
        let tasks = view.n_running();
        let room = view.slots as usize + AHEAD;
        let executor = view.executors.values().find(|one| one.is_of(tenant));
        let restart = self.restarts.get(&(id.clone(), tenant.clone()));
        let paused = restart.and_then(|restart| restart.not_before_ms);
        let reason = if let Some(since_ms) = view.down_since_ms {
            let down_ms = turn.now.monotonic_ms.saturating_sub(since_ms);
            Err(format!("it was last heard {down_ms} ms ago"))
        } else if !view.takes_commands() {
            Err("it has not reported to this leader yet".into())
        } else if view.draining {
            Err("it drains: it takes no new work".into())
        } else if let Some(executor) = executor {
            match (executor.ready, tasks < room) {
                (false, _) if executor.stopping => Err("its executor is ending".into()),
                (false, _) => Err("its executor is starting".into()),
                (true, false) => Err(format!(
                    "it has {tasks} tasks: as many as it has slots, and {AHEAD} more"
                )),
                (true, true) if !is_trusted(view, turn.now.monotonic_ms) => Ok(
                    "attempts on it kept failing: it takes work if no other node does".to_owned(),
                ),
                (true, true) => Ok("it takes work".to_owned()),
            }
        } else if let Some(at_ms) = paused {
            let left_ms = at_ms.saturating_sub(turn.now.monotonic_ms);
            Err(format!(
                "its executor died: another one starts in {left_ms} ms"
            ))
        } else if view.granting.contains(tenant) {
            Err("a lease for its executor is being recorded".into())
        } else {
            Err("it has no executor of the tenant".into())
        };
        WhyNode {
            id: id.clone(),
            slots: view.slots,
            tasks,
            takes_work: reason.is_ok(),
            reason: reason.unwrap_or_else(|reason| reason),
        }
    }
}
