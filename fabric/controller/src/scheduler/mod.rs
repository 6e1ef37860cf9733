//! The leader's scheduler: turns effects of the state into commands to nodes, and what nodes report
//! into commands of the state.
//!
//! ```text
//!   Signal, FromAgent, Request, answers, time ──Input──▶ Scheduler ──Output──▶ proposals, ToAgent, work beside
//!                                                            ▲
//!                                                  State, read only
//! ```
//!
//! It does no I/O and reads no clock, so that a test can put anything between two of its steps; the
//! [`driver`] does both. A task's dispatch touches no log; commits are proposed in batches. All that
//! it knows beside the state comes from nodes' reports: a new leader asks for them, waits for
//! [`LEASE_MS`] at most, and derives the rest from the state.

mod actors;
mod commits;
mod dispatch;
pub(crate) mod driver;
mod ending;
mod executors;
mod failures;
pub(crate) mod io;
mod leadership;
mod nodes;
mod quarantine;
mod queue;
mod renewals;
mod requests;
mod results;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod why;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use weft_control::{Effect, Job, JobState, State, Step};
use weft_core::{Epoch, Incarnation, JobId, NodeId, TaskId, TenantId};
use weft_protocol::AgentResult;

use crate::metrics::Metrics;
use crate::traces::{JobTraces, Traces};

use actors::Shards;
use commits::Commits;
pub(crate) use io::{CheckAnswer, Request};
use io::{Done, Input, Now, Output};
use io::{Later, Marks, Pending, Ticket};
use leadership::Phase;
use nodes::NodeView;
use queue::Queue;
use renewals::Renewals;
pub(crate) use requests::Requests;

/// Tasks that are sent to a node ahead of free slots, so that none idles while a reply travels.
const AHEAD: usize = 2;
/// Time for which a new leader waits for nodes that it has not heard of; leases of silent ones lapse.
pub(crate) const LEASE_MS: u64 = 2_500;

/// Settings of the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct SchedulerSettings {
    /// Starts every task twice, to show that nothing depends on which attempt wins.
    pub(crate) run_tasks_twice: bool,
    /// Tenants that have an executor on every node, whether there is work for it or not.
    pub(crate) eager: Vec<TenantId>,
    /// Most bytes of the rows of a table that the cluster keeps.
    pub(crate) max_kept_bytes: u64,
}

/// Observers of the scheduler.
pub(crate) struct Watch {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traces: Arc<Traces>,
}

impl Watch {
    pub(crate) fn new(metrics: &Arc<Metrics>, traces: &Arc<Traces>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            traces: Arc::clone(traces),
        }
    }
}

/// The scheduler.
pub(crate) struct Scheduler {
    settings: SchedulerSettings,
    metrics: Arc<Metrics>,
    traces: JobTraces,
    phase: Phase,
    /// Nodes whose link is up, and what this leader knows of them.
    nodes: BTreeMap<NodeId, NodeView>,
    next_ticket: u64,
    next_request: u64,
    /// Proposals without an answer: their tenant, and what becomes of the answer.
    pending: BTreeMap<Ticket, (TenantId, Pending)>,
    /// Results that are being recorded, by agent and number, with the executor that they are of: they
    /// may be reported again meanwhile.
    recording: BTreeMap<(Incarnation, u64), Option<Epoch>>,
    /// Ends of executors whose other results are being recorded.
    deferred: Vec<(NodeId, Incarnation, AgentResult)>,
    /// Proposals that could not be made, and are made again.
    later: Vec<Later>,
    /// Leases that are being revoked.
    losing: BTreeSet<Epoch>,
    queue: Queue,
    commits: Commits,
    /// Attempts of tasks that run or are being committed, by task.
    busy: BTreeMap<TaskId, u32>,
    /// Steps of jobs that executors are at, or that are being recorded.
    steps: BTreeSet<(JobId, Step)>,
    /// Tasks that ran when their executor died. Each runs alone, so that one that kills its executor
    /// costs no other an attempt.
    suspects: BTreeSet<TaskId>,
    /// Jobs whose artefacts are being made sure of.
    preparing: BTreeSet<JobId>,
    /// Jobs whose artefacts were made sure of under this leader: files may be gone since the one
    /// before.
    prepared: BTreeSet<JobId>,
    /// Jobs that wait to be archived, because something of theirs still runs.
    archiving: BTreeMap<JobId, TenantId>,
    /// Jobs that are being archived.
    archived: BTreeSet<JobId>,
    /// Jobs that are being given up.
    given_up: BTreeSet<JobId>,
    /// When origins of commands are looked at next.
    origins_expire_at_ms: u64,
    /// Effects were lost, or a command was refused for the platform's reasons: they are derived anew.
    derive: bool,
    /// Tenants whose invocations found no executor.
    wanted: BTreeSet<TenantId>,
    /// Pauses before executors are started again, by node and tenant.
    restarts: BTreeMap<(NodeId, TenantId), executors::Restart>,
    shards: Shards,
    renewals: Renewals,
}

