//! What is sent to the executor, and when.

use weft_control::{Effect, Job, JobState};
use weft_core::{JobId, TaskId};
use weft_protocol::ManifestOutput;
use weft_protocol::ObjectRef;
use weft_protocol::{PlanRequest, PublishRequest, StageContext, TaskRequest, ToExecutor};

use super::{AHEAD, LiveExecutor, Request, Scheduler};
use crate::traces::Step;

impl Scheduler {
    pub(super) fn enqueue_stage(&mut self, job: &JobId, stage: u32) {
        let open = self.with_job(job, |found| {
            let JobState::Running(running) = &found.state else {
                return Vec::new();
            };
            let progress = &running.stages[stage as usize];
            (0..running.plan.stages[stage as usize].n_tasks)
                .filter(|task| !progress.commits.contains_key(task))
                .collect()
        });
        for task in open.unwrap_or_default() {
            let id = TaskId {
                job: job.clone(),
                stage,
                task,
            };
            if self.is_under_way(&id) {
                continue;
            }
            if self.settings.run_tasks_twice {
                self.queue.push(id.clone());
            }
            self.queue.push(id);
        }
    }

    /// True where the task waits, runs, or is about to be committed.
    pub(super) fn is_under_way(&self, id: &TaskId) -> bool {
        let runs = |executor: &LiveExecutor| executor.running.keys().any(|(task, _)| task == id);
        self.queue.holds(id)
            || self.executor.as_ref().is_some_and(runs)
            || self.commits.iter().any(|(job, commit)| {
                *job == id.job && commit.stage == id.stage && commit.task == id.task
            })
    }

    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::Describe { digest, answer } => self.describes.push_back((digest, answer)),
            Request::Check { request, answer } => self.checks.push_back((request, answer)),
            Request::Forget { job } => self.given_up.push(job),
        }
    }

    pub(super) async fn dispatch(&mut self) {
        for job in std::mem::take(&mut self.given_up) {
            self.checks.retain(|(request, _)| request.job != job);
            if let Some(executor) = &mut self.executor
                && executor.checking.contains_key(&job)
            {
                executor.link.send(ToExecutor::Forget { job }).await;
            }
        }
        if !self
            .executor
            .as_ref()
            .is_some_and(|executor| executor.ready)
        {
            return;
        }
        // One at a time: there is one thread for it.
        while self
            .executor
            .as_ref()
            .is_some_and(|executor| executor.describing.is_empty())
            && let Some((digest, answer)) = self.describes.pop_front()
        {
            let request = self.next_request;
            self.next_request += 1;
            let Some(executor) = &mut self.executor else {
                return;
            };
            executor.describing.insert(request, answer);
            executor
                .link
                .send(ToExecutor::Describe { request, digest })
                .await;
        }
        while let Some((request, answer)) = self.checks.pop_front() {
            let Some(executor) = &mut self.executor else {
                return;
            };
            executor.checking.insert(request.job.clone(), answer);
            executor.link.send(ToExecutor::Plan(request)).await;
        }
        while let Some(step) = self.steps.pop_front() {
            self.send_step(step).await;
        }
        while let Some(next) = self.queue.first()
            && self.has_room_for(next)
            && let Some((task, attempt)) = self.queue.pop()
        {
            self.send_task(task, attempt).await;
        }
    }

    fn has_room_for(&self, next: &TaskId) -> bool {
        let Some(executor) = &self.executor else {
            return false;
        };
        let is_suspect = |task: &TaskId| self.suspects.contains(task);
        let alone = is_suspect(next) || executor.running.keys().any(|(task, _)| is_suspect(task));
        let room = if alone {
            1
        } else {
            self.settings.slots as usize + AHEAD
        };
        executor.running.len() < room
    }

    pub(super) async fn send_step(&mut self, step: Effect) {
        let Some(job) = self.job(step.job()) else {
            return;
        };
        let Some(executor) = &mut self.executor else {
            return;
        };
        match (&step, &job.state) {
            (Effect::PlanJob { .. }, JobState::Planning(_))
                if !executor.planning.contains(&job.id) =>
            {
                let request = PlanRequest {
                    job: job.id.clone(),
                    spec: job.spec,
                    functions: job.functions,
                    started_ms: job.submitted_ms,
                    check: false,
                };
                self.traces.step_sent(&job.id, Step::Plan);
                executor.planning.insert(job.id);
                executor
                    .link
                    .send(ToExecutor::Plan(Box::new(request)))
                    .await;
            }
            (Effect::PublishJob { .. }, JobState::Publishing(publishing))
                if !executor.publishing.contains(&job.id) =>
            {
                let files = job.staged_files();
                let output = |output: &weft_core::job::OutputSpec| {
                    let files = files.iter().filter(|file| file.output == output.name);
                    ManifestOutput::new(output, Vec::new(), files.cloned().collect())
                };
                let request = PublishRequest {
                    job: job.id.clone(),
                    plans: publishing
                        .plan
                        .stages
                        .iter()
                        .map(|stage| stage.plan.clone())
                        .collect(),
                    outputs: job.spec.outputs.iter().map(output).collect(),
                };
                self.traces.step_sent(&job.id, Step::Publish);
                executor.publishing.insert(job.id);
                executor.link.send(ToExecutor::Publish(request)).await;
            }
            // The job moved on while the step waited, or the step is under way: it was derived from the state as well.
            _ => {}
        }
    }

    pub(super) async fn send_task(&mut self, id: TaskId, attempt: u32) {
        let key = (id.job.clone(), id.stage);
        let known = self
            .executor
            .as_ref()
            .is_some_and(|executor| executor.stages.contains(&key));
        let context = if known {
            None
        } else {
            self.with_job(&id.job, |job| stage_context(job, id.stage))
                .flatten()
        };
        let open = self.with_job(&id.job, |job| match &job.state {
            JobState::Running(running) => {
                self.settings.run_tasks_twice
                    || !running.stages[id.stage as usize]
                        .commits
                        .contains_key(&id.task)
            }
            JobState::Planning(_) | JobState::Publishing(_) | JobState::Ending(_) => false,
        });
        if open != Some(true) || (!known && context.is_none()) {
            return;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let Some(executor) = &mut self.executor else {
            return;
        };
        if let Some(context) = context {
            executor.stages.insert(key);
            executor
                .link
                .send(ToExecutor::Stage(Box::new(context)))
                .await;
        }
        self.traces.task_sent(&id, attempt);
        executor.running.insert((id.clone(), attempt), sequence);
        executor
            .link
            .send(ToExecutor::Task(TaskRequest {
                id,
                attempt,
                epoch: executor.epoch,
                sequence,
            }))
            .await;
    }
}

/// What the tasks of a stage have in common, out of the job's state.
fn stage_context(job: &Job, stage: u32) -> Option<StageContext> {
    let plan = job.plan()?;
    let shape = plan.stages.get(stage as usize)?;
    let inputs: Vec<Option<ObjectRef>> = match shape.reads {
        Some(edge) => {
            let commits = &job.stages().get(edge.stage as usize)?.commits;
            (0..plan.stages[edge.stage as usize].n_tasks)
                .map(|task| commits.get(&task).and_then(|commit| commit.object.clone()))
                .collect()
        }
        None => Vec::new(),
    };
    Some(StageContext {
        job: job.id.clone(),
        stage,
        plan: shape.plan.clone(),
        inputs,
    })
}
