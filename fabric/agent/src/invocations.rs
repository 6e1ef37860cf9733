//! Invocations on their way to an executor and back: admitted within bounds, answered by number,
//! metered.
//!
//! ```text
//! API ──admit──▶ link of the ready executor ──socket──▶ invocation slot ──socket──▶ answer ──▶ API
//! ```
//!
//! Calls of map functions stream ([`stream`]): they have no slot, because they wait for their clients, and are bounded by themselves.
//! So are those that other invocations spawned ([`spawned`]), for which these wait.
//! The agent reports the sums of usage once a second.

mod actors;
mod calls;
mod rows;
mod spawned;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use weft_core::{Epoch, ErrorCode, FunctionUsage, LimitKind, Problem, TenantId, lock};
use weft_protocol::{
    ActorRequest, Call, DEADLINE_MAX, InvokeReply, InvokeRequest, OUTPUT_BYTES_MAX, RowsRequest,
    ToExecutor,
};
use weft_runtime::link::{Body, InvokeAnswer, Invoker, NoReply, StreamEvent};
use weft_runtime::{Room, Taken};
use weft_telemetry::UnderWay;

use crate::executor_process::Outbound;
use crate::metrics::Metrics;
use actors::{KnownLabels, MAX_TENANT_TURNS, TurnAnswer};
use calls::Calls;

/// Invocations of one tenant that run or wait.
const TENANT_MAX: usize = 1024;
/// Invocations of one function that run or wait: a burst of one function leaves room for others.
const FUNCTION_MAX: usize = 256;
/// Invocations of one function that have been sent to the executor, for each of its slots.
const SENT_PER_SLOT: usize = 2;
/// Bytes of outputs for each slot: of those that may come, and of those that their clients have not taken. With all of it held,
/// calls wait.
const OUTPUT_BYTES_PER_SLOT: usize = 128 << 20;
/// Calls that stream, for each slot: each holds a sandbox, and a thread of the executor.
const STREAMS_PER_SLOT: usize = 8;
/// All of them: an executor has 512 sandboxes, and tasks and other calls need some.
const STREAMS_MAX: usize = 128;
/// Outputs whose rows are sent at a time, for each slot: each holds a thread of the executor.
const ROWS_PER_SLOT: usize = 8;
/// All of them.
const MAX_ROWS: usize = 64;
/// How long after a call others are expected.
const SERVED_LATELY: Duration = Duration::from_secs(1);
/// Admission of one function.
struct Admission {
    waiting: Semaphore,
    sent: Semaphore,
    streams: Semaphore,
}

#[derive(Default)]
struct Pending {
    /// The executor that is ready, with its number.
    link: Option<(Epoch, mpsc::Sender<Outbound>)>,
    answers: HashMap<u64, oneshot::Sender<(InvokeReply, Vec<u8>)>>,
    /// Questions to actors.
    turns: HashMap<u64, TurnAnswer>,
    /// Those of them that stream.
    streams: HashMap<u64, stream::Ends>,
    /// Outputs whose rows are being sent.
    rows: HashMap<u64, oneshot::Sender<Result<(), Problem>>>,
    /// Labels of those that were sent and not answered, whether somebody waits or not: usage is
    /// metered under them, because executors are not trusted.
    labels: HashMap<u64, String>,
    /// When a call was answered last.
    answered: Option<Instant>,
}

impl Pending {
    /// The link of an executor, if it is the one that is ready.
    fn link_of(&self, executor: Epoch) -> Option<&mpsc::Sender<Outbound>> {
        let link = self.link.as_ref();
        link.filter(|(ready, _)| *ready == executor)
            .map(|(_, link)| link)
    }

    /// Returns whether nothing is under way.
    fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.rows.is_empty()
    }

    /// Returns whether somebody waits for an invocation.
    fn any_waits(&self) -> bool {
        !self.answers.is_empty() || !self.rows.is_empty()
    }

    /// The executor is gone, or another one takes its place.
    fn forget(&mut self) {
        self.link = None;
        self.answers.clear();
        self.turns.clear();
        self.streams.clear();
        self.rows.clear();
        self.labels.clear();
    }
}

/// Bounds that the tenants of a node share.
struct Shared {
    slots: usize,
    sent_max: usize,
    streams_max: usize,
    streams: Semaphore,
    rows_max: usize,
    rows: Semaphore,
    outputs: Room,
    /// Outputs of turns that their clients have not taken.
    turn_outputs: Room,
    calls: Calls,
    metrics: Arc<Metrics>,
    /// No new ones are wanted: whoever has others goes there.
    draining: AtomicBool,
    /// Shards of actors are about to be granted to other nodes: whoever asks for one waits for that.
    leaving: AtomicBool,
}

