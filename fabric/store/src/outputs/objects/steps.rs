//! The steps of one file: its completion, and its removal. Pure: answers of a store come in, the next request goes out.
//!
//! ```text
//! completion: Complete ──done──▶ Published            removal: Abort ──done, missing──▶ Look ──missing──▶ Gone
//!                 │ any error                                    ▲ │ unknown             ▲ │ there
//!                 ▼                                              └─┘                     │ ▼
//!               Look ──right size──▶ Published                                          Delete
//!                 │──other size──▶ Foreign
//!                 │──missing, and the upload was missing──▶ Lost; if an earlier answer was unknown, Look again
//!                 └──missing otherwise──▶ Complete
//! ```
//!
//! A store that answers an error may have done what it was asked; servers answer 404, 500 or nothing to the repetition
//! of a completion. So any error is followed by a look at the object: its key belongs to one attempt, and nobody else
//! writes it. A completion without an answer may still be under way when the next one finds no upload, so what is
//! missing then is looked for again, and lost only if a later try finds the same. An abort that succeeds proves nothing
//! either: some servers answer so with the object published.

/// Requests about one file that fail, before the step is given up and repeated as a whole later.
pub(super) const MAX_TRIES: u32 = 4;

/// An answer, as far as it may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is done.
    Done,
    /// The upload or object is not there.
    Missing,
    /// It may be done or not.
    Unknown,
}

impl Answer {
    pub(super) fn of<T>(result: &object_store::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(object_store::Error::NotFound { .. }) => Self::Missing,
            Err(_) => Self::Unknown,
        }
    }
}

/// A look at the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is there. `is_ours`: it has the size, or the ETag, that the attempt wrote down.
    There { is_ours: bool },
    /// It is not.
    Missing,
    /// The store does not say.
    Unknown,
}

/// The next request of a completion, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Completing {
    Complete,
    Look,
    Published,
    /// Neither the upload nor the object is there.
    Lost,
    /// The object is not what the attempt wrote.
    Foreign,
    /// The store does not say; the completion is to be repeated.
    GivenUp,
}

/// A completion under way.
#[derive(Debug, Default)]
pub(super) struct Completion {
    tries: u32,
    /// The last completion found no upload.
    no_upload: bool,
    /// A completion got no answer that may be believed: it may be under way.
    may_be_done: bool,
}

impl Completion {
    /// Requests that failed so far.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// Takes the answer to a completion.
    pub(super) fn completed(&mut self, answer: Answer) -> Completing {
        self.no_upload = answer == Answer::Missing;
        self.may_be_done |= answer == Answer::Unknown;
        match answer {
            Answer::Done => Completing::Published,
            Answer::Missing | Answer::Unknown => {
                self.tries += 1;
                Completing::Look
            }
        }
    }

    /// Takes what a look has found.
    pub(super) fn looked(&mut self, seen: Seen) -> Completing {
        match seen {
            Seen::There { is_ours: true } => Completing::Published,
            Seen::There { is_ours: false } => Completing::Foreign,
            Seen::Missing if self.no_upload && !self.may_be_done => Completing::Lost,
            Seen::Missing | Seen::Unknown if self.tries >= MAX_TRIES => Completing::GivenUp,
            Seen::Missing if !self.no_upload => Completing::Complete,
            Seen::Missing | Seen::Unknown => {
                self.tries += 1;
                Completing::Look
            }
        }
    }
}

/// The next request of a removal, or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removing {
    Abort,
    Look,
    Delete,
    Gone,
    /// The store does not say; the removal is to be repeated.
    GivenUp,
}

/// A removal under way. It begins with an abort: after that nobody can complete the upload any more.
#[derive(Debug, Default)]
pub(super) struct Removal {
    tries: u32,
    deletions: u32,
}

