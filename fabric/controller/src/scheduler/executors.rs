//! Executors: leased and started for tenants with work, lost, started again after a pause.

use std::collections::BTreeSet;

use weft_control::{Answer, Command, Lease, Origin, State, Step};
use weft_core::{Epoch, ErrorCode, FunctionUsage, JobId, NodeId, Problem, TaskId, TenantId};
use weft_protocol::{AgentCommand, RunningWork, SlotVector, TaskFailure};

use super::io::{Marks, Now, Pending, Proposal, Ticket};
use super::nodes::ExecutorView;
use super::results::Of;
use super::{Output, Scheduler, Turn, job};

/// Executors of one node: each is a process.
const MAX_EXECUTORS: usize = 16;
/// Pause before a dead executor's successor is started; doubled for each one that died before it was
/// ready, up to a bound.
const RESTART_PAUSE_MS: u64 = 20;
const MAX_RESTART_DOUBLINGS: u32 = 8;
/// Characters of an executor's end that are kept.
const MAX_HOW_CHARS: usize = 600;

/// Executors of a tenant that died on a node.
#[derive(Debug, Default)]
pub(super) struct Restart {
    /// Those in a row that died before they were ready.
    stillborn: u32,
    /// How the last of them did.
    how: String,
    /// When the next one may be started.
    pub(super) not_before_ms: Option<u64>,
}

impl Restart {
    /// One more has died. `stillborn`: how, if it was not ready before.
    fn died(&mut self, stillborn: Option<&str>) {
        self.stillborn = match stillborn {
            None => 0,
            Some(_) => (self.stillborn + 1).min(MAX_RESTART_DOUBLINGS),
        };
        let how = stillborn.unwrap_or_default();
        self.how = how.chars().take(MAX_HOW_CHARS).collect();
    }

    /// Returns why there is no executor, for people, if the last one did not become ready.
    pub(super) fn reason(&self) -> Option<String> {
        let how = &self.how;
        (self.stillborn > 0).then(|| format!("the last one ended before it was ready ({how})"))
    }
}

impl Scheduler {
    /// Starts executors for tenants that have work and none, where there is room for them.
    pub(super) fn keep_executors(&mut self, turn: &mut Turn<'_>) {
        let wanted = std::mem::take(&mut self.wanted);
        let tenants = self.settings.eager.iter().chain(&wanted);
        let tenants = tenants.chain(self.queue.busy());
        let tenants = tenants.chain(self.shards.tenants());
        let lacking: Vec<(NodeId, TenantId)> = tenants
            .flat_map(|tenant| {
                self.nodes
                    .iter()
                    .map(move |(node, view)| (tenant, node, view))
            })
            .filter(|(tenant, _, view)| view.lacks_executor_of(tenant))
            .map(|(tenant, node, _)| (node.clone(), tenant.clone()))
            .collect();
        for (node, tenant) in lacking {
            self.start_executor(turn, &node, &tenant);
        }
    }

    fn start_executor(&mut self, turn: &mut Turn<'_>, node: &NodeId, tenant: &TenantId) {
        let view = &self.nodes[node];
        if !view.lacks_executor_of(tenant) {
            // Wanted twice.
            return;
        }
        let is_ending = |epoch: Epoch| {
            self.losing.contains(&epoch) || self.recording.values().any(|of| *of == Some(epoch))
        };
        let mut leases = turn.state.leases.iter();
        if leases.any(|(epoch, lease)| {
            lease.node == *node && lease.tenant == *tenant && is_ending(epoch)
        }) {
            // Results under the lease before must stand first: a new one takes its place.
            return;
        }
        let key = (node.clone(), tenant.clone());
        let restart = self.restarts.get(&key);
        if restart.is_some_and(|restart| restart.not_before_ms.is_some()) {
            return;
        }
        if view.executors.len() + view.granting.len() >= MAX_EXECUTORS {
            self.make_room(turn, node);
            return;
        }
        let Some(incarnation) = view.incarnation else {
            return;
        };
        let slot = SlotVector {
            milli_cpu: 1000,
            ..SlotVector::default()
        };
        let lease = Lease {
            tenant: tenant.clone(),
            node: node.clone(),
            incarnation,
            slots: vec![slot; view.slots as usize],
            granted_ms: turn.now.unix_ms,
        };
        if let Some(view) = self.nodes.get_mut(node) {
            view.granting.insert(tenant.clone());
        }
        let grant = Command::GrantLease { lease };
        let pending = Pending::Lease(node.clone());
        self.propose(turn, tenant, None, grant, pending);
    }