/// Invocations of one tenant: admitted within bounds, sent to its executor, answered by number.
pub(crate) struct OfTenant {
    shared: Arc<Shared>,
    id: TenantId,
    tenant: Semaphore,
    turns: Semaphore,
    known: Mutex<KnownLabels>,
    functions: Mutex<HashMap<String, Arc<Admission>>>,
    spawned: spawned::Spawned,
    pending: Mutex<Pending>,
    next_request: AtomicU64,
    usage: Mutex<BTreeMap<String, FunctionUsage>>,
}

/// Invocations of one node, by tenant. Clones share them.
#[derive(Clone)]
pub struct Invocations {
    shared: Arc<Shared>,
    by_tenant: Arc<Mutex<BTreeMap<TenantId, Arc<OfTenant>>>>,
}

fn busy(what: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::Busy, what)
}

/// What a function logged goes to the server's log.
fn tell_log(reply: &InvokeReply) {
    for line in &reply.log {
        tracing::info!(target: "invocation", function = line.function, level = line.level, "{}", line.message);
    }
    if reply.log_dropped > 0 {
        tracing::info!(target: "invocation", function = reply.label, dropped = reply.log_dropped, "lines dropped");
    }
}

fn too_late(label: String, deadline: Duration) -> Problem {
    let value = format!("{} ms", deadline.as_millis());
    let advice = match deadline < DEADLINE_MAX {
        true => "raise `deadline_ms`",
        false => "give it less to do: no call may take longer",
    };
    let detail = format!("`{label}` had not ended at its deadline of {value}; {advice}");
    Problem::new(ErrorCode::LimitExceeded, detail)
        .of_function(label)
        .of_limit(LimitKind::Wall, value)
}

/// The request with the time that is left for it. Its executor gives what it spawns no more.
fn within(mut request: InvokeRequest, left: Duration) -> InvokeRequest {
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    request.limits.wall_ms = request.limits.wall_ms.min(left_ms);
    request
}

/// Takes an invocation back whose caller has gone.
struct Waiting<'a> {
    invocations: &'a OfTenant,
    request: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.invocations.pending);
        let answer = pending.answers.remove(&self.request);
        let turn = pending.turns.remove(&self.request);
        if (answer.is_some() || turn.is_some())
            && let Some((_, link)) = &pending.link
        {
            // Where the queue is full the call runs to its end, and nobody hears of it.
            let abandon = ToExecutor::Abandon {
                request: self.request,
            };
            let _ = link.try_send((abandon, Bytes::new()));
        }
    }
}

impl Invocations {
    pub(crate) fn new(slots: u32, metrics: Arc<Metrics>) -> Self {
        let output_bytes = slots as usize * OUTPUT_BYTES_PER_SLOT;
        let (held, turns_held) = (metrics.output_held.clone(), metrics.output_held.clone());
        let streams_max = (slots as usize * STREAMS_PER_SLOT).min(STREAMS_MAX);
        let rows_max = (slots as usize * ROWS_PER_SLOT).min(MAX_ROWS);
        let shared = Shared {
            outputs: Room::new(output_bytes, move |change| {
                held.inc_by(change);
            }),
            turn_outputs: Room::new(actors::MAX_TURN_OUTPUT_BYTES, move |change| {
                turns_held.inc_by(change);
            }),
            metrics,
            slots: slots as usize,
            sent_max: slots as usize * SENT_PER_SLOT,
            streams_max,
            streams: Semaphore::new(streams_max),
            rows_max,
            rows: Semaphore::new(rows_max),
            calls: Calls::default(),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            by_tenant: Arc::default(),
        }
    }

