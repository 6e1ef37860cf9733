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
/// Requests in a row, but for reads that succeed, that the store does not answer: the client has repeated each of them
/// for a minute already.
const MAX_UNANSWERED: u32 = 4;

/// The answer to a write, as far as it may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is done.
    Done,
    /// Another manifest is there; or this very one, if the client has repeated the request.
    Conflict,
    /// It may be done or not.
    Unknown,
}

impl Written {
    pub(super) fn of<T>(result: &object_store::Result<T>) -> Self {
        use object_store::Error;
        match result {
            Ok(_) => Self::Done,
            Err(
                Error::AlreadyExists { .. }
                | Error::Precondition { .. }
                | Error::NotModified { .. },
            ) => Self::Conflict,
            Err(_) => Self::Unknown,
        }
    }
}

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
    unanswered: u32,
}

impl Swap {
    /// Requests that failed so far.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    fn again<M>(&mut self) -> Turn<M> {
        self.tries += 1;
        match self.tries >= MAX_TRIES || self.unanswered >= MAX_UNANSWERED {
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
        self.unanswered += 1;
        self.again()
    }

    /// Takes the answer to a write.
    pub(super) fn written<M>(&mut self, answer: Written) -> Turn<M> {
        self.unanswered = match answer {
            Written::Done => return Turn::Done,
            Written::Conflict => 0,
            Written::Unknown => self.unanswered + 1,
        };
        self.again()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number of tries of a change that gets this answer to each of its writes.
    fn tries(answer: Written) -> u32 {
        let mut swap = Swap::default();
        loop {
            match swap.decided(Some(())) {
                Turn::Write(()) => {}
                other => panic!("{other:?}"),
            }
            match swap.written::<()>(answer) {
                Turn::Read => {}
                Turn::GivenUp => return swap.tries(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn rivals_are_outlasted_and_a_store_that_is_silent_is_not() {
        assert_eq!(tries(Written::Conflict), MAX_TRIES);
        assert_eq!(tries(Written::Unknown), MAX_UNANSWERED);
        let mut swap = Swap::default();
        for _ in 1..MAX_UNANSWERED {
            assert!(matches!(swap.unread::<()>(), Turn::Read));
        }
        assert!(matches!(swap.unread::<()>(), Turn::GivenUp));
        // An answer, whichever it is, says that the store is there.
        let mut swap = Swap::default();
        for _ in 0..MAX_UNANSWERED {
            assert!(matches!(swap.written::<()>(Written::Unknown), Turn::Read));
            assert!(matches!(swap.written::<()>(Written::Conflict), Turn::Read));
        }
        assert!(matches!(swap.written::<()>(Written::Done), Turn::Done));
    }
}
