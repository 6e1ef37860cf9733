//! This controller among others: what a follower cannot do itself, it asks of the leader.
//!
//! ```text
//! follower: Replica::propose ──Question::Propose──▶ leader: stamps it, has it replicated
//!           ◀──answer, and the index that it was applied at: the follower waits until it is there──
//! follower: Driver ──Describe, Check, Want, Shard──▶ leader: its scheduler
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use weft_control::{Answer, Envelope};
use weft_core::{Description, Digest, ErrorCode, NodeId, Problem, TenantId};
use weft_protocol::{PlanReply, PlanRequest};
use weft_runtime::link::{Member, Peers};

use crate::components::Components;
use crate::membership::{self, Wanted};
use crate::replica::Replica;
use crate::scheduler::why::{Why, WhyOf};
use crate::scheduler::{Request, Requests};

/// Question of a follower to the leader.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    /// Have a command replicated, whose origin is the follower's.
    Propose(Box<Envelope>),
    /// Have a component describe itself.
    Describe {
        tenant: TenantId,
        digest: Digest,
        compatibility: String,
        artefact: Digest,
    },
    /// Plan a job that is only looked at.
    Check {
        tenant: TenantId,
        request: Box<PlanRequest>,
    },
    /// Have an executor started for a tenant.
    Want(TenantId),
    /// Have a shard of a tenant's actors granted to an executor. The follower waits until its state shows to whom.
    Shard { tenant: TenantId, shard: u32 },
    /// Explain where a job, a stage or a task is, or the tenant's queue.
    Why { tenant: TenantId, of: Option<WhyOf> },
    /// Have a node take no new work, and end.
    Drain(NodeId),
    /// Change the members.
    Members(Wanted),
}

/// Answer of whoever was asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The command was applied, and all up to this index with it.
    Proposed { answer: Answer, index: u64 },
    /// This member does not lead, or leads no more: what came of the command is unknown.
    NotLeader,
    /// The component's description.
    Described(Description),
    /// The plan, or what is wrong with the job.
    Checked(Box<PlanReply>),
    /// The explanation.
    Explained(Why),
    /// It was passed on.
    Done,
}

/// Carries Raft messages to the other members.
pub(crate) struct RaftTransport(pub(crate) Option<Arc<dyn Peers>>);

impl weft_consensus::Transport for RaftTransport {
    fn send(&self, messages: Vec<weft_consensus::Message>) {
        let Some(peers) = &self.0 else {
            return;
        };
        for message in messages {
            peers.send(message.to, weft_consensus::encode_message(&message));
        }
    }
}

/// Asks a member, and reads its answer.
pub(crate) async fn ask(
    peers: &dyn Peers,
    member: u64,
    question: &Question,
) -> Result<Reply, Problem> {
    let internal = |error: serde_json::Error| Problem::new(ErrorCode::Internal, error.to_string());
    let question = serde_json::to_vec(question).map_err(internal)?;
    let reply = peers.ask(member, question.into()).await?;
    serde_json::from_slice(&reply).map_err(internal)
}

/// Has the leader do what is asked of its scheduler. If it is not reached, whoever asked sees the
/// answer's channel closed, and tries again.
pub(crate) async fn ask_request(peers: &dyn Peers, leader: u64, request: Request) {
    match request {
        Request::Describe {
            tenant,
            digest,
            compatibility,
            artefact,
            answer,
        } => {
            let question = Question::Describe {
                tenant,
                digest,
                compatibility,
                artefact,
            };
            let asked = ask(peers, leader, &question);
            pass_on(asked, answer, |reply| match reply {
                Reply::Described(description) => Some(description),
                _ => None,
            })
            .await;
        }
        Request::Check {
            tenant,
            request,
            mut answer,
        } => {
            let question = Question::Check { tenant, request };
            let asked = while_wanted(ask(peers, leader, &question), &mut answer.to).await;
            if let Some(Ok(Reply::Checked(planned))) = asked {
                let _ = answer.to.send(*planned);
            }
        }
        Request::Want(tenant) => {
            let _ = ask(peers, leader, &Question::Want(tenant)).await;
        }
        Request::Shard { tenant, shard } => {
            let _ = ask(peers, leader, &Question::Shard { tenant, shard }).await;
        }
        Request::Why { tenant, of, answer } => {
            let question = Question::Why { tenant, of };
            let asked = ask(peers, leader, &question);
            pass_on(asked, answer, |reply| match reply {
                Reply::Explained(why) => Some(why),
                _ => None,
            })
            .await;
        }
        Request::Drain { node, answer } => {
            let question = Question::Drain(node);
            let asked = ask(peers, leader, &question);
            let done = |reply| matches!(reply, Reply::Done).then_some(());
            pass_on(asked, answer, done).await;
        }
        // A question whose client has gone is dropped while it is asked.
        Request::Forget { .. } => {}
    }
}

