//! What goes to which executor, and when.

use std::collections::BTreeMap;

use weft_control::{Effect, Job, JobState, State, Step, edge_sums};
use weft_core::job::OutputFormat;
use weft_core::{Digest, Epoch, ErrorCode, JobId, NodeId, Problem, TaskId, TenantId};
use weft_protocol::{
    AgentCommand, EdgeInput, EdgeRead, ManifestOutput, PlanRequest, PublishRequest, SinkFile,
    StageContext, Work,
};

use super::io::{Now, Request};
use super::nodes::{ExecutorView, NodeView};
use super::quarantine::is_trusted;
use super::queue::Describe;
use super::{AHEAD, Output, Scheduler, Turn, job};

/// Results that are being recorded, above which no more tasks are sent: nodes are ahead of the log.
pub(super) const MAX_RECORDING: usize = 1_024;

/// An executor with its node and its lease.
type Candidate<'a> = (&'a NodeId, &'a NodeView, Epoch, &'a ExecutorView);

/// An executor that takes work.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    node: NodeId,
    epoch: Epoch,
}

impl Scheduler {
    pub(super) fn enqueue_stage(
        &mut self,
        state: &State,
        tenant: &TenantId,
        id: &JobId,
        stage: u32,
    ) {
        let Some(JobState::Running(running)) = job(state, tenant, id).map(|job| &job.state) else {
            return;
        };
        let (shape, progress) = match (
            running.plan.stages.get(stage as usize),
            running.stages.get(stage as usize),
        ) {
            (Some(shape), Some(progress)) => (shape, progress),
            _ => return,
        };
        for task in (0..shape.n_tasks).filter(|task| !progress.commits.contains_key(task)) {
            let id = TaskId {
                job: id.clone(),
                stage,
                task,
            };
            if self.is_under_way(&id) {
                continue;
            }
            if self.settings.run_tasks_twice {
                self.queue.push(tenant, id.clone());
            }
            self.queue.push(tenant, id);
        }
    }

    /// Makes sure of the artefacts of a job's components before it is planned.
    pub(super) fn prepare(&mut self, turn: &mut Turn<'_>, tenant: TenantId, id: JobId) {
        let key = (id.clone(), Step::Plan);
        if self.steps.contains(&key) || self.preparing.contains(&id) {
            return;
        }
        let Some(job) = job(turn.state, &tenant, &id) else {
            return;
        };
        self.preparing.insert(id.clone());
        turn.out.push(Output::Prepare {
            tenant,
            job: id,
            digests: digests(job),
        });
    }

    pub(super) fn on_request(&mut self, turn: &mut Turn<'_>, request: Request) {
        if self.phase.term().is_none() {
            // Whoever asks sees the channel closed, and tries again.
            return;
        }
        match request {
            Request::Describe {
                tenant,
                digest,
                compatibility,
                artefact,
                answer,
            } => self.queue.of(&tenant).describes.push_back(Describe {
                digest,
                compatibility,
                artefact,
                answer,
            }),
            Request::Check {
                tenant,
                request,
                answer,
            } => self.queue.of(&tenant).checks.push_back((request, answer)),
            Request::Forget { job } => self.forget_check(turn, &job),
            Request::Want(tenant) => drop(self.wanted.insert(tenant)),
            Request::Shard { tenant, shard } => self.want_shard(turn, &tenant, shard),
            Request::Why { tenant, of, answer } => {
                let why = self.why(turn, &tenant, of.as_ref());
                let _ = answer.send(why);
            }
            Request::Drain { node, answer } => {
                if let Err(problem) = self.check_drain(turn, &node) {
                    // The client may have gone.
                    let _ = answer.send(Err(problem));
                } else if let Some(view) = self.nodes.get_mut(&node) {
                    view.draining = true;
                    view.drain_asked.push(answer);
                    self.send(turn, &node, AgentCommand::Drain);
                }
            }
        }
    }

