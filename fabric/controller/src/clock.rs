//! Time as the replica sees it: the machine's, or that of a simulation.

use std::time::Duration;

use weft_runtime::clock::{boot_ns, unix_ms};

#[cfg(test)]
use crate::simulation::Time;

/// Time ran out.
#[derive(Debug)]
pub(crate) struct TimedOut;

/// A clock that can be read and waited for.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// Clocks of this machine.
    Machine,
    /// Time that a test lets pass.
    #[cfg(test)]
    Simulated(Time),
}

impl Clock {
    /// The wall clock, in Unix milliseconds.
    pub(crate) fn unix_ms(&self) -> u64 {
        match self {
            Self::Machine => unix_ms(),
            #[cfg(test)]
            Self::Simulated(time) => time.unix_ms(),
        }
    }

    /// Milliseconds since the machine was started, sleep included.
    pub(crate) fn boot_ms(&self) -> u64 {
        match self {
            Self::Machine => boot_ns() / 1_000_000,
            #[cfg(test)]
            Self::Simulated(time) => time.now_ms(),
        }
    }

    pub(crate) async fn sleep(&self, length: Duration) {
        match self {
            Self::Machine => tokio::time::sleep(length).await,
            #[cfg(test)]
            Self::Simulated(time) => time.sleep(length).await,
        }
    }

    /// Waits for something, but not for longer than `length`.
    pub(crate) async fn timeout<T>(
        &self,
        length: Duration,
        what: impl Future<Output = T>,
    ) -> Result<T, TimedOut> {
        tokio::select! {
            biased;
            done = what => Ok(done),
            () = self.sleep(length) => Err(TimedOut),
        }
    }
}
