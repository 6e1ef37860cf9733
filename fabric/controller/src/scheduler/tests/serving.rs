//! An executor that serves shards of actors, in tests: under its lease's clock, out of a store in which anybody may
//! open a shard, and the last one who did may write it.
//!
//! A shard holds one number, which each write raises. What a client was told is never more than what later clients are
//! told, as long as one executor at a time answers for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use weft_core::{Epoch, TenantId};

/// Questions that wait at an executor.
const MAX_ASKS: usize = 4;

/// A planted fault of an executor or its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slip {
    /// A lease counts from the answer to a renewal, and not from its question.
    CountFromAnswer,
    /// A lease is longer than the time after which a leader gives a silent node up.
    LongLease,
    /// Answers go out whatever the clock says.
    IgnoreClock,
    /// Shards are opened without knowing that the lease stands.
    OpenUnconfirmed,
}

/// A shard in the store.
#[derive(Debug, Default, Clone, Copy)]
struct Stored {
    /// Counts openings: whoever opened it last may write.
    writer: u64,
    /// Who that is.
    by: Epoch,
    value: u64,
}

/// The store of all shards.
#[derive(Debug, Default)]
pub(crate) struct ShardStore(BTreeMap<(TenantId, u32), Stored>);

/// A question of a client.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    shard: u32,
    writes: bool,
    /// The highest value that a client had been told when this one asked.
    floor: u64,
    /// The answer, once the work is done.
    value: Option<u64>,
}

impl Ask {
    pub(crate) fn new(shard: u32, writes: bool, floor: u64) -> Ask {
        Ask {
            shard,
            writes,
            floor,
            value: None,
        }
    }
}

/// A shard as it is open here.
#[derive(Debug, Clone, Copy)]
struct Open {
    writer: u64,
    value: u64,
}

/// A shard that is being opened: only if nobody else opens it meanwhile, and when the lease is known to stand.
#[derive(Debug, Clone, Copy)]
struct Opening {
    expected: u64,
    number: u64,
}

/// Surroundings of an executor in one step.
pub(crate) struct Around<'a> {
    pub(crate) executor: Epoch,
    pub(crate) tenant: &'a TenantId,
    pub(crate) store: &'a mut ShardStore,
    pub(crate) now_ns: u64,
    pub(crate) slip: Option<Slip>,
}

impl Around<'_> {
    fn stored(&mut self, shard: u32) -> &mut Stored {
        let key = (self.tenant.clone(), shard);
        self.store.0.entry(key).or_default()
    }
}

/// Outcome of a step.
#[derive(Debug)]
pub(crate) enum Served {
    Nothing,
    /// It asks whether its lease stands.
    Confirm(u64),
    /// It has opened a shard.
    Opened(Opened),
    /// It answers a client.
    Answered(Answered),
}

/// A shard was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) executor: Epoch,
    pub(crate) tenant: TenantId,
    pub(crate) shard: u32,
    /// The opening before: whoever had it open is fenced.
    pub(crate) fenced: u64,
    /// Another executor had opened it before.
    pub(crate) taken_over: bool,
}

/// A client was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) executor: Epoch,
    pub(crate) tenant: TenantId,
    pub(crate) shard: u32,
    pub(crate) value: u64,
    /// The highest value that a client had been told when this one asked.
    pub(crate) floor: u64,
}

/// The shards of one executor.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    until_ns: u64,
    confirmed: u64,
    /// Number of the last question whether the lease stands.
    asked: u64,
    shards: BTreeSet<u32>,
    open: BTreeMap<u32, Open>,
    opening: BTreeMap<u32, Opening>,
    asks: VecDeque<Ask>,
}

impl Serving {
    /// The lease stands.
    pub(crate) fn renewed(&mut self, until_ns: u64, confirmed: u64) {
        self.until_ns = self.until_ns.max(until_ns);
        self.confirmed = self.confirmed.max(confirmed);
    }

    /// Shards were granted to the executor.
    pub(crate) fn granted(&mut self, shards: impl IntoIterator<Item = u32>) {
        self.shards.extend(shards);
    }

    /// Returns whether the executor knows that a shard is its own.
    pub(crate) fn has(&self, shard: u32) -> bool {
        self.shards.contains(&shard)
    }

