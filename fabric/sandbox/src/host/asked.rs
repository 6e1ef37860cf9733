//! Answers from outside the sandbox, as guests see them.

use super::{Host, HostResult};
use crate::fault::{Fault, bounded};
use crate::outside::{Asked, Refusal, Turn};

/// Tells a guest that nothing of an actor is at hand.
pub(super) fn outside_turn<T>() -> HostResult<T> {
    Ok(Err(
        "only the turn of an actor has state, an alarm and messages".into(),
    ))
}

impl Host {
    /// Hands an answer to the guest, or stops it.
    pub(super) fn asked<T>(&mut self, asked: Asked<T>) -> HostResult<T> {
        match asked {
            Ok(value) => Ok(Ok(value)),
            Err(Refusal::Told(message)) => Ok(Err(bounded(message))),
            Err(Refusal::Stopped(fault)) => self.stop(fault),
            Err(Refusal::Failed(problem)) => self.stop(Fault::Refused(Box::new(problem))),
        }
    }

    /// Asks the turn for something that does not wait.
    pub(super) fn ask_turn<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn Turn) -> Asked<T>,
    ) -> HostResult<T> {
        let Some(turn) = self.turn.as_deref_mut() else {
            return outside_turn();
        };
        let asked = ask(turn);
        self.asked(asked)
    }
}
