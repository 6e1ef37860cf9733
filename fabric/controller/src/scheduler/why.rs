//! Reasons why a job is where it is, out of the data that decides.

use serde::{Deserialize, Serialize};
use weft_control::{Job, JobState, Running, Step};
use weft_core::{ErrorCode, JobId, NodeId, Problem, TaskId, TenantId};

use super::dispatch::MAX_RECORDING;
use super::executors::Restart;
use super::leadership::Phase;
use super::nodes::NodeView;
use super::quarantine::is_trusted;
use super::{AHEAD, Scheduler, Turn, failures, job};

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

/// A job, or one of its stages, or a task of that, to be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WhyOf {
    pub(crate) job: JobId,
    /// Name of the stage.
    #[serde(default)]
    pub(crate) stage: Option<String>,
    /// Position of the task in the stage. Nothing without a stage.
    #[serde(default)]
    pub(crate) task: Option<u32>,
}

impl Why {
    /// The explanation of a job of which the scheduler knows nothing any more.
    fn of_archived() -> Self {
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
    /// A job that is not in the state has been archived: whoever asks has seen it. Errors: it has no such
    /// stage or task.
    pub(super) fn why(
        &self,
        turn: &Turn<'_>,
        tenant: &TenantId,
        of: Option<&WhyOf>,
    ) -> Result<Why, Problem> {
        let mut reasons = match of {
            Some(of) => match job(turn.state, tenant, &of.job) {
                Some(job) => self.of_job(job, of)?,
                None => return Ok(Why::of_archived()),
            },
            None => self.of_queue(tenant),
        };
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

    fn of_queue(&self, tenant: &TenantId) -> Vec<String> {
        let mut reasons = self.shards.reasons(tenant);
        match self.queue.waiting(tenant) {
            (0, 0) if reasons.is_empty() => reasons.push("nothing waits".into()),
            (0, 0) => {}
            (tasks, steps) => reasons.push(format!(
                "{tasks} tasks wait for a slot, and {steps} plans, publications or checks for an executor"
            )),
        }
        let others = self.queue.busy().filter(|other| *other != tenant).count();
        if others > 0 {
            reasons.push(format!("{others} other tenants have work: they take turns"));
        }
        reasons
    }

    fn of_job(&self, job: &Job, of: &WhyOf) -> Result<Vec<String>, Problem> {
        let reason = match &job.state {
            JobState::Planning(_) if self.preparing.contains(&job.id) => {
                "its components are being compiled for the nodes' engine".into()
            }
            JobState::Planning(_) => self.of_step(&job.id, Step::Plan, "planned"),
            JobState::Running(running) => return self.of_running(job, running, of),
            JobState::Publishing(_) => self.of_step(&job.id, Step::Publish, "published"),
            JobState::Ending(_) => "it has ended, and is being cleaned up and archived".into(),
        };
        let failed = failures::of_step(&job.events);
        Ok([reason].into_iter().chain(failed).collect())
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

    fn of_running(&self, job: &Job, running: &Running, of: &WhyOf) -> Result<Vec<String>, Problem> {
        let stages = &running.plan.stages;
        let Some(name) = &of.stage else {
            let open = (0..stages.len()).filter(|stage| !is_done(running, *stage));
            let reasons = open.map(|stage| self.of_stage(job, running, stage));
            return Ok(reasons.collect());
        };
        let not_found = |detail| Problem::new(ErrorCode::NotFound, detail);
        let Some(stage) = stages.iter().position(|shape| shape.name == *name) else {
            let names: Vec<&str> = stages.iter().map(|shape| shape.name.as_str()).collect();
            return Err(not_found(format!(
                "the job has no stage `{}`; its stages: {}",
                name.escape_debug(),
                names.join(", ")
            )));
        };
        let n_tasks = stages[stage].n_tasks;
        match of.task {
            None => Ok(vec![self.of_stage(job, running, stage)]),
            Some(task) if task >= n_tasks => Err(not_found(format!(
                "the stage `{name}` has {n_tasks} tasks, numbered from 0: there is no task {task}"
            ))),
            Some(task) => {
                let id = TaskId {
                    job: of.job.clone(),
                    stage: stage as u32,
                    task,
                };
                Ok(self.of_task(job, running, &id))
            }
        }
    }

    fn of_stage(&self, job: &Job, running: &Running, stage: usize) -> String {
        let shape = &running.plan.stages[stage];
        if let Some(before) = awaited(running, stage) {
            return format!("stage `{}` waits for stage `{before}`", shape.name);
        }
        let is_of_stage = |task: &TaskId| task.job == job.id && task.stage as usize == stage;
        let done = running.stages[stage].commits.len();
        let sent = self.nodes.values().flat_map(|view| view.executors.values());
        let sent = sent.flat_map(|one| &one.running);
        let sent = sent.filter(|(task, _)| is_of_stage(task)).count();
        let suspects = self
            .suspects
            .iter()
            .filter(|task| is_of_stage(task))
            .count();
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
        let failures: u32 = running.stages[stage].failures.values().sum();
        if failures > 0 {
            let last = failures::of_attempts(&job.events, &shape.name, None);
            reason += &format!("; {failures} attempts were lost to the platform{last}");
        }
        reason
    }

    fn of_task(&self, job: &Job, running: &Running, id: &TaskId) -> Vec<String> {
        let stage = id.stage as usize;
        let (shape, progress) = (&running.plan.stages[stage], &running.stages[stage]);
        let mut reasons = Vec::new();
        let mut say = |reason: String| {
            reasons.push(format!(
                "task {} of stage `{}` {reason}",
                id.task, shape.name
            ));
        };
        let is_committed = progress.commits.contains_key(&id.task);
        if is_committed {
            say("is done".into());
        } else if let Some(before) = awaited(running, stage) {
            say(format!("waits for stage `{before}`"));
        } else if self.suspects.contains(id) {
            say("ran when its executor died, and runs alone: nothing else runs beside it".into());
        }
        let mut is_sent = false;
        for (node, view) in &self.nodes {
            let attempts = view.executors.values().flat_map(|one| &one.running);
            for (_, attempt) in attempts.filter(|(task, _)| task == id) {
                is_sent = true;
                say(format!("was sent to `{node}`, as attempt {attempt}"));
            }
        }
        if self.queue.holds(id) {
            say("waits for a slot".into());
        } else if !is_committed && !is_sent && awaited(running, stage).is_none() {
            say("has a result that is being recorded, or is about to be sent again".into());
        }
        if let Some(failures) = progress.failures.get(&id.task) {
            let last = failures::of_attempts(&job.events, &shape.name, Some(id.task));
            say(format!(
                "has lost {failures} attempts to the platform{last}"
            ));
        }
        reasons
    }

    fn of_node(&self, turn: &Turn<'_>, tenant: &TenantId, id: &NodeId, view: &NodeView) -> WhyNode {
        let tasks = view.n_running();
        let room = view.slots as usize + AHEAD;
        let executor = view.executors.values().find(|one| one.is_of(tenant));
        let restart = self.restarts.get(&(id.clone(), tenant.clone()));
        let paused = restart.and_then(|restart| restart.not_before_ms);
        let stillborn = restart.and_then(Restart::reason);
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
                (false, _) => Err(match stillborn {
                    Some(stillborn) => format!("its executor is starting: {stillborn}"),
                    None => "its executor is starting".into(),
                }),
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
            let died = stillborn.unwrap_or_else(|| "its executor died".into());
            Err(format!("{died}: another one starts in {left_ms} ms"))
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

fn is_done(running: &Running, stage: usize) -> bool {
    let n_tasks = running.plan.stages[stage].n_tasks as usize;
    running.stages[stage].commits.len() == n_tasks
}

/// Name of a stage that is not done, and that this one reads.
fn awaited(running: &Running, stage: usize) -> Option<&str> {
    let stages = &running.plan.stages;
    let mut reads = stages[stage].reads.iter().map(|edge| edge.stage as usize);
    let before = reads.find(|before| !is_done(running, *before))?;
    Some(&stages[before].name)
}
