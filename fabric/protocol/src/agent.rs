//! Messages between controllers and the agents of nodes.
//!
//! ```text
//! leader ──Lead──────────────────────▶ agent      every message carries the leader's term, and an
//!        ◀──Status───────────────────             agent refuses lower ones than it has seen
//!        ──StartExecutor, Work, Run──▶
//!        ◀──Ready, Described─────────             may be lost with the leader
//!        ◀──Result(number)───────────             again with every Status,
//!        ──Acknowledge(number)───────▶            until it is acknowledged
//!        ◀──Renew(round)─────────────             of the leases under which shards are served
//!        ──Renewed(round)────────────▶            after the leader has confirmed that it leads
//! ```

use serde::{Deserialize, Serialize};
use weft_core::{AttemptId, Epoch, FunctionUsage, Incarnation, JobId, NodeId, TaskId, TenantId};

use crate::messages::{DescribeReply, MESSAGE_VERSION, PlanReply, TaskReply, Work};
use crate::plan::PublishedOutput;
use weft_core::Problem;

/// Message from a leader to the agent of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToAgent {
    /// [`MESSAGE_VERSION`] of the sender.
    pub version: u32,
    /// Term in which the sender leads.
    pub term: u64,
    /// Life of the agent that it is for: an agent that has started again since refuses it. Nothing for
    /// [`AgentCommand::Lead`], by which the sender gets to know it.
    pub incarnation: Option<Incarnation>,
    /// The command.
    pub command: AgentCommand,
}

impl ToAgent {
    /// A message of this version.
    pub fn new(term: u64, incarnation: Option<Incarnation>, command: AgentCommand) -> Self {
        Self {
            version: MESSAGE_VERSION,
            term,
            incarnation,
            command,
        }
    }
}

/// Command of a leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentCommand {
    /// Follow the sender: answer with a status, and send reports to it.
    Lead {
        /// Comes back with the status. The sender sends nothing else until then, so that the status
        /// shows all that it has sent.
        sync: u64,
    },
    /// Start an executor.
    StartExecutor {
        /// The executor's lease.
        epoch: Epoch,
        /// The executor's tenant.
        tenant: TenantId,
    },
    /// End an executor, whose lease has lapsed or which has nothing to do.
    StopExecutor {
        /// The executor's lease.
        epoch: Epoch,
    },
    /// Pass work on to an executor.
    Work {
        /// The executor's lease.
        epoch: Epoch,
        /// The work.
        work: Work,
    },
    /// Have an executor run a task: the agent allots the attempt's sequence.
    Run {
        /// The executor's lease.
        epoch: Epoch,
        /// The task.
        id: TaskId,
        /// Number of the attempt, for people.
        attempt: u32,
    },
    /// Take no new work, end what runs, and then end.
    Drain,
    /// The answer to [`AgentReport::Renew`]: these leases stood after it was asked.
    Renewed {
        /// Number of the renewal.
        round: u64,
        /// Leases of the node's executors that stand.
        executors: Vec<Epoch>,
    },
    /// Forget these results: they are in the replicated state.
    Acknowledge {
        /// Their numbers.
        numbers: Vec<u64>,
    },
}

/// Message from the agent of a node to the leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FromAgent {
    /// [`MESSAGE_VERSION`] of the sender.
    pub version: u32,
    /// The node.
    pub node: NodeId,
    /// Life of the agent.
    pub incarnation: Incarnation,
    /// The report.
    pub report: AgentReport,
}

/// Report of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentReport {
    /// Answer to [`AgentCommand::Lead`].
    Status(AgentStatus),
    /// An executor takes work.
    Ready {
        /// The executor's lease.
        epoch: Epoch,
    },
    /// The node drains: it takes no new work, and ends once what it has is done.
    Draining,
    /// Says which leases of the node stand, once the group has confirmed that its leader still leads.
    Renew {
        /// Counted from 1 in the life of the agent.
        round: u64,
    },
    /// A component has described itself.
    Described {
        /// The executor's lease.
        epoch: Epoch,
        /// The answer.
        reply: DescribeReply,
    },
    /// A result, repeated with every status until it is acknowledged.
    Result(AgentResult),
}

/// Status of a node: its size, its executors, its open results.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Number of the question.
    pub sync: u64,
    /// Tasks that run side by side.
    pub slots: u32,
    /// Name of the artefacts that the node's engine takes.
    pub compatibility: String,
    /// It takes no new work.
    #[serde(default)]
    pub draining: bool,
    /// Executors that live.
    pub executors: Vec<ExecutorStatus>,
    /// Results that have not been acknowledged, by number.
    pub results: Vec<AgentResult>,
}

/// An executor and its work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// The executor's lease.
    pub epoch: Epoch,
    /// The executor's tenant.
    pub tenant: TenantId,
    /// It takes work.
    pub ready: bool,
    /// The executor's work that has no result.
    pub running: RunningWork,
}

/// Work that an executor was given and that has no result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningWork {
    /// Attempts of tasks.
    pub attempts: Vec<RunningAttempt>,
    /// Jobs that are being planned.
    pub planning: Vec<JobId>,
    /// Jobs that are being published.
    pub publishing: Vec<JobId>,
}

/// An attempt that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningAttempt {
    /// The task.
    pub id: TaskId,
    /// Number of the attempt, for people.
    pub attempt: u32,
    /// The attempt.
    pub attempt_id: AttemptId,
}

/// Numbered result: with the agent's incarnation it is the origin of the command that records it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentResult {
    /// Counted from 1 in the life of the agent.
    pub number: u64,
    /// All results with lower numbers have been acknowledged.
    pub answered_below: u64,
    /// Tenant that the work was for.
    pub tenant: TenantId,
    /// The result.
    pub outcome: AgentOutcome,
}

/// Outcome of work on a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentOutcome {
    /// An executor has planned or checked a job, or failed to.
    Planned {
        /// The executor's lease.
        epoch: Epoch,
        /// The answer.
        reply: Box<PlanReply>,
    },
    /// An attempt ended.
    Task {
        /// The executor's lease.
        epoch: Epoch,
        /// The answer.
        reply: Box<TaskReply>,
    },
    /// An executor has published a job's files, or failed to.
    Published {
        /// The executor's lease.
        epoch: Epoch,
        /// The job.
        job: JobId,
        /// The job's outputs, or why there are none.
        result: Result<Vec<PublishedOutput>, Problem>,
    },
    /// An executor ended.
    Gone {
        /// The executor's lease.
        epoch: Epoch,
        /// How its process ended.
        how: String,
        /// It had taken work before.
        was_ready: bool,
        /// Work that ended with it.
        lost: RunningWork,
    },
    /// Invocations have used this.
    Usage {
        /// By function.
        usage: Vec<FunctionUsage>,
    },
}