impl Removal {
    /// Requests that failed so far.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    fn or_give_up(&mut self, next: Removing) -> Removing {
        self.tries += 1;
        match self.tries >= MAX_TRIES {
            true => Removing::GivenUp,
            false => next,
        }
    }

    /// Takes the answer to an abort.
    pub(super) fn aborted(&mut self, answer: Answer) -> Removing {
        match answer {
            Answer::Done | Answer::Missing => Removing::Look,
            // Until the upload is known to be gone, a paused publisher may complete it.
            Answer::Unknown => self.or_give_up(Removing::Abort),
        }
    }

    /// Takes what a look has found.
    pub(super) fn looked(&mut self, seen: Seen) -> Removing {
        match seen {
            Seen::Missing => Removing::Gone,
            Seen::There { .. } if self.deletions >= MAX_TRIES => Removing::GivenUp,
            Seen::There { .. } => Removing::Delete,
            Seen::Unknown => self.or_give_up(Removing::Look),
        }
    }

    /// Goes on after a deletion, whatever its answer: only a look tells.
    pub(super) fn deleted(&mut self) -> Removing {
        self.deletions += 1;
        Removing::Look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's side of one key, whose answers may be lost or wrong.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Key {
        Uploaded,
        Object,
        Nothing,
    }

    /// Server answers to a request that was done or not: each of these is one that servers give.
    fn completions(key: Key) -> Vec<(Answer, Key)> {
        match key {
            Key::Uploaded => vec![
                (Answer::Done, Key::Object),
                (Answer::Unknown, Key::Object),
                (Answer::Unknown, Key::Uploaded),
            ],
            // An answer of 200 comes for a repetition, and 404 and 500 as well.
            Key::Object => vec![
                (Answer::Done, Key::Object),
                (Answer::Missing, Key::Object),
                (Answer::Unknown, Key::Object),
            ],
            Key::Nothing => vec![
                (Answer::Missing, Key::Nothing),
                (Answer::Unknown, Key::Nothing),
            ],
        }
    }

    fn looks(key: Key) -> [Seen; 2] {
        let seen = match key {
            Key::Object => Seen::There { is_ours: true },
            Key::Uploaded | Key::Nothing => Seen::Missing,
        };
        [seen, Seen::Unknown]
    }

    /// Follows all answers that a server may give. Returns the ends, each with the key's state.
    fn all_completions(key: Key) -> Vec<(Completing, Key)> {
        let mut ends = Vec::new();
        let mut open = vec![(Vec::<(Answer, Seen, Key)>::new(), key)];
        // A path is the answers so far; the machine is replayed, as it is cheap.
        while let Some((path, key)) = open.pop() {
            let mut step = Completion::default();
            let mut next = Completing::Complete;
            for (answer, seen, key) in &path {
                next = step.completed(*answer);
                if next == Completing::Look {
                    next = step.looked(*seen);
                    while next == Completing::Look {
                        next = step.looked(looks(*key)[0]);
                    }
                }
            }
            if next != Completing::Complete {
                ends.push((next, key));
                continue;
            }
            for (answer, key) in completions(key) {
                for seen in looks(key) {
                    let mut path = path.clone();
                    path.push((answer, seen, key));
                    open.push((path, key));
                }
            }
        }
        ends
    }

    #[test]
    fn a_completion_is_believed_only_if_the_object_is_there() {
        let ends = all_completions(Key::Uploaded);
        assert!(ends.contains(&(Completing::Published, Key::Object)));
        for (end, key) in ends {
            match end {
                Completing::Published => assert_eq!(key, Key::Object),
                Completing::GivenUp => assert!(matches!(key, Key::Uploaded | Key::Object)),
                other => panic!("{other:?} with {key:?}"),
            }
        }
        let ends = all_completions(Key::Object);
        let published = |(end, _): &(Completing, Key)| *end == Completing::Published;
        assert!(ends.iter().all(published), "{ends:?}");
        for (end, _) in all_completions(Key::Nothing) {
            assert!(matches!(end, Completing::Lost | Completing::GivenUp));
        }
    }

    #[test]
    fn a_removal_ends_with_a_look_that_finds_nothing() {
        let mut removal = Removal::default();
        // A server that says so with the object published.
        assert_eq!(removal.aborted(Answer::Done), Removing::Look);
        let there = Seen::There { is_ours: true };
        assert_eq!(removal.looked(there), Removing::Delete);
        assert_eq!(removal.deleted(), Removing::Look);
        assert_eq!(removal.looked(there), Removing::Delete);
        assert_eq!(removal.deleted(), Removing::Look);
        assert_eq!(removal.looked(Seen::Missing), Removing::Gone);
        let mut removal = Removal::default();
        for _ in 1..MAX_TRIES {
            assert_eq!(removal.aborted(Answer::Unknown), Removing::Abort);
        }
        assert_eq!(removal.aborted(Answer::Unknown), Removing::GivenUp);
    }

    #[test]
    fn a_completion_without_an_answer_is_waited_for() {
        let mut completion = Completion::default();
        assert_eq!(completion.completed(Answer::Unknown), Completing::Look);
        assert_eq!(completion.looked(Seen::Missing), Completing::Complete);
        assert_eq!(completion.completed(Answer::Missing), Completing::Look);
        assert_eq!(completion.looked(Seen::Missing), Completing::Look);
        let there = Seen::There { is_ours: true };
        assert_eq!(completion.looked(there), Completing::Published);
        let mut completion = Completion::default();
        assert_eq!(completion.completed(Answer::Missing), Completing::Look);
        assert_eq!(completion.looked(Seen::Missing), Completing::Lost);
    }

    #[test]
    fn an_object_of_another_size_is_not_taken_for_ours() {
        let mut completion = Completion::default();
        assert_eq!(completion.completed(Answer::Missing), Completing::Look);
        let theirs = Seen::There { is_ours: false };
        assert_eq!(completion.looked(theirs), Completing::Foreign);
    }
}
