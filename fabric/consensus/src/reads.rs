//! Questions up to which entry the group has committed: a state that has applied it shows whatever was
//! acknowledged before the question.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use tokio::sync::oneshot;

use crate::error::Error;

/// Questions that wait at the same time.
const MAX_READS: usize = 4_096;

/// Whoever waits for an index.
pub(crate) type ReadAsker = oneshot::Sender<Result<u64, Error>>;

/// Questions without an answer, by number.
pub(crate) struct Reads {
    /// This member: a leader tells questions of several members apart by it.
    member: u64,
    /// Drawn at each start: an answer to a question of an earlier life must not pass for one of this life, and a
    /// leader that still has the earlier question must not take the new one for it.
    life: u64,
    last: u64,
    waiting: BTreeMap<u64, (ReadAsker, usize)>,
}

impl Reads {
    pub(crate) fn new(member: u64) -> Self {
        Self {
            member,
            life: RandomState::new().build_hasher().finish(),
            last: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// Takes a question in, and returns what Raft is to give back with its answer; nothing if too many
    /// wait. `patience`: ticks after which it has no answer.
    pub(crate) fn insert(&mut self, asker: ReadAsker, patience: usize) -> Option<Vec<u8>> {
        if self.waiting.len() >= MAX_READS {
            let _ = asker.send(Err(Error::Backlog));
            return None;
        }
        self.last += 1;
        self.waiting.insert(self.last, (asker, patience));
        Some(self.context(self.last))
    }

    fn context(&self, number: u64) -> Vec<u8> {
        [self.member, self.life, number]
            .map(u64::to_le_bytes)
            .concat()
    }

    /// An answer: the index up to which the group had committed.
    pub(crate) fn answer(&mut self, context: &[u8], index: u64) {
        let number = context.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let number = number.filter(|number| self.context(*number) == context);
        let asked = number.and_then(|number| self.waiting.remove(&number));
        if let Some((asker, _)) = asked {
            // Nobody listens where the caller dropped its future.
            let _ = asker.send(Ok(index));
        }
    }

    /// Time has passed: questions that were lost on their way are given up.
    pub(crate) fn tick(&mut self) {
        let lost = self.waiting.extract_if(.., |_, (asker, patience)| {
            *patience = patience.saturating_sub(1);
            *patience == 0 || asker.is_closed()
        });
        for (_, (asker, _)) in lost {
            let _ = asker.send(Err(Error::NotLeader { leader: None }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_an_earlier_life_are_passed_over() {
        let [mut earlier, mut reads] = [Reads::new(1), Reads::new(1)];
        let (asker, _) = oneshot::channel();
        let context = earlier.insert(asker, 3).unwrap();
        let (asker, mut answered) = oneshot::channel();
        assert_ne!(reads.insert(asker, 3).unwrap(), context);
        reads.answer(&context, 5);
        assert!(answered.try_recv().is_err());
    }

    #[test]
    fn questions_are_answered_or_given_up() {
        let mut reads = Reads::new(1);
        let (asker, mut answered) = oneshot::channel();
        let context = reads.insert(asker, 3).unwrap();
        let (asker, mut lost) = oneshot::channel();
        reads.insert(asker, 2).unwrap();
        reads.answer(&[1], 5);
        reads.answer(&context, 7);
        assert_eq!(answered.try_recv().unwrap().unwrap(), 7);
        reads.tick();
        assert!(lost.try_recv().is_err());
        reads.tick();
        assert!(lost.try_recv().unwrap().is_err());
        assert!(reads.waiting.is_empty());
    }
}