    /// The tenant's invocations. As many are kept as tenants had executors or invocations here.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<OfTenant> {
        let mut by_tenant = lock(&self.by_tenant);
        if let Some(known) = by_tenant.get(tenant) {
            return Arc::clone(known);
        }
        let new = Arc::new(OfTenant {
            shared: Arc::clone(&self.shared),
            id: tenant.clone(),
            tenant: Semaphore::new(TENANT_MAX),
            turns: Semaphore::new(MAX_TENANT_TURNS),
            known: Mutex::default(),
            functions: Mutex::default(),
            spawned: spawned::Spawned::new(self.shared.slots),
            pending: Mutex::default(),
            next_request: AtomicU64::new(1),
            usage: Mutex::default(),
        });
        by_tenant.insert(tenant.clone(), Arc::clone(&new));
        new
    }

    /// Tells controllers to go elsewhere; those that come all the same are served.
    pub(crate) fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Takes no more questions to actors, but for those that other turns wait for. Shards stay with their executors, so
    /// without this the questions would not end, however long the node drains.
    pub(crate) fn leave(&self) {
        self.shared.leaving.store(true, Ordering::Relaxed);
    }

    /// Returns whether nobody waits for an invocation but those who ask actors.
    pub(crate) fn are_calls_done(&self) -> bool {
        let by_tenant = lock(&self.by_tenant);
        by_tenant
            .values()
            .all(|one| !lock(&one.pending).any_waits())
    }

    /// Returns whether none is under way, and the usage of all was taken.
    pub(crate) fn are_done(&self) -> bool {
        let by_tenant = lock(&self.by_tenant);
        by_tenant
            .values()
            .all(|one| lock(&one.pending).is_empty() && lock(&one.usage).is_empty())
    }

    /// Returns whether invocations are served, now and then at least.
    pub(crate) fn serves(&self) -> bool {
        lock(&self.by_tenant).values().any(|one| one.serves())
    }

    /// Tenants that have used something since their usage was taken.
    pub(crate) fn tenants_with_usage(&self) -> Vec<TenantId> {
        let by_tenant = lock(&self.by_tenant);
        let used = by_tenant
            .iter()
            .filter(|(_, one)| !lock(&one.usage).is_empty());
        used.map(|(tenant, _)| tenant.clone()).collect()
    }
}

