//! State, actors and futures in a component: what it imports. The names are those of `native_outside.rs`.

use crate::bindings::weft::fabric::{actors, state, tasks};
use crate::{Error, Result};

pub(crate) fn get(key: &[u8]) -> Result<Option<Vec<u8>>> {
    state::get(key).map_err(Error::new)
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Result<()> {
    state::put(key, value).map_err(Error::new)
}

pub(crate) fn delete(key: &[u8]) -> Result<()> {
    state::delete(key).map_err(Error::new)
}

pub(crate) fn scan(
    start: &[u8],
    end: Option<&[u8]>,
    limit: u32,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    state::scan(start, end, limit).map_err(Error::new)
}

pub(crate) fn answer_early() -> Result<()> {
    state::answer_early().map_err(Error::new)
}

pub(crate) fn now_ms() -> u64 {
    actors::now_ms()
}

pub(crate) fn set_alarm(at_ms: u64) -> Result<()> {
    actors::set_alarm(at_ms).map_err(Error::new)
}

pub(crate) fn clear_alarm() -> Result<()> {
    actors::clear_alarm().map_err(Error::new)
}

pub(crate) fn tell(actor: &str, key: &str, method: &str, input: &[u8]) -> Result<()> {
    actors::tell(actor, key, method, input).map_err(Error::new)
}

pub(crate) fn invoke(actor: &str, key: &str, method: &str, input: &[u8]) -> Result<Vec<u8>> {
    actors::invoke(actor, key, method, input).map_err(Error::new)
}

pub(crate) fn spawn(function: &str, input: &[u8]) -> Result<u64> {
    tasks::spawn(function, input).map_err(Error::new)
}

pub(crate) fn join(future: u64) -> Result<Vec<u8>> {
    tasks::join(future).map_err(Error::new)
}

pub(crate) fn select(futures: &[u64]) -> Result<u32> {
    tasks::select(futures).map_err(Error::new)
}

pub(crate) fn cancel(future: u64) {
    tasks::cancel(future);
}
