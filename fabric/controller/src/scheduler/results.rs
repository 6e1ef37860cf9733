//! Results of nodes: recorded in the state, then acknowledged.
//!
//! ```text
//! agent ──result n──▶ recording ──proposal with the agent's origin──▶ answer ──Acknowledge n──▶ agent
//!                                                                      │ not recorded
//!                              the same proposal, after a pause ◀──────┘
//! ```

use weft_control::{Answer, Command, Origin, Step};
use weft_core::{Epoch, ErrorCode, Incarnation, JobId, NodeId, Problem, TaskId, TenantId};
use weft_protocol::{
    AgentCommand, AgentOutcome, AgentResult, PlanReply, PublishedOutput, TaskCommit, TaskFailure,
    TaskReply,
};

use super::commits::Reported;
use super::io::{Later, Marks, Pending, Ticket};
use super::nodes::NodeView;
use super::{Scheduler, Turn};
use crate::metrics::OutcomeLabels;

/// Pause before a command is proposed again.
const AGAIN_MS: u64 = 100;

/// Whose result it is, and which.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) node: &'a NodeId,
    pub(super) incarnation: &'a Incarnation,
    pub(super) tenant: &'a TenantId,
    pub(super) number: u64,
    pub(super) answered_below: u64,
}

impl Of<'_> {
    /// Origin of the command that records the result, whichever leader proposes it.
    pub(super) fn origin(&self) -> Origin {
        Origin {
            incarnation: *self.incarnation,
            sequence: self.number,
            answered_below: self.answered_below,
        }
    }

    pub(super) fn pending(&self, marks: Marks) -> Pending {
        Pending::Result {
            node: self.node.clone(),
            incarnation: *self.incarnation,
            number: self.number,
            answered_below: self.answered_below,
            usage: None,
            marks,
            command: None,
            too_large: None,
            shrunk: false,
        }
    }
}

/// Executor whose work it is the result of.
fn epoch_of(outcome: &AgentOutcome) -> Option<Epoch> {
    match outcome {
        AgentOutcome::Planned { epoch, .. }
        | AgentOutcome::Task { epoch, .. }
        | AgentOutcome::Published { epoch, .. }
        | AgentOutcome::Gone { epoch, .. } => Some(*epoch),
        AgentOutcome::Usage { .. } => None,
    }
}

impl Scheduler {
    pub(super) fn on_result(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        incarnation: &Incarnation,
        result: AgentResult,
    ) {
        // Reported again while it is being recorded: its answer acknowledges it.
        let key = (*incarnation, result.number);
        if self.recording.contains_key(&key) {
            return;
        }
        self.recording.insert(key, epoch_of(&result.outcome));
        if let AgentOutcome::Gone { epoch, .. } = &result.outcome {
            if let Some(executor) = self
                .nodes
                .get_mut(node)
                .and_then(|view| view.executors.get_mut(epoch))
            {
                (executor.ready, executor.stopping) = (false, true);
            }
            self.deferred.push((node.clone(), *incarnation, result));
            self.flush_all_commits(turn);
            self.take_deferred(turn);
            return;
        }
        self.take_result(turn, node, incarnation, result);
    }

    /// Takes ends of executors all of whose other results are recorded: those results must stand
    /// before the lease lapses.
    fn take_deferred(&mut self, turn: &mut Turn<'_>) {
        for (node, incarnation, result) in std::mem::take(&mut self.deferred) {
            let epoch = epoch_of(&result.outcome);
            let is_before = |((of, number), other): (&(Incarnation, u64), &Option<Epoch>)| {
                *of == incarnation && *number < result.number && *other == epoch
            };
            if self.recording.iter().any(is_before) {
                self.deferred.push((node, incarnation, result));
            } else {
                self.take_result(turn, &node, &incarnation, result);
            }
        }
    }

    fn take_result(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        incarnation: &Incarnation,
        result: AgentResult,
    ) {
        let AgentResult {
            number,
            answered_below,
            tenant,
            outcome,
        } = result;
        let of = Of {
            node,
            incarnation,
            tenant: &tenant,
            number,
            answered_below,
        };
        match outcome {
            AgentOutcome::Planned { epoch, reply } => self.on_planned(turn, &of, epoch, *reply),
            AgentOutcome::Task { epoch, reply } => self.on_task(turn, &of, epoch, *reply),
            AgentOutcome::Published { epoch, job, result } => {
                self.on_published(turn, &of, epoch, job, result);
            }
            AgentOutcome::Gone {
                epoch,
                how,
                was_ready,
                lost,
            } => self.on_gone(turn, &of, epoch, &how, was_ready, lost),
            AgentOutcome::Usage { usage } => {
                let mut pending = of.pending(Marks::default());
                if let Pending::Result { usage: kept, .. } = &mut pending {
                    *kept = Some(usage.clone());
                }
                let command = Command::MeterInvocations { usage };
                self.record(turn, &of, command, pending);
            }
        }
    }

