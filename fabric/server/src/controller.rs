//! The leader's scheduler: turns effects into messages to executors, and what they answer into commands.
//!
//! One task owns everything here. A task's dispatch touches no log; commits are proposed in batches, one batch at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use weft_control::{
    Answer, Command, CommitAnswer, Effect, Job, JobState, Lease, ObjectRef, SlotVector, TaskCommit,
    TaskFailure,
};
use weft_core::{Digest, Epoch, ErrorCode, FunctionUsage, JobId, LimitKind, Problem, TaskId};
use weft_engine::{
    FromExecutor, PlanRequest, PublishRequest, StageContext, TaskReply, TaskRequest, ToExecutor,
};
use weft_sandbox::Description;
use weft_shuffle::{Blobs, ManifestOutput};

use crate::agent::{Agent, ExecutorEvent, ExecutorLink};
use crate::archive;
use crate::clock::unix_ms;
use crate::components::Components;
use crate::folder::tenant;
use crate::queue::ReadyQueue;
use crate::replica::{Replica, Signal};
use crate::tasks::{OnError, Tasks};

/// Name of the one node there is.
pub(crate) const NODE: &str = "local";
/// Commits of one command.
const COMMITS_MAX: usize = 256;
/// How often deadlines are looked at.
const DEADLINE_TICK: Duration = Duration::from_millis(100);
/// How long a dead executor's successor waits to be started; doubled for each one that died before it was ready, up to a bound.
const RESTART_PAUSE: Duration = Duration::from_millis(20);
const RESTART_DOUBLINGS_MAX: u32 = 8;
/// How long a failed archiving waits: for space on a disk, say.
const ARCHIVE_PAUSE: Duration = Duration::from_secs(5);
/// Tasks that are sent ahead of free slots, so that none idles while a reply travels.
const AHEAD: usize = 2;

/// What others ask of the controller.
pub(crate) enum Request {
    /// Have a component describe itself.
    Describe {
        /// The component.
        digest: Digest,
        /// Gets what it says.
        answer: oneshot::Sender<Result<Description, Problem>>,
    },
}

/// What the controller's own children report.
enum Done {
    Committed(Vec<(JobId, TaskCommit)>, Result<Answer, Problem>),
    ArtefactsReady(JobId, Result<(), Problem>),
    Archived(JobId, Result<String, Problem>),
    ArchiveAgain(JobId),
    Restart,
}

/// How the scheduler behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchedulerSettings {
    /// Slots of the executor.
    pub(crate) slots: u32,
    /// Starts every task twice, to show that nothing depends on which attempt wins.
    pub(crate) run_tasks_twice: bool,
}

struct LiveExecutor {
    link: ExecutorLink,
    epoch: Epoch,
    ready: bool,
    running: BTreeMap<(TaskId, u32), u64>,
    stages: BTreeSet<(JobId, u32)>,
    planning: BTreeSet<JobId>,
    publishing: BTreeSet<JobId>,
    describing: HashMap<u64, oneshot::Sender<Result<Description, Problem>>>,
}

/// The scheduler.
pub(crate) struct Controller {
    settings: SchedulerSettings,
    replica: Replica,
    agent: Arc<Agent>,
    components: Arc<Components>,
    blobs: Blobs,
    tasks: Tasks,
    executor: Option<LiveExecutor>,
    next_executor: u64,
    /// A command was refused, or effects were dropped: they are to be derived from the state.
    derive: bool,
    /// Executors in a row that died before they were ready.
    stillborn: u32,
    next_sequence: u64,
    next_request: u64,
    queue: ReadyQueue,
    /// Work that only waits for an executor to be ready.
    steps: VecDeque<Effect>,
    /// Descriptions that wait likewise.
    describes: VecDeque<(Digest, oneshot::Sender<Result<Description, Problem>>)>,
    commits: Vec<(JobId, TaskCommit)>,
    committing: bool,
    /// Jobs that wait to be archived, because something of theirs still runs.
    archiving: BTreeSet<JobId>,
    done: mpsc::Sender<Done>,
}

impl Controller {
    /// `done_receiver` goes to [`Controller::run`].
    pub(crate) fn new(
        settings: SchedulerSettings,
        replica: Replica,
        agent: Arc<Agent>,
        components: Arc<Components>,
        blobs: Blobs,
        tasks: Tasks,
    ) -> (Self, DoneReceiver) {
        let (done, receiver) = mpsc::channel(1024);
        let controller = Self {
            settings,
            replica,
            agent,
            components,
            blobs,
            tasks,
            executor: None,
            next_executor: 1,
            derive: false,
            stillborn: 0,
            next_sequence: 1,
            next_request: 1,
            queue: ReadyQueue::default(),
            steps: VecDeque::new(),
            describes: VecDeque::new(),
            commits: Vec::new(),
            committing: false,
            archiving: BTreeSet::new(),
            done,
        };
        (controller, DoneReceiver(receiver))
    }

