//! Questions to actors: sent to the executor that was granted the shard, answered by number.
//!
//! ```text
//! controller ──actor──▶ is it the executor that is meant? ──Actor──▶ executor ──Invoked──▶ controller
//!            ◀─nothing───┘ no                                            └──NotHere──▶ nothing
//! ```
//!
//! Executors begin turns by themselves, too: of alarms, and of messages and invocations of their own actors. These are
//! metered as request 0.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use weft_core::{Epoch, Problem, lock};
use weft_protocol::{ActorAsk, ActorRequest, InvokeReply, ToExecutor};
use weft_runtime::link::InvokeAnswer;

use super::{OfTenant, Waiting, busy, tell_log, too_late};
use crate::executor_process::Outbound;

/// Questions to actors of one tenant that run or wait.
pub(super) const MAX_TENANT_TURNS: usize = 4_096;
/// Bytes of outputs of turns that their clients have not taken. Turns wait for room when their outputs have come, and
/// not before: many wait for one busy actor, and must not keep those of others.
pub(super) const MAX_TURN_OUTPUT_BYTES: usize = 256 << 20;
/// Functions of a tenant under whose labels executors may report turns of their own.
const MAX_KNOWN_LABELS: usize = 10_000;
/// Label of questions that run no function.
const QUESTIONS: &str = "actors";
/// Label of usage of functions that nobody has pinned.
const UNKNOWN: &str = "unknown";

/// Receives an executor's answer, or nothing if the shard is another one's.
pub(super) type TurnAnswer = oneshot::Sender<Option<(InvokeReply, Vec<u8>)>>;
type Answered = oneshot::Receiver<Option<(InvokeReply, Vec<u8>)>>;

/// Labels that were pinned for a tenant.
#[derive(Default)]
pub(super) struct KnownLabels(HashSet<String>);

fn label(ask: &ActorAsk) -> &str {
    match ask {
        ActorAsk::Invoke(invoke) => &invoke.pin.label,
        ActorAsk::Show(_) | ActorAsk::Delete(_) | ActorAsk::List { .. } => QUESTIONS,
    }
}

/// Returns whether other turns wait for the answer: it goes to an executor, and no client holds it.
fn is_nested(ask: &ActorAsk) -> bool {
    matches!(ask, ActorAsk::Invoke(invoke) if !invoke.chain.is_empty())
}

impl OfTenant {
    pub(super) async fn admit_actor(
        &self,
        request: ActorRequest,
        input: Bytes,
        deadline: Duration,
    ) -> Result<Option<InvokeAnswer>, Problem> {
        let is_leaving = self.shared.leaving.load(Ordering::Relaxed);
        if is_leaving && !is_nested(&request.ask) {
            // Nothing is done: the next executor of the shard is asked.
            return Ok(None);
        }
        let _turn = self.turns.try_acquire().map_err(|_| {
            busy(format!(
                "{MAX_TENANT_TURNS} invocations of actors run or wait; try again"
            ))
        })?;
        let label = label(&request.ask).to_owned();
        let asked = self.ask_actor(request, input, label.clone());
        let answered = tokio::time::timeout(deadline, asked).await;
        answered.unwrap_or_else(|_| Err(too_late(label, deadline)))
    }

    async fn ask_actor(
        &self,
        mut request: ActorRequest,
        input: Bytes,
        label: String,
    ) -> Result<Option<InvokeAnswer>, Problem> {
        let is_nested = is_nested(&request.ask);
        request.request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting {
            invocations: self,
            request: request.request,
        };
        let Some(answered) = self.send_to_actor(request, input, label).await else {
            return Ok(None);
        };
        let answer = answered.await.map_err(|_| {
            busy(
                "the executor ended before the actor had answered, and nobody knows what came of it; try again, with an `Idempotency-Key` if it must not happen twice",
            )
        })?;
        drop(waiting);
        let Some((reply, output)) = answer else {
            return Ok(None);
        };
        let output = match is_nested {
            true => output.into(),
            false => self.held(output).await,
        };
        Ok(Some((reply, output)))
    }

    /// Waits for room for an output, which holds it until its client has taken it.
    async fn held(&self, output: Vec<u8>) -> Bytes {
        let room = self.shared.turn_outputs.take(output.len()).await;
        room.keep(output)
    }

    /// Sends a question to its executor. Returns nothing if that is not here, or gone: what is not sent was not done.
    async fn send_to_actor(
        &self,
        request: ActorRequest,
        input: Bytes,
        label: String,
    ) -> Option<Answered> {
        let link = self.link_of(request.executor)?;
        // Before anything is recorded: what is given up while it waits was not sent, and has no answer.
        let room = link.reserve().await.ok()?;
        let (answer, answered) = oneshot::channel();
        if let ActorAsk::Invoke(_) = request.ask {
            self.know(&label);
        }
        let mut pending = lock(&self.pending);
        pending.link_of(request.executor)?;
        pending.turns.insert(request.request, answer);
        pending.labels.insert(request.request, label);
        room.send((ToExecutor::Actor(Box::new(request)), input));
        Some(answered)
    }

