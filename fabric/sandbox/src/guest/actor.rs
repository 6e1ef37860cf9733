//! Turns of an actor: one instance, called again and again, with a new limit and a new view of its state each time.
//!
//! ```text
//! begin_turn ──▶ wake (once) ──▶ invoke_actor or alarm ──▶ end_turn: the turn with its writes
//! ```

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weft_core::{FunctionKind, FunctionRecord, LimitKind};

use super::{CALL_WALL_MAX, Guest, START_WALL_MAX, wait};
use crate::component::Exports;
use crate::fault::{Fault, Result};
use crate::log::TaskLog;
use crate::outside::Turn;

/// Settings of one turn.
pub struct TurnSettings {
    /// State and messages, as the guest sees and writes them.
    pub turn: Box<dyn Turn>,
    /// CPU time of the turn.
    pub cpu_limit_ns: u64,
    /// Log of the turn.
    pub log: Arc<TaskLog>,
    /// Stops the guest at the next tick.
    pub cancel: CancellationToken,
    /// Time at which the wall clock stands, in Unix milliseconds.
    pub now_ms: u64,
}

/// A component's actors out of either set of bindings. Nobody asks whether their turns are repeatable.
macro_rules! actors {
    ($found:expr) => {
        $found
            .into_iter()
            .map(|actor| FunctionRecord {
                name: actor.name,
                kind: FunctionKind::Actor,
                summary: actor.summary,
                deterministic: false,
            })
            .collect()
    };
}

impl Guest {
    /// Asks the component for its actors, if it may have any. Their names are not checked.
    pub(super) async fn describe_actors(&mut self) -> Result<Vec<FunctionRecord>> {
        describe!(self, actor, actors)
    }

    /// Begins a turn. The limit of CPU time counts from here; the meters go on.
    pub fn begin_turn(&mut self, settings: TurnSettings) {
        let host = self.store.data_mut();
        host.wasi.begin_turn(settings.now_ms, &settings.log);
        host.cpu.begin_turn(settings.cpu_limit_ns);
        host.output_before_bytes = host.output_bytes;
        host.turn = Some(settings.turn);
        host.log = settings.log;
        host.cancel = settings.cancel;
    }

    /// Ends the turn, after a fault as well, and returns it. Nothing if none began.
    pub fn end_turn(&mut self) -> Option<Box<dyn Turn>> {
        self.store.data_mut().turn.take()
    }

    /// Makes the instance of `key`, within a turn. To be called before all others, and once.
    pub async fn wake(&mut self, actor: &str, key: &str) -> Result<()> {
        call!(self, actor, "actor", call_wake(actor, key))?.map_err(|message| self.failed(message))
    }

    /// Invokes a method of the actor. The answer may be as long as the output of a call.
    pub async fn invoke_actor(&mut self, method: &str, input: &[u8]) -> Result<Vec<u8>> {
        let output = call!(self, actor, "actor", call_invoke(method, input))?
            .map_err(|message| self.failed(message))?;
        let host = self.store.data_mut();
        let bytes = output.len() as u64;
        host.output_bytes += bytes;
        if bytes > host.output_limit_bytes {
            let limit = format!("{} bytes", host.output_limit_bytes);
            return Err(Fault::limit(LimitKind::Output, limit));
        }
        Ok(output)
    }

    /// Tells the actor that its alarm is due.
    pub async fn alarm(&mut self) -> Result<()> {
        call!(self, actor, "actor", call_alarm())?.map_err(|message| self.failed(message))
    }
}
