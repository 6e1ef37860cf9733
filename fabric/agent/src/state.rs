//! The agent without its processes: what it knows, and what it does about commands and events.
//!
//! ```text
//! ToAgent ────────▶ AgentState ──Action──▶ start, stop, messages to executors
//! FromExecutor ───▶     │ results: number ─▶ result, until acknowledged
//!                       └──Action::Report──▶ leader
//! ```
//!
//! It does no I/O, so that a test can put anything between two of its steps. Sequences of attempts
//! are allotted here, under each executor's epoch, so that a new leader needs no memory of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_core::{AttemptId, Epoch, FunctionUsage, Incarnation, JobId, NodeId, TaskId, TenantId};
use weft_protocol::{
    AgentCommand, AgentOutcome, AgentReport, AgentStatus, ExecutorStatus, FromAgent, FromExecutor,
    MESSAGE_VERSION, RunningAttempt, RunningWork, TaskReply, TaskRequest, ToAgent, ToExecutor,
    Work,
};

use crate::leases::Renewals;
use crate::results::Results;

/// Leases that are remembered after their executors were started.
const MAX_STARTED: usize = 4_096;

/// A node, as its agent describes it.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// The node.
    pub node: NodeId,
    /// Life of the agent.
    pub incarnation: Incarnation,
    /// Name of the artefacts that the node's engine takes.
    pub compatibility: String,
    /// Tasks that run side by side.
    pub slots: u32,
}

/// Something to be done for the agent, in order.
#[derive(Debug)]
pub enum Action {
    /// Start an executor.
    Start {
        /// The executor's lease.
        epoch: Epoch,
        /// The executor's tenant.
        tenant: TenantId,
    },
    /// End an executor.
    Stop {
        /// The executor's lease.
        epoch: Epoch,
    },
    /// Send a message to an executor.
    Send {
        /// The executor's lease.
        epoch: Epoch,
        /// The message.
        message: ToExecutor,
    },
    /// Send a report to the leader.
    Report(Box<FromAgent>),
}

/// An executor and its work that has no result.
struct Executor {
    tenant: TenantId,
    ready: bool,
    /// Sequence of the last attempt.
    last_sequence: u64,
    attempts: BTreeMap<u64, (TaskId, u32)>,
    planning: BTreeSet<JobId>,
    publishing: BTreeSet<JobId>,
}

impl Executor {
    fn running(&self, epoch: Epoch) -> RunningWork {
        let attempt = |(sequence, (id, attempt)): (&u64, &(TaskId, u32))| RunningAttempt {
            id: id.clone(),
            attempt: *attempt,
            attempt_id: AttemptId {
                epoch,
                sequence: *sequence,
            },
        };
        RunningWork {
            attempts: self.attempts.iter().map(attempt).collect(),
            planning: self.planning.iter().cloned().collect(),
            publishing: self.publishing.iter().cloned().collect(),
        }
    }
}

/// The agent without its processes.
pub struct AgentState {
    settings: NodeSettings,
    executors: BTreeMap<Epoch, Executor>,
    /// Leases under which executors were started: none is started twice, or sequences would repeat.
    started: BTreeSet<Epoch>,
    results: Results,
    renewals: Renewals,
    /// The highest term of a leader that it has heard of.
    term: u64,
    draining: bool,
    actions: Vec<Action>,
}

impl AgentState {
    /// An agent without executors.
    pub fn new(settings: NodeSettings) -> Self {
        Self {
            settings,
            executors: BTreeMap::new(),
            started: BTreeSet::new(),
            results: Results::default(),
            renewals: Renewals::default(),
            term: 0,
            draining: false,
            actions: Vec::new(),
        }
    }

    fn report(&mut self, report: AgentReport) {
        // Results are kept, and whoever leads first asks for them.
        if self.term > 0 {
            self.actions.push(Action::Report(Box::new(FromAgent {
                version: MESSAGE_VERSION,
                node: self.settings.node.clone(),
                incarnation: self.settings.incarnation,
                report,
            })));
        }
    }

    /// Adds a result, and reports it.
    fn conclude(&mut self, tenant: TenantId, outcome: AgentOutcome) {
        let result = self.results.add(tenant, outcome);
        self.report(AgentReport::Result(result));
    }

    fn send(&mut self, epoch: Epoch, message: ToExecutor) {
        self.actions.push(Action::Send { epoch, message });
    }

