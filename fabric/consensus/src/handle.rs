//! The outside of a member: a handle that passes things to its thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use raft::eraftpb::Message;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::error::Error;
use crate::membership::{Change, Membership};
use crate::proposals::{Asker, Proposal};
use crate::reads::ReadAsker;

/// What a member knows of the group and of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// The leader, where one is known.
    pub leader_id: Option<u64>,
    /// Whether this member leads and has applied everything of earlier terms.
    pub is_leader: bool,
    /// The current term, which grows with every election.
    pub term: u64,
    /// The last entry known to be on a majority of disks.
    pub commit_index: u64,
    /// The last entry that the state machine here has seen.
    pub applied_index: u64,
    /// The last entry that the newest snapshot here covers.
    pub snapshot_index: u64,
}

/// Reaches one member; clones reach the same one.
///
/// The member stops after [`Handle::shutdown`], or by itself some time after its last handle was dropped.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles of a member share.
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) inputs: SyncSender<Input>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) max_queued_proposals: usize,
    pub(crate) max_command_bytes: usize,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) members: watch::Receiver<Membership>,
    pub(crate) outcome: watch::Receiver<Option<Outcome>>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

/// How the thread of a member ended; an error is its text, because every handle gets it.
pub(crate) type Outcome = Result<(), String>;

/// Whoever waits for a change of the members.
pub(crate) type ChangeAsker = oneshot::Sender<Result<(), Error>>;

/// What the thread of a member takes in.
pub(crate) enum Input {
    /// A command for the log.
    Propose(Proposal),
    /// A message of another member.
    Deliver(Box<Message>),
    /// A question up to which entry the group has committed.
    Read(ReadAsker),
    /// A change of the members.
    Change(Change, ChangeAsker),
    /// A question how many entries a member lacks.
    Lag(u64, oneshot::Sender<Option<u64>>),
    /// Nothing, but a look at the stop flag.
    Wake,
}

impl Handle {
    /// Puts a command into the log and returns the state machine's answer, once it is committed and applied here.
    ///
    /// Errors: `NotLeader` names the member to ask; `Invalid` where the command is empty or too large;
    /// `Unavailable` where the queue is full (nothing happened) or leadership was lost (the outcome is
    /// unknown); `Closed` after the member stopped (the outcome is unknown). A dropped future leaves the
    /// outcome unknown as well, and nothing behind.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Vec<u8>, Error> {
        let answer = self.enqueue(command)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// [`Handle::propose`] for callers outside of async code, where it may block.
    pub fn blocking_propose(&self, command: Vec<u8>) -> Result<Vec<u8>, Error> {
        let answer = self.enqueue(command)?;
        answer.blocking_recv().unwrap_or(Err(Error::Closed))
    }

    /// Returns the index of an entry: a state that has applied it shows all that any member had
    /// acknowledged before the call. Any member may be asked; a follower asks its leader.
    ///
    /// Errors: `NotLeader` if no leader confirms it in time, `Unavailable` if the queue is full.
    pub async fn read_index(&self) -> Result<u64, Error> {
        let (asker, answered) = oneshot::channel();
        self.send(Input::Read(asker))?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Waits until the state machine here has applied an entry. Errors: the member stopped.
    pub async fn applied(&self, index: u64) -> Result<(), Error> {
        let mut status = self.watch_status();
        let applied = status
            .wait_for(|status| status.applied_index >= index)
            .await;
        applied.map(|_| ()).map_err(|_| Error::Closed)
    }

    /// Changes the members, and returns once the change is applied here.
    ///
    /// Errors: `NotLeader`; `Invalid` where the change does not fit the members, would leave the group
    /// without a majority that is alive, or has the leader remove itself; `Unavailable` where another change
    /// is under way (nothing happened) or leadership was lost (the outcome is unknown).
    pub async fn change_members(&self, change: Change) -> Result<(), Error> {
        let (asker, answered) = oneshot::channel();
        self.send(Input::Change(change, asker))?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Returns how many entries a member lacks, as far as this one knows: nothing if this one does not lead,
    /// or the other is no member, or has not answered lately.
    ///
    /// Errors: the queue is full, or the member has stopped.
    pub async fn lag(&self, member: u64) -> Result<Option<u64>, Error> {
        let (asker, answered) = oneshot::channel();
        self.send(Input::Lag(member, asker))?;
        answered.await.map_err(|_| Error::Closed)
    }

    /// Returns a receiver that sees who belongs to the group, as far as this member knows.
    pub fn watch_members(&self) -> watch::Receiver<Membership> {
        self.shared.members.clone()
    }

    /// Hands over a message of another member, or drops it where the queue is full or the member has stopped.
    pub fn deliver(&self, message: Message) {
        self.shared.deliver(message);
    }

    /// Returns what the member knew after its last step.
    pub fn status(&self) -> Status {
        *self.shared.status.borrow()
    }

    /// Returns a receiver that sees every change of the status, or the later of several.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.shared.status.clone()
    }

    /// Stops the member and waits until its thread is gone and its folder is closed.
    ///
    /// Proposals that wait get `Closed`. Errors: what ended the member, where it had failed before.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.shared.ask_to_stop();
        self.stopped().await
    }