/// Passes the leader's answer on to whoever asked, unless it is not the kind that was asked for.
async fn pass_on<T>(
    asked: impl Future<Output = Result<Reply, Problem>>,
    mut answer: oneshot::Sender<Result<T, Problem>>,
    read: impl FnOnce(Reply) -> Option<T>,
) {
    let told = match while_wanted(asked, &mut answer).await {
        Some(Ok(reply)) => read(reply).map(Ok),
        Some(Err(problem)) => Some(Err(problem)),
        None => None,
    };
    if let Some(told) = told {
        // The client may have gone meanwhile.
        let _ = answer.send(told);
    }
}

/// Asks as long as somebody waits for the answer: the leader drops a question that is dropped here.
async fn while_wanted<T>(
    asked: impl Future<Output = Result<Reply, Problem>>,
    answer: &mut oneshot::Sender<T>,
) -> Option<Result<Reply, Problem>> {
    tokio::select! {
        asked = asked => Some(asked),
        () = answer.closed() => None,
    }
}

/// The end of this controller that other members reach.
pub(crate) struct Answerer {
    replica: Replica,
    components: Arc<Components>,
    requests: Requests,
}

#[async_trait]
impl Member for Answerer {
    fn deliver(&self, message: &[u8]) {
        match weft_consensus::decode_message(message) {
            Some(message) => self.replica.handle().deliver(message),
            None => tracing::warn!("a Raft message cannot be read"),
        }
    }

    async fn answer(&self, question: Bytes) -> Result<Bytes, Problem> {
        let malformed = |error: serde_json::Error| {
            let detail = format!("a question cannot be read: {error}");
            Problem::new(ErrorCode::Internal, detail)
        };
        let question: Question = serde_json::from_slice(&question).map_err(malformed)?;
        let reply = self.reply(question).await?;
        let reply = serde_json::to_vec(&reply).map_err(malformed)?;
        Ok(reply.into())
    }
}

impl Answerer {
    pub(crate) fn new(
        replica: &Replica,
        components: &Arc<Components>,
        requests: &Requests,
    ) -> Self {
        Self {
            replica: replica.clone(),
            components: Arc::clone(components),
            requests: requests.clone(),
        }
    }

    async fn reply(&self, question: Question) -> Result<Reply, Problem> {
        if !self.replica.status().is_leader {
            return Ok(Reply::NotLeader);
        }
        match question {
            Question::Propose(envelope) => self.replica.propose_for_other(*envelope).await,
            Question::Describe {
                tenant,
                digest,
                compatibility,
                artefact,
            } => {
                let requests = &self.requests;
                let described = requests.describe(&tenant, &digest, compatibility, artefact);
                Ok(Reply::Described(described.await?))
            }
            Question::Check { tenant, request } => {
                let planned = self.components.plan_only(&tenant, *request).await?;
                Ok(Reply::Checked(Box::new(planned)))
            }
            Question::Why { tenant, of } => {
                let why = self.requests.why(&tenant, of).await?;
                Ok(Reply::Explained(why))
            }
            Question::Drain(node) => {
                self.requests.drain(node).await?;
                Ok(Reply::Done)
            }
            Question::Members(wanted) => {
                membership::change_here(&self.replica, wanted).await?;
                Ok(Reply::Done)
            }
            Question::Want(tenant) => {
                self.requests.tell(Request::Want(tenant));
                Ok(Reply::Done)
            }
            Question::Shard { tenant, shard } => {
                self.requests.shard(&tenant, shard);
                Ok(Reply::Done)
            }
        }
    }
}
