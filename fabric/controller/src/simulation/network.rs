//! The network between controllers: Raft messages, which may be lost, doubled and reordered, and questions,
//! whose connections break.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;
use weft_core::{ErrorCode, Problem, lock};
use weft_runtime::link::Peers;

use crate::scheduler::tests::random::Random;

/// Something that arrives at a controller.
pub(super) enum Packet {
    Raft(Vec<u8>),
    Question { number: u64, question: Bytes },
}

/// Question without an answer.
struct Open {
    from: u64,
    to: u64,
    answer: oneshot::Sender<Result<Bytes, Problem>>,
}

enum Sent {
    To(u64, u64, Packet),
    Answer(u64, Result<Bytes, Problem>),
}

struct State {
    random: Random,
    faults: bool,
    /// How long Raft messages take at most, in milliseconds.
    delay_ms: u64,
    now_ms: u64,
    next: u64,
    /// By when they arrive.
    sent: BTreeMap<(u64, u64), Sent>,
    open: BTreeMap<u64, Open>,
    /// Pairs that do not hear each other: from, to.
    cut: BTreeSet<(u64, u64)>,
    lost: u64,
}

/// The network of all controllers. Clones are the same.
#[derive(Clone)]
pub(super) struct Network(Arc<Mutex<State>>);

/// One controller's end of it.
pub(super) struct End {
    pub(super) member: u64,
    pub(super) network: Network,
}

fn broken() -> Problem {
    Problem::new(ErrorCode::Busy, "the connection broke")
}

impl State {
    fn send(&mut self, sent: Sent, reordered: bool) {
        let delay_ms = match self.random.below(100) {
            0..3 if reordered && self.faults => 50 + self.random.next() % 1_000,
            _ if reordered => 1 + self.random.next() % self.delay_ms,
            _ => 1 + self.random.next() % 10,
        };
        self.next += 1;
        self.sent.insert((self.now_ms + delay_ms, self.next), sent);
    }

    /// Breaks connections: whoever asked hears of it, and never what came of the question.
    fn break_where(&mut self, is_broken: impl Fn(u64, u64) -> bool) {
        let broken_ones = self
            .open
            .extract_if(.., |_, open| is_broken(open.from, open.to));
        for (_, open) in broken_ones {
            let _ = open.answer.send(Err(broken()));
        }
    }
}

impl Network {
    pub(super) fn new(seed: u64) -> Network {
        let mut random = Random::new(seed);
        Network(Arc::new(Mutex::new(State {
            // Where messages take as long as half an election, two candidates meet.
            delay_ms: [10, 10, 10, 300][random.below(4)],
            random,
            faults: true,
            now_ms: 0,
            next: 0,
            sent: BTreeMap::new(),
            open: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost: 0,
        })))
    }

    /// Returns what has arrived by now, and for whom.
    pub(super) fn arrived(&self, now_ms: u64) -> Vec<(u64, Packet)> {
        let mut state = lock(&self.0);
        state.now_ms = now_ms;
        let later = state.sent.split_off(&(now_ms + 1, 0));
        let due = std::mem::replace(&mut state.sent, later);
        let mut arrived = Vec::new();
        for sent in due.into_values() {
            match sent {
                Sent::To(from, to, _) if state.cut.contains(&(from, to)) => state.lost += 1,
                Sent::To(_, to, packet) => arrived.push((to, packet)),
                Sent::Answer(number, answer) => {
                    if let Some(open) = state.open.remove(&number) {
                        let _ = open.answer.send(answer);
                    }
                }
            }
        }
        arrived
    }

    pub(super) fn answer(&self, number: u64, answer: Result<Bytes, Problem>) {
        lock(&self.0).send(Sent::Answer(number, answer), false);
    }

    /// Cuts some off from the others, in one direction or in both.
    pub(super) fn cut(&self, pairs: impl IntoIterator<Item = (u64, u64)>) {
        let mut state = lock(&self.0);
        state.cut.extend(pairs);
        let cut = state.cut.clone();
        state.break_where(|from, to| cut.contains(&(from, to)) || cut.contains(&(to, from)));
    }

    pub(super) fn heal(&self) {
        lock(&self.0).cut.clear();
    }

    pub(super) fn is_healed(&self) -> bool {
        lock(&self.0).cut.is_empty()
    }

    /// A controller is dead: its connections break, and what is on the way to it is lost.
    pub(super) fn died(&self, member: u64) {
        let mut state = lock(&self.0);
        state.break_where(|from, to| from == member || to == member);
        state
            .sent
            .retain(|_, sent| !matches!(sent, Sent::To(_, to, _) if *to == member));
    }

    /// Nothing is lost any more. Returns how much was.
    pub(super) fn end_faults(&self) -> u64 {
        let mut state = lock(&self.0);
        state.faults = false;
        state.delay_ms = 10;
        state.lost
    }
}

#[async_trait]
impl Peers for End {
    fn knows(&self, _member: u64) -> bool {
        true
    }

    fn send(&self, member: u64, message: Vec<u8>) {
        let mut state = lock(&self.network.0);
        let (from, faults) = (self.member, state.faults);
        match state.random.below(100) {
            0..3 if faults => state.lost += 1,
            chance => {
                if chance == 3 && faults {
                    let again = Packet::Raft(message.clone());
                    state.send(Sent::To(from, member, again), true);
                }
                state.send(Sent::To(from, member, Packet::Raft(message)), true);
            }
        }
    }

    async fn ask(&self, member: u64, question: Bytes) -> Result<Bytes, Problem> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = lock(&self.network.0);
            if state.cut.contains(&(self.member, member)) {
                return Err(broken());
            }
            state.next += 1;
            let number = state.next;
            let open = Open {
                from: self.member,
                to: member,
                answer,
            };
            state.open.insert(number, open);
            let packet = Packet::Question { number, question };
            state.send(Sent::To(self.member, member, packet), false);
        }
        answered.await.unwrap_or_else(|_| Err(broken()))
    }
}