    pub(super) fn record(
        &mut self,
        turn: &mut Turn<'_>,
        of: &Of<'_>,
        command: Command,
        mut pending: Pending,
    ) {
        if let Pending::Result { command: kept, .. } = &mut pending {
            *kept = Some(Box::new(command.clone()));
        }
        self.propose(turn, of.tenant, Some(of.origin()), command, pending);
    }

    fn on_planned(&mut self, turn: &mut Turn<'_>, of: &Of<'_>, epoch: Epoch, reply: PlanReply) {
        let view = self.nodes.get_mut(of.node);
        if let Some(executor) = view.and_then(|view| view.executors.get_mut(&epoch)) {
            if let Some(waiting) = executor.checking.remove(&reply.job) {
                // The client may have gone meanwhile.
                let _ = waiting.to.send(reply);
                self.acknowledge(turn, of.node, of.incarnation, vec![of.number]);
                return;
            }
            executor.steps.remove(&(reply.job.clone(), Step::Plan));
        }
        let marks = self.mark_step(&reply.job, Step::Plan);
        let problem = reply.result.as_ref().err();
        self.traces.step_answered(&reply.job, Step::Plan, problem);
        weft_failpoint::hit("planned");
        let (job, usage) = (reply.job, reply.usage);
        let failed = |problem: Problem, usage| Command::StepFailed {
            job: job.clone(),
            step: Step::Plan,
            lease: Some(epoch),
            problem,
            usage,
        };
        let mut pending = of.pending(marks);
        if let Pending::Result { too_large, .. } = &mut pending {
            *too_large = Some(Box::new(failed(too_large_plan(), usage.clone())));
        }
        let command = match reply.result {
            Ok(plan) => Command::JobPlanned {
                job,
                lease: Some(epoch),
                plan,
                statement: reply.statement,
                usage,
            },
            Err(problem) => failed(problem, usage),
        };
        self.record(turn, of, command, pending);
    }

    fn on_published(
        &mut self,
        turn: &mut Turn<'_>,
        of: &Of<'_>,
        epoch: Epoch,
        job: JobId,
        result: Result<Vec<PublishedOutput>, Problem>,
    ) {
        let view = self.nodes.get_mut(of.node);
        if let Some(executor) = view.and_then(|view| view.executors.get_mut(&epoch)) {
            executor.steps.remove(&(job.clone(), Step::Publish));
        }
        let marks = self.mark_step(&job, Step::Publish);
        let problem = result.as_ref().err();
        self.traces.step_answered(&job, Step::Publish, problem);
        weft_failpoint::hit("published");
        let command = match result {
            Ok(outputs) => Command::JobPublished {
                job,
                lease: Some(epoch),
                outputs,
            },
            Err(problem) => Command::StepFailed {
                job,
                step: Step::Publish,
                lease: Some(epoch),
                problem,
                usage: Vec::new(),
            },
        };
        self.record(turn, of, command, of.pending(marks));
    }

    /// Marks a step until its result is recorded.
    fn mark_step(&mut self, job: &JobId, step: Step) -> Marks {
        self.steps.insert((job.clone(), step));
        Marks {
            steps: vec![(job.clone(), step)],
            ..Marks::default()
        }
    }

    fn on_task(&mut self, turn: &mut Turn<'_>, of: &Of<'_>, epoch: Epoch, reply: TaskReply) {
        let (stage, task, attempt) = match &reply.result {
            Ok(commit) => (commit.stage, commit.task, commit.attempt),
            Err(failure) => (failure.stage, failure.task, failure.attempt),
        };
        let id = TaskId {
            job: reply.job.clone(),
            stage,
            task,
        };
        self.traces.task_answered(&id, attempt, &reply);
        self.suspects.remove(&id);
        let view = self.nodes.get_mut(of.node);
        let executor = view.and_then(|view| view.executors.get_mut(&epoch));
        if executor.is_some_and(|one| one.running.remove(&(id.clone(), attempt))) {
            self.end(&id);
        }
        self.note_attempt(turn, of.node, reply.result.as_ref().err());
        match reply.result {
            Ok(commit) => self.add_commit(of, reply.job, commit),
            Err(failure) => self.on_failure(turn, of, reply.job, failure),
        }
    }

