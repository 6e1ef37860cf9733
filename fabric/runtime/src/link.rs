//! The link between controller and node: all that one asks of the other.
//!
//! ```text
//! scheduler ──Node::start_executor──▶ agent ──▶ executor process
//!     ▲  └────────ExecutorLink──messages──────────▶ │
//!     └───────────ExecutorEvent─────────────────────┘
//! API ──Invoker──▶ agent (admission) ──▶ executor
//! ```

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use weft_core::{FunctionUsage, Problem};
use weft_protocol::{FromExecutor, InvokeReply, InvokeRequest, ToExecutor};

/// Message to an executor, with its payload.
pub type Outbound = (ToExecutor, Bytes);

/// Report about an executor.
#[derive(Debug)]
pub enum ExecutorEvent {
    /// It sent a message.
    Said(u64, FromExecutor),
    /// Its process is gone, and how it ended.
    Gone(u64, String),
}

/// Sending end of the link to a running executor.
pub struct ExecutorLink {
    /// Unique in the life of the node's agent.
    pub id: u64,
    sender: mpsc::Sender<Outbound>,
}

impl ExecutorLink {
    /// A link that sends into this queue.
    pub fn new(id: u64, sender: mpsc::Sender<Outbound>) -> Self {
        Self { id, sender }
    }

    /// Sends a message. If the executor is gone, its `Gone` is on the way.
    pub async fn send(&self, message: ToExecutor) {
        let _ = self.sender.send((message, Bytes::new())).await;
    }
}

/// A node, as the controller sees it.
#[async_trait]
pub trait Node: Send + Sync {
    /// Starts an executor. Its `Ready` comes as an event.
    async fn start_executor(&self, id: u64) -> anyhow::Result<ExecutorLink>;

    /// Compiles the component at `component` into `artefact`, which appears whole or not at all, and
    /// returns the interfaces that it imports.
    async fn compile(&self, component: &Path, artefact: &Path) -> Result<Vec<String>, Problem>;

    /// Name of the artefacts that this node's engine takes.
    fn compatibility(&self) -> &str;
}

/// Answer of an invocation: meters and outcome, and the output.
pub type InvokeAnswer = (InvokeReply, Bytes);

/// Body of an invocation that streams: pieces as they come, or the reason why it was cut off.
pub type Body<'a> = Pin<&'a mut (dyn Stream<Item = Result<Bytes, Problem>> + Send)>;

/// Output of an invocation that streams: any number of pieces, then one of the others.
#[derive(Debug)]
pub enum StreamEvent {
    /// A piece of output.
    Output(Bytes),
    /// The function ended.
    Ended(Box<InvokeReply>),
    /// There is no reply.
    Failed(Problem),
}

/// Reason why an invocation that streams has no reply.
#[derive(Debug)]
pub enum NoReply {
    /// It failed.
    Failed(Problem),
    /// The client went away.
    Left,
}

impl From<Problem> for NoReply {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

/// Invocations of functions, admitted and metered by a node.
#[async_trait]
pub trait Invoker: Send + Sync {
    /// Invokes a function once.
    ///
    /// Errors: `busy` if too many wait or the executor is gone, `limit_exceeded` at the deadline,
    /// and faults of the function. Dropping the future abandons the invocation.
    async fn invoke(
        &self,
        request: InvokeRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<InvokeAnswer, Problem>;

    /// Invokes a map function once. Its output goes to `client` before this returns.
    ///
    /// Errors: `busy` if as many stream as may or the executor is gone, `limit_exceeded` at the
    /// deadline, and the body's own. A client that goes away abandons the invocation, as dropping
    /// the future does.
    async fn stream(
        &self,
        request: InvokeRequest,
        body: Body<'_>,
        deadline: Duration,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply>;

    /// Takes what invocations used since the last time, by function.
    fn take_usage(&self) -> Vec<FunctionUsage>;

    /// Name of the process that admits: invocations that another one began are begun again.
    fn incarnation(&self) -> &str;
}