#[async_trait]
impl Invoker for Invocations {
    async fn invoke(
        &self,
        tenant: &TenantId,
        request: InvokeRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<InvokeAnswer, Problem> {
        let _under_way = UnderWay::new(&self.shared.metrics.invocations_under_way);
        self.of(tenant).admit(request, input, deadline).await
    }

    async fn stream(
        &self,
        tenant: &TenantId,
        request: InvokeRequest,
        body: Body<'_>,
        deadline: Duration,
        client: &mpsc::Sender<StreamEvent>,
    ) -> Result<InvokeReply, NoReply> {
        let _under_way = UnderWay::new(&self.shared.metrics.invocations_under_way);
        let of_tenant = self.of(tenant);
        of_tenant
            .admit_stream(request, body, deadline, client)
            .await
    }

    async fn rows(
        &self,
        tenant: &TenantId,
        request: RowsRequest,
        deadline: Duration,
        client: &mpsc::Sender<Bytes>,
    ) -> Result<(), NoReply> {
        self.of(tenant).admit_rows(request, deadline, client).await
    }

    async fn actor(
        &self,
        tenant: &TenantId,
        request: ActorRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<Option<InvokeAnswer>, Problem> {
        let _under_way = UnderWay::new(&self.shared.metrics.invocations_under_way);
        self.of(tenant).admit_actor(request, input, deadline).await
    }

    async fn next_call(&self) -> Result<(TenantId, Call, Bytes), Problem> {
        Ok(self.shared.calls.next().await)
    }

    async fn answer_call(&self, tenant: &TenantId, call: u64, answer: Result<Bytes, Problem>) {
        self.of(tenant).call_answered(call, answer).await;
    }

    fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    fn is_ready(&self, tenant: &TenantId) -> bool {
        lock(&self.of(tenant).pending).link.is_some()
    }

    fn ready_tenants(&self) -> Vec<TenantId> {
        let by_tenant = lock(&self.by_tenant);
        let ready = by_tenant
            .iter()
            .filter(|(_, one)| lock(&one.pending).link.is_some());
        ready.map(|(tenant, _)| tenant.clone()).collect()
    }
}

impl OfTenant {
    /// Takes what was used since the last time, by function.
    pub(crate) fn take_usage(&self) -> Vec<FunctionUsage> {
        std::mem::take(&mut *lock(&self.usage))
            .into_values()
            .collect()
    }

    /// From now on invocations go to this executor, if it is newer than the one before.
    pub(crate) fn connect(&self, executor: Epoch, link: mpsc::Sender<Outbound>) {
        let mut pending = lock(&self.pending);
        if pending
            .link
            .as_ref()
            .is_none_or(|(known, _)| *known < executor)
        {
            pending.forget();
            pending.link = Some((executor, link));
        }
    }

    /// The executor is gone: those who wait for it are told to try again.
    pub(crate) fn disconnect(&self, executor: Epoch) {
        self.shared.calls.forget(executor);
        let mut pending = lock(&self.pending);
        if pending.link.as_ref().is_some_and(|(id, _)| *id == executor) {
            pending.forget();
        }
    }

    /// An executor has answered.
    pub(crate) fn answer(&self, reply: InvokeReply, output: Vec<u8>) {
        if reply.request == 0 {
            return self.meter_own(&reply);
        }
        let mut pending = lock(&self.pending);
        let Some(label) = pending.labels.remove(&reply.request) else {
            tracing::debug!(
                request = reply.request,
                "an executor answers an invocation that it was not sent"
            );
            return;
        };
        pending.answered = Some(Instant::now());
        let waiting = pending.answers.remove(&reply.request);
        let turn = pending.turns.remove(&reply.request);
        // No output comes after the answer.
        pending.streams.remove(&reply.request);
        drop(pending);
        // Whether somebody still waits or not: of a call that took too long, the log says why.
        tell_log(&reply);
        // A call that its caller gave up, or that took too long, is the user's as well.
        self.meter(&reply, label, waiting.is_none() && turn.is_none());
        if let Some(waiting) = waiting {
            let _ = waiting.send((reply, output));
        } else if let Some(turn) = turn {
            let _ = turn.send(Some((reply, output)));
        }
    }

    fn serves(&self) -> bool {
        let pending = lock(&self.pending);
        let lately = |at: Instant| at.elapsed() < SERVED_LATELY;
        !pending.answers.is_empty()
            || !pending.turns.is_empty()
            || pending.answered.is_some_and(lately)
    }

    fn admission(&self, label: &str) -> Arc<Admission> {
        let mut functions = lock(&self.functions);
        // Entries are as many as functions that somebody invoked: the catalog bounds them.
        if let Some(admission) = functions.get(label) {
            return Arc::clone(admission);
        }
        let admission = Arc::new(Admission {
            waiting: Semaphore::new(FUNCTION_MAX),
            sent: Semaphore::new(self.shared.sent_max),
            streams: Semaphore::new(self.shared.streams_max.div_ceil(2)),
        });
        functions.insert(label.to_owned(), Arc::clone(&admission));
        admission
    }

    async fn admit(
        &self,
        request: InvokeRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<InvokeAnswer, Problem> {
        if request.depth > 0 {
            return self.admit_spawned(request, input, deadline).await;
        }
        let _tenant = self
            .tenant
            .try_acquire()
            .map_err(|_| busy(format!("{TENANT_MAX} invocations run or wait; try again")))?;
        let admission = self.admission(&request.label);
        let _waiting = admission.waiting.try_acquire().map_err(|_| {
            let label = &request.label;
            busy(format!(
                "{FUNCTION_MAX} invocations of `{label}` run or wait; try again"
            ))
        })?;
        let (label, began) = (request.label.clone(), Instant::now());
        let call = async {
            let _sent = admission.sent.acquire().await;
            let room = self.output_room().await;
            let request = within(request, deadline.saturating_sub(began.elapsed()));
            let (reply, output) = self.run(request, input).await?;
            Ok((reply, room.keep(output)))
        };
        tokio::time::timeout(deadline, call)
            .await
            .unwrap_or_else(|_| Err(too_late(label, deadline)))
    }

    /// Has the executor run an invocation that was admitted. Dropping the future abandons it.
    async fn run(
        &self,
        mut request: InvokeRequest,
        input: Bytes,
    ) -> Result<(InvokeReply, Vec<u8>), Problem> {
        request.request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting {
            invocations: self,
            request: request.request,
        };
        let answered = self.send(request, input).await?;
        let ended = |_| busy("the executor ended while the function ran; try again");
        answered.await.map_err(ended)
    }

    /// Waits for room for the largest output that there may be.
    async fn output_room(&self) -> Taken {
        self.shared.outputs.take(OUTPUT_BYTES_MAX).await
    }

    async fn send(
        &self,
        request: InvokeRequest,
        input: Bytes,
    ) -> Result<oneshot::Receiver<(InvokeReply, Vec<u8>)>, Problem> {
        let ended = || busy("the executor ended; try again");
        let link = lock(&self.pending).link.clone();
        let (executor, link) = link.ok_or_else(|| busy("no executor is ready; try again"))?;
        // Before anything is recorded: what is given up while it waits was not sent, and has no answer.
        let room = link.reserve().await.map_err(|_| ended())?;
        let (answer, answered) = oneshot::channel();
        let mut pending = lock(&self.pending);
        if pending.link_of(executor).is_none() {
            return Err(ended());
        }
        pending.answers.insert(request.request, answer);
        pending
            .labels
            .insert(request.request, request.label.clone());
        room.send((ToExecutor::Invoke(Box::new(request)), input));
        Ok(answered)
    }

    fn meter(&self, reply: &InvokeReply, label: String, abandoned: bool) {
        let at_fault = reply.result.as_ref().err();
        let platform = at_fault.is_some_and(|problem| problem.code.is_platform_fault());
        let mut usage = FunctionUsage {
            function: label.clone(),
            ..FunctionUsage::default()
        };
        match platform && !abandoned {
            true => (usage.platform_attempts, usage.platform) = (1, reply.meters),
            false => (usage.billed_attempts, usage.billed) = (1, reply.meters),
        }
        let mut all = lock(&self.usage);
        match all.get_mut(&label) {
            Some(sum) => sum.add(&usage),
            None => {
                all.insert(label, usage);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_core::{Limits, Meters};

    use super::*;

    pub(super) fn of_tenant() -> Arc<OfTenant> {
        let metrics = Metrics::new(&weft_telemetry::Registry::new());
        Invocations::new(1, Arc::new(metrics)).of(&TenantId::default_tenant())
    }

    pub(super) fn request() -> InvokeRequest {
        InvokeRequest {
            request: 0,
            digest: weft_core::Digest::from_sha256(&[0; 32]),
            artefact: weft_core::Digest::from_sha256(&[1; 32]),
            function: "spin".into(),
            label: "a@1.0.0/spin".into(),
            params: Vec::new(),
            limits: Limits::default(),
            seed: 0,
            started_ms: 0,
            stream: None,
            depth: 0,
        }
    }

    /// A burst of one function leaves room for others, and all together have a bound.
    #[tokio::test]
    async fn calls_that_wait_are_bounded() {
        let invocations = of_tenant();
        let (link, _executor) = mpsc::channel(8);
        invocations.connect(Epoch(1), link);
        let call = |label: &str| {
            let request = InvokeRequest {
                label: label.into(),
                ..request()
            };
            Box::pin(invocations.admit(request, Bytes::new(), Duration::from_secs(600)))
        };
        let mut waiting = Vec::new();
        for function in ["a", "b", "c", "d"] {
            for _ in 0..FUNCTION_MAX {
                let mut one = call(function);
                assert!(futures::poll!(&mut one).is_pending());
                waiting.push(one);
            }
            let refused = call(function).await.expect_err("there is no room");
            assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
        }
        let refused = call("e").await.expect_err("there is no room");
        assert!(refused.detail.contains("1024 invocations"), "{refused}");
        waiting.pop();
        assert!(
            futures::poll!(&mut call("e")).is_pending(),
            "there is room again"
        );
    }

    /// A call that was given up is billed for what it used until it was stopped.
    #[tokio::test]
    async fn calls_that_nobody_waits_for_are_billed() {
        let invocations = of_tenant();
        let (link, mut executor) = mpsc::channel(8);
        invocations.connect(Epoch(1), link);
        let call = invocations.admit(request(), Bytes::new(), Duration::from_millis(1));
        let problem = call.await.expect_err("nobody answers");
        assert_eq!(problem.code, ErrorCode::LimitExceeded);
        let Some((ToExecutor::Invoke(sent), _)) = executor.recv().await else {
            panic!("the call was sent");
        };
        let abandoned = executor.recv().await;
        assert!(
            matches!(abandoned, Some((ToExecutor::Abandon { request }, _)) if request == sent.request)
        );
        let reply = InvokeReply {
            request: sent.request,
            label: sent.label,
            result: Err(Problem::new(ErrorCode::Internal, "it was cancelled")),
            meters: Meters {
                guest_cpu_ns: 5,
                ..Meters::default()
            },
            log: Vec::new(),
            log_dropped: 0,
            began_ns: 0,
        };
        invocations.answer(reply, Vec::new());
        let usage = lock(&invocations.usage)["a@1.0.0/spin"].clone();
        assert_eq!((usage.billed_attempts, usage.billed.guest_cpu_ns), (1, 5));
    }
}
