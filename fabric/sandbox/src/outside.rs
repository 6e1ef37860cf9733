//! The world outside a guest's sandbox: the state and the messages of an actor's turn, and futures. The executor
//! implements both; the sandbox passes calls on, and turns refusals into what a guest sees.

use async_trait::async_trait;
use bytes::Bytes;
use weft_core::Problem;

use crate::fault::Fault;

/// Why a guest does not get what it asked for.
#[derive(Debug)]
pub enum Refusal {
    /// It is told so, and may go on.
    Told(String),
    /// It is stopped: a limit was reached.
    Stopped(Fault),
    /// It is stopped: the platform failed, and this is the answer of the invocation.
    Failed(Problem),
}

/// Result of what a guest asks for.
pub type Asked<T> = Result<T, Refusal>;

/// One turn of an actor: its state as the turn sees it, and its writes until they are committed.
#[async_trait]
pub trait Turn: Send {
    /// The value of a key: the turn's own write, or else what is committed.
    async fn get(&mut self, key: &[u8]) -> Asked<Option<Bytes>>;

    /// Writes a value.
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Asked<()>;

    /// Removes a key.
    fn delete(&mut self, key: Vec<u8>) -> Asked<()>;

    /// Up to `limit` entries from `start` on and before `end`, in the order of their keys, the turn's own writes
    /// included.
    async fn scan(
        &mut self,
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        limit: u32,
    ) -> Asked<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Answers of this actor need not wait for its writes from now on.
    fn answer_early(&mut self) -> Asked<()>;

    /// Sets the alarm, in Unix milliseconds, or clears it.
    fn set_alarm(&mut self, at_ms: Option<u64>) -> Asked<()>;

    /// Puts a message into the outbox. `actor` names one of the same component, or `component/actor`.
    fn tell(&mut self, actor: &str, key: String, method: String, input: Vec<u8>) -> Asked<()>;

    /// Invokes another actor, and waits for its answer.
    async fn invoke(
        &mut self,
        actor: &str,
        key: String,
        method: String,
        input: Vec<u8>,
    ) -> Asked<Vec<u8>>;

    /// The turn as what it is, for whoever made it.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}

/// Futures of one invocation. Dropping them cancels what was not joined.
#[async_trait]
pub trait Futures: Send {
    /// Starts an invocation, and returns its number. `function` names a task of the same component, or
    /// `component/function`. Waits while the inputs of those that have not ended take too much.
    async fn spawn(&mut self, function: &str, input: Vec<u8>) -> Asked<u64>;

    /// Waits for a future, and takes its result. A future that failed is `Told`.
    async fn join(&mut self, future: u64) -> Asked<Vec<u8>>;

    /// Waits until one of these has ended, and returns its position in the list.
    async fn select(&mut self, futures: &[u64]) -> Asked<u32>;

    /// Cancels a future. One that is unknown or has ended stays as it is.
    fn cancel(&mut self, future: u64);
}
