//! One change of a manifest that several writers may change: read, decide, write if nothing has changed since. Pure:
//! answers of a store come in, the next request goes out.
//!
//! ```text
//! Read ──found──▶ decide ──nothing to do──▶ end
//!   ▲ │ unknown      │ a manifest
//!   └─┘              ▼
//!   ▲            Write, if it is still the one that was read ──done──▶ end
//!   └────────────────┘ any error
//! ```
//!
//! A conditional write that the client repeats finds its own success, and reports a conflict. So any error is followed
//! by another read, and what is decided then knows a change of its own when it sees it.

/// Tries of one change, before it is given up and repeated as a whole later.
pub(super) const MAX_TRIES: u32 = 64;

/// The next request of a change, or its end.
#[derive(Debug)]
pub(super) enum Turn<M> {
    Read,
    /// Writes the manifest if the one that was read is still there.
    Write(M),
    Done,
    GivenUp,
}

/// A change under way.
#[derive(Debug, Default)]
pub(super) struct Swap {
    tries: u32,
}

impl Swap {
    /// Requests that failed so far.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    fn again<M>(&mut self) -> Turn<M> {
        self.tries += 1;
        match self.tries >= MAX_TRIES {
            true => Turn::GivenUp,
            false => Turn::Read,
        }
    }

    /// Takes what was decided about a manifest that was read: the one to write, if any.
    pub(super) fn decided<M>(&self, change: Option<M>) -> Turn<M> {
        change.map_or(Turn::Done, Turn::Write)
    }

    /// The store did not answer a read.
    pub(super) fn unread<M>(&mut self) -> Turn<M> {
        self.again()
    }

    /// Takes the answer to a write.
    pub(super) fn written<M>(&mut self, is_done: bool) -> Turn<M> {
        match is_done {
            true => Turn::Done,
            false => self.again(),
        }
    }
}
