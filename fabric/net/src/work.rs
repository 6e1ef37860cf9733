//! Invocations and compilations on a node, over HTTP/2 where the node, which has dialled, is the
//! server.
//!
//! ```text
//! /offer    ◀── which tenants are served, whenever that changes
//! /invoke   ──▶ request, input          ◀── reply, output
//! /stream   ──▶ request, input pieces   ◀── output pieces, reply
//! /rows     ──▶ request                 ◀── output pieces, reply
//! /compile  ──▶ component               ◀── imports, artefact
//! /actor    ──▶ request, input          ◀── reply, output, or nothing
//! /call     ──▶                         ◀── a call that a guest makes
//! /answer   ──▶ its result and output   ◀──
//! ```
//!
//! A question that the controller drops is cancelled on the node, and so abandons its invocation.

mod actors;
mod pieces;
mod rows;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use weft_core::{Digest, ErrorCode, NodeId, Problem, TenantId, lock};
use weft_protocol::{ActorRequest, Call, InvokeReply, InvokeRequest, RowsRequest};
use weft_runtime::link::{
    Body, Compiled, Compilers, InvokeAnswer, Invoker, NoReply, StreamEvent, WorkChange, Worker,
};
use weft_runtime::{OnError, Scoped, Tasks};

use crate::control::ToControllers;
use crate::handshake::Purpose;
use crate::rpc::{self, Asker, BoxBody, QUESTIONS_MAX, head_bytes, lost, read_whole};
use crate::security::Wire;
use actors::Handed;
use pieces::{Pieces, kind, piece, piece_of};

/// Time between two looks at which tenants are served.
const OFFER_PERIOD: Duration = Duration::from_millis(20);
/// Pieces of one stream that wait on the node for the connection, in each direction.
const PIECES_WAITING: usize = 4;

/// Invocations and turns of a node that a controller waits for at a time. The rest of the questions on the connection
/// is for calls that they make and the answers to these: without it, all would wait for each other.
const MAX_WAITING: usize = QUESTIONS_MAX as usize - 512;

/// How much longer than its deadline an invocation may take on its way.
const DEADLINE_GRACE: Duration = Duration::from_secs(5);

const OFFER: &str = "/offer";
const INVOKE: &str = "/invoke";
const STREAM: &str = "/stream";
const ROWS: &str = "/rows";
const COMPILE: &str = "/compile";
const ACTOR: &str = "/actor";
const CALL: &str = "/call";
const ANSWER: &str = "/answer";

/// Offer of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Offer {
    /// Name of the artefacts that its engine takes.
    compatibility: String,
    /// It takes no new work.
    #[serde(default)]
    draining: bool,
    /// Tenants with an executor that takes invocations.
    ready: BTreeSet<TenantId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Invocation {
    tenant: TenantId,
    request: InvokeRequest,
    deadline_ms: u64,
}

/// Work that a node does for controllers.
#[derive(Clone)]
pub struct WorkSettings {
    /// The controllers.
    pub to: ToControllers,
    /// Invocations of the node.
    pub invoker: Arc<dyn Invoker>,
    /// Compilers of the node.
    pub compilers: Arc<dyn Compilers>,
}

/// Offers a node's work to all controllers.
pub fn offer_work(settings: &WorkSettings, tasks: &Tasks) {
    let (settings, spawner) = (settings.clone(), tasks.clone());
    let to = settings.to.clone();
    let offering = to.dial_each(Purpose::Work, move |mut dialler| {
        let settings = settings.clone();
        spawner.spawn("work connection", OnError::Stop, async move {
            loop {
                serve_work(dialler.reach().await, &settings).await;
            }
        });
    });
    tasks.spawn("work connections", OnError::Stop, offering);
}

async fn serve_work(wire: Wire, settings: &WorkSettings) {
    let handed = Handed::new();
    let answer = {
        let (settings, handed) = (settings.clone(), handed.clone());
        move |request| answer(request, settings.clone(), handed.clone())
    };
    if let Err(error) = rpc::answer(wire, answer).await {
        tracing::debug!(%error, "a work connection broke");
    }
    handed.give_up(&*settings.invoker).await;
}

