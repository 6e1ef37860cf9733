//! Turns: on a thread of its own, one request of an actor from its mailbox to its commit.
//!
//! ```text
//! mailbox ──▶ answered before? ──▶ instance: resident, or started and woken ──▶ method ──▶ commit ──▶ answer
//! ```
//!
//! The actor's next turn may begin once the batch is accepted; the thread has gone on by then. An instance whose turn
//! failed is dropped: its memory may be ahead of its state.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::{ActorRef, ErrorCode, LimitKind, Problem, SHARDS};
use weft_protocol::{MAX_TURN_BYTES, MessageId, Pin};
use weft_runtime::clock::unix_ms;
use weft_sandbox::{Fault, GuestMeters, TaskLog, TurnSettings};
use weft_shard::keys;

use super::answer::{Outcome, Used, too_late};
use super::bounds::{MAX_BACKLOG_BYTES, TURN_WALL};
use super::commit::{Commit, Ended, TurnEnd, failed_alarm};
use super::committer::Step;
use super::delete;
use super::guests::{Instance, Start};
use super::mailbox::{Ask, Invocation, Request};
use super::once::{self, Known};
use super::open_shard::OpenShard;
use super::residents::Resident;
use super::router::Router;
use super::shared::Shared;
use super::stopwatch::Stopwatch;
use super::stored::{Record, decode};
use super::threads::Ready;
use super::turn::{ActorTurn, Effects};
use crate::executor::slot_runtime;

/// Takes turns for as long as the process lives.
pub(super) fn run(shared: &Arc<Shared>) {
    let runtime = slot_runtime();
    loop {
        let Ready { open, actor } = shared.threads.take();
        runtime.block_on(serve(&open, &actor));
    }
}

/// Serves the next request of an actor.
async fn serve(open: &Arc<OpenShard>, actor: &ActorRef) {
    // There is none if the shard has failed.
    let Some(request) = open.mailboxes.next(actor) else {
        return;
    };
    let Request {
        ask,
        chain,
        deadline,
        cancel,
        asker,
        place,
        ..
    } = request;
    drop(place);
    if open.backlog.is_full() {
        asker.refuse(behind(actor)).await;
        return open.end_turn(actor, None);
    }
    let running = Running {
        open,
        actor,
        chain,
        deadline: turn_deadline(&ask, deadline),
        cancel,
    };
    let End {
        outcome,
        commit,
        is_early,
    } = running.end(ask).await;
    let Some(mut commit) = commit else {
        open.answer_read(actor, asker, outcome, is_early).await;
        return open.end_turn(actor, None);
    };
    commit.turn = Some(Ended {
        actor: actor.clone(),
        asker,
        outcome,
        is_early,
    });
    // If the shard has failed, the asker hears of it as the commit is dropped.
    let _ = open.step(Step::Commit(commit)).await;
}

fn behind(actor: &ActorRef) -> Problem {
    let detail = format!(
        "the store falls behind: {} MiB of writes wait in the shard of `{actor}`, the most at a time, and nothing was \
         done; try again",
        MAX_BACKLOG_BYTES >> 20
    );
    Problem::new(ErrorCode::Busy, detail)
}

/// When a turn is stopped that begins now. Nobody outside waits for that of a message or an alarm. That of a message
/// ends before its sender stops waiting, who would take it for a failure of the platform, and send the message for
/// ever.
fn turn_deadline(ask: &Ask, deadline: Instant) -> Instant {
    let is_waited_for = match ask {
        Ask::Invoke(invocation) => invocation.message.is_none(),
        Ask::Alarm { .. } => false,
        Ask::Delete => true,
    };
    match is_waited_for {
        true => deadline,
        false => deadline.min(Instant::now() + TURN_WALL),
    }
}

/// How a turn ended.
struct End {
    outcome: Outcome,
    /// Nothing if nothing is to be written.
    commit: Option<Box<Commit>>,
    is_early: bool,
}

impl End {
    /// An end in which no instance took part.
    fn unserved(result: Result<Vec<u8>, Problem>) -> Self {
        Self::read(Outcome::unserved(result))
    }

    fn read(outcome: Outcome) -> Self {
        Self {
            outcome,
            commit: None,
            is_early: false,
        }
    }

