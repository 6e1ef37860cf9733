//! Links between controllers: Raft messages one way, questions to whoever leads the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use weft_core::{ErrorCode, Problem, lock};
use weft_runtime::link::{Member, Peers};
use weft_runtime::{OnError, Tasks};

use crate::book::{Book, NewMembers};
use crate::dial::Dialler;
use crate::handshake::{Cluster, Purpose};
use crate::members::Members;
use crate::messages;
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

/// The other controllers. Connections are dialled as long as the process runs.
pub struct PeerLinks {
    links: Arc<Mutex<BTreeMap<u64, Link>>>,
}

impl PeerLinks {
    /// Links to the controllers of a book, as soon as their addresses are known; this process is passed over.
    pub fn new(
        cluster: &Cluster,
        security: &Security,
        me: u64,
        book: &Book,
        members: &Members,
        tasks: &Tasks,
    ) -> Self {
        let links: Arc<Mutex<BTreeMap<u64, Link>>> = Arc::default();
        let (cluster, security, book) = (cluster.clone(), security.clone(), book.clone());
        let (shared, spawner) = (Arc::clone(&links), tasks.clone());
        let members = members.clone();
        let mut new = book.members();
        let link_known = move |new: &mut NewMembers| {
            for member in new.known().into_iter().filter(|member| *member != me) {
                let dialler = |purpose| {
                    let members = Some(members.clone());
                    Dialler::new(&cluster, &security, member, &book, purpose, members)
                };
                let link = Link::new(dialler(Purpose::Raft), dialler(Purpose::Ask), &spawner);
                lock(&shared).insert(member, link);
            }
        };
        // Those of the settings are there when this returns.
        link_known(&mut new);
        tasks.spawn("links to controllers", OnError::Stop, async move {
            loop {
                new.changed().await?;
                link_known(&mut new);
            }
        });
        Self { links }
    }
}

impl Link {
    fn new(mut raft: Dialler, mut questions: Dialler, tasks: &Tasks) -> Self {
        let (messages, mut waiting) = mpsc::channel(MESSAGES_MAX);
        tasks.spawn("Raft messages to a controller", OnError::Stop, async move {
            loop {
                let wire = raft.reach().await;
                // What waited while the member was out of reach is of another time.
                while waiting.try_recv().is_ok() {}
                if let Err(error) = messages::send(wire, &mut waiting).await {
                    let (member, error) = (raft.member(), format!("{error:#}"));
                    tracing::warn!(member, error, "a Raft connection broke");
                }
            }
        });
        let asker: Arc<Mutex<Option<Asker>>> = Arc::default();
        let shared = Arc::clone(&asker);
        tasks.spawn("questions to a controller", OnError::Stop, async move {
            loop {
                serve_questions(questions.reach().await, &shared).await;
            }
        });
        Self { messages, asker }
    }
}

/// Lets questions be asked on a connection, as long as it lasts.
async fn serve_questions(wire: Wire, shared: &Mutex<Option<Asker>>) {
    let served = async {
        let (asker, connection) = Asker::new(wire).await?;
        *lock(shared) = Some(asker);
        anyhow::Ok(connection.await?)
    };
    let ended = served.await;
    *lock(shared) = None;
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection for questions broke");
    }
}

#[async_trait]
impl Peers for PeerLinks {
    fn knows(&self, member: u64) -> bool {
        lock(&self.links).contains_key(&member)
    }

    fn send(&self, member: u64, message: Vec<u8>) {
        if let Some(link) = lock(&self.links).get(&member) {
            // If the queue is full, Raft repeats what matters.
            let _ = link.messages.try_send(message);
        }
    }

    async fn ask(&self, member: u64, question: Bytes) -> Result<Bytes, Problem> {
        let unreached = || {
            let detail = format!("controller {member} is not reached; try again");
            Problem::new(ErrorCode::Busy, detail)
        };
        let asker = {
            let links = lock(&self.links);
            let link = links.get(&member).ok_or_else(unreached)?;
            lock(&link.asker).clone().ok_or_else(unreached)?
        };
        let (outcome, answer) = asker.ask::<Outcome>(PATH, &(), &question).await?;
        match outcome {
            Outcome::Answered => Ok(answer),
            Outcome::Refused(problem) => Err(problem),
        }
    }
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
