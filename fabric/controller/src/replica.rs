//! The control state behind the Raft log: commands go in, answers come back, effects go to the controller.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{mpsc, watch};
use weft_consensus::{ErrorKind, Handle, StateMachine};
use weft_control::{Answer, COMMAND_VERSION, Command, Effect, Envelope, State};
use weft_core::{ErrorCode, Problem, TenantId};

use crate::packed;
use weft_runtime::clock::unix_ms;

/// Effects that may wait for the controller; past it the controller derives them anew from the state.
const EFFECTS_MAX: usize = 16 << 10;

/// What the controller hears.
#[derive(Debug)]
pub(crate) enum Signal {
    /// An effect of a command that was just applied.
    Effect(Effect),
    /// Derive all effects from the state: this member became leader, or effects were too many.
    Derive,
}

struct Machine {
    state: Arc<RwLock<State>>,
    signals: mpsc::Sender<Signal>,
    version: watch::Sender<u64>,
    endings: watch::Sender<u64>,
    behind: Arc<AtomicBool>,
    leader: bool,
}

impl Machine {
    fn signal(&self, effects: Vec<Effect>) {
        for effect in effects {
            if self.signals.try_send(Signal::Effect(effect)).is_err() {
                self.behind.store(true, Ordering::Release);
                tracing::warn!(
                    limit = EFFECTS_MAX,
                    "too many effects at once: the controller will derive them from the state"
                );
                break;
            }
        }
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, index: u64, command: &[u8]) -> Vec<u8> {
        let mut ends = false;
        let answer = match serde_json::from_slice::<Envelope>(command) {
            Ok(envelope) => {
                let (answer, effects) = self
                    .state
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .apply(envelope);
                let is_end = |effect: &Effect| matches!(effect, Effect::ArchiveJob { .. });
                ends = effects.iter().any(is_end);
                if self.leader {
                    self.signal(effects);
                }
                answer
            }
            Err(error) => Answer::Refused {
                problem: Problem::new(
                    ErrorCode::Internal,
                    format!("a command cannot be read: {error}"),
                ),
            },
        };
        self.version.send_replace(index);
        if ends {
            self.endings.send_replace(index);
        }
        serde_json::to_vec(&answer).expect("answers are plain data")
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

    fn leadership(&mut self, leader: bool) {
        self.leader = leader;
        if leader && self.signals.try_send(Signal::Derive).is_err() {
            self.behind.store(true, Ordering::Release);
        }
    }
}

/// A handle on the replicated state. Clones share it.
#[derive(Clone)]
pub(crate) struct Replica {
    handle: Handle,
    state: Arc<RwLock<State>>,
    version: watch::Receiver<u64>,
    endings: watch::Receiver<u64>,
    behind: Arc<AtomicBool>,
}

impl Replica {
    /// Starts the member and returns when its state is read; what it signals comes out of the receiver.
    pub(crate) fn start(
        settings: weft_consensus::Settings,
    ) -> Result<(Self, mpsc::Receiver<Signal>), weft_consensus::Error> {
        let state: Arc<RwLock<State>> = Arc::default();
        let (signals, receiver) = mpsc::channel(EFFECTS_MAX);
        let (version, watched) = watch::channel(0);
        let (endings, watched_endings) = watch::channel(0);
        let behind: Arc<AtomicBool> = Arc::default();
        let machine = Machine {
            state: Arc::clone(&state),
            signals,
            version,
            endings,
            behind: Arc::clone(&behind),
            leader: false,
        };
        let handle = weft_consensus::start(settings, machine, weft_consensus::NoTransport)?;
        Ok((
            Self {
                handle,
                state,
                version: watched,
                endings: watched_endings,
                behind,
            },
            receiver,
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

    /// True, once, where effects were dropped since it was last asked.
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

    /// Has a command replicated; returns when it is on disk and applied. A refusal is an error.
    pub(crate) async fn propose(
        &self,
        tenant: &TenantId,
        command: Command,
    ) -> Result<Answer, Problem> {
        let envelope = Envelope {
            version: COMMAND_VERSION,
            at_ms: unix_ms(),
            tenant: tenant.clone(),
            command,
        };
        let bytes = serde_json::to_vec(&envelope).expect("commands are plain data");
        let answer = self
            .handle
            .propose(bytes)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::Invalid => Problem::new(ErrorCode::TooLarge, error.to_string()),
                ErrorKind::Unavailable | ErrorKind::NotLeader => {
                    Problem::new(ErrorCode::Busy, error.to_string())
                }
                ErrorKind::Closed | ErrorKind::Damaged | ErrorKind::Internal => {
                    Problem::new(ErrorCode::Internal, error.to_string())
                }
            })?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Refused { problem }) => Err(problem),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Problem::new(ErrorCode::Internal, error.to_string())),
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
