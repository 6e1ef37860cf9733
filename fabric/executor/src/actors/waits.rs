//! Turns that wait for other actors: they are bounded, and none waits for itself.

use std::collections::HashMap;
use std::sync::Mutex;

use weft_core::{ActorRef, ErrorCode, Problem, lock};

use super::bounds::MAX_WAITING_TURNS;
use super::turn::waits_for_itself;

/// Whom the turn of an actor waits for.
#[derive(Default)]
pub(super) struct Waits(Mutex<HashMap<ActorRef, ActorRef>>);

/// A turn that waits, until this is dropped.
pub(super) struct Waiting<'a> {
    waits: &'a Waits,
    from: ActorRef,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.waits.0).remove(&self.from);
    }
}

impl Waits {
    /// The turn of `from` is about to wait for a turn of `to`.
    ///
    /// Errors: too many wait; `to` waits for `from`, directly or not, so both would until their deadlines.
    pub(super) fn begin(&self, from: &ActorRef, to: &ActorRef) -> Result<Waiting<'_>, Problem> {
        let mut waits = lock(&self.0);
        if waits.len() >= MAX_WAITING_TURNS {
            let detail = format!(
                "`{to}` is not invoked: {MAX_WAITING_TURNS} turns wait for other actors already, the most at a time; \
                 try again, or send a message instead"
            );
            return Err(Problem::new(ErrorCode::Busy, detail));
        }
        if let Some(circle) = circle(&waits, from, to) {
            return Err(Problem::new(ErrorCode::Busy, waits_for_itself(&circle)));
        }
        waits.insert(from.clone(), to.clone());
        Ok(Waiting {
            waits: self,
            from: from.clone(),
        })
    }
}

/// The actors that would wait for each other, `from` first.
fn circle(
    waits: &HashMap<ActorRef, ActorRef>,
    from: &ActorRef,
    to: &ActorRef,
) -> Option<Vec<ActorRef>> {
    let mut circle = vec![from.clone()];
    let mut next = to;
    while circle.len() <= MAX_WAITING_TURNS {
        if next == from {
            return Some(circle);
        }
        circle.push(next.clone());
        next = waits.get(next)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(key: &str) -> ActorRef {
        ActorRef::new("bank", "account", key).expect("a valid key")
    }

    #[test]
    fn circles_are_refused_by_whoever_would_close_them() {
        let waits = Waits::default();
        let first = waits.begin(&actor("a"), &actor("b")).expect("it may");
        let _second = waits.begin(&actor("b"), &actor("c")).expect("it may");
        let refused = waits.begin(&actor("c"), &actor("a")).map(drop);
        let problem = refused.expect_err("it closes the circle");
        let circle = "bank/account/c → bank/account/a → bank/account/b → bank/account/c";
        assert!(problem.detail.contains(circle), "{problem}");
        drop(first);
        assert!(waits.begin(&actor("c"), &actor("a")).is_ok());
    }

    #[test]
    fn threads_are_left_for_those_who_are_waited_for() {
        let waits = Waits::default();
        let waiting: Vec<Waiting> = (0..MAX_WAITING_TURNS)
            .map(|n| {
                waits
                    .begin(&actor(&n.to_string()), &actor("x"))
                    .expect("it may")
            })
            .collect();
        let refused = waits.begin(&actor("one more"), &actor("x")).map(drop);
        let problem = refused.expect_err("too many wait");
        assert!(problem.detail.contains("96 turns"), "{problem}");
        drop(waiting);
        assert!(waits.begin(&actor("one more"), &actor("x")).is_ok());
    }
}