async fn answer(
    request: Request<Incoming>,
    settings: WorkSettings,
    handed: Handed,
) -> Response<BoxBody> {
    let (path, body) = (request.uri().path().to_owned(), request.into_body());
    match path.as_str() {
        OFFER => offers(settings),
        INVOKE => {
            let invoked = invoke(body, &settings).await;
            match invoked {
                Ok((reply, output)) => rpc::answered(&Ok::<_, Problem>(reply), &output),
                Err(problem) => rpc::answered(&Err::<InvokeReply, _>(problem), &[]),
            }
        }
        STREAM => stream_on_node(body, settings),
        ROWS => rows::on_node(body, settings),
        ACTOR => actors::ask_on_node(body, &settings).await,
        CALL => actors::call_on_node(&settings, &handed).await,
        ANSWER => actors::answer_on_node(body, &settings, &handed).await,
        COMPILE => {
            let compiled = async {
                let (component, _) = read_whole::<Digest>(body).await?;
                settings.compilers.compile(&component).await
            };
            rpc::answered(&compiled.await, &[])
        }
        _ => rpc::refused(StatusCode::NOT_FOUND),
    }
}

/// The offer, and again whenever it has changed.
fn offers(settings: WorkSettings) -> Response<BoxBody> {
    let offers = stream::unfold((settings, None), |(settings, last)| async move {
        let mut period = tokio::time::interval(OFFER_PERIOD);
        let offer = loop {
            period.tick().await;
            let offer = Offer {
                compatibility: settings.compilers.compatibility().to_owned(),
                draining: settings.invoker.is_draining(),
                ready: settings.invoker.ready_tenants().into_iter().collect(),
            };
            if last.as_ref() != Some(&offer) {
                break offer;
            }
        };
        let bytes = head_bytes(&offer).map(|bytes| Frame::data(bytes.freeze()));
        Some((bytes, (settings, Some(offer))))
    });
    Response::new(StreamBody::new(offers).boxed_unsync())
}

async fn invoke(body: Incoming, settings: &WorkSettings) -> Result<InvokeAnswer, Problem> {
    let (invocation, input) = read_whole::<Invocation>(body).await?;
    let deadline = Duration::from_millis(invocation.deadline_ms);
    let invoker = &settings.invoker;
    invoker
        .invoke(&invocation.tenant, invocation.request, input, deadline)
        .await
}

/// Runs a stream; its answer ends with the reply. If the connection drops the answer, the stream is
/// abandoned with it.
fn stream_on_node(body: Incoming, settings: WorkSettings) -> Response<BoxBody> {
    let (pieces, waiting) = mpsc::channel::<Bytes>(PIECES_WAITING);
    let running = async move {
        let ended = run_stream(body, &settings, &pieces).await;
        let last = match ended {
            Ok(reply) => piece_of(kind::ENDED, &reply),
            Err(NoReply::Failed(problem)) => piece_of(kind::FAILED, &problem),
            Err(NoReply::Left) => return,
        };
        // The controller may have gone.
        let _ = pieces.send(last).await;
    };
    answer_with(running, waiting)
}

/// An answer of the pieces that `running` makes, which runs as long as the answer is wanted.
fn answer_with(
    running: impl Future<Output = ()> + Send + 'static,
    mut waiting: mpsc::Receiver<Bytes>,
) -> Response<BoxBody> {
    // It runs beside its answer, whose end it does not outlive: a client that takes nothing must not
    // hold up the deadline.
    let running = Scoped::new(running);
    let answer = stream::poll_fn(move |context| {
        let _running = &running;
        waiting.poll_recv(context)
    });
    let answer = answer.map(|piece| Ok(Frame::data(piece)));
    Response::new(StreamBody::new(answer).boxed_unsync())
}