    fn link_of(&self, executor: Epoch) -> Option<mpsc::Sender<Outbound>> {
        lock(&self.pending).link_of(executor).cloned()
    }

    /// An executor says that the shard was granted to another one: it has done nothing.
    pub(crate) fn not_here(&self, request: u64) {
        let mut pending = lock(&self.pending);
        if pending.answers.contains_key(&request) {
            // It is not about an actor.
            return;
        }
        pending.labels.remove(&request);
        if let Some(waiting) = pending.turns.remove(&request) {
            let _ = waiting.send(None);
        }
    }

    /// Meters a turn that an executor began by itself.
    pub(super) fn meter_own(&self, reply: &InvokeReply) {
        tell_log(reply);
        let is_known = lock(&self.known).0.contains(&reply.label);
        let label = if is_known { &reply.label } else { UNKNOWN };
        self.meter(reply, label.to_owned(), false);
    }

    /// Records that a function was pinned for the tenant: executors may report usage of it.
    pub(super) fn know(&self, label: &str) {
        let mut known = lock(&self.known);
        if known.0.len() < MAX_KNOWN_LABELS && !known.0.contains(label) {
            known.0.insert(label.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weft_core::{ActorRef, Digest, ErrorCode, Limits, Meters, TenantId};
    use weft_protocol::{ActorInvoke, Pin};

    use super::super::Invocations;
    use super::*;
    use crate::metrics::Metrics;

    const DEADLINE: Duration = Duration::from_secs(600);
    const LABEL: &str = "bank@1.0.0/account";

    fn connected() -> (Arc<OfTenant>, mpsc::Receiver<Outbound>) {
        let metrics = Metrics::new(&weft_telemetry::Registry::new());
        let invocations = Invocations::new(1, Arc::new(metrics));
        let of_tenant = invocations.of(&TenantId::default_tenant());
        let (link, executor) = mpsc::channel(8);
        of_tenant.connect(Epoch(7), link);
        (of_tenant, executor)
    }

    fn request(executor: Epoch) -> ActorRequest {
        let actor = ActorRef::new("bank", "account", "ada").expect("it is valid");
        let pin = Pin {
            digest: Digest::from_sha256(&[0; 32]),
            artefact: Digest::from_sha256(&[1; 32]),
            label: LABEL.into(),
            limits: Limits::default(),
        };
        ActorRequest {
            request: 0,
            executor,
            shard: actor.shard(),
            ask: ActorAsk::Invoke(Box::new(ActorInvoke {
                actor,
                pin,
                method: "balance".into(),
                once: None,
                message: None,
                chain: Vec::new(),
            })),
            deadline_ms: 1_000,
        }
    }

    fn reply(request: u64, label: &str, guest_cpu_ns: u64) -> InvokeReply {
        InvokeReply {
            request,
            label: label.into(),
            result: Ok(()),
            meters: Meters {
                guest_cpu_ns,
                ..Meters::default()
            },
            log: Vec::new(),
            log_dropped: 0,
            began_ns: 0,
        }
    }

    async fn asked(executor: &mut mpsc::Receiver<Outbound>) -> u64 {
        match executor.recv().await {
            Some((ToExecutor::Actor(request), _)) => request.request,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_actor_is_asked_where_its_shard_is() {
        let (of_tenant, mut executor) = connected();
        let elsewhere = of_tenant.admit_actor(request(Epoch(6)), Bytes::new(), DEADLINE);
        assert!(elsewhere.await.expect("nothing was done").is_none());
        let asking = of_tenant.admit_actor(request(Epoch(7)), "in".into(), DEADLINE);
        let playing = async {
            let number = asked(&mut executor).await;
            of_tenant.answer(reply(number, LABEL, 5), b"out".to_vec());
        };
        let (answer, ()) = tokio::join!(asking, playing);
        let (_, output) = answer.expect("it answers").expect("it is here");
        assert_eq!(output, "out");
        let asking = of_tenant.admit_actor(request(Epoch(7)), Bytes::new(), DEADLINE);
        let playing = async {
            let number = asked(&mut executor).await;
            of_tenant.not_here(number);
        };
        let (answer, ()) = tokio::join!(asking, playing);
        assert!(answer.expect("nothing was done").is_none());
        assert!(lock(&of_tenant.pending).is_empty());
    }

    #[tokio::test]
    async fn an_executor_that_ends_leaves_its_callers_in_the_know() {
        let (of_tenant, mut executor) = connected();
        let asking = of_tenant.admit_actor(request(Epoch(7)), Bytes::new(), DEADLINE);
        let playing = async {
            asked(&mut executor).await;
            of_tenant.disconnect(Epoch(7));
        };
        let (answer, ()) = tokio::join!(asking, playing);
        let problem = answer.expect_err("nobody knows");
        assert_eq!(problem.code, ErrorCode::Busy);
        assert!(problem.detail.contains("Idempotency-Key"), "{problem}");
        let gone = of_tenant.admit_actor(request(Epoch(7)), Bytes::new(), DEADLINE);
        assert!(gone.await.expect("nothing was done").is_none());
    }

    /// Turns that run come to their end, and with them those that they wait for.
    #[tokio::test]
    async fn a_node_that_leaves_takes_no_more_questions() {
        let metrics = Metrics::new(&weft_telemetry::Registry::new());
        let node = Invocations::new(1, Arc::new(metrics));
        let of_tenant = node.of(&TenantId::default_tenant());
        let (link, mut executor) = mpsc::channel(8);
        of_tenant.connect(Epoch(7), link);
        let mut running = Box::pin(of_tenant.admit_actor(request(Epoch(7)), "".into(), DEADLINE));
        assert!(futures::poll!(&mut running).is_pending());
        assert!(
            node.are_calls_done() && !node.are_done(),
            "a turn runs still"
        );
        node.leave();
        let refused = of_tenant.admit_actor(request(Epoch(7)), "".into(), DEADLINE);
        assert!(refused.await.expect("nothing was done").is_none());
        let mut nested = request(Epoch(7));
        if let ActorAsk::Invoke(invoke) = &mut nested.ask {
            invoke.chain.push(invoke.actor.clone());
        }
        let mut nested = Box::pin(of_tenant.admit_actor(nested, "".into(), DEADLINE));
        assert!(futures::poll!(&mut nested).is_pending());
        for one in [running, nested] {
            let number = asked(&mut executor).await;
            of_tenant.answer(reply(number, LABEL, 1), Vec::new());
            one.await.expect("it answers").expect("it is here");
        }
        of_tenant.take_usage();
        assert!(node.are_done());
    }

    /// A question that was never sent has no answer: nothing is left of it that would wait for one.
    #[tokio::test]
    async fn a_question_that_is_given_up_before_it_is_sent_leaves_nothing_behind() {
        let (of_tenant, mut executor) = connected();
        let sent = || of_tenant.admit_actor(request(Epoch(7)), Bytes::new(), DEADLINE);
        let mut waiting: Vec<_> = (0..9).map(|_| Box::pin(sent())).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        // The link has room for eight.
        assert_eq!(lock(&of_tenant.pending).labels.len(), 8);
        drop(waiting.pop());
        for one in waiting {
            let number = asked(&mut executor).await;
            of_tenant.answer(reply(number, LABEL, 1), Vec::new());
            one.await.expect("it answers").expect("it is here");
        }
        assert!(lock(&of_tenant.pending).is_empty());
    }

    /// Turns that wait for one busy actor are thousands, and keep none of another.
    #[tokio::test]
    async fn turns_that_wait_keep_no_room_for_outputs() {
        let (of_tenant, _) = connected();
        let (link, mut executor) = mpsc::channel(MAX_TENANT_TURNS);
        of_tenant.connect(Epoch(8), link);
        let asking = || of_tenant.admit_actor(request(Epoch(8)), Bytes::new(), DEADLINE);
        let mut waiting: Vec<_> = (0..MAX_TENANT_TURNS - 1)
            .map(|_| Box::pin(asking()))
            .collect();
        for one in &mut waiting {
            // Each is sent at once, however many one task may send without a pause.
            let one = tokio::task::unconstrained(one);
            assert!(futures::poll!(one).is_pending());
        }
        let playing = async {
            for _ in 0..waiting.len() {
                asked(&mut executor).await;
            }
            let number = asked(&mut executor).await;
            of_tenant.answer(reply(number, LABEL, 1), vec![7; 1 << 20]);
        };
        let (answer, ()) = tokio::join!(asking(), playing);
        let (_, output) = answer.expect("it answers").expect("it is here");
        assert_eq!(output.len(), 1 << 20);
    }

    /// An executor that is not trusted cannot bill a function that nobody runs.
    #[tokio::test]
    async fn turns_that_executors_begin_are_metered_under_labels_that_were_pinned() {
        let (of_tenant, _executor) = connected();
        of_tenant.know(LABEL);
        of_tenant.answer(reply(0, LABEL, 5), Vec::new());
        of_tenant.answer(reply(0, "made@1.0.0/up", 7), Vec::new());
        let usage = lock(&of_tenant.usage);
        assert_eq!(usage[LABEL].billed.guest_cpu_ns, 5);
        assert_eq!(usage[UNKNOWN].billed.guest_cpu_ns, 7);
        assert_eq!(usage.len(), 2);
    }
}