    /// Ends an executor of a tenant that has no work, if there is one. Those that serve shards stay: their actors would
    /// wait for another one.
    fn make_room(&mut self, turn: &mut Turn<'_>, node: &NodeId) {
        let busy = self.queue.busy().chain(self.shards.tenants());
        let busy: BTreeSet<&TenantId> = busy.collect();
        let is_free = |one: &ExecutorView| {
            let tenant = one.tenant.as_ref();
            one.ready
                && one.is_idle()
                && tenant.is_none_or(|tenant| !busy.contains(tenant))
                && tenant.is_none_or(|tenant| !self.settings.eager.contains(tenant))
        };
        let executors = &self.nodes[node].executors;
        if executors.values().any(|one| one.stopping) {
            return;
        }
        let free = executors
            .iter()
            .find(|(epoch, one)| is_free(one) && !self.serves_shards(turn, **epoch));
        let Some(epoch) = free.map(|(epoch, _)| *epoch) else {
            return;
        };
        if let Some(one) = self
            .nodes
            .get_mut(node)
            .and_then(|view| view.executors.get_mut(&epoch))
        {
            // Nothing more is sent to it; its end is reported.
            (one.ready, one.stopping) = (false, true);
        }
        self.send(turn, node, AgentCommand::StopExecutor { epoch });
    }

    /// A lease was granted, or not.
    pub(super) fn on_lease(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        tenant: TenantId,
        answer: &Result<Answer, Problem>,
    ) {
        let view = self.nodes.get_mut(node);
        let was_granting = view.is_some_and(|view| view.granting.remove(&tenant));
        let epoch = match answer {
            Ok(Answer::Lease { epoch }) => *epoch,
            other => {
                tracing::warn!(%node, %tenant, answer = ?other, "an executor gets no lease");
                self.pause_restart(turn, node, &tenant, Some("it got no lease"));
                return;
            }
        };
        let lease = turn.state.leases.get(epoch);
        let view = self.nodes.get_mut(node).filter(|_| was_granting);
        let view = view.filter(|view| {
            let incarnation = lease.map(|lease| &lease.incarnation);
            view.incarnation.as_ref() == incarnation
        });
        let Some(view) = view else {
            // The node went away meanwhile, and the lease lapses.
            self.derive = true;
            return;
        };
        tracing::info!(%node, %tenant, %epoch, "executor started");
        self.metrics.executors_started.inc();
        if !view.takes_commands() {
            // Its status, which is on the way, does not list it, and the lease lapses.
            self.derive = true;
            return;
        }
        view.executors
            .insert(epoch, ExecutorView::of(tenant.clone()));
        self.send(turn, node, AgentCommand::StartExecutor { epoch, tenant });
    }

    /// Ends pauses that are over.
    pub(super) fn end_pauses(&mut self, now: Now) {
        for restart in self.restarts.values_mut() {
            let at_ms = restart.not_before_ms;
            restart.not_before_ms = at_ms.filter(|at_ms| now.monotonic_ms < *at_ms);
        }
    }

    fn pause_restart(
        &mut self,
        turn: &Turn<'_>,
        node: &NodeId,
        tenant: &TenantId,
        stillborn: Option<&str>,
    ) {
        let key = (node.clone(), tenant.clone());
        let restart = self.restarts.entry(key).or_default();
        restart.died(stillborn);
        let pause_ms = RESTART_PAUSE_MS << restart.stillborn;
        restart.not_before_ms = Some(turn.now.monotonic_ms + pause_ms);
    }

    /// The executor of a node is gone, as its agent reports: the agent knows best what ran on it.
    pub(super) fn on_gone(
        &mut self,
        turn: &mut Turn<'_>,
        of: &Of<'_>,
        epoch: Epoch,
        how: &str,
        was_ready: bool,
        lost: RunningWork,
    ) {
        let view = self.nodes.get_mut(of.node);
        let executor = view.and_then(|view| view.executors.remove(&epoch));
        let executor = executor.unwrap_or_else(|| ExecutorView::of(of.tenant.clone()));
        self.pause_restart(turn, of.node, of.tenant, (!was_ready).then_some(how));
        let marks = self.mourn(epoch, &executor, how);
        let failures = lost.attempts.into_iter().map(|attempt| {
            let sequence = attempt.attempt_id.sequence;
            let attempt = (attempt.id, attempt.attempt);
            lost_attempt(turn.state, of.tenant, epoch, attempt, sequence, how)
        });
        let planning = lost.planning.into_iter().map(|job| (job, Step::Plan));
        let publishing = lost.publishing.into_iter().map(|job| (job, Step::Publish));
        let steps = planning.chain(publishing);
        let lost = Command::ExecutorLost {
            epoch,
            failures: failures.collect(),
            steps: steps.map(|(job, step)| (job, step, ended(how))).collect(),
        };
        // Tasks that never reached it are in no report: they have not failed, and begin again.
        self.record(turn, of, lost, of.pending(marks));
    }

