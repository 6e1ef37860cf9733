//! Actors: an instance for each key, its state, and what it may do in a turn.

use crate::{Result, outside};

/// An actor: one instance for each key, one turn at a time. A turn is a call of `invoke` or `alarm`.
///
/// Writes, the alarm and messages of a turn commit together before its answer goes out; after an error none of them is
/// kept. Fields are a cache of the state: the value is dropped when the actor is idle, after an error, and with a new
/// version of the component, and `wake` makes it anew. Whatever must last belongs into the [`State`].
///
/// ```
/// use weft::prelude::*;
///
/// struct Counter {
///     n: u64,
/// }
///
/// impl Actor for Counter {
///     fn wake(_: &str, state: &State) -> Result<Counter> {
///         let n = match state.get("n")? {
///             Some(n) => String::from_utf8(n)?.parse::<u64>()?,
///             None => 0,
///         };
///         Ok(Counter { n })
///     }
///
///     fn invoke(&mut self, method: &str, _: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
///         match method {
///             "add" => self.n += 1,
///             "get" => {}
///             _ => return Err(format!("no method `{method}`").into()),
///         }
///         let n = self.n.to_string();
///         cx.state().put("n", &n)?;
///         Ok(n.into_bytes())
///     }
/// }
///
/// let mut counter = weft::testing::TestActor::<Counter>::new("hits");
/// counter.invoke("add", "").unwrap();
/// counter.sleep();
/// assert_eq!(counter.invoke("add", "").unwrap(), b"2");
/// ```
pub trait Actor: Sized {
    /// Makes the instance of `key` from its state, which is empty for a new actor. Runs before the first turn, and
    /// again
    /// after the instance was dropped.
    fn wake(key: &str, state: &State) -> Result<Self>;

    /// Handles an invocation or a message.
    fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>>;

    /// Runs when the alarm is due: at least once, and again some time after an error. Set a new alarm here to go on.
    fn alarm(&mut self, cx: &mut Context) -> Result<()> {
        let _ = cx;
        Ok(())
    }
}

/// State of an actor: values by key, in the order of the keys' bytes. Reads see the turn's own writes.
///
/// Reads and writes fail if a limit is reached.
#[derive(Debug)]
pub struct State(());

impl State {
    pub(crate) fn new() -> State {
        State(())
    }

    /// The value of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        outside::get(key.as_ref())
    }

    /// Writes a value.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        outside::put(key.as_ref(), value.as_ref())
    }

    /// Removes a key. One that is not there stays so.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        outside::delete(key.as_ref())
    }

    /// Up to `limit` entries from `start` on and before `end`, in the order of their keys. Read longer ranges in
    /// several
    /// scans: the next one starts at the last key with a zero byte appended.
    pub fn scan(
        &self,
        start: impl AsRef<[u8]>,
        end: Option<&[u8]>,
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        outside::scan(start.as_ref(), end, limit)
    }

    /// Up to `limit` entries whose keys begin with `prefix`, in the order of their keys.
    pub fn scan_prefix(
        &self,
        prefix: impl AsRef<[u8]>,
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let prefix = prefix.as_ref();
        outside::scan(prefix, after_prefix(prefix).as_deref(), limit)
    }

    /// Has answers of this actor go out before its writes are durable, from now on: the last of them may be lost with
    /// their node. Call it in [`Actor::wake`].
    pub fn answer_early(&self) -> Result<()> {
        outside::answer_early()
    }
}

/// The first key behind all that begin with `prefix`; `None` if nothing is behind them.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

/// The turn of an actor: its key, its state, its alarm, and other actors.
///
/// `actor` names an actor of the same component, `component/actor` one of another.
#[derive(Debug)]
pub struct Context {
    key: String,
    state: State,
}

impl Context {
    pub(crate) fn new(key: String) -> Context {
        Context {
            key,
            state: State::new(),
        }
    }

    /// The key of this instance.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The state of this instance.
    pub fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// When the turn began, in Unix milliseconds. Stands still during the turn.
    pub fn now_ms(&self) -> u64 {
        outside::now_ms()
    }

    /// Sets the alarm, in Unix milliseconds, in place of the one that is set: an actor has one. [`Actor::alarm`] runs
    /// then or soon after.
    pub fn set_alarm(&mut self, at_ms: u64) -> Result<()> {
        outside::set_alarm(at_ms)
    }

    /// Clears the alarm, if one is set.
    pub fn clear_alarm(&mut self) -> Result<()> {
        outside::clear_alarm()
    }

    /// Sends a message, which commits with the turn and becomes one invocation of the receiver. Nobody gets its answer.
    /// Messages between two actors arrive in the order in which they were sent.
    pub fn tell(
        &mut self,
        actor: &str,
        key: &str,
        method: &str,
        input: impl AsRef<[u8]>,
    ) -> Result<()> {
        outside::tell(actor, key, method, input.as_ref())
    }

    /// Invokes an actor, and waits for its answer. Writes of the other turn stay, also if this turn fails. Fails if the
    /// other actor waits for this turn, directly or through others.
    pub fn invoke(
        &mut self,
        actor: &str,
        key: &str,
        method: &str,
        input: impl AsRef<[u8]>,
    ) -> Result<Vec<u8>> {
        outside::invoke(actor, key, method, input.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn prefixes_have_an_end() {
        assert_eq!(after_prefix(b"entry/"), Some(b"entry0".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