    fn written(outcome: Outcome, commit: Commit, is_early: bool) -> Self {
        Self {
            outcome,
            commit: (!commit.is_empty()).then(|| Box::new(commit)),
            is_early,
        }
    }
}

/// Function of an instance that a turn enters.
enum Entry<'a> {
    Invoke(&'a str, &'a [u8]),
    Alarm,
}

/// A turn in an instance.
struct Ran {
    result: Result<Vec<u8>, Problem>,
    effects: Effects,
    used: Used,
    /// The instance, if it may serve the next turn.
    resident: Option<Resident>,
    /// The actor's record before the turn.
    record: Record,
    now_ms: u64,
}

/// A turn that runs.
struct Running<'a> {
    open: &'a Arc<OpenShard>,
    actor: &'a ActorRef,
    chain: Vec<ActorRef>,
    deadline: Instant,
    cancel: CancellationToken,
}

impl Running<'_> {
    async fn end(&self, ask: Ask) -> End {
        let ended = match ask {
            _ if self.is_given_up() => Err(self.given_up()),
            Ask::Invoke(invocation) => self.invoked(&invocation).await,
            Ask::Alarm { due_ms, pin } => self.alarmed(due_ms, *pin).await,
            Ask::Delete => self.deleted().await,
        };
        ended.unwrap_or_else(|problem| End::unserved(Err(problem)))
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn is_given_up(&self) -> bool {
        self.cancel.is_cancelled() || self.is_late()
    }

    fn given_up(&self) -> Problem {
        let detail = format!(
            "the turn of `{}` was given up before it ended: nothing was written",
            self.actor
        );
        Problem::new(ErrorCode::Busy, detail)
    }

    async fn invoked(&self, invocation: &Invocation) -> Result<End, Problem> {
        if let Some(message) = invocation.message {
            check_shard(message.shard)?;
            // Whoever sends it again has not heard that it was applied.
            let is_applied = message.number <= self.open.applied(message.shard);
            if is_applied || self.is_withdrawn(message).await? {
                return Ok(End::unserved(Ok(Vec::new())));
            }
        }
        let known = match &invocation.once {
            None => Known::New { replaces: None },
            Some(once) => once::look(&*self.open.reads, self.actor, once, unix_ms()).await?,
        };
        let replaces = match known {
            Known::Answer(result) => return Ok(End::unserved(result)),
            Known::New { replaces } => replaces,
        };
        let entry = Entry::Invoke(&invocation.method, &invocation.input);
        let ran = self.enter(&invocation.pin, entry).await?;
        Ok(self.after_invocation(invocation, ran, replaces))
    }

    /// Returns whether a message of this shard has left the outbox while it waited: its sender was deleted. So an actor
    /// that tells itself without end ends when it is deleted.
    async fn is_withdrawn(&self, message: MessageId) -> Result<bool, Problem> {
        let own = self.open.number;
        if message.shard != own {
            return Ok(false);
        }
        let found = self
            .open
            .reads
            .get(keys::message(own, message.number))
            .await?;
        Ok(found.is_none())
    }

    /// Has the effects of an invocation committed, and its answer kept, if it has a key.
    fn after_invocation(&self, invocation: &Invocation, ran: Ran, replaces: Option<u64>) -> End {
        let once = invocation.once.as_ref();
        let kept = once.and_then(|once| once::keep(once, &ran.result, replaces, ran.now_ms));
        let (outcome, mut commit, is_early) = self.committed(ran, false);
        if outcome.result.is_ok() {
            commit.mark = invocation.message;
        }
        if let (Some(once), Some(kept)) = (once, kept) {
            commit.keep(self.actor, &once::digest(&once.key), &kept);
        }
        // The sender of a message forgets it once it has the answer.
        let is_early = is_early && invocation.message.is_none();
        End::written(outcome, commit, is_early)
    }

    async fn alarmed(&self, due_ms: u64, pin: Result<Pin, Problem>) -> Result<End, Problem> {
        let record = self.record().await?;
        if record.alarm_ms != Some(due_ms) {
            // It was moved or cleared meanwhile.
            return Ok(End::unserved(Ok(Vec::new())));
        }
        let pin = match pin {
            Ok(pin) => pin,
            Err(problem) => {
                self.open.forget_resident(self.actor);
                let outcome = Outcome::unserved(Err(problem));
                return Ok(self.after_failed_alarm(outcome, &record));
            }
        };
        let ran = self.enter(&pin, Entry::Alarm).await;
        let ran = match ran {
            Err(problem) if !problem.code.is_platform_fault() => {
                return Ok(self.after_failed_alarm(Outcome::unserved(Err(problem)), &record));
            }
            ran => ran?,
        };
        let (outcome, commit, _) = self.committed(ran, true);
        Ok(match outcome.result {
            Ok(_) => End::written(outcome, commit, false),
            Err(_) => self.after_failed_alarm(outcome, &record),
        })
    }

    /// Moves an alarm that failed. One that the platform failed stays where it is, and fires again.
    fn after_failed_alarm(&self, outcome: Outcome, record: &Record) -> End {
        match &outcome.result {
            Err(problem) if !problem.code.is_platform_fault() => {
                let commit = failed_alarm(self.actor, record, problem, unix_ms());
                End::written(outcome, commit, false)
            }
            _ => End::read(outcome),
        }
    }

    async fn deleted(&self) -> Result<End, Problem> {
        self.open.forget_resident(self.actor);
        let commit = match self.stored_record().await? {
            Some(record) => delete::delete(self.open, self.actor, &record).await?,
            None => Commit::default(),
        };
        let outcome = Outcome::unserved(Ok(Vec::new()));
        Ok(End::written(outcome, commit, false))
    }

    /// Changes that a turn leaves behind if it ended well. Its instance is put back then.
    fn committed(&self, ran: Ran, is_alarm: bool) -> (Outcome, Commit, bool) {
        let Ran {
            result,
            effects,
            used,
            resident,
            record,
            now_ms,
        } = ran;
        let Some(mut resident) = resident else {
            return (Outcome { result, used }, Commit::default(), false);
        };
        let is_early = resident.is_early;
        let end = TurnEnd {
            actor: self.actor,
            record: &record,
            label: &used.label,
            now_ms,
            is_alarm,
        };
        let (commit, record) = end.commit(effects);
        resident.record = record;
        self.open.shared.residents.put(self.actor.clone(), resident);
        (Outcome { result, used }, commit, is_early)
    }

    /// Enters the actor's instance, which is started and woken if it has none. Errors: none can be had.
    async fn enter(&self, pin: &Pin, entry: Entry<'_>) -> Result<Ran, Problem> {
        let stopwatch = Stopwatch::start();
        let (log, now_ms) = (Arc::new(TaskLog::default()), unix_ms());
        let (mut resident, is_new) = self.resident(pin, &log, now_ms).await?;
        let before = match is_new {
            true => GuestMeters::default(),
            false => resident.guest.meters(),
        };
        let (limits, shared) = (&pin.limits, &self.open.shared);
        resident.guest.begin_turn(TurnSettings {
            turn: Box::new(self.turn(resident.is_early)),
            cpu_limit_ns: limits.cpu_ms.saturating_mul(1_000_000),
            log: Arc::clone(&log),
            cancel: self.cancel.clone(),
            now_ms,
        });
        let watched = shared.deadlines.watch(self.deadline, &self.cancel);
        let result = self.call(&mut *resident.guest, is_new, &entry).await;
        drop(watched);
        let effects = effects(&mut *resident.guest)?;
        let result = result.map_err(|fault| self.problem(fault, &pin.label));
        let result = result.and_then(|output| bounded(output, &pin.label));
        resident.is_early |= effects.is_early;
        let input = match entry {
            Entry::Invoke(_, input) => input.len(),
            Entry::Alarm => 0,
        };
        let output = result.as_ref().map_or(0, Vec::len);
        let mut used = stopwatch.used(&pin.label, &before, &resident.guest.meters(), &log);
        used.meters.bytes_read = input as u64;
        used.meters.bytes_written = output as u64;
        Ok(Ran {
            record: resident.record.clone(),
            resident: result.is_ok().then_some(resident),
            result,
            effects,
            used,
            now_ms,
        })
    }

    /// The actor's instance. The second part says that it is not awake yet.
    async fn resident(
        &self,
        pin: &Pin,
        log: &Arc<TaskLog>,
        now_ms: u64,
    ) -> Result<(Resident, bool), Problem> {
        let (open, shared) = (self.open, &self.open.shared);
        let idle = shared.residents.take(self.actor, open.serial, &pin.digest);
        if let Some(resident) = idle {
            return Ok((resident, false));
        }
        let record = self.record().await?;
        let start = Start {
            pin,
            log: Arc::clone(log),
            cancel: self.cancel.clone(),
            now_ms,
        };
        let resident = Resident {
            guest: shared.instances.start(start).await?,
            digest: pin.digest.clone(),
            record,
            is_early: false,
            serial: open.serial,
        };
        Ok((resident, true))
    }

    async fn call(
        &self,
        guest: &mut dyn Instance,
        is_new: bool,
        entry: &Entry<'_>,
    ) -> Result<Vec<u8>, Fault> {
        if is_new {
            guest.wake(&self.actor.actor, &self.actor.key).await?;
        }
        match entry {
            Entry::Invoke(method, input) => guest.invoke(method, input).await,
            Entry::Alarm => guest.alarm().await.map(|()| Vec::new()),
        }
    }

    fn turn(&self, is_early: bool) -> ActorTurn {
        ActorTurn {
            actor: self.actor.clone(),
            reads: Arc::clone(&self.open.reads),
            others: Arc::new(Router(Arc::clone(&self.open.shared))),
            chain: self.chain.clone(),
            deadline: self.deadline,
            is_unsettled: !is_early && self.open.is_unsettled(self.actor),
            effects: Effects::none(self.open.room.reserve()),
        }
    }

    async fn stored_record(&self) -> Result<Option<Record>, Problem> {
        let found = self.open.reads.get(keys::record(self.actor)).await?;
        found.map(|record| decode("record", &record)).transpose()
    }

    /// The actor's record. What is left of one that was being deleted goes first.
    async fn record(&self) -> Result<Record, Problem> {
        let record = self.stored_record().await?.unwrap_or_default();
        if !record.is_deleted {
            return Ok(record);
        }
        delete::finish(self.open, self.actor, &record).await?;
        Ok(Record::default())
    }

    fn problem(&self, fault: Fault, label: &str) -> Problem {
        match fault {
            Fault::Cancelled if self.is_late() => too_late(label),
            Fault::Cancelled => self.given_up(),
            fault => fault.of_fixed_limit().problem(label),
        }
    }
}