    /// [`Handle::shutdown`] for callers outside of async code, where it may block.
    pub fn blocking_shutdown(&self) -> Result<(), Error> {
        self.shared.ask_to_stop();
        self.shared.join();
        self.shared.outcome()
    }

    /// Waits until the member has stopped, without asking it to; returns what ended it where it failed.
    pub async fn stopped(&self) -> Result<(), Error> {
        let mut outcome = self.shared.outcome.clone();
        // The sender lives as long as the thread, whose last act is to send.
        let _ = outcome.wait_for(Option::is_some).await;
        self.shared.join();
        self.shared.outcome()
    }

    /// Puts a command into the log behind those that were begun before, without waiting: commands of one
    /// caller keep their order. The future gives the state machine's answer.
    ///
    /// Errors: those of [`Handle::propose`] that are known at once.
    pub fn begin(
        &self,
        command: Vec<u8>,
    ) -> Result<impl Future<Output = Result<Vec<u8>, Error>> + Send + use<>, Error> {
        let answer = self.enqueue(command)?;
        Ok(async move { answer.await.unwrap_or(Err(Error::Closed)) })
    }

    fn enqueue(
        &self,
        command: Vec<u8>,
    ) -> Result<oneshot::Receiver<Result<Vec<u8>, Error>>, Error> {
        let shared = &self.shared;
        if command.is_empty() {
            return Err(Error::EmptyCommand);
        }
        if command.len() > shared.max_command_bytes {
            return Err(Error::CommandTooLarge {
                bytes: command.len(),
                limit: shared.max_command_bytes,
            });
        }
        let permit = shared.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| shared.queue_full())?;
        let (answer, receiver) = oneshot::channel();
        let asker = Asker {
            answer,
            _permit: permit,
        };
        self.send(Input::Propose(Proposal { command, asker }))?;
        Ok(receiver)
    }

    fn send(&self, input: Input) -> Result<(), Error> {
        match self.shared.inputs.try_send(input) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(self.shared.queue_full()),
            Err(TrySendError::Disconnected(_)) => Err(Error::Closed),
        }
    }
}

impl Shared {
    pub(crate) fn deliver(&self, message: Message) {
        // Raft repeats what matters, so a member that does not keep up loses messages instead of memory.
        let _ = self.inputs.try_send(Input::Deliver(Box::new(message)));
    }

    fn queue_full(&self) -> Error {
        Error::QueueFull {
            limit: self.max_queued_proposals,
        }
    }

    fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // Where the queue is full, the thread is awake and sees the flag after its batch.
        let _ = self.inputs.try_send(Input::Wake);
    }

    fn join(&self) {
        let mut thread = self.thread.lock().expect("nothing under this lock panics");
        if let Some(thread) = thread.take() {
            thread.join().expect("the thread catches its panics");
        }
    }

    fn outcome(&self) -> Result<(), Error> {
        match &*self.outcome.borrow() {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(Error::Failed {
                reason: reason.clone(),
            }),
            None => Err(Error::Closed),
        }
    }
}
