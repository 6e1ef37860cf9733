//! Commands are applied once, however often they are proposed.
//!
//! A proposer that loses its leader does not know whether its command was applied, and proposes it
//! again with the same origin and sequence. The state then gives the stored answer.
//!
//! ```text
//! sequence:   … forgotten … │ floor … answers that are kept … │ not seen yet
//!              refused      │ the same answer again           │ applied
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::{ErrorCode, Incarnation, Problem};

use crate::bounds::{MAX_ORIGIN_ANSWERS, MAX_ORIGINS};
use crate::command::Answer;

/// Who proposes a command, and which of its commands it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Life of the process that asks for the command.
    pub incarnation: Incarnation,
    /// Number of the command in that life.
    pub sequence: u64,
    /// Commands with lower numbers have been answered, and are not proposed again.
    pub answered_below: u64,
}

/// One origin's commands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Answered {
    /// When its last command came, in Unix milliseconds.
    seen_ms: u64,
    /// Answers to lower numbers are forgotten.
    floor: u64,
    answers: BTreeMap<u64, Answer>,
}

/// Answers by origin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origins {
    by: BTreeMap<Incarnation, Answered>,
}

impl Origins {
    /// Returns the answer that a command got before, or nothing if it is new.
    pub(crate) fn answered(&self, origin: &Origin) -> Option<Answer> {
        let known = self.by.get(&origin.incarnation)?;
        if origin.sequence < known.floor {
            let detail = format!(
                "command {} of `{}` was answered before, and its answer is forgotten",
                origin.sequence, origin.incarnation
            );
            let problem = Problem::new(ErrorCode::Internal, detail);
            return Some(Answer::Refused { problem });
        }
        if let Some(answer) = known.answers.get(&origin.sequence) {
            return Some(answer.clone());
        }
        (known.answers.len() >= MAX_ORIGIN_ANSWERS).then(|| Answer::Refused {
            problem: too_many(origin),
        })
    }

    /// Stores the answer to a new command, and forgets those that nobody asks for any more.
    pub(crate) fn answer(&mut self, origin: Origin, answer: Answer, at_ms: u64) {
        if !self.by.contains_key(&origin.incarnation) && self.by.len() >= MAX_ORIGINS {
            self.forget_oldest();
        }
        let known = self.by.entry(origin.incarnation).or_default();
        known.seen_ms = at_ms;
        known.answers.insert(origin.sequence, answer);
    }

    /// Records that the origin has had answers to all commands below `answered_below`.
    pub(crate) fn acknowledged(&mut self, origin: &Origin) {
        let Some(known) = self.by.get_mut(&origin.incarnation) else {
            return;
        };
        if known.floor < origin.answered_below {
            known.floor = origin.answered_below;
            known.answers = known.answers.split_off(&known.floor);
        }
    }

    fn forget_oldest(&mut self) {
        let by_age = self.by.iter().min_by_key(|(_, known)| known.seen_ms);
        if let Some(oldest) = by_age.map(|(incarnation, _)| *incarnation) {
            self.by.remove(&oldest);
        }
    }

    /// Forgets origins whose last command came before `before_ms`, unless they live.
    pub(crate) fn expire(&mut self, before_ms: u64, lives: impl Fn(&Incarnation) -> bool) {
        self.by
            .retain(|incarnation, known| known.seen_ms >= before_ms || lives(incarnation));
    }

    /// Returns whether some origin's last command came before `before_ms`.
    pub fn any_before(&self, before_ms: u64) -> bool {
        self.by.values().any(|known| known.seen_ms < before_ms)
    }
}

/// Not stored: the command may be proposed again.
fn too_many(origin: &Origin) -> Problem {
    let detail = format!(
        "{MAX_ORIGIN_ANSWERS} commands of `{}` are answered and not acknowledged; try again",
        origin.incarnation
    );
    Problem::new(ErrorCode::Busy, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(byte: u8, sequence: u64, answered_below: u64) -> Origin {
        Origin {
            incarnation: Incarnation::from_random([byte; 16]),
            sequence,
            answered_below,
        }
    }

    #[test]
    fn answers_are_given_again_until_they_are_acknowledged() {
        let mut origins = Origins::default();
        for sequence in 1..=3 {
            assert_eq!(origins.answered(&origin(1, sequence, 0)), None);
            origins.answer(origin(1, sequence, 0), Answer::Done, 5);
        }
        assert_eq!(origins.answered(&origin(1, 2, 0)), Some(Answer::Done));
        assert_eq!(origins.answered(&origin(2, 2, 0)), None, "another origin");
        origins.acknowledged(&origin(1, 4, 3));
        origins.answer(origin(1, 4, 3), Answer::Done, 6);
        let forgotten = origins.answered(&origin(1, 2, 0));
        assert!(matches!(forgotten, Some(Answer::Refused { .. })));
        assert_eq!(origins.answered(&origin(1, 3, 3)), Some(Answer::Done));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut origins = Origins::default();
        let most = MAX_ORIGIN_ANSWERS as u64;
        for sequence in 0..most {
            origins.answer(origin(1, sequence, 0), Answer::Done, 1);
        }
        let refused = origins.answered(&origin(1, most, 0));
        assert!(
            matches!(refused, Some(Answer::Refused { problem }) if problem.code == ErrorCode::Busy),
            "no answer that may be asked for is forgotten"
        );
        assert_eq!(origins.answered(&origin(1, 0, 0)), Some(Answer::Done));
        origins.acknowledged(&origin(1, most, 7));
        assert_eq!(origins.answered(&origin(1, most, 7)), None);
        for number in 0..MAX_ORIGINS as u64 {
            let mut one = origin(2, 1, 0);
            let name = format!("{number:032x}");
            one.incarnation = name.parse().expect("32 digits");
            origins.answer(one, Answer::Done, 2 + number);
        }
        assert_eq!(origins.by.len(), MAX_ORIGINS);
        assert!(!origins.by.contains_key(&origin(1, 0, 0).incarnation));
        assert!(origins.any_before(12));
        origins.expire(12, |_| false);
        assert!(!origins.any_before(12));
        assert_eq!(origins.by.len(), MAX_ORIGINS - 10);
    }
}
