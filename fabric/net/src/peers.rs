//! Links between controllers: Raft messages one way, questions to whoever leads the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use weft_core::{ErrorCode, Problem, lock};
use weft_runtime::link::{Member, Peers};
use weft_runtime::{OnError, Tasks, frames};

use crate::backoff::Backoff;
use crate::control::{Reachability, dial};
use crate::handshake::{Cluster, Purpose, Refusal};
use crate::members::Members;
use crate::rpc::{self, Asker, BoxBody};
use crate::security::{Security, Wire};

/// Raft messages that may wait for one member; later ones are dropped, and Raft repeats what matters.
const MESSAGES_MAX: usize = 1_024;
/// Path of questions.
const PATH: &str = "/ask";

/// Outcome of a question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Answered,
    Refused(Problem),
}

/// One other member.
struct Link {
    messages: mpsc::Sender<Vec<u8>>,
    asker: Arc<Mutex<Option<Asker>>>,
}

/// The other controllers. Connections are dialled as long as this lives.
pub struct PeerLinks {
    links: BTreeMap<u64, Link>,
}

impl PeerLinks {
    /// Links to members at these addresses; this process' own is passed over.
    pub fn new(
        cluster: &Cluster,
        security: &Security,
        me: u64,
        addresses: &BTreeMap<u64, String>,
        members: &Members,
        tasks: &Tasks,
    ) -> Self {
        let others = addresses.iter().filter(|(member, _)| **member != me);
        let link = |(member, address): (&u64, &String)| {
            let dialler = Dialler {
                cluster: cluster.clone(),
                security: security.clone(),
                member: *member,
                address: address.clone(),
                members: members.clone(),
            };
            (*member, Link::new(dialler, tasks))
        };
        Self {
            links: others.map(link).collect(),
        }
    }
}

#[derive(Clone)]
struct Dialler {
    cluster: Cluster,
    security: Security,
    member: u64,
    address: String,
    members: Members,
}

impl Dialler {
    /// Dials until the member is reached.
    async fn reach(&self, purpose: Purpose, reachability: &mut Reachability) -> Wire {
        let mut backoff = Backoff::new();
        loop {
            let dialled = dial(
                &self.cluster,
                &self.security,
                self.member,
                &self.address,
                purpose,
            );
            let checked = dialled.await.and_then(|(wire, party)| {
                let checked = self.members.check(&party);
                checked.map(|()| wire).map_err(Refusal::Refused)
            });
            match checked {
                Ok(wire) => {
                    reachability.succeeded();
                    return wire;
                }
                Err(refusal) => reachability.failed(&refusal),
            }
            backoff.pause().await;
        }
    }

    async fn send_messages(self, mut waiting: mpsc::Receiver<Vec<u8>>) -> anyhow::Result<()> {
        let mut reachability = Reachability::new(self.member, Purpose::Raft);
        loop {
            let wire = self.reach(Purpose::Raft, &mut reachability).await;
            // What waited while the member was out of reach is of another time.
            while waiting.try_recv().is_ok() {}
            if let Err(error) = send_messages(wire, &mut waiting).await {
                tracing::warn!(member = self.member, error = %format!("{error:#}"), "a Raft connection broke");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn keep_asking(self, shared: Arc<Mutex<Option<Asker>>>) -> anyhow::Result<()> {
        let mut reachability = Reachability::new(self.member, Purpose::Ask);
        loop {
            let wire = self.reach(Purpose::Ask, &mut reachability).await;
            match Asker::new(wire).await {
                Ok((asker, connection)) => {
                    *lock(&shared) = Some(asker);
                    if let Err(error) = connection.await {
                        tracing::debug!(member = self.member, %error, "a connection for questions broke");
                    }
                    *lock(&shared) = None;
                }
                Err(error) => {
                    tracing::debug!(member = self.member, %error, "no connection for questions");
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Link {
    fn new(dialler: Dialler, tasks: &Tasks) -> Self {
        let (messages, waiting) = mpsc::channel(MESSAGES_MAX);
        let asker: Arc<Mutex<Option<Asker>>> = Arc::default();
        let asking = dialler.clone().keep_asking(Arc::clone(&asker));
        tasks.spawn("questions to a controller", OnError::Stop, asking);
        let sending = dialler.send_messages(waiting);
        tasks.spawn("Raft messages to a controller", OnError::Stop, sending);
        Self { messages, asker }
    }
}

async fn send_messages(wire: Wire, waiting: &mut mpsc::Receiver<Vec<u8>>) -> anyhow::Result<()> {
    let (mut reader, writer) = tokio::io::split(wire);
    let mut writer = BufWriter::with_capacity(64 << 10, writer);
    loop {
        let mut nothing = [0];
        let message = tokio::select! {
            message = waiting.recv() => match message {
                Some(message) => message,
                None => return Ok(()),
            },
            // Nothing comes this way, so this is the end of the connection.
            ended = reader.read(&mut nothing) => {
                ended?;
                anyhow::bail!("the other side has closed it");
            }
        };
        frames::write_unflushed(&mut writer, &(), &message).await?;
        while let Ok(message) = waiting.try_recv() {
            frames::write_unflushed(&mut writer, &(), &message).await?;
        }
        writer.flush().await?;
    }
}

#[async_trait]
impl Peers for PeerLinks {
    fn send(&self, member: u64, message: Vec<u8>) {
        if let Some(link) = self.links.get(&member) {
            // If the queue is full, Raft repeats what matters.
            let _ = link.messages.try_send(message);
        }
    }

    async fn ask(&self, member: u64, question: Bytes) -> Result<Bytes, Problem> {
        let unreached = || {
            let detail = format!("controller {member} is not reached; try again");
            Problem::new(ErrorCode::Busy, detail)
        };
        let link = self.links.get(&member).ok_or_else(unreached)?;
        let asker = lock(&link.asker).clone().ok_or_else(unreached)?;
        let (outcome, answer) = asker.ask::<Outcome>(PATH, &(), &question).await?;
        match outcome {
            Outcome::Answered => Ok(answer),
            Outcome::Refused(problem) => Err(problem),
        }
    }
}

/// Hands on the messages of another member, until its connection ends.
pub(crate) async fn take_messages(mut wire: Wire, member: &dyn Member) -> anyhow::Result<()> {
    while let Some(((), message)) = frames::read::<()>(&mut wire).await? {
        member.deliver(&message);
    }
    Ok(())
}

/// Answers the questions of another member, until its connection ends.
pub(crate) async fn answer(wire: Wire, member: Arc<dyn Member>) -> anyhow::Result<()> {
    let answer = move |request: Request<Incoming>| answer_one(request, Arc::clone(&member));
    Ok(rpc::answer(wire, answer).await?)
}

async fn answer_one(request: Request<Incoming>, member: Arc<dyn Member>) -> Response<BoxBody> {
    let answered = async {
        let ((), question) = rpc::read_whole(request.into_body()).await?;
        member.answer(question).await
    };
    match answered.await {
        Ok(answer) => rpc::answered(&Outcome::Answered, &answer),
        Err(problem) => rpc::answered(&Outcome::Refused(problem), &[]),
    }
}
