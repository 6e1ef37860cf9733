//! Futures: invocations of tasks that run elsewhere while their spawner goes on.
//!
//! Only an invoked task may spawn: a stage of a job and an actor may not.
//!
//! ```
//! use weft::prelude::*;
//! use weft::tasks::{Future, spawn};
//!
//! fn square(task: Task) -> Result<Vec<u8>> {
//!     let n: u64 = String::from_utf8(task.input)?.parse()?;
//!     Ok((n * n).to_string().into_bytes())
//! }
//!
//! fn sum(_: Task) -> Result<Vec<u8>> {
//!     let square = |n: u64| spawn("square", n.to_string());
//!     let squares = (1..=3).map(square).collect::<Result<Vec<Future>>>()?;
//!     let mut sum = 0;
//!     for square in squares {
//!         sum += String::from_utf8(square.join()?)?.parse::<u64>()?;
//!     }
//!     Ok(sum.to_string().into_bytes())
//! }
//!
//! weft::testing::on_spawn(|_, task| square(task));
//! assert_eq!(sum(Task::default()).unwrap(), b"14");
//! ```

use crate::{Result, outside};

/// An invocation that was spawned. One that nobody joins is cancelled when its spawner ends.
#[derive(Debug)]
#[must_use = "a future that nobody joins is cancelled when its spawner ends"]
pub struct Future(u64);

/// Starts an invocation of a task. `function` names a task of the same component, or `component/function`.
///
/// Waits while as many run as may. Fails if there is no such task.
pub fn spawn(function: &str, input: impl AsRef<[u8]>) -> Result<Future> {
    outside::spawn(function, input.as_ref()).map(Future)
}

/// Waits until one of these has ended, and returns its position. Fails if there are none.
pub fn select(futures: &[Future]) -> Result<usize> {
    let numbers: Vec<u64> = futures.iter().map(|future| future.0).collect();
    let position = outside::select(&numbers)?;
    Ok(position as usize)
}

impl Future {
    /// Waits for the invocation, and returns its answer. Fails if the task failed.
    pub fn join(self) -> Result<Vec<u8>> {
        outside::join(self.0)
    }

    /// Cancels the invocation. One that has ended stays as it is.
    pub fn cancel(self) {
        outside::cancel(self.0);
    }
}