    fn add_commit(&mut self, of: &Of<'_>, job: JobId, commit: TaskCommit) {
        self.begin(&TaskId {
            job: job.clone(),
            stage: commit.stage,
            task: commit.task,
        });
        self.commits.push(
            of.tenant,
            Reported {
                node: of.node.clone(),
                origin: of.origin(),
                job,
                commit,
            },
        );
    }

    pub(super) fn on_failure(
        &mut self,
        turn: &mut Turn<'_>,
        of: &Of<'_>,
        job: JobId,
        failure: TaskFailure,
    ) {
        tracing::debug!(%job, stage = failure.stage, task = failure.task, attempt = failure.attempt, problem = %failure.problem, "attempt failed");
        if failure.cancelled {
            self.count_task("cancelled");
        } else {
            self.count_task("failed");
            self.metrics.task_failed(&failure.problem);
        }
        let id = TaskId {
            job: job.clone(),
            stage: failure.stage,
            task: failure.task,
        };
        self.begin(&id);
        let marks = Marks {
            tasks: vec![id],
            ..Marks::default()
        };
        let mut pending = of.pending(marks);
        if let Pending::Result { usage, .. } = &mut pending {
            *usage = Some(failure.usage.clone());
        }
        self.record(turn, of, Command::FailTask { job, failure }, pending);
    }

    pub(super) fn count_task(&self, outcome: &'static str) {
        let labels = OutcomeLabels { outcome };
        self.metrics.tasks.get_or_create(&labels).inc();
    }

    /// A result is recorded: its agent may forget it.
    pub(super) fn acknowledge(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        incarnation: &Incarnation,
        numbers: Vec<u64>,
    ) {
        for number in &numbers {
            self.recording.remove(&(*incarnation, *number));
        }
        let is_it = |view: &NodeView| {
            view.incarnation.as_ref() == Some(incarnation) && view.down_since_ms.is_none()
        };
        if self.nodes.get(node).is_some_and(is_it) {
            self.send(turn, node, AgentCommand::Acknowledge { numbers });
        }
    }

    pub(super) fn on_answer(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        answer: Result<Answer, Problem>,
    ) {
        // Those of an earlier leadership are forgotten.
        let Some((tenant, pending)) = self.pending.remove(&ticket) else {
            return;
        };
        if let Err(problem) | Ok(Answer::Refused { problem }) = &answer {
            tracing::debug!(%problem, "a command was refused");
        }
        match pending {
            Pending::Commits(batch) => self.on_committed(turn, &tenant, batch, answer),
            Pending::Lease(node) => self.on_lease(turn, &node, tenant, &answer),
            Pending::Shards(executor, shards) => {
                self.on_granted(turn, tenant, executor, shards, answer);
            }
            Pending::Join(node, incarnation) => self.on_joined(turn, &node, &incarnation, &answer),
            Pending::Lost(epoch, marks, command) => match not_recorded(&answer) {
                None => {
                    self.losing.remove(&epoch);
                    self.unmark(turn, &tenant, marks);
                }
                // Its work begins again only when its lease has lapsed.
                Some(_) => {
                    let again = *command.clone();
                    let pending = Pending::Lost(epoch, marks, command);
                    self.propose_again(turn, tenant, None, again, pending);
                }
            },
            Pending::Unprepared(job) => self.unmark(turn, &tenant, Marks::step(job, Step::Plan)),
            Pending::End(job) => drop(self.given_up.remove(&job)),
            Pending::Archive(job) => {
                self.archived.remove(&job);
                // One that is not archived is derived, and archived again.
                self.derive |= answer.is_err();
            }
            pending @ Pending::Result { .. } => match not_recorded(&answer) {
                None => self.on_recorded(turn, &tenant, pending, answer),
                Some(problem) => self.record_again(turn, tenant, pending, problem),
            },
            Pending::Other => {}
        }
        self.take_deferred(turn);
    }

    fn on_recorded(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        pending: Pending,
        answer: Result<Answer, Problem>,
    ) {
        let Pending::Result {
            node,
            incarnation,
            number,
            usage,
            marks,
            ..
        } = pending
        else {
            return;
        };
        match (&answer, usage) {
            (Ok(Answer::Failure { billed: true } | Answer::Done), Some(usage)) => {
                self.metrics.used(&usage);
            }
            (_, Some(usage)) => self.metrics.waived(&usage),
            (_, None) => {}
        }
        self.unmark(turn, tenant, marks);
        self.acknowledge(turn, &node, &incarnation, vec![number]);
    }