    /// A leader commands.
    pub fn on_command(&mut self, message: ToAgent) -> Vec<Action> {
        let ToAgent {
            version,
            term,
            incarnation,
            command,
        } = message;
        let is_lead = matches!(command, AgentCommand::Lead { .. });
        let is_ours = incarnation.as_ref() == Some(&self.settings.incarnation);
        if version != MESSAGE_VERSION {
            tracing::error!(
                version,
                ours = MESSAGE_VERSION,
                "a controller of another version is not followed"
            );
        } else if term < self.term {
            tracing::warn!(
                term,
                highest = self.term,
                "a command of an earlier leader is refused"
            );
        } else if !is_lead && !is_ours {
            tracing::debug!(
                ?incarnation,
                "a command to an earlier life of this agent is refused"
            );
        } else {
            self.term = term;
            self.obey(command);
        }
        std::mem::take(&mut self.actions)
    }

    fn obey(&mut self, command: AgentCommand) {
        match command {
            AgentCommand::Lead { sync } => {
                let status = self.status(sync);
                self.report(AgentReport::Status(status));
                // The leader before may have taken questions along.
                self.renewals.want();
            }
            AgentCommand::StartExecutor { epoch, tenant } => self.start(epoch, tenant),
            AgentCommand::StopExecutor { epoch } => {
                if self.executors.contains_key(&epoch) {
                    self.actions.push(Action::Stop { epoch });
                }
            }
            AgentCommand::Work { epoch, work } => self.pass_on(epoch, work),
            AgentCommand::Run { epoch, id, attempt } => self.run_task(epoch, id, attempt),
            AgentCommand::Drain => self.begin_to_drain(),
            AgentCommand::Renewed { round, executors } => {
                for (epoch, lease) in self.renewals.answered(round, executors) {
                    self.send(epoch, lease);
                }
            }
            AgentCommand::Acknowledge { numbers } => self.results.acknowledge(&numbers),
        }
    }

    /// Time until [`AgentState::renew`] is due; nothing while there is no lease to renew, or nobody to ask. `now_ns`:
    /// nanoseconds since the machine booted.
    pub fn renewal_due_in(&self, now_ns: u64) -> Option<Duration> {
        let any = self.term > 0 && !self.executors.is_empty();
        any.then(|| self.renewals.due_in(now_ns))
    }

    /// Asks the leader which leases stand, if that is due.
    pub fn renew(&mut self, now_ns: u64) -> Vec<Action> {
        if self.renewal_due_in(now_ns) == Some(Duration::ZERO) {
            let round = self.renewals.ask(now_ns);
            self.report(AgentReport::Renew { round });
        }
        std::mem::take(&mut self.actions)
    }

    fn status(&self, sync: u64) -> AgentStatus {
        let executor = |(epoch, executor): (&Epoch, &Executor)| ExecutorStatus {
            epoch: *epoch,
            tenant: executor.tenant.clone(),
            ready: executor.ready,
            running: executor.running(*epoch),
        };
        AgentStatus {
            sync,
            slots: self.settings.slots,
            compatibility: self.settings.compatibility.clone(),
            draining: self.draining,
            executors: self.executors.iter().map(executor).collect(),
            results: self.results.all(),
        }
    }