fn check_shard(shard: u32) -> Result<(), Problem> {
    if shard < SHARDS {
        return Ok(());
    }
    let detail = format!("a message comes from shard {shard}, and there are {SHARDS}");
    Err(Problem::new(ErrorCode::Internal, detail))
}

/// Ends the turn of an instance, and takes its effects.
fn effects(guest: &mut dyn Instance) -> Result<Effects, Problem> {
    let turn = guest.end_turn();
    let turn = turn.and_then(|turn| turn.into_any().downcast::<ActorTurn>().ok());
    let effects = turn.map(|turn| turn.effects);
    effects.ok_or_else(|| {
        let detail = "the turn did not come back from its sandbox: nothing was written";
        Problem::new(ErrorCode::Internal, detail)
    })
}

/// The output, if it is not too large to be answered with.
fn bounded(output: Vec<u8>, label: &str) -> Result<Vec<u8>, Problem> {
    if output.len() <= MAX_TURN_BYTES {
        return Ok(output);
    }
    let value = format!("{} MiB", MAX_TURN_BYTES >> 20);
    let (kind, bytes) = (LimitKind::Output, output.len());
    let detail = format!(
        "`{label}`: the answer has {bytes} bytes, more than the {value} that an actor may answer with: answer with less"
    );
    let problem = Problem::new(ErrorCode::LimitExceeded, detail);
    Err(problem.of_function(label).of_limit(kind, value))
}

#[cfg(test)]
mod tests {
    use super::super::bounds::ALARM_WAIT;
    use super::*;

    /// An alarm waits as long as it takes, and its turn has the time of any turn.
    #[test]
    fn turns_that_nobody_waits_for_have_their_own_deadline() {
        let alarm = Ask::Alarm {
            due_ms: 1,
            pin: Box::new(Err(Problem::new(ErrorCode::NotFound, "none"))),
        };
        let now = Instant::now();
        let deadline = now + ALARM_WAIT;
        assert!(turn_deadline(&alarm, deadline) < deadline);
        assert!(turn_deadline(&alarm, deadline) >= now + TURN_WALL);
        assert_eq!(turn_deadline(&alarm, now), now);
        assert_eq!(turn_deadline(&Ask::Delete, deadline), deadline);
    }
}
