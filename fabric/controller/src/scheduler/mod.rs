//! The leader's scheduler: turns effects into messages to executors, and what they answer into commands.
//!
//! One task owns everything here. A task's dispatch touches no log; commits are proposed in batches, one batch at a time.

mod commits;
mod dispatch;
mod ending;
mod executors;
mod queue;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use weft_control::{Answer, Command, Effect, Job};
use weft_core::Description;
use weft_core::{Digest, Epoch, JobId, Problem, TaskId};
use weft_protocol::TaskCommit;
use weft_protocol::{PlanReply, PlanRequest};
use weft_store::Blobs;

use crate::components::Components;
use crate::metrics::Metrics;
use crate::replica::{Replica, Signal};
use crate::tenant;
use crate::traces::{JobTraces, Traces};
use queue::ReadyQueue;
use weft_runtime::link::{ExecutorEvent, ExecutorLink, Node};
use weft_runtime::{OnError, Tasks};

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

/// Where the answer to a check goes. The permit is held until it is there, or the executor is lost: clients may go before.
pub(crate) struct CheckAnswer {
    pub(crate) to: oneshot::Sender<PlanReply>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What others ask of the controller.
pub(crate) enum Request {
    /// Have a component describe itself.
    Describe {
        /// The component.
        digest: Digest,
        /// Gets what it says.
        answer: oneshot::Sender<Result<Description, Problem>>,
    },
    /// Plan a job that is only looked at.
    Check {
        /// What the planning task gets; its id is that of no job.
        request: Box<PlanRequest>,
        /// Gets the plan.
        answer: CheckAnswer,
    },
    /// Give up a check that nobody waits for.
    Forget {
        /// The id that the check goes by.
        job: JobId,
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

/// Where what happens is told.
pub(crate) struct Watch {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traces: Arc<Traces>,
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
    checking: HashMap<JobId, CheckAnswer>,
}

/// The scheduler.
pub(crate) struct Scheduler {
    settings: SchedulerSettings,
    replica: Replica,
    node: Arc<dyn Node>,
    components: Arc<Components>,
    blobs: Blobs,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    traces: JobTraces,
    executor: Option<LiveExecutor>,
    next_executor: u64,
    /// A command was refused, or effects were dropped: they are to be derived from the state.
    derive: bool,
    /// Tasks that ran when an executor died. Each runs alone, so that one that kills its executor costs no other an attempt.
    suspects: BTreeSet<TaskId>,
    /// Executors in a row that died before they were ready.
    stillborn: u32,
    next_sequence: u64,
    next_request: u64,
    queue: ReadyQueue,
    /// Work that only waits for an executor to be ready.
    steps: VecDeque<Effect>,
    /// Descriptions that wait likewise.
    describes: VecDeque<(Digest, oneshot::Sender<Result<Description, Problem>>)>,
    /// Checks that wait likewise.
    checks: VecDeque<(Box<PlanRequest>, CheckAnswer)>,
    /// Checks that nobody waits for any more.
    given_up: Vec<JobId>,
    commits: Vec<(JobId, TaskCommit)>,
    /// Jobs of the batch that is being committed; there is one batch at a time.
    commits_under_way: BTreeSet<JobId>,
    /// Jobs that wait to be archived, because something of theirs still runs.
    archiving: BTreeSet<JobId>,
    done: mpsc::Sender<Done>,
}

impl Scheduler {
    /// `done_receiver` goes to [`Scheduler::run`].
    pub(crate) fn new(
        settings: SchedulerSettings,
        replica: Replica,
        node: Arc<dyn Node>,
        components: Arc<Components>,
        blobs: Blobs,
        tasks: Tasks,
        watch: Watch,
    ) -> (Self, DoneReceiver) {
        let (done, receiver) = mpsc::channel(1024);
        let scheduler = Self {
            settings,
            replica,
            node,
            components,
            blobs,
            tasks,
            metrics: watch.metrics,
            traces: JobTraces::new(watch.traces),
            executor: None,
            next_executor: 1,
            derive: false,
            suspects: BTreeSet::new(),
            stillborn: 0,
            next_sequence: 1,
            next_request: 1,
            queue: ReadyQueue::default(),
            steps: VecDeque::new(),
            describes: VecDeque::new(),
            checks: VecDeque::new(),
            given_up: Vec::new(),
            commits: Vec::new(),
            commits_under_way: BTreeSet::new(),
            archiving: BTreeSet::new(),
            done,
        };
        (scheduler, DoneReceiver(receiver))
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
            self.measure();
        }
    }

    /// What waits and what runs, as it is now.
    fn measure(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let steps = self.steps.len() + self.describes.len() + self.checks.len();
        self.metrics.tasks_waiting.set(gauge(self.queue.len()));
        self.metrics.steps_waiting.set(gauge(steps));
        let running = self.executor.as_ref().map_or(0, |one| one.running.len());
        self.metrics.tasks_running.set(gauge(running));
        let ready = self.executor.as_ref().is_some_and(|one| one.ready);
        self.metrics.executor_ready.set(i64::from(ready));
        self.metrics.slots.set(i64::from(self.settings.slots));
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

    async fn on_done(&mut self, done: Done) -> anyhow::Result<()> {
        match done {
            Done::Committed(batch, answer) => self.on_committed(&batch, answer)?,
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
                weft_failpoint::hit("archived");
                {
                    let state = self.replica.state();
                    let tenant = state.tenant(&tenant());
                    if let Some(ended) = tenant.and_then(|tenant| tenant.jobs.get(&job)) {
                        self.traces.job_ended(ended);
                        self.metrics.job_ended(ended);
                    }
                }
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
}

/// The receiving end of the controller's own children.
pub(crate) struct DoneReceiver(mpsc::Receiver<Done>);
