//! Mailboxes of the actors of an open shard: requests in order, and at most one turn of each actor.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::{ActorRef, Problem, lock};
use weft_protocol::{MessageId, Once, Pin};

use super::answer::Asker;
use super::bounds::MAX_MAILBOX;

/// An invocation of an actor.
pub(super) struct Invocation {
    pub(super) pin: Pin,
    pub(super) method: String,
    pub(super) input: Vec<u8>,
    pub(super) once: Option<Once>,
    pub(super) message: Option<MessageId>,
}

/// Question to an actor.
pub(super) enum Ask {
    Invoke(Box<Invocation>),
    /// The alarm that was due then. A version that cannot be had counts as a failure of the alarm.
    Alarm {
        due_ms: u64,
        pin: Box<Result<Pin, Problem>>,
    },
    Delete,
}

impl Ask {
    /// Returns whether as many may come as there are clients. Of alarms an actor has one or two, and of messages each
    /// shard sends one at a time: they find room, however many clients ask.
    fn is_from_outside(&self) -> bool {
        match self {
            Self::Invoke(invocation) => invocation.message.is_none(),
            Self::Alarm { .. } => false,
            Self::Delete => true,
        }
    }
}

/// A request that waits for its turn.
pub(super) struct Request {
    pub(super) actor: ActorRef,
    pub(super) ask: Ask,
    /// Actors that wait for the answer, outermost first.
    pub(super) chain: Vec<ActorRef>,
    pub(super) deadline: Instant,
    /// Stops the turn.
    pub(super) cancel: CancellationToken,
    pub(super) asker: Asker,
    /// Place among all that wait.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// A request that did not get into its mailbox.
pub(super) enum Refused {
    /// Too many wait.
    Full(Box<Request>),
    /// The shard has been closed, or has failed.
    Closed(Box<Request>),
}

#[derive(Default)]
struct Mailbox {
    waiting: VecDeque<Request>,
    /// A turn is queued, runs, or is being committed.
    has_turn: bool,
    /// Stops the request that runs.
    cancel: Option<CancellationToken>,
    /// Number of the last batch that the actor wrote.
    last_batch: u64,
}

struct State {
    actors: HashMap<ActorRef, Mailbox>,
    is_closed: bool,
    used: Instant,
}

/// The mailboxes of a shard.
pub(super) struct Mailboxes(Mutex<State>);

impl Mailboxes {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            actors: HashMap::new(),
            is_closed: false,
            used: Instant::now(),
        }))
    }

    /// Adds a request. Returns whether its actor is to have a turn now.
    pub(super) fn push(&self, request: Request) -> Result<bool, Refused> {
        let mut state = lock(&self.0);
        if state.is_closed {
            return Err(Refused::Closed(Box::new(request)));
        }
        state.used = Instant::now();
        let mailbox = state.actors.entry(request.actor.clone()).or_default();
        if mailbox.waiting.len() >= MAX_MAILBOX && request.ask.is_from_outside() {
            return Err(Refused::Full(Box::new(request)));
        }
        mailbox.waiting.push_back(request);
        Ok(!std::mem::replace(&mut mailbox.has_turn, true))
    }

    /// Takes the next request of an actor whose turn it is.
    pub(super) fn next(&self, actor: &ActorRef) -> Option<Request> {
        let mut state = lock(&self.0);
        let mailbox = state.actors.get_mut(actor)?;
        let request = mailbox.waiting.pop_front()?;
        mailbox.cancel = Some(request.cancel.clone());
        Some(request)
    }

    /// The turn of an actor has ended; `batch` is the number of what it wrote. Returns whether it is to have another
    /// one.
    pub(super) fn ended(&self, actor: &ActorRef, batch: Option<u64>, durable: &AtomicU64) -> bool {
        let mut state = lock(&self.0);
        state.used = Instant::now();
        let Some(mailbox) = state.actors.get_mut(actor) else {
            return false;
        };
        mailbox.cancel = None;
        mailbox.last_batch = batch.unwrap_or(mailbox.last_batch);
        mailbox.has_turn = !mailbox.waiting.is_empty();
        let has_turn = mailbox.has_turn;
        state.forget_idle(actor, durable);
        has_turn
    }

    /// All batches up to `durable` are durable, the last of which was this actor's.
    pub(super) fn settled(&self, actor: &ActorRef, durable: &AtomicU64) {
        lock(&self.0).forget_idle(actor, durable);
    }

    /// Returns whether an actor has written something that may not be durable.
    pub(super) fn is_unsettled(&self, actor: &ActorRef, durable: &AtomicU64) -> bool {
        let state = lock(&self.0);
        let durable = durable.load(Ordering::Acquire);
        let mailbox = state.actors.get(actor);
        mailbox.is_some_and(|mailbox| mailbox.last_batch > durable)
    }

    /// Closes the mailboxes if all have been empty for as long.
    pub(super) fn close_idle(&self, idle: Duration) -> bool {
        let mut state = lock(&self.0);
        let is_idle = state.actors.is_empty() && state.used.elapsed() >= idle;
        state.is_closed |= is_idle;
        is_idle
    }

    /// Closes the mailboxes, stops what runs, and returns what waited.
    pub(super) fn fail(&self) -> Vec<Request> {
        let mut state = lock(&self.0);
        state.is_closed = true;
        let actors = std::mem::take(&mut state.actors);
        let stopped = actors.into_values().map(|mailbox| {
            if let Some(cancel) = mailbox.cancel {
                cancel.cancel();
            }
            mailbox.waiting
        });
        stopped.flatten().collect()
    }
}

