//! What the scheduler takes in, and what it asks for.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use weft_control::{Answer, Command, Effect, Job, Origin, Step};
use weft_core::{
    Description, Digest, Epoch, FunctionUsage, Incarnation, JobId, NodeId, Problem, TaskId,
    TenantId,
};
use weft_protocol::{FromAgent, PlanReply, PlanRequest, ToAgent};

use super::commits::Reported;
use super::renewals::Confirm;
use super::why::{Why, WhyOf};

/// Time, as the scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Milliseconds since some moment; never goes back.
    pub(crate) monotonic_ms: u64,
    /// Wall clock, for deadlines of jobs.
    pub(crate) unix_ms: u64,
}

/// Pairs the answer to a proposal with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// Something that the scheduler takes note of.
pub(crate) enum Input {
    /// This member leads in this term, or leads no more.
    Leadership(Option<u64>),
    /// An effect of a command that was just applied.
    Effect(TenantId, Effect),
    /// Effects were too many to be kept.
    EffectsLost,
    /// A node can be reached.
    LinkUp(NodeId),
    /// A node cannot be reached any more, and was last heard this long ago.
    LinkDown(NodeId, Duration),
    /// A node's agent reports.
    Report(Box<FromAgent>),
    /// A proposal was answered. Errors: refused, or the outcome is unknown.
    Answered(Ticket, Result<Answer, Problem>),
    /// The API asks for something.
    Asked(Request),
    /// Work beside the scheduler is done.
    Done(Done),
    /// Time has passed.
    Tick,
}

/// Answer to a check. The permit is held until it is there or the executor is lost: clients may go
/// before.
pub(crate) struct CheckAnswer {
    pub(crate) to: oneshot::Sender<PlanReply>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// Request of the API.
pub(crate) enum Request {
    /// Have a component describe itself.
    Describe {
        tenant: TenantId,
        digest: Digest,
        /// Engine that the component was compiled for.
        compatibility: String,
        /// Digest of the artefact.
        artefact: Digest,
        answer: oneshot::Sender<Result<Description, Problem>>,
    },
    /// Plan a job that is only looked at.
    Check {
        tenant: TenantId,
        /// The request, with an id that is that of no job.
        request: Box<PlanRequest>,
        answer: CheckAnswer,
    },
    /// Give up a check that nobody waits for.
    Forget {
        /// The id that the check goes by.
        job: JobId,
    },
    /// Start an executor: an invocation found none.
    Want(TenantId),
    /// Grant a shard of the tenant's actors to an executor: nobody serves it.
    Shard { tenant: TenantId, shard: u32 },
    /// Explain where a job is, or the tenant's queue without one.
    Why {
        tenant: TenantId,
        of: Option<WhyOf>,
        answer: oneshot::Sender<Result<Why, Problem>>,
    },
    /// Have a node take no new work, and end.
    Drain { node: NodeId, answer: DrainAnswer },
}

/// Answer to a request that a node drains, once the node has heard it.
pub(crate) type DrainAnswer = oneshot::Sender<Result<(), Problem>>;

/// Work beside the scheduler that is done.
pub(crate) enum Done {
    /// Artefacts of a job's components are there, or why not.
    Prepared(TenantId, JobId, Result<(), Problem>),
    /// A job's archive is there, under this key, or why not.
    Archived(TenantId, JobId, Result<String, Problem>),
    /// A failed archiving may be tried again.
    ArchiveAgain(TenantId, JobId),
    /// This member leads still in the term in which agents asked for renewals, or does not.
    Confirmed(Confirm, bool),
}

/// A command to be proposed.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) ticket: Ticket,
    pub(crate) tenant: TenantId,
    /// The agent's result that it records; nothing for commands of the leader's own.
    pub(crate) origin: Option<Origin>,
    pub(crate) command: Command,
}

/// Something to be done for the scheduler. Messages to one node, and proposals, keep their order.
pub(crate) enum Output {
    /// Propose a command; its answer is an input.
    Propose(Box<Proposal>),
    /// Send a message to a node's agent.
    Send(NodeId, ToAgent),
    /// Make sure of artefacts for these engines.
    Prepare {
        tenant: TenantId,
        job: JobId,
        digests: Vec<Digest>,
    },
    /// Archive a job of which nothing runs.
    Archive(TenantId, Box<Job>),
    /// Archive it again, after a pause.
    ArchiveLater(TenantId, JobId),
    /// Find out, with a majority, whether this member leads still: [`Done::Confirmed`] says so.
    Confirm(Confirm),
}

/// Work that is marked as under way until a command has its answer, so that nothing derives it anew
/// in between.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    pub(super) tasks: Vec<TaskId>,
    pub(super) steps: Vec<(JobId, Step)>,
}

impl Marks {
    pub(super) fn step(job: JobId, step: Step) -> Self {
        Self {
            steps: vec![(job, step)],
            ..Self::default()
        }
    }
}

/// Proposal whose answer is awaited.
#[derive(Clone)]
pub(super) enum Pending {
    /// It records a result of a node.
    Result {
        node: NodeId,
        incarnation: Incarnation,
        number: u64,
        answered_below: u64,
        /// Usage of a failed attempt: it is shown once the state says who bears it.
        usage: Option<Vec<FunctionUsage>>,
        marks: Marks,
        /// The command itself, should it have to be proposed again.
        command: Option<Box<Command>>,
        /// The failure to record if the result is too large for a command.
        too_large: Option<Box<Command>>,
        /// It has been made smaller already.
        shrunk: bool,
    },
    /// It commits attempts.
    Commits(Vec<Reported>),
    /// It revokes the lease of an executor, of which no agent reports. The command itself is kept,
    /// should it have to be proposed again.
    Lost(Epoch, Marks, Box<Command>),
    /// It fails a step that no executor was at.
    Unprepared(JobId),
    /// It grants a lease.
    Lease(NodeId),
    /// It grants shards to an executor.
    Shards(Epoch, Vec<u32>),
    /// It joins a node.
    Join(NodeId, Incarnation),
    /// It gives a job up.
    End(JobId),
    /// It makes an archived job a line.
    Archive(JobId),
    /// The answer changes nothing here.
    Other,
}

/// A proposal that could not be made, and is made again.
pub(super) struct Later {
    pub(super) at_ms: u64,
    pub(super) tenant: TenantId,
    pub(super) origin: Option<Origin>,
    pub(super) command: Command,
    pub(super) pending: Pending,
}