    /// Errors: a node that is to drain is unknown, not reached, or the only one that takes work.
    fn check_drain(&self, turn: &Turn<'_>, node: &NodeId) -> Result<(), Problem> {
        if !turn.state.nodes.iter().any(|(known, _)| known == node) {
            let detail = format!("there is no node `{node}`");
            return Err(Problem::new(ErrorCode::NotFound, detail));
        }
        let takes_work = |view: &NodeView| view.takes_commands() && !view.draining;
        let mut others = self.nodes.iter().filter(|(other, _)| *other != node);
        if !others.any(|(_, view)| takes_work(view)) {
            let detail =
                format!("no other node than `{node}` takes work: add one before it drains");
            return Err(Problem::new(ErrorCode::Busy, detail));
        }
        match self.nodes.get(node) {
            Some(view) if view.takes_commands() => Ok(()),
            _ => {
                let detail = format!("the node `{node}` is not reached now; try again");
                Err(Problem::new(ErrorCode::Busy, detail))
            }
        }
    }

    fn forget_check(&mut self, turn: &mut Turn<'_>, job: &JobId) {
        self.queue.forget_check(job);
        let takes = |node: &NodeId| self.nodes[node].takes_commands();
        let checking: Vec<Target> = self
            .targets()
            .filter(|(node, _, executor)| executor.checking.contains_key(job) && takes(node))
            .map(|(node, epoch, _)| Target {
                node: node.clone(),
                epoch,
            })
            .collect();
        for target in checking {
            let job = job.clone();
            self.send_work(turn, &target, Work::Forget { job });
        }
    }

    fn targets(&self) -> impl Iterator<Item = (&NodeId, Epoch, &ExecutorView)> {
        self.nodes.iter().flat_map(|(node, view)| {
            let executors = view.executors.iter();
            executors.map(move |(epoch, executor)| (node, *epoch, executor))
        })
    }

    fn send_work(&self, turn: &mut Turn<'_>, target: &Target, work: Work) {
        let epoch = target.epoch;
        self.send(turn, &target.node, AgentCommand::Work { epoch, work });
    }

    fn executor(&mut self, target: &Target) -> Option<&mut ExecutorView> {
        let view = self.nodes.get_mut(&target.node)?;
        view.executors.get_mut(&target.epoch)
    }

