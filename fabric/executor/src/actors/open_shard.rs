//! An open shard: its database, and what goes on beside the turns of its actors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::{ActorRef, ErrorCode, Problem, SHARDS};
use weft_protocol::MessageId;
use weft_shard::{Shard, keys};

use super::alarms::{AlarmLoop, Alarms};
use super::answer::{Asker, Outcome};
use super::backlog::Backlog;
use super::bounds::SHARD_IDLE;
use super::committer::{Committer, Inventory, Step};
use super::mailbox::{Mailboxes, Refused, Request};
use super::outbox::{FIRST_PAUSE, Lane, Lanes, Room};
use super::reads::{IoReads, Reads};
use super::router::Router;
use super::settler::{Settler, Settling};
use super::shared::Shared;
use super::stored::decode_number;
use super::threads::Ready;
use crate::lease::Lease;

/// Steps that wait for the writer.
const MAX_STEPS: usize = 1_024;
/// Answers that wait until their batches are durable.
const MAX_SETTLING: usize = 8_192;

/// An open shard.
pub(super) struct OpenShard {
    /// Which of the tenant's shards.
    pub(super) number: u32,
    /// Keeps it apart from the same shard, opened earlier or later.
    pub(super) serial: u64,
    pub(super) shard: Shard,
    pub(super) reads: Arc<dyn Reads>,
    pub(super) mailboxes: Mailboxes,
    pub(super) room: Room,
    pub(super) lanes: Lanes,
    pub(super) alarms: Alarms,
    /// Writes that wait for the writer.
    pub(super) backlog: Backlog,
    /// When it was opened.
    pub(super) since: Instant,
    pub(super) lease: Lease,
    pub(super) shared: Arc<Shared>,
    /// Cancelled when it is closed or has failed.
    pub(super) ended: CancellationToken,
    steps: mpsc::Sender<Step>,
    settling: mpsc::Sender<Settling>,
    /// Highest message that was applied here, by the shard of its sender.
    applied: Vec<AtomicU64>,
    /// All batches up to this number are durable.
    durable: AtomicU64,
    /// Answers and the like that are not settled.
    unsettled: AtomicUsize,
    has_ended: AtomicBool,
}

fn gone() -> Problem {
    let detail = "the shard of the actor failed or was closed; try again";
    Problem::new(ErrorCode::Busy, detail)
}

impl OpenShard {
    /// Takes over a shard that was just opened, and starts what goes on in it.
    pub(super) async fn start(
        shared: &Arc<Shared>,
        number: u32,
        serial: u64,
        shard: Shard,
    ) -> Result<Arc<Self>, Problem> {
        let Inventory {
            next_message,
            n_messages,
            dead_letters,
        } = Inventory::read(&shard).await?;
        let applied = highest_applied(&shard).await?;
        let (steps, to_write) = mpsc::channel(MAX_STEPS);
        let (settling, to_settle) = mpsc::channel(MAX_SETTLING);
        let (room, lanes) = (Room::default(), Lanes::new(next_message.saturating_sub(1)));
        room.fill(n_messages);
        let io = shared.io.clone();
        let open = Arc::new(Self {
            number,
            serial,
            reads: Arc::new(IoReads {
                shard: shard.clone(),
                io,
            }),
            shard,
            mailboxes: Mailboxes::new(),
            room,
            lanes,
            alarms: Alarms::default(),
            backlog: Backlog::default(),
            since: Instant::now(),
            lease: shared.lease.clone(),
            shared: Arc::clone(shared),
            ended: CancellationToken::new(),
            steps,
            settling,
            applied,
            durable: AtomicU64::new(0),
            unsettled: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
        });
        let committer = Committer {
            open: Arc::clone(&open),
            next_message,
            dead_letters,
            last_batch: 0,
        };
        open.go_on("actors' writer", committer.run(to_write));
        open.go_on("actors' answers", Settler(Arc::clone(&open)).run(to_settle));
        open.go_on("actors' alarms", AlarmLoop(Arc::clone(&open)).run());
        for to_shard in 0..SHARDS {
            open.go_on("actors' messages", open.lane(to_shard).run());
        }
        open.watch();
        Ok(open)
    }

    /// Runs something beside the turns until the shard is closed. If it fails, so has the shard.
    fn go_on(
        self: &Arc<Self>,
        name: &'static str,
        work: impl Future<Output = Result<(), Problem>> + Send + 'static,
    ) {
        let open = Arc::clone(self);
        let work = Box::pin(work);
        self.shared.spawn(name, async move {
            let result = tokio::select! {
                biased;
                () = open.ended.cancelled() => return,
                result = work => result,
            };
            if let Err(problem) = result {
                open.shared.shard_failed(&open, &problem);
            }
        });
    }

    /// Ends what goes on in it. Returns whether this is the first call.
    pub(super) fn end(&self) -> bool {
        let is_first = !self.has_ended.swap(true, Ordering::AcqRel);
        self.ended.cancel();
        is_first
    }

    /// Waits for the end of the database.
    fn watch(self: &Arc<Self>) {
        let closed = self.shard.closed();
        self.go_on("actors' shard", async move { Err(closed.await.into()) });
    }

    fn lane(&self, to_shard: u32) -> Lane {
        Lane {
            from_shard: self.number,
            to_shard,
            durable: self.lanes.follow(to_shard),
            reads: Arc::clone(&self.reads),
            delivery: Arc::new(Router(Arc::clone(&self.shared))),
            steps: self.steps.clone(),
            first_pause: FIRST_PAUSE,
        }
    }

