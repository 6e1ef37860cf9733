//! Messages of the actor whose turn it is, and its alarm.

use super::asked::outside_turn;
use super::{Host, HostResult};
use crate::bindings::actors;

impl actors::Host for Host {
    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(self.wasi.now_ms())
    }

    fn set_alarm(&mut self, at_ms: u64) -> HostResult<()> {
        self.ask_turn(|turn| turn.set_alarm(Some(at_ms)))
    }

    fn clear_alarm(&mut self) -> HostResult<()> {
        self.ask_turn(|turn| turn.set_alarm(None))
    }

    fn tell(
        &mut self,
        actor: String,
        key: String,
        method: String,
        input: Vec<u8>,
    ) -> HostResult<()> {
        self.ask_turn(|turn| turn.tell(&actor, key, method, input))
    }

    async fn invoke(
        &mut self,
        actor: String,
        key: String,
        method: String,
        input: Vec<u8>,
    ) -> HostResult<Vec<u8>> {
        let Some(turn) = self.turn.as_deref_mut() else {
            return outside_turn();
        };
        let asked = self.cpu.wait(turn.invoke(&actor, key, method, input)).await;
        self.asked(asked)
    }
}