    /// Ready executors of the tenant on nodes that take new work. Those of nodes on which attempts keep failing only if
    /// there are no others.
    pub(super) fn ready_executors(
        &self,
        now: Now,
        tenant: &TenantId,
    ) -> impl Iterator<Item = Candidate<'_>> {
        let candidates = self.nodes.iter().flat_map(|(node, view)| {
            let executors = view.executors.iter();
            executors.map(move |(epoch, executor)| (node, view, *epoch, executor))
        });
        let takes_work = move |(_, view, _, executor): &Candidate<'_>| {
            executor.ready && executor.is_of(tenant) && view.takes_commands() && !view.draining
        };
        let candidates = candidates.filter(takes_work);
        let trusted = move |view: &NodeView| is_trusted(view, now.monotonic_ms);
        // Also if it is full: what fails at once would be given all that the others have no room for.
        let any_trusted = candidates.clone().any(|(_, view, _, _)| trusted(view));
        candidates.filter(move |(_, view, _, _)| trusted(view) || !any_trusted)
    }

    /// The ready executor of the tenant whose node does least, among those that `fits`.
    fn ready(
        &self,
        now: Now,
        tenant: &TenantId,
        fits: impl Fn(&NodeView, &ExecutorView) -> bool,
    ) -> Option<Target> {
        self.ready_executors(now, tenant)
            .filter(|(_, view, _, executor)| fits(view, executor))
            // In thousandths of a slot: nodes differ in size.
            .min_by_key(|(_, view, _, _)| view.n_running() * 1_000 / (view.slots.max(1) as usize))
            .map(|(node, _, epoch, _)| Target {
                node: node.clone(),
                epoch,
            })
    }

    /// Sends what waits to executors with room for it; tenants take turns.
    pub(super) fn dispatch(&mut self, turn: &mut Turn<'_>) {
        let tenants = self.queue.tenants();
        for tenant in &tenants {
            self.dispatch_describes(turn, tenant);
            self.dispatch_checks(turn, tenant);
            self.dispatch_steps(turn, tenant);
        }
        loop {
            let mut progress = false;
            for tenant in &tenants {
                if self.dispatch_task(turn, tenant) {
                    self.queue.had_turn(tenant);
                    progress = true;
                }
            }
            if !progress {
                return;
            }
        }
    }

    fn dispatch_describes(&mut self, turn: &mut Turn<'_>, tenant: &TenantId) {
        while let Some(next) = self.queue.of(tenant).describes.front() {
            let engine = next.compatibility.clone();
            // One at a time on each executor: there is one thread for it.
            let fits = |view: &NodeView, one: &ExecutorView| {
                one.describing.is_empty() && view.compatibility == engine
            };
            let Some(target) = self.ready(turn.now, tenant, fits) else {
                return;
            };
            let request = self.next_request;
            self.next_request += 1;
            let next = self.queue.of(tenant).describes.pop_front();
            if let (Some(next), Some(executor)) = (next, self.executor(&target)) {
                executor.describing.insert(request, next.answer);
                let work = Work::Describe {
                    request,
                    digest: next.digest,
                    artefact: next.artefact,
                };
                self.send_work(turn, &target, work);
            }
        }
    }

    fn dispatch_checks(&mut self, turn: &mut Turn<'_>, tenant: &TenantId) {
        while !self.queue.of(tenant).checks.is_empty() {
            let Some(target) = self.ready(turn.now, tenant, |_, _| true) else {
                return;
            };
            let Some((mut request, answer)) = self.queue.of(tenant).checks.pop_front() else {
                return;
            };
            let engine = &self.nodes[&target.node].compatibility;
            let functions = request.functions.iter().map(|function| &function.digest);
            request.artefacts = artefacts(turn.state, tenant, functions, engine);
            if let Some(executor) = self.executor(&target) {
                executor.checking.insert(request.job.clone(), answer);
            }
            self.send_work(turn, &target, Work::Plan(request));
        }
    }

    fn dispatch_steps(&mut self, turn: &mut Turn<'_>, tenant: &TenantId) {
        while !self.queue.of(tenant).steps.is_empty() {
            let Some(target) = self.ready(turn.now, tenant, |_, _| true) else {
                return;
            };
            if let Some(step) = self.queue.of(tenant).steps.pop_front() {
                self.send_step(turn, tenant, &target, &step);
            }
        }
    }

    fn send_step(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        target: &Target,
        step: &Effect,
    ) {
        let Some(job) = job(turn.state, tenant, step.job()) else {
            return;
        };
        let (key, work) = match (step, &job.state) {
            (Effect::PlanJob { .. }, JobState::Planning(_)) => {
                let engine = &self.nodes[&target.node].compatibility;
                let tables = turn.state.tenant(tenant).map(|tenant| &tenant.tables);
                let request = PlanRequest {
                    job: job.id.clone(),
                    spec: job.spec.clone(),
                    functions: job.functions.clone(),
                    artefacts: artefacts(turn.state, tenant, &digests(job), engine),
                    started_ms: job.submitted_ms,
                    check: false,
                    tables: tables.map_or_else(BTreeMap::new, |of| of.definitions(&job.spec)),
                    max_kept_bytes: self.settings.max_kept_bytes,
                };
                (Step::Plan, Work::Plan(Box::new(request)))
            }
            (Effect::PublishJob { .. }, JobState::Publishing(_)) => {
                (Step::Publish, Work::Publish(publish_request(job)))
            }
            // The job moved on while the step waited.
            _ => return,
        };
        if !self.steps.insert((job.id.clone(), key)) {
            // It is under way.
            return;
        }
        self.traces.step_sent(&job.id, key);
        if let Some(executor) = self.executor(target) {
            executor.steps.insert((job.id.clone(), key));
        }
        self.send_work(turn, target, work);
    }

    /// Sends the tenant's next task, if there is room for it. Returns whether one left the queue.
    fn dispatch_task(&mut self, turn: &mut Turn<'_>, tenant: &TenantId) -> bool {
        if self.recording.len() >= MAX_RECORDING {
            return false;
        }
        let Some(next) = self.queue.of(tenant).tasks.front() else {
            return false;
        };
        let next_is_suspect = self.suspects.contains(next);
        let has_room = |view: &NodeView, executor: &ExecutorView| {
            let is_suspect = |(id, _): &(TaskId, u32)| self.suspects.contains(id);
            let alone = next_is_suspect
                || (!self.suspects.is_empty() && executor.running.iter().any(is_suspect));
            match alone {
                true => executor.running.is_empty(),
                false => view.n_running() < view.slots as usize + AHEAD,
            }
        };
        let Some(target) = self.ready(turn.now, tenant, has_room) else {
            return false;
        };
        if let Some(id) = self.queue.pop(tenant) {
            self.send_task(turn, tenant, &target, id);
        }
        true
    }

    fn send_task(&mut self, turn: &mut Turn<'_>, tenant: &TenantId, target: &Target, id: TaskId) {
        let Some(job) = job(turn.state, tenant, &id.job) else {
            return;
        };
        let JobState::Running(running) = &job.state else {
            return;
        };
        let Some(progress) = running.stages.get(id.stage as usize) else {
            return;
        };
        if progress.commits.contains_key(&id.task) && !self.settings.run_tasks_twice {
            return;
        }
        // While what it reads is written again, it waits; it comes with its stage.
        if !running.is_readable(id.stage) {
            return;
        }
        let before = [&progress.failures, &progress.misses, &progress.taken_back];
        let before = before.map(|of| of.get(&id.task).copied().unwrap_or(0));
        let attempt = before.into_iter().sum::<u32>().max(self.next_label(&id));
        if !self.send_stage(turn, tenant, target, job, id.stage) {
            return;
        }
        self.traces.task_sent(&id, attempt);
        self.begin(&id);
        if let Some(executor) = self.executor(target) {
            executor.running.insert((id.clone(), attempt));
        }
        let run = AgentCommand::Run {
            epoch: target.epoch,
            id,
            attempt,
        };
        self.send(turn, &target.node, run);
    }
}