    fn begin_to_drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            tracing::info!("draining: no new work is taken");
        }
        // Whoever asks again waits for this as well.
        self.report(AgentReport::Draining);
    }

    /// Takes no new work from now on.
    pub fn drain(&mut self) -> Vec<Action> {
        self.begin_to_drain();
        std::mem::take(&mut self.actions)
    }

    /// Returns whether no new work is taken.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Returns whether the node drains, and everything that it was given is done and recorded.
    pub fn is_drained(&self) -> bool {
        let is_idle = |executor: &Executor| {
            executor.attempts.is_empty()
                && executor.planning.is_empty()
                && executor.publishing.is_empty()
        };
        self.draining && self.executors.values().all(is_idle) && self.results.len() == 0
    }

    fn start(&mut self, epoch: Epoch, tenant: TenantId) {
        if !self.started.insert(epoch) {
            return;
        }
        if self.started.len() > MAX_STARTED {
            self.started.pop_first();
        }
        let executor = Executor {
            tenant: tenant.clone(),
            ready: false,
            last_sequence: 0,
            attempts: BTreeMap::new(),
            planning: BTreeSet::new(),
            publishing: BTreeSet::new(),
        };
        self.executors.insert(epoch, executor);
        self.actions.push(Action::Start { epoch, tenant });
    }

    /// Passes work on. Work for an executor that is gone goes nowhere: its end is reported.
    fn pass_on(&mut self, epoch: Epoch, work: Work) {
        let Some(executor) = self.executors.get_mut(&epoch) else {
            return;
        };
        match &work {
            Work::Plan(request) => drop(executor.planning.insert(request.job.clone())),
            Work::Publish(request) => drop(executor.publishing.insert(request.job.clone())),
            Work::Describe { .. } | Work::Stage(_) | Work::Forget { .. } | Work::Shards { .. } => {}
        }
        self.send(epoch, ToExecutor::Work(work));
    }

    fn run_task(&mut self, epoch: Epoch, id: TaskId, attempt: u32) {
        let Some(executor) = self.executors.get_mut(&epoch) else {
            return;
        };
        executor.last_sequence += 1;
        let sequence = executor.last_sequence;
        executor.attempts.insert(sequence, (id.clone(), attempt));
        let request = TaskRequest {
            id,
            attempt,
            epoch,
            sequence,
            agent: self.settings.incarnation,
        };
        self.send(epoch, ToExecutor::Task(request));
    }

    /// An executor's process is gone, or did not start.
    pub fn on_gone(&mut self, epoch: Epoch, how: String) -> Vec<Action> {
        self.renewals.forget(epoch);
        if let Some(executor) = self.executors.remove(&epoch) {
            let gone = AgentOutcome::Gone {
                epoch,
                how,
                was_ready: executor.ready,
                lost: executor.running(epoch),
            };
            self.conclude(executor.tenant, gone);
        }
        std::mem::take(&mut self.actions)
    }

    /// An executor sends a message.
    pub fn on_message(&mut self, epoch: Epoch, message: FromExecutor) -> Vec<Action> {
        self.take(epoch, message);
        std::mem::take(&mut self.actions)
    }

    fn take(&mut self, epoch: Epoch, message: FromExecutor) {
        let Some(executor) = self.executors.get_mut(&epoch) else {
            return;
        };
        let tenant = executor.tenant.clone();
        match message {
            FromExecutor::Ready { .. } => {
                executor.ready = true;
                self.report(AgentReport::Ready { epoch });
            }
            FromExecutor::Described(reply) => {
                self.report(AgentReport::Described { epoch, reply });
            }
            FromExecutor::Planned(reply) => match executor.planning.remove(&reply.job) {
                true => self.conclude(tenant, AgentOutcome::Planned { epoch, reply }),
                false => self.distrust(epoch, &reply.job),
            },
            FromExecutor::Published { job, result } => match executor.publishing.remove(&job) {
                true => {
                    let published = AgentOutcome::Published { epoch, job, result };
                    self.conclude(tenant, published);
                }
                false => self.distrust(epoch, &job),
            },
            FromExecutor::Task(reply) => {
                if is_of_attempt(executor, epoch, &reply) {
                    self.conclude(tenant, AgentOutcome::Task { epoch, reply });
                } else {
                    self.distrust(epoch, &reply.job);
                }
            }
            FromExecutor::Confirm { number } => self.renewals.confirm(epoch, number),
            // The relay passes these on by itself.
            FromExecutor::Invoked(_)
            | FromExecutor::Output { .. }
            | FromExecutor::InputRead { .. }
            | FromExecutor::RowsSent { .. }
            | FromExecutor::NotHere { .. }
            | FromExecutor::Call(_)
            | FromExecutor::CancelCall { .. } => {}
        }
    }

    /// Ends an executor that answers for work that it was not given.
    fn distrust(&mut self, epoch: Epoch, job: &JobId) {
        tracing::error!(%epoch, %job, "an executor answers for work that it was not given");
        self.actions.push(Action::Stop { epoch });
    }

    /// Returns whether the executor takes work.
    pub fn is_ready(&self, epoch: Epoch) -> bool {
        self.executors.get(&epoch).is_some_and(|one| one.ready)
    }

    /// Returns whether usage of the tenant may be reported: the last report was acknowledged.
    pub fn may_report_usage(&self, tenant: &TenantId) -> bool {
        !self.results.reports_usage_of(tenant)
    }

    /// Number of results that no leader has acknowledged.
    pub fn n_unacknowledged(&self) -> usize {
        self.results.len()
    }

    /// Invocations have used this, since the last report.
    pub fn on_usage(&mut self, tenant: TenantId, usage: Vec<FunctionUsage>) -> Vec<Action> {
        self.conclude(tenant, AgentOutcome::Usage { usage });
        std::mem::take(&mut self.actions)
    }
}

/// Takes an attempt off those that run. Returns false if the executor runs no such attempt: it is not
/// trusted.
fn is_of_attempt(executor: &mut Executor, epoch: Epoch, reply: &TaskReply) -> bool {
    let (attempt_id, stage, task, label) = match &reply.result {
        Ok(commit) => (
            commit.attempt_id(),
            commit.stage,
            commit.task,
            commit.attempt,
        ),
        Err(failure) => (
            failure.attempt_id(),
            failure.stage,
            failure.task,
            failure.attempt,
        ),
    };
    let id = TaskId {
        job: reply.job.clone(),
        stage,
        task,
    };
    let known = executor.attempts.get(&attempt_id.sequence);
    let fits = attempt_id.epoch == epoch && known == Some(&(id, label));
    if fits {
        executor.attempts.remove(&attempt_id.sequence);
    }
    fits
}
