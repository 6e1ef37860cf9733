//! The control state behind the Raft log: commands go in, answers come back, effects go to the
//! scheduler.
//!
//! A command whose leadership was lost may or may not be in the log. It is proposed again with the
//! same origin and sequence, and the state applies it once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weft_consensus::{ErrorKind, Handle, StateMachine};
use weft_control::{Answer, COMMAND_VERSION, Command, Effect, Envelope, Origin, State};
use weft_core::{ErrorCode, Incarnation, Problem, TenantId, lock};
use weft_runtime::clock::unix_ms;

use crate::packed;
use crate::stamp::Stamp;

/// Effects that may wait for the scheduler; past it the scheduler derives them anew from the state.
const MAX_EFFECTS: usize = 16 << 10;
/// Time for which a command waits for a leader before it is given up as `busy`.
const LEADER_PATIENCE: Duration = Duration::from_secs(10);

/// News for the scheduler.
pub(crate) struct Signals {
    /// The term in which this member leads.
    pub(crate) leadership: watch::Receiver<Option<u64>>,
    /// Effects of commands, while it does.
    pub(crate) effects: mpsc::Receiver<(TenantId, Effect)>,
}

struct Machine {
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

    fn snapshot(&self) -> Vec<u8> {
        packed::pack(&*self.state.read().unwrap_or_else(PoisonError::into_inner))
            .expect("the state is plain data")
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let restored: State = packed::unpack(snapshot).map_err(|error| error.to_string())?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = restored;
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
    incarnation: Incarnation,
    numbers: Arc<Mutex<Numbers>>,
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
    ) -> Result<(Self, Signals), weft_consensus::Error> {
        let state: Arc<RwLock<State>> = Arc::default();
        let (effects, waiting) = mpsc::channel(MAX_EFFECTS);
        let (leadership, led) = watch::channel(None);
        let (version, watched) = watch::channel(0);
        let (endings, watched_endings) = watch::channel(0);
        let behind: Arc<AtomicBool> = Arc::default();
        let stamp: Arc<Mutex<Stamp>> = Arc::default();
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
        let handle = weft_consensus::start(settings, machine, weft_consensus::NoTransport)?;
        Ok((
            Self {
                handle,
                state,
                version: watched,
                endings: watched_endings,
                behind,
                stamp,
                incarnation,
                numbers: Arc::default(),
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

    /// Has a command replicated; returns when it is on disk and applied. A command whose leadership
    /// was lost is proposed again, within [`LEADER_PATIENCE`], and applied once.
    ///
    /// Errors: refusals; `busy` if there is no leader; `too_large`.
    pub(crate) async fn propose(
        &self,
        tenant: &TenantId,
        command: Command,
    ) -> Result<Answer, Problem> {
        let until = Instant::now() + LEADER_PATIENCE;
        let (origin, _open) = self.next_origin();
        loop {
            let bytes = self.envelope(tenant, origin.clone(), command.clone());
            let error = match self.handle.propose(bytes).await {
                Ok(answer) => return refusal_as_error(read(&answer)?),
                Err(error) => error,
            };
            let again = matches!(
                error,
                weft_consensus::Error::LeadershipLost | weft_consensus::Error::NotLeader { .. }
            );
            let late = Instant::now() >= until;
            if late || !again || tokio::time::timeout_at(until, self.leads()).await.is_err() {
                return Err(problem(&error));
            }
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
        let bytes = self.envelope(tenant, origin, command);
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
        let stamp = lock(&self.stamp).next(unix_ms());
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

    fn envelope(&self, tenant: &TenantId, origin: Origin, command: Command) -> Vec<u8> {
        let envelope = Envelope {
            version: COMMAND_VERSION,
            at_ms: lock(&self.stamp).next(unix_ms()),
            tenant: tenant.clone(),
            origin,
            command,
        };
        serde_json::to_vec(&envelope).expect("commands are plain data")
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