impl Scheduler {
    /// The label after those of the task's attempts that run.
    fn next_label(&self, id: &TaskId) -> u32 {
        if !self.busy.contains_key(id) {
            return 0;
        }
        let running = self.targets().flat_map(|(_, _, one)| one.running.iter());
        let labels = running.filter(|(task, _)| task == id);
        labels.map(|(_, label)| label + 1).max().unwrap_or(0)
    }

    /// Sends the context of a stage, unless the executor has it. Returns false if artefacts for its
    /// engine have to be made first: the job's tasks are enqueued again then.
    fn send_stage(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        target: &Target,
        job: &Job,
        stage: u32,
    ) -> bool {
        let key = (job.id.clone(), stage);
        let version = match &job.state {
            JobState::Running(running) => running.n_rewritten(stage),
            _ => 0,
        };
        let executor = self.executor(target);
        if executor.is_none_or(|executor| executor.stages.get(&key) == Some(&version)) {
            return true;
        }
        let Some(mut context) = stage_context(job, stage) else {
            return false;
        };
        let (engine, wanted) = (&self.nodes[&target.node].compatibility, digests(job));
        context.artefacts = artefacts(turn.state, tenant, &wanted, engine);
        let has_all = wanted
            .iter()
            .all(|digest| context.artefacts.contains_key(digest));
        if !has_all || !self.prepared.contains(&job.id) {
            self.queue.forget(tenant, &job.id);
            if self.preparing.insert(job.id.clone()) {
                turn.out.push(Output::Prepare {
                    tenant: tenant.clone(),
                    job: job.id.clone(),
                    digests: wanted,
                });
            }
            return false;
        }
        if let Some(executor) = self.executor(target) {
            executor.stages.insert(key, version);
        }
        self.send_work(turn, target, Work::Stage(Box::new(context)));
        true
    }
}

