//! The control state behind the Raft log: commands go in, answers come back, effects go to the
//! scheduler.
//!
//! A command whose leadership was lost may or may not be in the log. It is proposed again with the
//! same origin and sequence, and the state applies it once. A follower forwards commands to the leader
//! under the same rule ([`crate::group`]).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use weft_consensus::{Capture, ErrorKind, Handle, StateMachine};
use weft_control::{Answer, COMMAND_VERSION, Command, Effect, Envelope, Origin, State};
use weft_core::{ErrorCode, Incarnation, Problem, TenantId, lock};
use weft_runtime::link::Peers;

use crate::clock::Clock;
use crate::group::{self, Question, RaftTransport, Reply};
use crate::packed;
use crate::stamp::Stamp;

/// Effects that may wait for the scheduler; past it the scheduler derives them anew from the state.
const MAX_EFFECTS: usize = 16 << 10;
/// Time for which a command waits for a leader before it is given up as `busy`.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a command goes to another leader, or to none that was known.
const LEADER_PAUSE: Duration = Duration::from_millis(20);
/// Time for which a read waits until this member has what others have acknowledged.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(2);

/// News for the scheduler.
pub(crate) struct Signals {
    /// The term in which this member leads.
    pub(crate) leadership: watch::Receiver<Option<u64>>,
    /// Effects of commands, while it does.
    pub(crate) effects: mpsc::Receiver<(TenantId, Effect)>,
}

/// The state as Raft sees it.
pub(crate) struct Machine {
    state: Arc<RwLock<State>>,
    effects: mpsc::Sender<(TenantId, Effect)>,
    leadership: watch::Sender<Option<u64>>,
    version: watch::Sender<u64>,
    endings: watch::Sender<u64>,
    behind: Arc<AtomicBool>,
    stamp: Arc<Mutex<Stamp>>,
    leads: bool,
}

impl Machine {
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, tenant: &TenantId, effects: Vec<Effect>) {
        for effect in effects {
            if self.effects.try_send((tenant.clone(), effect)).is_err() {
                self.behind.store(true, Ordering::Release);
                tracing::warn!(
                    limit = MAX_EFFECTS,
                    "too many effects at once: the scheduler will derive them from the state"
                );
                break;
            }
        }
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Vec<u8>, String> {
        let envelope = Envelope::decode(command).map_err(|unreadable| unreadable.to_string())?;
        let tenant = envelope.tenant.clone();
        let (answer, effects, now_ms) = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let (answer, effects) = state.apply(envelope);
            (answer, effects, state.now_ms)
        };
        if self.leads {
            // Those that are read again from the log at a start are of another day.
            lock(&self.stamp).applied(now_ms);
        }
        let is_end = |effect: &Effect| matches!(effect, Effect::ArchiveJob { .. });
        let ends = effects.iter().any(is_end);
        if self.leads {
            self.signal(&tenant, effects);
        }
        self.version.send_replace(index);
        if ends {
            self.endings.send_replace(index);
        }
        Ok(serde_json::to_vec(&answer).expect("answers are plain data"))
    }

    fn snapshot(&self) -> Capture {
        let state = self.state().clone();
        Box::new(move || packed::pack(&state).expect("the state is plain data"))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let restored: State = packed::unpack(snapshot).map_err(|error| error.to_string())?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = restored;
        // Whoever watches looks again: jobs may have gone on and ended.
        self.version.send_modify(|_| {});
        self.endings.send_modify(|_| {});
        Ok(())
    }

    fn leadership(&mut self, term: Option<u64>) {
        self.leads = term.is_some();
        self.leadership.send_replace(term);
    }
}

/// Numbers of this process' commands.
#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    /// Those that have no answer.
    open: BTreeSet<u64>,
}

/// A handle on the replicated state. Clones share it.
#[derive(Clone)]
pub(crate) struct Replica {
    handle: Handle,
    state: Arc<RwLock<State>>,
    version: watch::Receiver<u64>,
    endings: watch::Receiver<u64>,
    behind: Arc<AtomicBool>,
    stamp: Arc<Mutex<Stamp>>,
    clock: Clock,
    incarnation: Incarnation,
    numbers: Arc<Mutex<Numbers>>,
    /// The other members, if there are any.
    peers: Option<Arc<dyn Peers>>,
}