    /// Proposes a result again after a pause; one that is too large for a command as a failure.
    fn record_again(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: TenantId,
        mut pending: Pending,
        problem: &Problem,
    ) {
        let Pending::Result {
            incarnation,
            number,
            answered_below,
            command,
            too_large,
            shrunk,
            ..
        } = &mut pending
        else {
            return;
        };
        let origin = Origin {
            incarnation: *incarnation,
            sequence: *number,
            answered_below: *answered_below,
        };
        if !problem.code.is_platform_fault() {
            // More bytes than a command may have: executors are not trusted to keep within bounds.
            let smaller = command.as_deref().filter(|_| !*shrunk).and_then(smaller);
            *command = too_large.take().or(smaller.map(Box::new));
            *shrunk = true;
        }
        let Some(again) = command.clone() else {
            tracing::error!(%problem, "a result cannot be recorded and is given up");
            let answer = Answer::Refused {
                problem: problem.clone(),
            };
            return self.on_recorded(turn, &tenant, pending, Ok(answer));
        };
        self.propose_again(turn, tenant, Some(origin), *again, pending);
    }

    /// Has a command proposed again, after a pause.
    pub(super) fn propose_again(
        &mut self,
        turn: &Turn<'_>,
        tenant: TenantId,
        origin: Option<Origin>,
        command: Command,
        pending: Pending,
    ) {
        self.later.push(Later {
            at_ms: turn.now.monotonic_ms + AGAIN_MS,
            tenant,
            origin,
            command,
            pending,
        });
    }

    /// Proposes what is due to be proposed again.
    pub(super) fn propose_later(&mut self, turn: &mut Turn<'_>) {
        if self.later.is_empty() {
            return;
        }
        let now_ms = turn.now.monotonic_ms;
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|later| later.at_ms <= now_ms);
        self.later = later;
        let due: Vec<Later> = due;
        for Later {
            tenant,
            origin,
            command,
            pending,
            ..
        } in due
        {
            self.propose(turn, &tenant, origin, command, pending);
        }
    }

    fn on_joined(
        &mut self,
        turn: &mut Turn<'_>,
        node: &NodeId,
        incarnation: &Incarnation,
        answer: &Result<Answer, Problem>,
    ) {
        match answer {
            Ok(Answer::Done) => {
                let view = self.nodes.get_mut(node);
                let view = view.filter(|view| view.incarnation.as_ref() == Some(incarnation));
                if let Some(view) = view {
                    view.joined = true;
                }
                // Leases of its earlier lives have lapsed.
                self.derive = true;
            }
            other => {
                tracing::error!(%node, answer = ?other, "a node cannot join and is asked again");
                self.sync(turn, node);
            }
        }
    }
}

/// Why a command is not in the state, if it may or must be proposed again.
fn not_recorded(answer: &Result<Answer, Problem>) -> Option<&Problem> {
    match answer {
        Err(problem) => Some(problem),
        Ok(Answer::Refused { problem }) if problem.code == ErrorCode::Busy => Some(problem),
        Ok(_) => None,
    }
}

/// The same command with nothing of what may be large.
fn smaller(command: &Command) -> Option<Command> {
    let without_details = |failure: &TaskFailure| TaskFailure {
        problem: Problem::new(failure.problem.code, "the failure's report is too large"),
        usage: Vec::new(),
        log: None,
        ..failure.clone()
    };
    match command {
        Command::FailTask { job, failure } => Some(Command::FailTask {
            job: job.clone(),
            failure: without_details(failure),
        }),
        Command::StepFailed {
            job,
            step,
            lease,
            problem,
            ..
        } => Some(Command::StepFailed {
            job: job.clone(),
            step: *step,
            lease: *lease,
            problem: Problem::new(problem.code, "the failure's report is too large"),
            usage: Vec::new(),
        }),
        Command::JobPublished { job, lease, .. } => Some(Command::StepFailed {
            job: job.clone(),
            step: Step::Publish,
            lease: *lease,
            problem: Problem::new(ErrorCode::TooLarge, "the list of outputs is too large"),
            usage: Vec::new(),
        }),
        Command::ExecutorLost {
            epoch,
            failures,
            steps,
        } => Some(Command::ExecutorLost {
            epoch: *epoch,
            failures: failures
                .iter()
                .map(|(job, failure)| (job.clone(), without_details(failure)))
                .collect(),
            steps: steps.clone(),
        }),
        _ => None,
    }
}

fn too_large_plan() -> Problem {
    let detail = "the plan has more bytes than can be recorded: fewer stages or partitions";
    Problem::new(ErrorCode::TooLarge, detail)
}