/// One call of the scheduler: the state and the time that it sees, and what it asks for.
struct Turn<'a> {
    state: &'a State,
    now: Now,
    out: Vec<Output>,
}

impl Scheduler {
    pub(crate) fn new(settings: SchedulerSettings, watch: Watch) -> Self {
        Self {
            settings,
            metrics: watch.metrics,
            traces: JobTraces::new(watch.traces),
            phase: Phase::Following,
            nodes: BTreeMap::new(),
            next_ticket: 1,
            next_request: 1,
            pending: BTreeMap::new(),
            recording: BTreeMap::new(),
            deferred: Vec::new(),
            later: Vec::new(),
            losing: BTreeSet::new(),
            queue: Queue::default(),
            commits: Commits::default(),
            busy: BTreeMap::new(),
            steps: BTreeSet::new(),
            suspects: BTreeSet::new(),
            preparing: BTreeSet::new(),
            prepared: BTreeSet::new(),
            archiving: BTreeMap::new(),
            archived: BTreeSet::new(),
            given_up: BTreeSet::new(),
            origins_expire_at_ms: 0,
            derive: false,
            wanted: BTreeSet::new(),
            restarts: BTreeMap::new(),
            shards: Shards::default(),
            renewals: Renewals::default(),
        }
    }

    /// Takes inputs in, and returns what is to be done, in this order.
    pub(crate) fn handle(
        &mut self,
        state: &State,
        now: Now,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Vec<Output> {
        let mut turn = Turn {
            state,
            now,
            out: Vec::new(),
        };
        for input in inputs {
            self.take(&mut turn, input);
        }
        self.end_pauses(now);
        self.propose_later(&mut turn);
        self.lead_if_due(&mut turn);
        if matches!(self.phase, Phase::Leading { .. }) {
            if std::mem::take(&mut self.derive) {
                self.derive_effects(&mut turn);
            }
            self.keep_executors(&mut turn);
            self.grant_shards(&mut turn);
            self.dispatch(&mut turn);
            self.flush_commits(&mut turn);
        }
        self.confirm_renewals(&mut turn);
        self.measure();
        turn.out
    }

    fn take(&mut self, turn: &mut Turn<'_>, input: Input) {
        match input {
            Input::Leadership(term) => self.on_leadership(turn, term),
            Input::Effect(tenant, effect) => self.on_effect(turn, tenant, effect),
            Input::EffectsLost => self.derive = true,
            Input::LinkUp(node) => self.on_link_up(turn, node),
            Input::LinkDown(node, silent) => self.on_link_down(turn, &node, silent),
            Input::Report(message) => self.on_message(turn, *message),
            Input::Answered(ticket, answer) => self.on_answer(turn, ticket, answer),
            Input::Asked(request) => self.on_request(turn, request),
            Input::Done(Done::Confirmed(confirm, leads)) => {
                self.on_confirmed(turn, confirm, leads);
            }
            Input::Done(done) => self.on_done(turn, done),
            Input::Tick => self.check_deadlines(turn),
        }
    }

    fn on_effect(&mut self, turn: &mut Turn<'_>, tenant: TenantId, effect: Effect) {
        // A leader that waits derives all effects from the state when it has heard of the nodes.
        if !matches!(self.phase, Phase::Leading { .. }) {
            return;
        }
        match effect {
            Effect::PlanJob { job } => self.prepare(turn, tenant, job),
            Effect::RunStage { job, stage } => self.enqueue_stage(turn.state, &tenant, &job, stage),
            Effect::RunTask { job, stage, task } => {
                let id = TaskId { job, stage, task };
                if !self.is_under_way(&id) {
                    self.queue.push_front(&tenant, id);
                }
            }
            Effect::PublishJob { .. } => self.queue.push_step(&tenant, effect),
            Effect::ArchiveJob { job } => self.stop_job(turn, tenant, job),
        }
    }

    /// Derives everything that is to be done from the state; what is under way stays.
    fn derive_effects(&mut self, turn: &mut Turn<'_>) {
        self.reap_leases(turn);
        if !self.losing.is_empty() {
            // Commits under those leases may be in the log: what is open is known when they have
            // lapsed.
            self.derive = true;
            return;
        }
        for (tenant, effect) in turn.state.pending_effects() {
            self.on_effect(turn, tenant, effect);
        }
        self.want_free_shards(turn);
    }

    /// Returns whether the task waits, runs, or is about to be committed.
    fn is_under_way(&self, id: &TaskId) -> bool {
        self.busy.contains_key(id) || self.queue.holds(id)
    }

    fn begin(&mut self, id: &TaskId) {
        *self.busy.entry(id.clone()).or_default() += 1;
    }

    fn end(&mut self, id: &TaskId) {
        if let Some(n) = self.busy.get_mut(id) {
            *n -= 1;
            if *n == 0 {
                self.busy.remove(id);
            }
        }
    }

    /// Work is not under way any more: it is begun again if the state says that it is open. Effects
    /// that asked for it meanwhile were passed over.
    fn unmark(&mut self, turn: &mut Turn<'_>, tenant: &TenantId, marks: Marks) {
        for id in marks.tasks {
            self.end(&id);
            self.archive_when_quiet(turn, &id.job);
            let open = job(turn.state, tenant, &id.job).is_some_and(|job| is_open(job, &id));
            if open && !self.is_under_way(&id) {
                self.queue.push_front(tenant, id);
            }
        }
        for (id, step) in marks.steps {
            self.steps.remove(&(id.clone(), step));
            self.archive_when_quiet(turn, &id);
            let Some(job) = job(turn.state, tenant, &id) else {
                continue;
            };
            if !matches!(self.phase, Phase::Leading { .. }) {
                // A leader that waits for nodes begins nothing, and hears of nothing that is done: when it goes on, it
                // derives what is open from the state.
                continue;
            }
            match (&job.state, step) {
                (JobState::Planning(_), Step::Plan) => self.prepare(turn, tenant.clone(), id),
                (JobState::Publishing(_), Step::Publish) => {
                    self.queue.push_step(tenant, Effect::PublishJob { job: id });
                }
                _ => {}
            }
        }
    }

    /// The time at which something is due that no input announces, in monotonic milliseconds.
    pub(crate) fn next_wake_ms(&self) -> Option<u64> {
        let phase = match &self.phase {
            Phase::Waiting(waiting) => Some(waiting.until_ms),
            Phase::Following | Phase::Leading { .. } => None,
        };
        let restarts = self.restarts.values().filter_map(|one| one.not_before_ms);
        let nodes = self.nodes.values();
        let down = nodes.filter_map(|node| Some(node.down_since_ms? + LEASE_MS));
        let later = self.later.iter().map(|later| later.at_ms);
        restarts.chain(phase).chain(down).chain(later).min()
    }

    /// Shows what waits and what runs.
    fn measure(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let executors = || self.nodes.values().flat_map(|node| node.executors.values());
        self.metrics.tasks_waiting.set(gauge(self.queue.n_tasks()));
        let steps = self.queue.n_steps() + self.preparing.len();
        self.metrics.steps_waiting.set(gauge(steps));
        let running = executors().map(|one| one.running.len()).sum();
        self.metrics.tasks_running.set(gauge(running));
        let ready = executors().any(|one| one.ready);
        self.metrics.executor_ready.set(i64::from(ready));
        let slots: u32 = self.nodes.values().map(|node| node.slots).sum();
        self.metrics.slots.set(i64::from(slots));
    }
}

/// Returns whether the task of a running job has no commit, and what it reads is there.
fn is_open(job: &Job, id: &TaskId) -> bool {
    let JobState::Running(running) = &job.state else {
        return false;
    };
    let stage = running.stages.get(id.stage as usize);
    let is_open = stage.is_some_and(|stage| !stage.commits.contains_key(&id.task));
    is_open && running.is_readable(id.stage)
}

fn job<'a>(state: &'a State, tenant: &TenantId, id: &JobId) -> Option<&'a Job> {
    state.tenant(tenant)?.jobs.get(id)
}

/// Steps of jobs that wait for an executor, in order.
type Steps = VecDeque<Effect>;