    /// Runs until cancelled.
    pub(crate) async fn run(
        mut self,
        cancel: CancellationToken,
        mut signals: mpsc::Receiver<Signal>,
        mut requests: mpsc::Receiver<Request>,
        mut events: mpsc::Receiver<ExecutorEvent>,
        mut done: DoneReceiver,
    ) -> anyhow::Result<()> {
        self.propose(Command::NodeStarted { node: NODE.into() })
            .await;
        self.start_executor_or_wait().await;
        let mut deadlines = tokio::time::interval(DEADLINE_TICK);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                Some(signal) = signals.recv() => self.on_signal(signal).await,
                Some(event) = events.recv() => self.on_event(event).await?,
                Some(done) = done.0.recv() => self.on_done(done).await?,
                Some(request) = requests.recv() => self.on_request(request),
                _ = deadlines.tick() => self.check_deadlines().await,
            }
            self.dispatch().await;
            self.flush_commits();
        }
    }

    async fn propose(&mut self, command: Command) -> Option<Answer> {
        match self.replica.propose(&tenant(), command).await {
            Ok(answer) => Some(answer),
            Err(problem) => {
                tracing::warn!(%problem, "a command was refused");
                // What it would have led to comes from the state again.
                self.derive |= problem.code.is_platform_fault();
                None
            }
        }
    }

    /// A job as it stands now.
    fn job(&self, id: &JobId) -> Option<Job> {
        self.replica
            .state()
            .tenant(&tenant())?
            .jobs
            .get(id)
            .cloned()
    }

    fn with_job<T>(&self, id: &JobId, look: impl FnOnce(&Job) -> T) -> Option<T> {
        self.replica
            .state()
            .tenant(&tenant())?
            .jobs
            .get(id)
            .map(look)
    }

    // ---- effects

    async fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Effect(effect) => self.on_effect(effect).await,
            Signal::Derive => {
                let effects = self.replica.state().pending_effects();
                for (_, effect) in effects {
                    self.on_effect(effect).await;
                }
            }
        }
    }

    async fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::PlanJob { job } => self.prepare_plan(job),
            Effect::RunStage { job, stage } => self.enqueue_stage(&job, stage),
            Effect::RunTask { job, stage, task } => {
                self.queue.push_front(TaskId { job, stage, task })
            }
            Effect::PublishJob { .. } => self.steps.push_back(effect),
            Effect::ArchiveJob { job } => self.stop_job(job).await,
        }
    }

    fn prepare_plan(&self, job: JobId) {
        let digests = self.with_job(&job, |job| {
            job.functions
                .iter()
                .map(|function| function.digest.clone())
                .collect::<Vec<_>>()
        });
        let Some(digests) = digests else { return };
        let (components, done) = (Arc::clone(&self.components), self.done.clone());
        self.tasks.spawn("artefacts", OnError::Log, async move {
            let result = components.ensure_artefacts(&digests).await;
            let _ = done.send(Done::ArtefactsReady(job, result)).await;
            Ok(())
        });
    }

    fn enqueue_stage(&mut self, job: &JobId, stage: u32) {
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
    fn is_under_way(&self, id: &TaskId) -> bool {
        let runs = |executor: &LiveExecutor| executor.running.keys().any(|(task, _)| task == id);
        self.queue.holds(id)
            || self.executor.as_ref().is_some_and(runs)
            || self.commits.iter().any(|(job, commit)| {
                *job == id.job && commit.stage == id.stage && commit.task == id.task
            })
    }

    // ---- the executor

    /// Starts an executor; where that fails, it is tried again after a pause.
    async fn start_executor_or_wait(&mut self) {
        if let Err(error) = self.start_executor().await {
            tracing::error!(error = format!("{error:#}"), "an executor does not start");
            self.stillborn = (self.stillborn + 1).min(RESTART_DOUBLINGS_MAX);
            self.restart_after_pause();
        }
    }

    fn restart_after_pause(&self) {
        let (done, pause) = (self.done.clone(), RESTART_PAUSE * (1 << self.stillborn));
        self.tasks
            .spawn("executor restart", OnError::Log, async move {
                tokio::time::sleep(pause).await;
                let _ = done.send(Done::Restart).await;
                Ok(())
            });
    }

    async fn start_executor(&mut self) -> anyhow::Result<()> {
        let id = self.next_executor;
        self.next_executor += 1;
        let link = self.agent.start_executor(id).await?;
        let slots = vec![
            SlotVector {
                milli_cpu: 1000,
                ..SlotVector::default()
            };
            self.settings.slots as usize
        ];
        let lease = Lease {
            tenant: tenant(),
            node: NODE.into(),
            slots,
            granted_ms: unix_ms(),
        };
        let Some(Answer::Lease { epoch }) = self.propose(Command::GrantLease { lease }).await
        else {
            anyhow::bail!("the executor gets no lease");
        };
        link.send(ToExecutor::Lease { epoch }).await;
        tracing::info!(executor = id, %epoch, "executor started");
        self.executor = Some(LiveExecutor {
            link,
            epoch,
            ready: false,
            running: BTreeMap::new(),
            stages: BTreeSet::new(),
            planning: BTreeSet::new(),
            publishing: BTreeSet::new(),
            describing: HashMap::new(),
        });
        Ok(())
    }

    async fn on_event(&mut self, event: ExecutorEvent) -> anyhow::Result<()> {
        let current = self.executor.as_ref().map(|executor| executor.link.id);
        match event {
            ExecutorEvent::Said(id, message) if current == Some(id) => {
                self.on_message(message).await
            }
            ExecutorEvent::Gone(id, how) if current == Some(id) => {
                self.on_executor_gone(&how).await
            }
            // An executor that was given up already: its lease has lapsed.
            ExecutorEvent::Said(..) | ExecutorEvent::Gone(..) => {}
        }
        Ok(())
    }

    /// The executor's lease lapses; what ran on it is the platform's loss, and starts again elsewhere.
    async fn on_executor_gone(&mut self, how: &str) {
        let Some(lost) = self.executor.take() else {
            return;
        };
        tracing::warn!(
            executor = lost.link.id,
            how,
            running = lost.running.len(),
            "executor lost"
        );
        let problem = || {
            Problem::new(
                ErrorCode::Internal,
                format!("the executor ended ({how}) while the task ran"),
            )
        };
        let failure = |((task, attempt), _): (&(TaskId, u32), &u64)| {
            let failure = TaskFailure {
                stage: task.stage,
                task: task.task,
                attempt: *attempt,
                epoch: lost.epoch,
                problem: problem(),
                usage: self.lost_attempt(task),
                log: None,
            };
            (task.job.clone(), failure)
        };
        let failures = lost.running.iter().map(failure).collect();
        self.propose(Command::ExecutorLost {
            epoch: lost.epoch,
            failures,
        })
        .await;
        for job in lost.planning.into_iter().chain(lost.publishing) {
            self.propose(Command::StepFailed {
                job,
                problem: problem(),
                usage: Vec::new(),
            })
            .await;
        }
        // Those who asked for a description see their channel closed, and the client tries again.
        drop(lost.describing);
        self.stillborn = if lost.ready {
            0
        } else {
            (self.stillborn + 1).min(RESTART_DOUBLINGS_MAX)
        };
        self.restart_after_pause();
    }

    /// An attempt whose meters went with its executor.
    fn lost_attempt(&self, task: &TaskId) -> Vec<FunctionUsage> {
        let name = |job: &Job| Some(job.plan()?.stages.get(task.stage as usize)?.name.clone());
        let stage = self.with_job(&task.job, name).flatten().unwrap_or_default();
        vec![FunctionUsage {
            stage,
            function: "-".into(),
            platform_attempts: 1,
            ..FunctionUsage::default()
        }]
    }

    async fn on_message(&mut self, message: FromExecutor) {
        match message {
            FromExecutor::Ready { .. } => {
                if let Some(executor) = &mut self.executor {
                    executor.ready = true;
                }
            }
            FromExecutor::Described(reply) => {
                let waiting = self
                    .executor
                    .as_mut()
                    .and_then(|executor| executor.describing.remove(&reply.request));
                if let Some(waiting) = waiting {
                    // The client may have gone meanwhile.
                    let _ = waiting.send(reply.result);
                }
            }
            FromExecutor::Planned(reply) => {
                if let Some(executor) = &mut self.executor {
                    executor.planning.remove(&reply.job);
                }
                weft_core::failpoint::hit("planned");
                let command = match reply.result {
                    Ok(plan) => Command::JobPlanned {
                        job: reply.job,
                        plan,
                        usage: reply.usage,
                    },
                    Err(problem) => Command::StepFailed {
                        job: reply.job,
                        problem,
                        usage: reply.usage,
                    },
                };
                self.propose(command).await;
            }
            FromExecutor::Task(reply) => self.on_task(*reply).await,
            FromExecutor::Published { job, result } => {
                if let Some(executor) = &mut self.executor {
                    executor.publishing.remove(&job);
                }
                weft_core::failpoint::hit("published");
                let command = match result {
                    Ok(outputs) => Command::JobPublished { job, outputs },
                    Err(problem) => Command::StepFailed {
                        job,
                        problem,
                        usage: Vec::new(),
                    },
                };
                self.propose(command).await;
            }
        }
    }

    async fn on_task(&mut self, reply: TaskReply) {
        let (stage, task, attempt) = match &reply.result {
            Ok(commit) => (commit.stage, commit.task, commit.attempt),
            Err(failure) => (failure.stage, failure.task, failure.attempt),
        };
        let id = TaskId {
            job: reply.job.clone(),
            stage,
            task,
        };
        if let Some(executor) = &mut self.executor {
            executor.running.remove(&(id, attempt));
        }
        match reply.result {
            Ok(commit) => self.commits.push((reply.job.clone(), commit)),
            Err(failure) => {
                tracing::debug!(job = %reply.job, stage, task, attempt, problem = %failure.problem, "attempt failed");
                self.propose(Command::FailTask {
                    job: reply.job.clone(),
                    failure,
                })
                .await;
            }
        }
        if self.archiving.contains(&reply.job) {
            self.archive_when_quiet(&reply.job);
        }
    }

    // ---- commits

    fn flush_commits(&mut self) {
        if self.committing || self.commits.is_empty() {
            return;
        }
        self.committing = true;
        let batch: Vec<_> = self
            .commits
            .drain(..self.commits.len().min(COMMITS_MAX))
            .collect();
        let (replica, done) = (self.replica.clone(), self.done.clone());
        self.tasks.spawn("commit", OnError::Log, async move {
            weft_core::failpoint::hit("commit");
            let answer = replica
                .propose(
                    &tenant(),
                    Command::CommitTasks {
                        commits: batch.clone(),
                    },
                )
                .await;
            let _ = done.send(Done::Committed(batch, answer)).await;
            Ok(())
        });
    }

    async fn on_done(&mut self, done: Done) -> anyhow::Result<()> {
        match done {
            Done::Committed(batch, answer) => {
                self.committing = false;
                self.on_committed(&batch, answer)?;
            }
            Done::ArtefactsReady(job, Ok(())) => self.steps.push_back(Effect::PlanJob { job }),
            Done::ArtefactsReady(job, Err(problem)) => {
                self.propose(Command::StepFailed {
                    job,
                    problem,
                    usage: Vec::new(),
                })
                .await;
            }
            Done::Archived(job, Ok(archive)) => {
                weft_core::failpoint::hit("archived");
                self.propose(Command::JobArchived { job, archive }).await;
            }
            Done::Archived(job, Err(problem)) => {
                tracing::error!(%job, %problem, "archiving failed and is tried again");
                let done = self.done.clone();
                self.tasks.spawn("archive again", OnError::Log, async move {
                    tokio::time::sleep(ARCHIVE_PAUSE).await;
                    let _ = done.send(Done::ArchiveAgain(job)).await;
                    Ok(())
                });
            }
            Done::ArchiveAgain(job) => {
                self.archiving.insert(job.clone());
                self.archive_when_quiet(&job);
            }
            Done::Restart => {
                if self.executor.is_none() {
                    self.start_executor_or_wait().await;
                }
            }
        }
        Ok(())
    }

    fn on_committed(
        &mut self,
        batch: &[(JobId, TaskCommit)],
        answer: Result<Answer, Problem>,
    ) -> anyhow::Result<()> {
        let answers = match answer {
            Ok(Answer::Commits { answers }) => answers,
            Ok(other) => anyhow::bail!("commits were answered with {other:?}"),
            Err(problem) => anyhow::bail!("commits were refused: {problem}"),
        };
        for ((job, commit), answer) in batch.iter().zip(answers) {
            let (stage, task) = (commit.stage, commit.task);
            match answer {
                CommitAnswer::Committed | CommitAnswer::Duplicate { same: true } => {}
                CommitAnswer::Duplicate { same: false } => {
                    tracing::error!(%job, stage, task, "two attempts of a deterministic task differ; the first one stands");
                }
                // Its executor died before the commit was proposed: the loss did not count it among what ran.
                CommitAnswer::Fenced => self.queue.push_front(TaskId {
                    job: job.clone(),
                    stage,
                    task,
                }),
                CommitAnswer::Stale => {
                    tracing::debug!(%job, stage, task, "a commit came when its job had ended")
                }
            }
        }
        Ok(())
    }

    // ---- the end of a job

    async fn stop_job(&mut self, job: JobId) {
        self.queue.forget(&job);
        self.steps.retain(|step| *step.job() != job);
        if let Some(executor) = &mut self.executor {
            executor.stages.retain(|(other, _)| *other != job);
            executor
                .link
                .send(ToExecutor::Forget { job: job.clone() })
                .await;
        }
        if self.archiving.insert(job.clone()) {
            self.archive_when_quiet(&job);
        }
    }

    /// Archives once nothing of the job runs any more: what still runs could write what was just removed.
    fn archive_when_quiet(&mut self, id: &JobId) {
        let busy = self.executor.as_ref().is_some_and(|executor| {
            executor.running.keys().any(|(task, _)| task.job == *id)
                || executor.planning.contains(id)
                || executor.publishing.contains(id)
        });
        if busy {
            return;
        }
        self.archiving.remove(id);
        let Some(job) = self.job(id) else { return };
        let (blobs, done) = (self.blobs.clone(), self.done.clone());
        self.tasks.spawn("archive", OnError::Log, async move {
            let result = archive::archive(&blobs, &job).await;
            let _ = done.send(Done::Archived(job.id, result)).await;
            Ok(())
        });
    }

    async fn check_deadlines(&mut self) {
        if std::mem::take(&mut self.derive) || self.replica.take_behind() {
            self.on_signal(Signal::Derive).await;
        }
        let now = unix_ms();
        let late: Vec<(JobId, u64)> = {
            let state = self.replica.state();
            let over = |job: &Job| {
                // What is committed is published, however late.
                if matches!(job.state, JobState::Publishing(_) | JobState::Ending(_)) {
                    return None;
                }
                (now.saturating_sub(job.submitted_ms) > job.spec.limits.wall_ms)
                    .then(|| (job.id.clone(), job.spec.limits.wall_ms))
            };
            state
                .tenant(&tenant())
                .map(|tenant| tenant.jobs.values().filter_map(over).collect())
                .unwrap_or_default()
        };
        for (job, wall_ms) in late {
            let value = format!("{wall_ms} ms");
            let mut problem = Problem::new(
                ErrorCode::LimitExceeded,
                format!(
                    "the `{}` limit of {value} was reached by the job; raise `limits.wall`",
                    LimitKind::Wall
                ),
            );
            problem.limit = Some(LimitKind::Wall.to_string());
            problem.value = Some(value);
            self.propose(Command::EndJob { job, problem }).await;
        }
        for job in self.archiving.clone() {
            self.archive_when_quiet(&job);
        }
    }

    // ---- dispatch

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Describe { digest, answer } => self.describes.push_back((digest, answer)),
        }
    }

    async fn dispatch(&mut self) {
        if !self
            .executor
            .as_ref()
            .is_some_and(|executor| executor.ready)
        {
            return;
        }
        while let Some((digest, answer)) = self.describes.pop_front() {
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
        while let Some(step) = self.steps.pop_front() {
            self.send_step(step).await;
        }
        while self.has_room() {
            let Some((task, attempt)) = self.queue.pop() else {
                return;
            };
            self.send_task(task, attempt).await;
        }
    }

    fn has_room(&self) -> bool {
        let room = self.settings.slots as usize + AHEAD;
        self.executor
            .as_ref()
            .is_some_and(|executor| executor.running.len() < room)
    }

    async fn send_step(&mut self, step: Effect) {
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
                };
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
                let output = |output: &weft_core::job::OutputSpec| ManifestOutput {
                    name: output.name.clone(),
                    folder: output.path.clone(),
                    format: "parquet".into(),
                    schema: Vec::new(),
                    files: files
                        .iter()
                        .filter(|file| file.output == output.name)
                        .cloned()
                        .collect(),
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
                executor.publishing.insert(job.id);
                executor.link.send(ToExecutor::Publish(request)).await;
            }
            // The job moved on while the step waited, or the step is under way: it was derived from the state as well.
            _ => {}
        }
    }

    async fn send_task(&mut self, id: TaskId, attempt: u32) {
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

/// The receiving end of the controller's own children.
pub(crate) struct DoneReceiver(mpsc::Receiver<Done>);

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