    /// An executor is lost without a report of its agent: the attempts' sequences are not known.
    pub(super) fn lose_executor(
        &mut self,
        turn: &mut Turn<'_>,
        epoch: Epoch,
        executor: ExecutorView,
        how: &str,
    ) {
        let Some(tenant) = executor.tenant.clone() else {
            return;
        };
        let marks = self.mourn(epoch, &executor, how);
        let attempts = executor.running.iter().cloned();
        let failures = attempts
            .map(|attempt| lost_attempt(turn.state, &tenant, epoch, attempt, 0, how))
            .collect();
        let steps = executor.steps.iter().cloned();
        let steps = steps.map(|(job, step)| (job, step, ended(how))).collect();
        self.propose_loss(turn, epoch, &tenant, failures, steps, marks);
    }

    /// Takes note of an executor's end, and returns its work, which stays marked.
    fn mourn(&mut self, epoch: Epoch, executor: &ExecutorView, how: &str) -> Marks {
        self.metrics.executors_lost.inc();
        let running = executor.running.len();
        tracing::warn!(%epoch, how, running, "executor lost");
        let attempts = executor.running.iter().cloned();
        let steps: Vec<(JobId, Step)> = executor.steps.iter().cloned().collect();
        self.traces
            .lost(steps.iter().cloned(), attempts, &ended(how));
        let tasks: Vec<TaskId> = executor.running.iter().map(|(id, _)| id.clone()).collect();
        self.suspects.extend(tasks.iter().cloned());
        Marks { tasks, steps }
    }

    pub(super) fn propose_loss(
        &mut self,
        turn: &mut Turn<'_>,
        epoch: Epoch,
        tenant: &TenantId,
        failures: Vec<(JobId, TaskFailure)>,
        steps: Vec<(JobId, Step, Problem)>,
        marks: Marks,
    ) {
        self.losing.insert(epoch);
        let lost = Command::ExecutorLost {
            epoch,
            failures,
            steps,
        };
        let pending = Pending::Lost(epoch, marks, Box::new(lost.clone()));
        self.propose(turn, tenant, None, lost, pending);
    }

    /// Asks for a command to be proposed.
    pub(super) fn propose(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        origin: Option<Origin>,
        command: Command,
        pending: Pending,
    ) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.pending.insert(ticket, (tenant.clone(), pending));
        turn.out.push(Output::Propose(Box::new(Proposal {
            ticket,
            tenant: tenant.clone(),
            origin,
            command,
        })));
    }
}

fn ended(how: &str) -> Problem {
    let detail = format!("the executor ended ({how}) while the task ran");
    Problem::new(ErrorCode::Internal, detail)
}

/// The failure of an attempt whose meters went with its executor.
fn lost_attempt(
    state: &State,
    tenant: &TenantId,
    epoch: Epoch,
    (id, attempt): (TaskId, u32),
    sequence: u64,
    how: &str,
) -> (JobId, TaskFailure) {
    let stage = job(state, tenant, &id.job)
        .and_then(|job| Some(job.plan()?.stages.get(id.stage as usize)?.name.clone()));
    let usage = FunctionUsage {
        stage: stage.unwrap_or_default(),
        function: "-".into(),
        platform_attempts: 1,
        ..FunctionUsage::default()
    };
    let failure = TaskFailure {
        stage: id.stage,
        task: id.task,
        attempt,
        epoch,
        sequence,
        problem: ended(how),
        cancelled: false,
        lost: None,
        usage: vec![usage],
        log: None,
    };
    (id.job, failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_that_does_not_start_says_why() {
        let mut restart = Restart::default();
        assert_eq!(restart.reason(), None);
        let how = "signal: 9: the executor gets no credentials: the role `r` is not given";
        for _ in 0..2 * MAX_RESTART_DOUBLINGS {
            restart.died(Some(how));
        }
        let reason = restart.reason().expect("it never became ready");
        assert!(reason.contains("the role `r` is not given"), "{reason}");
        assert_eq!(restart.stillborn, MAX_RESTART_DOUBLINGS);
        restart.died(Some(&"x".repeat(2 * MAX_HOW_CHARS)));
        let reason = restart.reason().expect("it never became ready");
        assert!(reason.len() < 2 * MAX_HOW_CHARS);
        // One that had worked is another matter.
        restart.died(None);
        assert_eq!(restart.reason(), None);
    }
}