async fn run_stream(
    body: Incoming,
    settings: &WorkSettings,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<InvokeReply, NoReply> {
    let mut input = Pieces::new(body);
    let head = input
        .take_head()
        .await?
        .ok_or_else(|| lost(&"it ended early"))?;
    let invocation: Invocation = serde_json::from_slice(&head).map_err(|error| lost(&error))?;
    let (client, mut events) = mpsc::channel(PIECES_WAITING);
    let mut body = std::pin::pin!(input.rest());
    let deadline = Duration::from_millis(invocation.deadline_ms);
    let invoker = &settings.invoker;
    let running = async move {
        let (tenant, request) = (&invocation.tenant, invocation.request);
        let ended = invoker.stream(tenant, request, body.as_mut(), deadline, &client);
        let ended = ended.await;
        drop(client);
        ended
    };
    let passing = async move {
        while let Some(event) = events.recv().await {
            if pass_on(event, pieces).await.is_err() {
                // Without its receiver, the stream sees that its client has gone.
                return;
            }
        }
    };
    tokio::join!(running, passing).0
}

async fn pass_on(event: StreamEvent, pieces: &mpsc::Sender<Bytes>) -> Result<(), NoReply> {
    let piece = match event {
        StreamEvent::Output(bytes) => piece(kind::OUTPUT, &bytes),
        StreamEvent::Ended(reply) => piece_of(kind::ENDED, &*reply),
        StreamEvent::Failed(problem) => piece_of(kind::FAILED, &problem),
    };
    pieces.send(piece).await.map_err(|_| NoReply::Left)
}

/// Room for questions whose answers may wait for other questions.
struct Waiting(Semaphore);

impl Waiting {
    fn new() -> Self {
        Self(Semaphore::new(MAX_WAITING))
    }

    /// Takes room until the result is dropped. Errors: `busy` if there is none. Nobody waits for it: those that have it
    /// may wait for those that want it.
    fn begin(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.0.try_acquire().map_err(|_| {
            let detail = format!(
                "{MAX_WAITING} invocations of this controller wait for the node; try again"
            );
            Problem::new(ErrorCode::Busy, detail)
        })
    }
}

/// A node, as a controller reaches it.
struct RemoteNode {
    node: NodeId,
    asker: Asker,
    waiting: Waiting,
    compatibility: String,
    offer: Arc<Mutex<Offer>>,
}

/// Serves the work connection of a node that has dialled this controller, until it ends.
pub(crate) async fn serve(
    wire: Wire,
    node: NodeId,
    changes: &mpsc::Sender<WorkChange>,
) -> anyhow::Result<()> {
    let (asker, connection) = Asker::new(wire).await?;
    let mut up = None;
    let ended = tokio::select! {
        ended = connection => ended.map_err(anyhow::Error::from),
        ended = take_offers(&asker, &node, changes, &mut up) => ended,
    };
    if let Some(worker) = up {
        changes.send(WorkChange::Down(node, worker)).await?;
    }
    ended
}

/// Takes a node's offers, until its connection ends.
async fn take_offers(
    asker: &Asker,
    node: &NodeId,
    changes: &mpsc::Sender<WorkChange>,
    up: &mut Option<Worker>,
) -> anyhow::Result<()> {
    let body = asker.open(OFFER, rpc::whole(&(), &[])?).await?;
    let mut pieces = Pieces::new(body);
    let shown: Arc<Mutex<Offer>> = Arc::default();
    while let Some(head) = pieces.take_head().await? {
        let offer: Offer = serde_json::from_slice(&head)?;
        lock(&shown).clone_from(&offer);
        if up.is_none() {
            let remote = Arc::new(RemoteNode {
                node: node.clone(),
                asker: asker.clone(),
                waiting: Waiting::new(),
                compatibility: offer.compatibility,
                offer: Arc::clone(&shown),
            });
            let worker = Worker {
                invoker: Arc::clone(&remote) as Arc<dyn Invoker>,
                compilers: remote,
            };
            *up = Some(worker.clone());
            changes.send(WorkChange::Up(node.clone(), worker)).await?;
        }
    }
    Ok(())
}

impl RemoteNode {
    /// A broken connection is the node's: clients try again, on another.
    fn gone(&self, problem: Problem) -> Problem {
        match problem.code {
            ErrorCode::Busy => {
                tracing::debug!(node = %self.node, problem = problem.detail, "a node went away");
                let detail = "the node went away before it had answered; try again";
                Problem::new(ErrorCode::Busy, detail)
            }
            _ => problem,
        }
    }

    fn invocation(tenant: &TenantId, request: InvokeRequest, deadline: Duration) -> Invocation {
        Invocation {
            tenant: tenant.clone(),
            request,
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[async_trait]
impl Compilers for RemoteNode {
    async fn compile(&self, component: &Digest) -> Result<Compiled, Problem> {
        let asked = self
            .asker
            .ask::<Result<Compiled, Problem>>(COMPILE, component, &[]);
        asked.await.map_err(|problem| self.gone(problem))?.0
    }

    fn compatibility(&self) -> &str {
        &self.compatibility
    }
}

#[async_trait]
impl Invoker for RemoteNode {
    async fn invoke(
        &self,
        tenant: &TenantId,
        request: InvokeRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<InvokeAnswer, Problem> {
        let _waiting = self.waiting.begin()?;
        let head = Self::invocation(tenant, request, deadline);
        let asked = self
            .asker
            .ask::<Result<InvokeReply, Problem>>(INVOKE, &head, &input);
        let asked = timeout(deadline + DEADLINE_GRACE, asked).await;
        let asked = asked.unwrap_or_else(|_| Err(lost(&"it is silent")));
        let (reply, output) = asked.map_err(|problem| self.gone(problem))?;
        Ok((reply?, output))
    }

    async fn stream(
        &self,
        tenant: &TenantId,
        request: InvokeRequest,
        mut body: Body<'_>,
        deadline: Duration,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply> {
        let head = head_bytes(&Self::invocation(tenant, request, deadline))?.freeze();
        let (input, mut waiting) = mpsc::channel::<Result<Bytes, Problem>>(PIECES_WAITING);
        let sent = stream::poll_fn(move |context| waiting.poll_recv(context));
        let sent = sent.map(|piece| piece.map(Frame::data));
        let sent = StreamBody::new(sent).boxed_unsync();
        // Ends only if the body fails: what came of it, the node knows.
        let sending = async move {
            if input.send(Ok(head)).await.is_ok() {
                while let Some(piece) = body.next().await {
                    match piece {
                        Ok(piece) => {
                            if input.send(Ok(piece)).await.is_err() {
                                break;
                            }
                        }
                        Err(problem) => {
                            let _ = input.send(Err(problem.clone())).await;
                            return problem;
                        }
                    }
                }
            }
            drop(input);
            std::future::pending::<Problem>().await
        };
        let receiving = async {
            let answer = self.asker.open(STREAM, sent).await;
            let answer = answer.map_err(|problem| self.gone(problem))?;
            self.take_answer(answer, client, StreamEvent::Output).await
        };
        tokio::select! {
            ended = receiving => ended,
            problem = sending => Err(problem.into()),
            () = client.closed() => Err(NoReply::Left),
            () = sleep(deadline + DEADLINE_GRACE) => {
                Err(self.gone(lost(&"it is silent")).into())
            }
        }
    }

    async fn rows(
        &self,
        tenant: &TenantId,
        request: RowsRequest,
        deadline: Duration,
        client: &mpsc::Sender<Bytes>,
    ) -> Result<(), NoReply> {
        self.take_rows(tenant, request, deadline, client).await
    }

    async fn actor(
        &self,
        tenant: &TenantId,
        request: ActorRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<Option<InvokeAnswer>, Problem> {
        let _waiting = self.waiting.begin()?;
        self.ask_actor(tenant, request, input, deadline).await
    }

    async fn next_call(&self) -> Result<(TenantId, Call, Bytes), Problem> {
        self.wait_for_call().await
    }

    async fn answer_call(&self, tenant: &TenantId, call: u64, answer: Result<Bytes, Problem>) {
        self.send_answer(tenant, call, answer).await;
    }

    fn is_ready(&self, tenant: &TenantId) -> bool {
        let offer = lock(&self.offer);
        !offer.draining && offer.ready.contains(tenant)
    }

    fn is_draining(&self) -> bool {
        lock(&self.offer).draining
    }

    fn ready_tenants(&self) -> Vec<TenantId> {
        lock(&self.offer).ready.iter().cloned().collect()
    }
}

impl RemoteNode {
    /// Passes output on to the client as it comes, and returns what comes last.
    async fn take_answer<T: DeserializeOwned, E: Send>(
        &self,
        answer: Incoming,
        client: &mpsc::Sender<E>,
        event: fn(Bytes) -> E,
    ) -> Result<T, NoReply> {
        let mut pieces = Pieces::new(answer);
        loop {
            let piece = pieces.take_piece().await;
            let piece = piece.map_err(|problem| self.gone(problem))?;
            let Some((kind, piece)) = piece else {
                return Err(self.gone(lost(&"it ended early")).into());
            };
            let read = |error: serde_json::Error| lost(&error);
            match kind {
                kind::OUTPUT => {
                    if client.send(event(piece)).await.is_err() {
                        return Err(NoReply::Left);
                    }
                }
                kind::ENDED => return Ok(serde_json::from_slice(&piece).map_err(read)?),
                kind::FAILED => {
                    let problem: Problem = serde_json::from_slice(&piece).map_err(read)?;
                    return Err(problem.into());
                }
                kind => return Err(lost(&format!("a piece of kind {kind}")).into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocations_that_wait_leave_room_for_what_they_wait_for() {
        let waiting = Waiting::new();
        let all: Vec<_> = (0..MAX_WAITING).map(|_| waiting.begin()).collect();
        assert!(all.iter().all(Result::is_ok) && all.len() < QUESTIONS_MAX as usize);
        let refused = waiting.begin().expect_err("there is no room");
        assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
        drop(all);
        drop(waiting.begin().expect("there is room again"));
    }
}
