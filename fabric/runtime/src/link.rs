//! The link between controller and node: all that one asks of the other.
//!
//! ```text
//! scheduler ──ToAgent──▶ agent ──▶ executors          messages, in order, bounded queues
//!     ▲─────FromAgent──────┘
//! API ──Invoker──▶ agent (admission) ──▶ executor     calls, past the scheduler
//! API ──Compilers─▶ agent ──▶ compiler
//! ```
//!
//! Whatever crosses it is plain data of [`weft_protocol`]: in a cluster it goes over a wire. There
//! nodes come and go ([`LinkChange`], [`WorkChange`]), and controllers reach each other by way of
//! [`Peers`] and [`Member`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use weft_core::{Digest, NodeId, Problem, TenantId};
use weft_protocol::{
    ActorRequest, Call, FromAgent, InvokeReply, InvokeRequest, RowsRequest, ToAgent,
};

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

/// A control link that has come up or gone down.
#[derive(Debug)]
pub enum LinkChange {
    /// The node takes commands here.
    Up(NodeId, mpsc::Sender<ToAgent>),
    /// The node that had this sender takes none any more, and was last heard this long ago.
    Down(NodeId, mpsc::Sender<ToAgent>, Duration),
}

/// A node as a place where functions are invoked and components are compiled.
#[derive(Clone)]
pub struct Worker {
    /// Invocations of the node.
    pub invoker: Arc<dyn Invoker>,
    /// Compilers of the node.
    pub compilers: Arc<dyn Compilers>,
}

impl Worker {
    /// Returns whether both are the same connection to a node.
    pub fn is(&self, other: &Worker) -> bool {
        Arc::ptr_eq(&self.invoker, &other.invoker)
    }
}

/// A worker that has come or gone.
pub enum WorkChange {
    /// The node takes invocations.
    Up(NodeId, Worker),
    /// This connection to the node has ended.
    Down(NodeId, Worker),
}

/// The other controllers of a group, as a controller reaches them.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Returns whether there is an address for a member.
    fn knows(&self, member: u64) -> bool;

    /// Sends a Raft message to a member, or drops it. Does not wait.
    fn send(&self, member: u64, message: Vec<u8>);

    /// Asks a member, and returns its answer.
    ///
    /// Errors: `busy` if it is not reached or the connection broke, and then nobody knows what came of
    /// the question; the member's own refusal.
    async fn ask(&self, member: u64, question: Bytes) -> Result<Bytes, Problem>;
}

/// A controller, as the others of its group reach it.
#[async_trait]
pub trait Member: Send + Sync {
    /// Takes a Raft message in.
    fn deliver(&self, message: &[u8]);

    /// Answers a question of another member.
    async fn answer(&self, question: Bytes) -> Result<Bytes, Problem>;
}

/// A component that was compiled.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

    /// Sends rows of an output to `client`, before this returns.
    ///
    /// Errors: `busy` if as many are sent as may or the executor is gone, `limit_exceeded` at the
    /// deadline, and why rows cannot be read. What came before an error is not all. A client that
    /// goes away ends it, as dropping the future does.
    async fn rows(
        &self,
        tenant: &TenantId,
        request: RowsRequest,
        deadline: Duration,
        client: &mpsc::Sender<Bytes>,
    ) -> Result<(), NoReply>;

    /// Asks the executor that serves an actor's shard. Nothing is returned, and nothing was done, if the shard was
    /// granted to another executor, or this one is gone: the caller looks again.
    ///
    /// Errors: `busy` if too many wait or the executor ended meanwhile, and then nobody knows what came of it;
    /// `limit_exceeded` at the deadline. Dropping the future abandons the answer, and not the turn if it has begun.
    async fn actor(
        &self,
        tenant: &TenantId,
        request: ActorRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<Option<InvokeAnswer>, Problem>;

    /// The next call of a guest that a controller is to make. Waits for one; each is handed out once.
    ///
    /// Errors: the node is gone.
    async fn next_call(&self) -> Result<(TenantId, Call, Bytes), Problem>;

    /// The answer to a call of a guest of the tenant, by its number in [`Call`]. If nobody waits for it any more, it is
    /// dropped.
    async fn answer_call(&self, tenant: &TenantId, call: u64, answer: Result<Bytes, Problem>);

    /// Returns whether an executor of the tenant takes invocations.
    fn is_ready(&self, tenant: &TenantId) -> bool;

    /// Returns whether the node takes no new work, and ends once what it has is done.
    fn is_draining(&self) -> bool;

    /// Tenants whose executors take invocations.
    fn ready_tenants(&self) -> Vec<TenantId>;
}