/// A command's number, which is open until this is dropped.
struct Open {
    numbers: Arc<Mutex<Numbers>>,
    number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.numbers).open.remove(&self.number);
    }
}

impl Replica {
    /// Starts the member and returns when its state is read; its signals come out of the receiver.
    pub(crate) fn start(
        settings: weft_consensus::Settings,
        incarnation: Incarnation,
        peers: Option<Arc<dyn Peers>>,
    ) -> Result<(Self, Signals), weft_consensus::Error> {
        let start = |machine, transport| weft_consensus::start(settings, machine, transport);
        Self::start_by(incarnation, peers, Clock::Machine, start)
    }

    /// The same on a member that `start` starts, in the time of `clock`.
    pub(crate) fn start_by(
        incarnation: Incarnation,
        peers: Option<Arc<dyn Peers>>,
        clock: Clock,
        start: impl FnOnce(Machine, RaftTransport) -> Result<Handle, weft_consensus::Error>,
    ) -> Result<(Self, Signals), weft_consensus::Error> {
        let state: Arc<RwLock<State>> = Arc::default();
        let (effects, waiting) = mpsc::channel(MAX_EFFECTS);
        let (leadership, led) = watch::channel(None);
        let (version, watched) = watch::channel(0);
        let (endings, watched_endings) = watch::channel(0);
        let behind: Arc<AtomicBool> = Arc::default();
        let stamp = Arc::new(Mutex::new(Stamp::new(clock.clone())));
        let machine = Machine {
            state: Arc::clone(&state),
            effects,
            leadership,
            version,
            endings,
            behind: Arc::clone(&behind),
            stamp: Arc::clone(&stamp),
            leads: false,
        };
        let transport = RaftTransport(peers.clone());
        let handle = start(machine, transport)?;
        Ok((
            Self {
                handle,
                state,
                version: watched,
                endings: watched_endings,
                behind,
                stamp,
                clock,
                incarnation,
                numbers: Arc::default(),
                peers,
            },
            Signals {
                leadership: led,
                effects: waiting,
            },
        ))
    }

    /// Waits until this member leads.
    pub(crate) async fn leads(&self) -> anyhow::Result<()> {
        self.handle
            .watch_status()
            .wait_for(|status| status.is_leader)
            .await
            .map_err(|_| anyhow::anyhow!("the Raft member stopped"))?;
        Ok(())
    }

    /// Life of this process, as the origin of its commands.
    pub(crate) fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Returns whether effects were dropped since the last call, and clears the flag.
    pub(crate) fn take_behind(&self) -> bool {
        self.behind.swap(false, Ordering::AcqRel)
    }

    /// The state as it is now. Do not hold it across an `.await`.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever a command was applied.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    /// Changes whenever a job has ended.
    pub(crate) fn endings(&self) -> watch::Receiver<u64> {
        self.endings.clone()
    }

    /// The member that leads, if it is known and is another one.
    pub(crate) fn leader_elsewhere(&self) -> Option<u64> {
        let status = self.handle.status();
        status.leader_id.filter(|_| !status.is_leader)
    }

    /// Status of the member and its group.
    pub(crate) fn status(&self) -> weft_consensus::Status {
        self.handle.status()
    }

