use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_core::{ActorRef, Digest, Epoch, Limits, Problem, SHARDS, TenantId, lock};
use weft_protocol::{
    ActorAsk, ActorInvoke, ActorRequest, ActorStatus, CallTo, FromExecutor, MessageId, Once, Pin,
};
use weft_runtime::{Scoped, Tasks};
use weft_shard::ShardStore;
use weft_store::Blobs;

use super::super::guests::fake::{FakeInstances, Fakes};
use super::super::{ActorSettings, Actors};
use crate::lease::Lease;
use crate::lease::tests::for_ever;
use crate::outward::Outward;

/// Longest time that anything takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The executor's epoch.
pub(super) const EPOCH: Epoch = Epoch(5);

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<FromExecutor>>>>;
type Output = Arc<Mutex<HashMap<u64, Vec<u8>>>>;

/// An executor of actors, and its agent.
pub(super) struct Fixture {
    pub(super) actors: Actors,
    pub(super) fake: Arc<FakeInstances>,
    /// Turns that were metered under number 0.
    pub(super) metered: Arc<AtomicU64>,
    answers: Answers,
    outputs: Output,
    next: AtomicU64,
    _agent: Scoped,
}

pub(super) fn actor(key: &str) -> ActorRef {
    ActorRef::new("bank", "account", key).expect("a valid key")
}

/// The version with this number.
pub(super) fn pin(version: u8) -> Pin {
    Pin {
        digest: Digest::from_sha256(&[version; 32]),
        artefact: Digest::from_sha256(&[100 + version; 32]),
        label: format!("bank@{version}.0.0/account"),
        limits: Limits::default(),
    }
}

/// A turn of an actor that a client asks for.
pub(super) fn ask(key: &str, method: &str) -> ActorInvoke {
    ActorInvoke {
        actor: actor(key),
        pin: pin(1),
        method: method.into(),
        once: None,
        message: None,
        chain: Vec::new(),
    }
}

pub(super) fn once(key: &str, digest: &str) -> Option<Once> {
    Some(Once {
        key: key.into(),
        digest: digest.into(),
        ttl_s: 60,
    })
}

pub(super) fn message(shard: u32, number: u64) -> Option<MessageId> {
    Some(MessageId { shard, number })
}

/// A lease that stands, and under which each shard is opened once: an executor that loses one does not take it back.
pub(super) fn opens_once() -> Lease {
    let (replies, sent) = mpsc::channel(1_024);
    // It must not close, or confirmations would have nobody to ask.
    std::mem::forget(sent);
    let lease = Lease::new(replies);
    lease.renewed(u64::MAX, u64::from(SHARDS));
    lease
}

pub(super) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Waits until something is true.
pub(super) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("{what}: not in time"));
}

impl Fixture {
    /// An executor whose lease stands for ever.
    pub(super) fn over(folder: &Path) -> Self {
        Self::with_lease(folder, for_ever())
    }

    pub(super) fn with_lease(folder: &Path, lease: Lease) -> Self {
        let (replies, sent) = mpsc::channel(1_024);
        let outward = Outward::new(replies.clone());
        let fake = FakeInstances::new();
        let blobs = Blobs::local(folder).expect("a folder");
        let settings = ActorSettings {
            tenant: TenantId::default_tenant(),
            epoch: EPOCH,
            store: ShardStore::new(&blobs).expect("a folder holds shards"),
            lease,
            outward: outward.clone(),
            replies,
            tasks: Tasks::new(CancellationToken::new()),
        };
        let (answers, outputs) = (Answers::default(), Output::default());
        let metered = Arc::default();
        let agent = Agent {
            outward,
            answers: Arc::clone(&answers),
            outputs: Arc::clone(&outputs),
            metered: Arc::clone(&metered),
        };
        let this = Self {
            actors: Actors::with(settings, Arc::new(Fakes(Arc::clone(&fake)))),
            fake,
            metered,
            answers,
            outputs,
            next: AtomicU64::new(1),
            _agent: Scoped::new(agent.run(sent)),
        };
        this.actors.serve(&[0, 1, 2, 3, 4, 5, 6, 7]);
        this
    }

