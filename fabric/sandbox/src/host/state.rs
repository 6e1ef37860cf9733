//! State of the actor whose turn it is.

use super::asked::outside_turn;
use super::{Host, HostResult};
use crate::bindings::state;

impl state::Host for Host {
    async fn get(&mut self, key: Vec<u8>) -> HostResult<Option<Vec<u8>>> {
        let Some(turn) = self.turn.as_deref_mut() else {
            return outside_turn();
        };
        let asked = self.cpu.wait(turn.get(&key)).await;
        self.asked(asked.map(|value| value.map(Vec::from)))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> HostResult<()> {
        self.ask_turn(|turn| turn.put(key, value))
    }

    fn delete(&mut self, key: Vec<u8>) -> HostResult<()> {
        self.ask_turn(|turn| turn.delete(key))
    }

    async fn scan(
        &mut self,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        limit: u32,
    ) -> HostResult<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some(turn) = self.turn.as_deref_mut() else {
            return outside_turn();
        };
        let asked = self.cpu.wait(turn.scan(start, end, limit)).await;
        self.asked(asked)
    }

    fn answer_early(&mut self) -> HostResult<()> {
        self.ask_turn(|turn| turn.answer_early())
    }
}