    /// The Raft member.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Time as it is seen here.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The other members, if this one is of a group.
    pub(crate) fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.peers.as_ref()
    }

    /// Waits until the state here shows what any member had acknowledged before the call.
    ///
    /// Errors: `busy` if nobody leads, or this member lags.
    pub(crate) async fn catch_up(&self) -> Result<(), Problem> {
        let catching_up = async {
            let index = self.handle.read_index().await?;
            self.handle.applied(index).await
        };
        let caught_up = self.clock.timeout(CATCH_UP_PATIENCE, catching_up).await;
        caught_up
            .map_err(|_| Problem::new(ErrorCode::Busy, "this controller lags behind; try again"))?
            .map_err(|error| problem(&error))
    }

    /// Makes sure that this member leads in `term`, now: it may have been paused, or cut off.
    ///
    /// Errors: `busy` if it does not, or nobody knows.
    pub(crate) async fn still_leads(&self, term: u64) -> Result<(), Problem> {
        self.catch_up().await?;
        let status = self.status();
        match status.is_leader && status.term == term {
            true => Ok(()),
            false => {
                let detail = "this controller leads no more; try again";
                Err(Problem::new(ErrorCode::Busy, detail))
            }
        }
    }

    /// Returns whether another member may have acknowledged things that this one does not have: also if it
    /// leads, or believes so, or knows of no leader.
    pub(crate) fn may_lag(&self) -> bool {
        self.peers.is_some()
    }

    /// Has a command replicated; returns when it is on disk of a majority and applied here. A command
    /// whose leadership was lost is proposed again, within [`LEADER_PATIENCE`], and applied once.
    ///
    /// Errors: refusals; `busy` if there is no leader; `too_large`.
    pub(crate) async fn propose(
        &self,
        tenant: &TenantId,
        command: Command,
    ) -> Result<Answer, Problem> {
        let until_ms = self.clock.boot_ms() + LEADER_PATIENCE.as_millis() as u64;
        let left = || Duration::from_millis(until_ms.saturating_sub(self.clock.boot_ms()));
        let (origin, _open) = self.next_origin();
        let mut envelope = self.envelope(tenant, origin, command);
        loop {
            envelope.at_ms = lock(&self.stamp).next();
            let tried = match (self.leader_elsewhere(), &self.peers) {
                (Some(leader), Some(peers)) => {
                    let forwarded = self.forward(&**peers, leader, &envelope);
                    let late = |_| {
                        let detail = "the controller that leads does not answer; try again";
                        Tried::Again(Problem::new(ErrorCode::Busy, detail))
                    };
                    let forwarded = self.clock.timeout(left(), forwarded).await;
                    forwarded.map_err(late).flatten()
                }
                _ => self.propose_here(&envelope).await,
            };
            let problem = match tried {
                Ok((answer, _)) => return refusal_as_error(answer),
                Err(Tried::Refused(problem)) => return Err(problem),
                Err(Tried::Again(problem)) => problem,
            };
            if left().is_zero() {
                return Err(problem);
            }
            if self.peers.is_some() {
                self.clock.sleep(LEADER_PAUSE).await;
            } else if self.clock.timeout(left(), self.leads()).await.is_err() {
                return Err(problem);
            }
        }
    }

    /// Proposes a command of another member, in this leader's time.
    pub(crate) async fn propose_for_other(&self, envelope: Envelope) -> Result<Reply, Problem> {
        if envelope.version != COMMAND_VERSION {
            let detail = format!(
                "the command is of version {}, and the leader's are of version {COMMAND_VERSION}",
                envelope.version
            );
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        let at_ms = lock(&self.stamp).next();
        match self.propose_here(&Envelope { at_ms, ..envelope }).await {
            Ok((answer, index)) => Ok(Reply::Proposed { answer, index }),
            Err(Tried::Again(_)) => Ok(Reply::NotLeader),
            Err(Tried::Refused(problem)) => Err(problem),
        }
    }

    /// Proposes to the member here. Returns the answer, and an index that shows it once it is applied.
    async fn propose_here(&self, envelope: &Envelope) -> Result<(Answer, u64), Tried> {
        let error = match self.handle.propose(encode(envelope)).await {
            Ok(answer) => {
                let answer = read(&answer).map_err(Tried::Refused)?;
                return Ok((answer, self.handle.status().applied_index));
            }
            Err(error) => error,
        };
        let again = matches!(
            error,
            weft_consensus::Error::LeadershipLost | weft_consensus::Error::NotLeader { .. }
        );
        Err(match again {
            true => Tried::Again(problem(&error)),
            false => Tried::Refused(problem(&error)),
        })
    }

    /// Has the leader propose a command, and waits until its effect shows here, too: whoever asked may
    /// read it back at once.
    async fn forward(
        &self,
        peers: &dyn Peers,
        leader: u64,
        envelope: &Envelope,
    ) -> Result<(Answer, u64), Tried> {
        let question = Question::Propose(Box::new(envelope.clone()));
        let mut status = self.handle.watch_status();
        let reply = tokio::select! {
            biased;
            reply = group::ask(peers, leader, &question) => reply,
            // One that is cut off or stopped may not answer for long: another one leads by then.
            _ = status.wait_for(|status| status.leader_id != Some(leader)) => Ok(Reply::NotLeader),
        };
        match reply {
            Ok(Reply::Proposed { answer, index }) => {
                let applied = self.handle.applied(index);
                // If this member lags, the answer is true all the same.
                let _ = self.clock.timeout(CATCH_UP_PATIENCE, applied).await;
                Ok((answer, index))
            }
            Ok(_) => {
                let detail = "the controller that led leads no more; try again";
                Err(Tried::Again(Problem::new(ErrorCode::Busy, detail)))
            }
            Err(problem) if problem.code == ErrorCode::Busy => Err(Tried::Again(problem)),
            Err(problem) => Err(Tried::Refused(problem)),
        }
    }

    /// Begins to have a command replicated, behind those that were begun before. The answer may be a
    /// refusal.
    ///
    /// `origin`: the agent's result that it records; without one it is this process' own.
    /// Errors: it is not in the log, or nobody knows.
    pub(crate) fn begin(
        &self,
        tenant: &TenantId,
        origin: Option<Origin>,
        command: Command,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send + use<> {
        let (origin, open) = match origin {
            Some(origin) => (origin, None),
            None => {
                let (origin, open) = self.next_origin();
                (origin, Some(open))
            }
        };
        let bytes = encode(&self.envelope(tenant, origin, command));
        let begun = self.handle.begin(bytes);
        async move {
            let _open = open;
            let answer = match begun {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            read(&answer.map_err(|error| problem(&error))?)
        }
    }

    /// The time that the next command would bring, in Unix milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        let stamp = lock(&self.stamp).next();
        self.state().now_ms.max(stamp)
    }

    fn next_origin(&self) -> (Origin, Open) {
        let mut numbers = lock(&self.numbers);
        numbers.last += 1;
        let number = numbers.last;
        numbers.open.insert(number);
        let origin = Origin {
            incarnation: self.incarnation,
            sequence: number,
            answered_below: numbers.open.first().copied().unwrap_or(number),
        };
        let open = Open {
            numbers: Arc::clone(&self.numbers),
            number,
        };
        (origin, open)
    }

    fn envelope(&self, tenant: &TenantId, origin: Origin, command: Command) -> Envelope {
        Envelope {
            version: COMMAND_VERSION,
            at_ms: lock(&self.stamp).next(),
            tenant: tenant.clone(),
            origin,
            command,
        }
    }

    /// Returns when the member has stopped, with the reason if it did so by itself.
    pub(crate) async fn stopped(&self) -> Result<(), weft_consensus::Error> {
        self.handle.stopped().await
    }

    /// Stops the member.
    pub(crate) async fn shutdown(&self) -> Result<(), weft_consensus::Error> {
        self.handle.shutdown().await
    }
}

/// Reason why a command has no answer.
enum Tried {
    /// Leadership was lost: with the same origin it may be proposed again.
    Again(Problem),
    /// It is refused.
    Refused(Problem),
}

fn encode(envelope: &Envelope) -> Vec<u8> {
    serde_json::to_vec(envelope).expect("commands are plain data")
}

fn read(answer: &[u8]) -> Result<Answer, Problem> {
    serde_json::from_slice(answer)
        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))
}

fn refusal_as_error(answer: Answer) -> Result<Answer, Problem> {
    match answer {
        Answer::Refused { problem } => Err(problem),
        answer => Ok(answer),
    }
}

fn problem(error: &weft_consensus::Error) -> Problem {
    let code = match error.kind() {
        ErrorKind::Invalid => ErrorCode::TooLarge,
        ErrorKind::Unavailable | ErrorKind::NotLeader => ErrorCode::Busy,
        ErrorKind::Closed | ErrorKind::Damaged | ErrorKind::Internal => ErrorCode::Internal,
    };
    Problem::new(code, error.to_string())
}