/// Components of a job's functions.
fn digests(job: &Job) -> Vec<Digest> {
    let functions = job.functions.iter();
    functions.map(|function| function.digest.clone()).collect()
}

/// Digests of the components' artefacts for an engine. One that is not known is left out: whoever
/// needs it says so.
fn artefacts<'a>(
    state: &State,
    tenant: &TenantId,
    components: impl IntoIterator<Item = &'a Digest>,
    engine: &str,
) -> BTreeMap<Digest, Digest> {
    let known = |digest: &Digest| {
        let artefact = state.artefact(tenant, digest, engine)?;
        Some((digest.clone(), artefact.clone()))
    };
    components.into_iter().filter_map(known).collect()
}

/// The files of an output that are worth publishing: JSON without rows is an empty file, which
/// other readers refuse beside files with rows. In other formats such a file tells the columns.
fn with_contents<'a>(
    format: OutputFormat,
    files: impl Iterator<Item = &'a SinkFile> + Clone,
) -> Vec<SinkFile> {
    let some_have_rows = files.clone().any(|file| file.rows > 0);
    let is_wanted =
        |file: &&SinkFile| format != OutputFormat::Json || !some_have_rows || file.rows > 0;
    files.filter(is_wanted).cloned().collect()
}

fn publish_request(job: &Job) -> PublishRequest {
    let files = job.staged_files();
    let output = |output: &weft_core::job::OutputSpec| {
        let files = files.iter().filter(|file| file.output == output.name);
        ManifestOutput::new(output, Vec::new(), with_contents(output.format, files))
    };
    let plan = job.plan();
    let stages = plan.into_iter().flat_map(|plan| &plan.stages);
    PublishRequest {
        job: job.id.clone(),
        plans: stages.map(|stage| stage.plan.clone()).collect(),
        outputs: job.spec.outputs.iter().map(output).collect(),
    }
}

/// Context of a stage, out of the job's state. The artefacts are left to be filled in.
fn stage_context(job: &Job, stage: u32) -> Option<StageContext> {
    let plan = job.plan()?;
    let shape = plan.stages.get(stage as usize)?;
    let input = |read: &EdgeRead| {
        let commits = &job.stages().get(read.stage as usize)?.commits;
        let n_tasks = plan.stages.get(read.stage as usize)?.n_tasks;
        let object = |task: u32| commits.get(&task).and_then(|commit| commit.object.clone());
        Some(EdgeInput {
            edge: read.edge_ref(),
            expected: edge_sums(job.stages(), read.edge_ref()),
            objects: (0..n_tasks).map(object).collect(),
        })
    };
    Some(StageContext {
        job: job.id.clone(),
        stage,
        fingerprint: plan.fingerprint.clone(),
        plan: shape.plan.clone(),
        inputs: shape.reads.iter().map(input).collect::<Option<_>>()?,
        adaptive: shape.adaptive.clone(),
        artefacts: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_files_are_left_out_where_they_say_nothing() {
        let file = |rows: u64| SinkFile {
            output: "daily".into(),
            staged: format!("1-0-{rows}"),
            name: format!("part-{rows}"),
            rows,
            bytes: rows,
            xxh3: String::new(),
        };
        let kept = |format: OutputFormat, rows: &[u64]| -> Vec<u64> {
            let files: Vec<_> = rows.iter().copied().map(file).collect();
            let kept = with_contents(format, files.iter());
            kept.into_iter().map(|file| file.rows).collect()
        };
        assert_eq!(kept(OutputFormat::Json, &[0, 2, 3]), [2, 3]);
        assert_eq!(kept(OutputFormat::Json, &[0]), [0]);
        assert_eq!(kept(OutputFormat::Csv, &[0, 2]), [0, 2]);
        assert_eq!(kept(OutputFormat::Parquet, &[0, 2]), [0, 2]);
    }
}
