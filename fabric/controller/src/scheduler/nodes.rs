//! Nodes and executors, as far as this leader knows them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;
use weft_control::{Command, JobState, Lease, NodeRecord, Step};
use weft_core::{Description, Epoch, Incarnation, JobId, NodeId, Problem, TaskId, TenantId};
use weft_protocol::{
    AgentCommand, AgentReport, AgentStatus, ExecutorStatus, FromAgent, MESSAGE_VERSION, Work,
};

use super::io::{CheckAnswer, DrainAnswer, Marks, Pending};
use super::leadership::Phase;
use super::quarantine::Record;
use super::{LEASE_MS, Scheduler, Turn, job};

/// An executor, and what it was given.
#[derive(Default)]
pub(super) struct ExecutorView {
    pub(super) tenant: Option<TenantId>,
    pub(super) ready: bool,
    /// It was told to end.
    pub(super) stopping: bool,
    /// Attempts, by task and label.
    pub(super) running: BTreeSet<(TaskId, u32)>,
    /// Stages whose context it has, and how many objects that they read had been written again by then.
    pub(super) stages: BTreeMap<(JobId, u32), u64>,
    /// Steps of jobs.
    pub(super) steps: BTreeSet<(JobId, Step)>,
    pub(super) describing: BTreeMap<u64, oneshot::Sender<Result<Description, Problem>>>,
    pub(super) checking: BTreeMap<JobId, CheckAnswer>,
    /// Shards of actors that it was told are its own.
    pub(super) shards: Vec<u32>,
}

impl ExecutorView {
    pub(super) fn of(tenant: TenantId) -> Self {
        Self {
            tenant: Some(tenant),
            ..Self::default()
        }
    }

    pub(super) fn is_of(&self, tenant: &TenantId) -> bool {
        self.tenant.as_ref() == Some(tenant)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
            && self.steps.is_empty()
            && self.describing.is_empty()
            && self.checking.is_empty()
    }
}

/// A node whose link is up.
#[derive(Default)]
pub(super) struct NodeView {
    /// Its agent has sent its status to this leader.
    pub(super) reported: bool,
    /// The state knows its agent.
    pub(super) joined: bool,
    pub(super) incarnation: Option<Incarnation>,
    /// It takes no new work, or was told so.
    pub(super) draining: bool,
    /// Whoever waits until it has heard that it drains.
    pub(super) drain_asked: Vec<DrainAnswer>,
    pub(super) slots: u32,
    pub(super) compatibility: String,
    pub(super) executors: BTreeMap<Epoch, ExecutorView>,
    /// Tenants for which a lease is being proposed.
    pub(super) granting: BTreeSet<TenantId>,
    /// Outcomes of its attempts, lately.
    pub(super) record: Record,
    /// Since when its link is down.
    pub(super) down_since_ms: Option<u64>,
    /// The question for its status that has no answer.
    pub(super) syncing: Option<u64>,
}

impl NodeView {
    /// Returns whether commands may be sent to it.
    pub(super) fn takes_commands(&self) -> bool {
        self.reported && self.syncing.is_none() && self.down_since_ms.is_none()
    }

    /// Takes over whoever waits until the node has heard that it drains, unless it has.
    fn keep_asked(&mut self, before: &mut NodeView, has_heard: bool) {
        self.drain_asked = std::mem::take(&mut before.drain_asked);
        if has_heard {
            answer_drain(&mut self.drain_asked);
        }
    }

    /// Returns whether an executor of the tenant could be started here, and is not.
    pub(super) fn lacks_executor_of(&self, tenant: &TenantId) -> bool {
        self.joined
            && !self.draining
            && self.takes_commands()
            && !self.granting.contains(tenant)
            && !self.executors.values().any(|one| one.is_of(tenant))
    }

    /// Attempts that run on the node.
    pub(super) fn n_running(&self) -> usize {
        self.executors.values().map(|one| one.running.len()).sum()
    }
}

fn answer_drain(asked: &mut Vec<DrainAnswer>) {
    for answer in asked.drain(..) {
        // The client may have gone.
        let _ = answer.send(Ok(()));
    }
}

impl Scheduler {
    pub(super) fn on_link_up(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        self.nodes.entry(node.clone()).or_default().down_since_ms = None;
        self.sync(turn, &node);
    }

    /// A node counts as down since it was last heard.
    pub(super) fn on_link_down(&mut self, turn: &Turn<'_>, node: &NodeId, silent: Duration) {
        if let Some(view) = self.nodes.get_mut(node) {
            let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
            let since_ms = turn.now.monotonic_ms.saturating_sub(silent_ms);
            view.down_since_ms.get_or_insert(since_ms);
        }
    }

