//! The link between controller and node: all that one asks of the other.
//!
//! ```text
//! scheduler ──ToAgent──▶ agent ──▶ executors          messages, in order, bounded queues
//!     ▲─────FromAgent──────┘
//! API ──Invoker──▶ agent (admission) ──▶ executor     calls, past the scheduler
//! API ──Compilers─▶ agent ──▶ compiler
//! ```
//!
//! Whatever crosses it is plain data of [`weft_protocol`], so that it may go over a wire.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use tokio::sync::mpsc;
use weft_core::{Digest, Problem, TenantId};
use weft_protocol::{FromAgent, InvokeReply, InvokeRequest, ToAgent};

/// Messages that may wait on a link, in each direction.
pub const MAX_LINK_MESSAGES: usize = 4_096;

/// Controller's end of the link to one node.
pub struct NodeLink {
    /// Commands to the node's agent.
    pub commands: mpsc::Sender<ToAgent>,
    /// Reports of the node's agent.
    pub reports: mpsc::Receiver<FromAgent>,
}

/// Agent's end of the link to its controller.
pub struct ControllerLink {
    /// Commands of the controller.
    pub commands: mpsc::Receiver<ToAgent>,
    /// Reports to the controller.
    pub reports: mpsc::Sender<FromAgent>,
}

/// A link within one process.
pub fn local_link() -> (NodeLink, ControllerLink) {
    let (commands, commanded) = mpsc::channel(MAX_LINK_MESSAGES);
    let (reports, reported) = mpsc::channel(MAX_LINK_MESSAGES);
    let node = NodeLink {
        commands,
        reports: reported,
    };
    let controller = ControllerLink {
        commands: commanded,
        reports,
    };
    (node, controller)
}

/// A component that was compiled.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Interfaces that it imports.
    pub imports: Vec<String>,
    /// Digest of the artefact, which lies in the store.
    pub artefact: Digest,
}

/// Compilers of a node.
#[async_trait]
pub trait Compilers: Send + Sync {
    /// Compiles a component of the store into its artefact, which appears whole or not at all.
    ///
    /// Errors: the component is refused, or `busy`.
    async fn compile(&self, component: &Digest) -> Result<Compiled, Problem>;

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
        tenant: &TenantId,
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
        tenant: &TenantId,
        request: InvokeRequest,
        body: Body<'_>,
        deadline: Duration,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply>;

    /// Returns whether an executor of the tenant takes invocations.
    fn is_ready(&self, tenant: &TenantId) -> bool;
}