    /// Shards for which it may answer now.
    pub(crate) fn valid(&self, now_ns: u64) -> impl Iterator<Item = u32> {
        let stands = now_ns < self.until_ns;
        self.shards.iter().copied().filter(move |_| stands)
    }

    /// The opening under which a shard is open here.
    pub(crate) fn writer(&self, shard: u32) -> Option<u64> {
        self.open.get(&shard).map(|open| open.writer)
    }

    /// A client asks. Returns false if too many do.
    pub(crate) fn ask(&mut self, ask: Ask) -> bool {
        let has_room = self.asks.len() < MAX_ASKS;
        if has_room {
            // The question says that the shard is its own.
            self.shards.insert(ask.shard);
            self.asks.push_back(ask);
        }
        has_room
    }

    /// Questions without an answer.
    pub(crate) fn n_asks(&self) -> usize {
        self.asks.len()
    }

    /// Closes a shard, as if nobody had used it for long.
    pub(crate) fn close(&mut self, shard: u32) {
        self.open.remove(&shard);
    }

    /// Goes on with one of the questions, which is there.
    pub(crate) fn step(&mut self, around: &mut Around<'_>, position: usize) -> Served {
        let Ask { shard, value, .. } = self.asks[position];
        match (value, self.open.contains_key(&shard)) {
            (Some(value), _) => self.answer(around, position, value),
            (None, true) => self.work(around, position),
            (None, false) => self.open_shard(around, shard),
        }
    }

    fn open_shard(&mut self, around: &mut Around<'_>, shard: u32) -> Served {
        let stored = *around.stored(shard);
        let Some(opening) = self.opening.get(&shard).copied() else {
            self.asked += 1;
            let opening = Opening {
                expected: stored.writer,
                number: self.asked,
            };
            self.opening.insert(shard, opening);
            return Served::Confirm(self.asked);
        };
        let unconfirmed = around.slip == Some(Slip::OpenUnconfirmed);
        if self.confirmed < opening.number && !unconfirmed {
            return Served::Nothing;
        }
        self.opening.remove(&shard);
        if stored.writer != opening.expected {
            // Somebody else has opened it meanwhile: it begins anew.
            return Served::Nothing;
        }
        self.opened(around, shard, stored)
    }

    fn opened(&mut self, around: &mut Around<'_>, shard: u32, before: Stored) -> Served {
        let stored = Stored {
            writer: before.writer + 1,
            by: around.executor,
            value: before.value,
        };
        *around.stored(shard) = stored;
        let open = Open {
            writer: stored.writer,
            value: stored.value,
        };
        self.open.insert(shard, open);
        Served::Opened(Opened {
            executor: around.executor,
            tenant: around.tenant.clone(),
            shard,
            fenced: before.writer,
            taken_over: before.writer > 0 && before.by != around.executor,
        })
    }

    /// Reads what it has in memory, or writes to the store.
    fn work(&mut self, around: &mut Around<'_>, position: usize) -> Served {
        let Ask { shard, writes, .. } = self.asks[position];
        let Some(mut open) = self.open.get(&shard).copied() else {
            return Served::Nothing;
        };
        if writes {
            let stored = around.stored(shard);
            if stored.writer != open.writer {
                // Fenced: it opens the shard again, if its lease stands.
                self.open.remove(&shard);
                return Served::Nothing;
            }
            stored.value += 1;
            open.value = stored.value;
            self.open.insert(shard, open);
        }
        self.asks[position].value = Some(open.value);
        Served::Nothing
    }

    /// Answers, if the lease stands after the work was done.
    fn answer(&mut self, around: &mut Around<'_>, position: usize, value: u64) -> Served {
        let stands = around.now_ns < self.until_ns;
        if !stands && around.slip != Some(Slip::IgnoreClock) {
            return Served::Nothing;
        }
        match self.asks.remove(position) {
            None => Served::Nothing,
            Some(ask) => Served::Answered(Answered {
                executor: around.executor,
                tenant: around.tenant.clone(),
                shard: ask.shard,
                value,
                floor: ask.floor,
            }),
        }
    }
}