impl State {
    /// Forgets an actor without requests whose writes are all durable. The number of the last durable batch is read
    /// here, under the lock: of an end and a settlement at the same time, the later one sees what both have changed.
    fn forget_idle(&mut self, actor: &ActorRef, durable: &AtomicU64) {
        let durable = durable.load(Ordering::Acquire);
        let mailbox = self.actors.get(actor);
        if mailbox.is_some_and(|mailbox| !mailbox.has_turn && mailbox.last_batch <= durable) {
            self.actors.remove(actor);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use weft_core::{Digest, ErrorCode, Limits};

    use super::*;

    /// No batch is durable.
    static NONE: AtomicU64 = AtomicU64::new(0);

    fn actor(key: &str) -> ActorRef {
        ActorRef::new("bank", "account", key).expect("a valid key")
    }

    fn request(key: &str) -> Request {
        let (replies, _) = mpsc::channel(1);
        Request {
            actor: actor(key),
            ask: Ask::Delete,
            chain: Vec::new(),
            deadline: Instant::now(),
            cancel: CancellationToken::new(),
            asker: Asker::here(replies).0,
            place: None,
        }
    }

    fn push(mailboxes: &Mailboxes, key: &str) -> Option<bool> {
        mailboxes.push(request(key)).ok()
    }

    #[test]
    fn an_actor_has_one_turn_at_a_time() {
        let mailboxes = Mailboxes::new();
        assert_eq!(push(&mailboxes, "a"), Some(true));
        assert_eq!(push(&mailboxes, "a"), Some(false));
        assert_eq!(push(&mailboxes, "b"), Some(true));
        assert!(mailboxes.next(&actor("a")).is_some());
        // The second one waits until the first has ended.
        assert_eq!(push(&mailboxes, "a"), Some(false));
        assert!(mailboxes.ended(&actor("a"), None, &NONE));
        assert!(mailboxes.next(&actor("a")).is_some() && mailboxes.next(&actor("a")).is_some());
        assert!(!mailboxes.ended(&actor("a"), None, &NONE));
        assert_eq!(push(&mailboxes, "a"), Some(true));
    }

    #[test]
    fn a_mailbox_is_bounded_and_the_others_are_not_touched() {
        let mailboxes = Mailboxes::new();
        for _ in 0..MAX_MAILBOX {
            assert!(push(&mailboxes, "a").is_some());
        }
        assert!(matches!(
            mailboxes.push(request("a")),
            Err(Refused::Full(_))
        ));
        assert_eq!(push(&mailboxes, "b"), Some(true));
        for ask in [alarm(), message()] {
            let mut request = request("a");
            request.ask = ask;
            assert!(mailboxes.push(request).is_ok(), "they are few");
        }
    }

    fn alarm() -> Ask {
        let problem = Problem::new(ErrorCode::NotFound, "no such function");
        Ask::Alarm {
            due_ms: 1,
            pin: Box::new(Err(problem)),
        }
    }

    fn message() -> Ask {
        let pin = Pin {
            digest: Digest::from_sha256(&[1; 32]),
            artefact: Digest::from_sha256(&[2; 32]),
            label: "bank@1.0.0/account".into(),
            limits: Limits::default(),
        };
        let (shard, number) = (3, 1);
        Ask::Invoke(Box::new(Invocation {
            pin,
            method: "add".into(),
            input: Vec::new(),
            once: None,
            message: Some(MessageId { shard, number }),
        }))
    }

    #[test]
    fn actors_are_known_until_their_writes_are_durable() {
        let mailboxes = Mailboxes::new();
        push(&mailboxes, "a").expect("there is room");
        mailboxes.next(&actor("a")).expect("it waits");
        let durable = AtomicU64::new(6);
        mailboxes.ended(&actor("a"), Some(7), &durable);
        assert!(mailboxes.is_unsettled(&actor("a"), &durable));
        assert!(
            !mailboxes.close_idle(Duration::ZERO),
            "its answer is on the way"
        );
        durable.store(7, Ordering::Release);
        mailboxes.settled(&actor("a"), &durable);
        assert!(!mailboxes.is_unsettled(&actor("a"), &durable));
        assert!(mailboxes.close_idle(Duration::ZERO));
        assert!(matches!(
            mailboxes.push(request("a")),
            Err(Refused::Closed(_))
        ));
    }

    #[test]
    fn a_failure_stops_what_runs_and_returns_what_waits() {
        let mailboxes = Mailboxes::new();
        for key in ["a", "a", "b"] {
            push(&mailboxes, key).expect("there is room");
        }
        let running = mailboxes.next(&actor("a")).expect("it waits");
        assert_eq!(mailboxes.fail().len(), 2);
        assert!(running.cancel.is_cancelled());
        assert!(!mailboxes.ended(&actor("a"), Some(1), &NONE));
    }
}