    /// Adds a request to its actor's mailbox.
    pub(super) fn push(self: &Arc<Self>, request: Request) -> Result<(), Refused> {
        let actor = request.actor.clone();
        if self.mailboxes.push(request)? {
            self.have_turn(actor);
        }
        Ok(())
    }

    fn have_turn(self: &Arc<Self>, actor: ActorRef) {
        let open = Arc::clone(self);
        self.shared.have_turn(Ready { open, actor });
    }

    /// The turn of an actor has ended. `batch`: number of what it wrote.
    pub(super) fn end_turn(self: &Arc<Self>, actor: &ActorRef, batch: Option<u64>) {
        if self.mailboxes.ended(actor, batch, &self.durable) {
            self.have_turn(actor.clone());
        }
    }

    /// Hands a step to the writer.
    pub(super) async fn step(&self, mut step: Step) -> Result<(), Problem> {
        if let Step::Commit(commit) = &mut step {
            commit.queued = Some(self.backlog.add(commit.bytes()));
        }
        let sent = self.steps.send(step).await;
        // Who waits for what was in it hears of it as it is dropped.
        sent.map_err(|_| gone())
    }

    /// Hands a step to the writer, unless too many wait.
    pub(super) fn try_step(&self, step: Step) {
        // It comes again.
        let _ = self.steps.try_send(step);
    }

    /// Has something wait until all that was accepted is durable.
    pub(super) async fn settle(&self, settling: Settling) -> Result<(), Problem> {
        self.unsettled.fetch_add(1, Ordering::Relaxed);
        let sent = self.settling.send(settling).await;
        sent.map_err(|_| gone())
    }

    /// Waits until all that was read so far is durable and the lease stands. A batch can be read before its answer
    /// is in the queue of the settler: so this does not go by that.
    pub(super) async fn settled_so_far(&self) -> Result<(), Problem> {
        self.shard.last_durable().await?;
        self.lease.stands().await;
        Ok(())
    }

    /// Something has settled.
    pub(super) fn settled(&self) {
        self.unsettled.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns whether an actor has written something that may not be durable.
    pub(super) fn is_unsettled(&self, actor: &ActorRef) -> bool {
        self.mailboxes.is_unsettled(actor, &self.durable)
    }

    /// Gives an answer that wrote nothing: at once, unless the actor has written something that may not be durable.
    pub(super) async fn answer_read(
        &self,
        actor: &ActorRef,
        asker: Asker,
        outcome: Outcome,
        is_early: bool,
    ) {
        let is_unsettled = !is_early && self.is_unsettled(actor);
        if self.ended.is_cancelled() {
            // Its mailboxes are gone, and with them what was known of writes that may be lost. The asker is dropped,
            // and says that the shard failed.
            return;
        }
        if is_unsettled {
            let settling = Settling {
                answer: Some((asker, outcome)),
                ..Settling::default()
            };
            // If it fails, the asker is dropped, and says so.
            let _ = self.settle(settling).await;
        } else if self.lease.valid_now() {
            asker.answer(outcome).await;
        } else {
            self.answer_now(asker, outcome);
        }
    }

    /// Gives an answer once the lease stands, whether writes are durable or not.
    pub(super) fn answer_now(&self, asker: Asker, outcome: Outcome) {
        let (lease, ended) = (self.lease.clone(), self.ended.clone());
        self.shared.spawn("actor's answer", async move {
            tokio::select! {
                () = lease.stands() => asker.answer(outcome).await,
                () = ended.cancelled() => {}
            }
        });
    }

    /// All batches up to this number are durable.
    pub(super) fn batch_durable(&self, batch: u64) {
        self.durable.store(batch, Ordering::Release);
    }

    /// The last batch of an actor is among those.
    pub(super) fn actor_settled(&self, actor: &ActorRef) {
        self.mailboxes.settled(actor, &self.durable);
    }

    /// Number of the highest message from a shard that was applied here.
    pub(super) fn applied(&self, from_shard: u32) -> u64 {
        let applied = self.applied.get(from_shard as usize);
        applied.map_or(0, |applied| applied.load(Ordering::Acquire))
    }

    /// A message has been applied.
    pub(super) fn apply(&self, message: MessageId) {
        if let Some(applied) = self.applied.get(message.shard as usize) {
            applied.store(message.number, Ordering::Release);
        }
    }

    pub(super) fn forget_resident(&self, actor: &ActorRef) {
        self.shared.residents.forget(actor);
    }

    /// Closes the mailboxes if nothing has gone on for a while, and nothing is to come by itself.
    pub(super) fn close_idle(&self) -> bool {
        let is_at_rest = self.room.taken() == 0
            && self.alarms.are_none()
            && self.unsettled.load(Ordering::Relaxed) == 0;
        is_at_rest && self.mailboxes.close_idle(SHARD_IDLE)
    }
}

async fn highest_applied(shard: &Shard) -> Result<Vec<AtomicU64>, Problem> {
    let mut highest = Vec::new();
    for from_shard in 0..SHARDS {
        let found = shard.get(&keys::highest_message(from_shard)).await?;
        let number = match found {
            Some(number) => decode_number("number of a message", &number)?,
            None => 0,
        };
        highest.push(AtomicU64::new(number));
    }
    Ok(highest)
}