    /// Asks a node for its status.
    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, node: &NodeId) {
        let sync = self.next_request;
        self.next_request += 1;
        let view = self.nodes.get_mut(node);
        if let Some(view) = view.filter(|view| view.down_since_ms.is_none()) {
            view.syncing = Some(sync);
            self.send(turn, node, AgentCommand::Lead { sync });
        }
    }

    /// Gives up nodes whose link has been down for a lease's time.
    pub(super) fn expire_nodes(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.monotonic_ms;
        let is_over = |since: Option<u64>| since.is_some_and(|since| now >= since + LEASE_MS);
        let lost: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, view)| is_over(view.down_since_ms))
            .map(|(node, _)| node.clone())
            .collect();
        for node in lost {
            let Some(view) = self.nodes.remove(&node) else {
                continue;
            };
            tracing::warn!(%node, executors = view.executors.len(), "node lost");
            for (epoch, executor) in view.executors {
                self.lose_executor(turn, epoch, executor, "its node was lost");
            }
            self.derive = true;
        }
    }

    pub(super) fn on_message(&mut self, turn: &mut Turn<'_>, message: FromAgent) {
        let FromAgent {
            version,
            node,
            incarnation,
            report,
        } = message;
        if version != MESSAGE_VERSION {
            tracing::error!(%node, version, ours = MESSAGE_VERSION, "a node of another version is not listened to");
            return;
        }
        if self.phase.term().is_none() {
            return;
        }
        let Some(view) = self.nodes.get_mut(&node) else {
            return;
        };
        if let AgentReport::Status(status) = report {
            self.on_status(turn, &node, incarnation, status);
            return;
        }
        if view.incarnation.as_ref() != Some(&incarnation) {
            // It reports to a leader that has not heard of it: its status is on the way.
            return;
        }
        match report {
            AgentReport::Ready { epoch } => {
                if let Some(executor) = view.executors.get_mut(&epoch) {
                    executor.ready = !executor.stopping;
                    let tenant = executor.tenant.clone();
                    self.restarts
                        .retain(|(of, one), _| *of != node || Some(one) != tenant.as_ref());
                }
            }
            AgentReport::Draining => {
                tracing::info!(%node, "node drains");
                view.draining = true;
                answer_drain(&mut view.drain_asked);
            }
            AgentReport::Described { epoch, reply } => {
                let executor = view.executors.get_mut(&epoch);
                let waiting = executor.and_then(|one| one.describing.remove(&reply.request));
                if let Some(waiting) = waiting {
                    // The client may have gone meanwhile.
                    let _ = waiting.send(reply.result);
                }
            }
            AgentReport::Renew { round } => self.on_renew(node, incarnation, round),
            AgentReport::Result(result) => self.on_result(turn, &node, &incarnation, result),
            AgentReport::Status(_) => {}
        }
    }

    /// Takes a node's word for what it does.
    fn on_status(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        incarnation: Incarnation,
        status: AgentStatus,
    ) {
        let view = self.nodes.get_mut(node);
        let asked = view.filter(|view| view.syncing == Some(status.sync));
        let Some(mut before) = asked.map(std::mem::take) else {
            // The answer to an earlier question: it does not show all that was sent.
            return;
        };
        let same = before.incarnation.as_ref() == Some(&incarnation);
        if !same {
            for (epoch, executor) in std::mem::take(&mut before.executors) {
                let how = "the agent of its node started again";
                self.lose_executor(turn, epoch, executor, how);
            }
        }
        let mut view = NodeView {
            reported: true,
            joined: turn.state.nodes.lives(node, &incarnation),
            incarnation: Some(incarnation),
            draining: status.draining,
            slots: status.slots,
            compatibility: status.compatibility.clone(),
            granting: std::mem::take(&mut before.granting),
            record: before.record,
            ..NodeView::default()
        };
        let joined = view.joined;
        // The command to drain was lost with its link.
        let drains_again = same && before.draining && !view.draining;
        view.draining |= drains_again;
        if same {
            view.keep_asked(&mut before, status.draining);
        }
        let mut stopped = Vec::new();
        for executor in status.executors {
            let known = before.executors.remove(&executor.epoch);
            let in_force = turn.state.leases.in_force(executor.epoch, &executor.tenant);
            if !in_force || self.losing.contains(&executor.epoch) {
                // Its results are recorded all the same: the state says that they are fenced.
                stopped.push(executor.epoch);
                known.into_iter().for_each(|known| self.release(known));
                continue;
            }
            let (epoch, executor) = self.executor_of(executor, known.unwrap_or_default());
            view.executors.insert(epoch, executor);
        }
        // Those that are not listed have ended, and their end is among the results.
        let gone = std::mem::take(&mut before.executors);
        gone.into_values().for_each(|gone| self.release(gone));
        self.nodes.insert(node.clone(), view);
        let stops = stopped.into_iter();
        let stops = stops.map(|epoch| AgentCommand::StopExecutor { epoch });
        for command in stops.chain(drains_again.then_some(AgentCommand::Drain)) {
            self.send(turn, node, command);
        }
        if !joined {
            self.join(turn, node, incarnation, status.slots, status.compatibility);
        }
        self.forget_ended_jobs(turn, node);
        self.tell_shards_of_node(turn, node);
        for result in status.results {
            self.on_result(turn, node, &incarnation, result);
        }
        self.derive |= matches!(self.phase, Phase::Leading { .. });
    }

    /// Drops what an executor was known to do; clients that wait for it try again.
    fn release(&mut self, executor: ExecutorView) {
        for (id, _) in &executor.running {
            self.end(id);
        }
        for step in &executor.steps {
            self.steps.remove(step);
        }
    }

    fn executor_of(
        &mut self,
        status: ExecutorStatus,
        mut known: ExecutorView,
    ) -> (Epoch, ExecutorView) {
        // Work or answers may have been lost with a link: clients of descriptions see their channels
        // closed, and try again, as those of checks that are not being planned.
        let mut checking = std::mem::take(&mut known.checking);
        checking.retain(|job, _| status.running.planning.contains(job));
        let stopping = known.stopping;
        self.release(known);
        let mut view = ExecutorView {
            tenant: Some(status.tenant),
            ready: status.ready && !stopping,
            stopping,
            checking,
            ..ExecutorView::default()
        };
        for attempt in status.running.attempts {
            self.begin(&attempt.id);
            view.running.insert((attempt.id, attempt.attempt));
        }
        let planning = status.running.planning.into_iter();
        let planning = planning.filter(|job| !view.checking.contains_key(job));
        let planning: Vec<_> = planning.map(|job| (job, Step::Plan)).collect();
        let publishing = status.running.publishing.into_iter();
        let publishing = publishing.map(|job| (job, Step::Publish));
        for step in planning.into_iter().chain(publishing) {
            self.steps.insert(step.clone());
            view.steps.insert(step);
        }
        (status.epoch, view)
    }

    /// Tells a node to stop work of jobs that have ended: it may not have heard of it.
    fn forget_ended_jobs(&mut self, turn: &mut Turn<'_>, node: &NodeId) {
        let mut ended = BTreeSet::new();
        for (epoch, executor) in &self.nodes[node].executors {
            let Some(tenant) = &executor.tenant else {
                continue;
            };
            let tasks = executor.running.iter().map(|(id, _)| &id.job);
            for id in tasks.chain(executor.steps.iter().map(|(job, _)| job)) {
                let works = job(turn.state, tenant, id)
                    .is_some_and(|job| !matches!(job.state, JobState::Ending(_)));
                if !works {
                    ended.insert((*epoch, id.clone()));
                }
            }
        }
        for (epoch, job) in ended {
            let work = Work::Forget { job };
            self.send(turn, node, AgentCommand::Work { epoch, work });
        }
    }

    fn join(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        incarnation: Incarnation,
        slots: u32,
        compatibility: String,
    ) {
        let record = NodeRecord {
            incarnation,
            slots,
            compatibility,
            joined_ms: turn.now.unix_ms,
        };
        let (node, of) = (node.clone(), TenantId::default_tenant());
        let pending = Pending::Join(node.clone(), incarnation);
        let join = Command::JoinNode { node, record };
        self.propose(turn, &of, None, join, pending);
    }

    /// Has leases lapse that nobody holds: of nodes that are gone or silent, and of executors whose
    /// start was lost with a leader.
    pub(super) fn reap_leases(&mut self, turn: &mut Turn<'_>) {
        let is_held = |epoch: Epoch, lease: &Lease| match self.nodes.get(&lease.node) {
            None => false,
            Some(view) => {
                view.executors.contains_key(&epoch)
                    || view.granting.contains(&lease.tenant)
                    // Its link is down for now, or its answer is on the way.
                    || (view.reported && !view.takes_commands())
            }
        };
        let is_reported = |epoch: Epoch| {
            let mut recording = self.recording.values();
            recording.any(|of| *of == Some(epoch))
        };
        let leases = turn.state.leases.iter();
        let lapsed: Vec<(Epoch, TenantId)> = leases
            .filter(|(epoch, lease)| !is_held(*epoch, lease) && !is_reported(*epoch))
            .filter(|(epoch, _)| !self.losing.contains(epoch))
            .map(|(epoch, lease)| (epoch, lease.tenant.clone()))
            .collect();
        for (epoch, tenant) in lapsed {
            self.propose_loss(
                turn,
                epoch,
                &tenant,
                Vec::new(),
                Vec::new(),
                Marks::default(),
            );
        }
    }
}