    /// Asks something, and returns its number and where its answer comes.
    pub(super) async fn begin(
        &self,
        shard: u32,
        ask: ActorAsk,
        input: &str,
    ) -> (u64, oneshot::Receiver<FromExecutor>) {
        self.begin_of(EPOCH, shard, ask, input).await
    }

    pub(super) async fn begin_of(
        &self,
        executor: Epoch,
        shard: u32,
        ask: ActorAsk,
        input: &str,
    ) -> (u64, oneshot::Receiver<FromExecutor>) {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.answers).insert(request, answer);
        let question = ActorRequest {
            request,
            executor,
            shard,
            ask,
            deadline_ms: 60_000,
        };
        let input = input.as_bytes().to_vec();
        self.actors.ask(question, input).await;
        (request, answered)
    }

    /// The answer to a question.
    pub(super) async fn end(
        &self,
        (request, answered): (u64, oneshot::Receiver<FromExecutor>),
    ) -> Result<String, Problem> {
        let answer = timeout(PATIENCE, answered).await;
        let answer = answer.expect("it comes in time").expect("it comes");
        let FromExecutor::Invoked(reply) = answer else {
            panic!("no answer of an actor: {answer:?}");
        };
        let output = lock(&self.outputs).remove(&request).unwrap_or_default();
        reply
            .result
            .map(|()| String::from_utf8(output).expect("it is text"))
    }

    pub(super) async fn ask(&self, shard: u32, ask: ActorAsk) -> Result<String, Problem> {
        let begun = self.begin(shard, ask, "").await;
        self.end(begun).await
    }

    /// Begins a turn.
    pub(super) async fn begin_turn(
        &self,
        invoke: ActorInvoke,
        input: &str,
    ) -> (u64, oneshot::Receiver<FromExecutor>) {
        let shard = invoke.actor.shard();
        let ask = ActorAsk::Invoke(Box::new(invoke));
        self.begin(shard, ask, input).await
    }

    pub(super) async fn turn(&self, invoke: ActorInvoke, input: &str) -> Result<String, Problem> {
        let begun = self.begin_turn(invoke, input).await;
        self.end(begun).await
    }

    pub(super) async fn invoke(
        &self,
        key: &str,
        method: &str,
        input: &str,
    ) -> Result<String, Problem> {
        self.turn(ask(key, method), input).await
    }

    /// The number of an actor that counts.
    pub(super) async fn number(&self, key: &str) -> String {
        self.invoke(key, "get", "n").await.expect("it is answered")
    }

    pub(super) async fn show(&self, key: &str) -> Result<ActorStatus, Problem> {
        let actor = actor(key);
        let shown = self.ask(actor.shard(), ActorAsk::Show(actor)).await?;
        Ok(serde_json::from_str(&shown).expect("it is a status"))
    }

    /// Waits until an actor's number is this one.
    pub(super) async fn until_number(&self, key: &str, number: &str) {
        let waiting = async {
            while self.number(key).await != number {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("`{key}` has not come to {number} in time"));
    }
}

/// Takes what the executor sends.
struct Agent {
    outward: Outward,
    answers: Answers,
    outputs: Output,
    metered: Arc<AtomicU64>,
}

impl Agent {
    async fn run(self, mut sent: mpsc::Receiver<(FromExecutor, Vec<u8>)>) {
        while let Some((message, payload)) = sent.recv().await {
            let request = match &message {
                FromExecutor::Invoked(reply) if reply.request == 0 => {
                    self.metered.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                FromExecutor::Invoked(reply) => reply.request,
                FromExecutor::NotHere { request } => *request,
                FromExecutor::Call(call) => {
                    assert!(matches!(call.to, CallTo::Pin { .. }), "all shards are here");
                    let pin = serde_json::to_vec(&pin(1)).expect("a pin has JSON");
                    self.outward.answered(call.call, Ok(()), pin);
                    continue;
                }
                _ => continue,
            };
            lock(&self.outputs).insert(request, payload);
            let waiting = lock(&self.answers).remove(&request);
            let waiting = waiting.expect("each question has one answer");
            // A test may have given it up.
            let _ = waiting.send(message);
        }
    }
}
