//! Commands on their way: from the caller to the log, and the answer back.

use std::collections::BTreeMap;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Error;
use crate::position::Position;

/// One command that waits to enter the log.
pub(crate) struct Proposal {
    pub(crate) command: Vec<u8>,
    pub(crate) asker: Asker,
}

/// Whoever waits for the outcome of one command, and counts against `max_queued_proposals` until then.
pub(crate) struct Asker {
    pub(crate) answer: oneshot::Sender<Result<Vec<u8>, Error>>,
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl Asker {
    pub(crate) fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    pub(crate) fn answer(self, outcome: Result<Vec<u8>, Error>) {
        // Nobody listens where the caller dropped its future, which is its right.
        let _ = self.answer.send(outcome);
    }
}

/// The commands in the log of a leader whose outcome is open.
#[derive(Default)]
pub(crate) struct Proposals {
    waiting: BTreeMap<Position, Asker>,
}

impl Proposals {
    pub(crate) fn insert(&mut self, position: Position, asker: Asker) {
        let before = self.waiting.insert(position, asker);
        debug_assert!(before.is_none(), "two proposals at {position:?}");
    }

    pub(crate) fn take(&mut self, position: Position) -> Option<Asker> {
        self.waiting.remove(&position)
    }

    /// Tells everybody who waits that the outcome is unknown.
    pub(crate) fn leadership_lost(&mut self) {
        for (_, asker) in std::mem::take(&mut self.waiting) {
            asker.answer(Err(Error::LeadershipLost));
        }
    }
}
