//! Errors of shards, by what the executor does next.

use weft_core::{ErrorCode, Problem};

/// A failure of a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another writer has taken the shard. Read the writer's epoch, make sure of the lease, and open it again.
    #[error("the shard {shard} is served by another executor by now: ask again, it is found anew")]
    Fenced {
        /// The shard: `TENANT/NUMBER`.
        shard: String,
    },
    /// The store did not answer in time, or failed. Outcomes of writes that were not durable are unknown.
    #[error("the shard {shard}: the store failed, {cause}; try again once it answers")]
    Unavailable {
        /// The shard.
        shard: String,
        /// The failure.
        cause: String,
    },
    /// This process has closed the shard. Open it again.
    #[error("the shard {shard} was closed: ask again, it is opened anew")]
    Closed {
        /// The shard.
        shard: String,
    },
    /// Objects of the shard are gone or cannot be read.
    #[error(
        "the shard {shard} cannot be read, {cause}: something removed or changed objects below `shards/` of the store; \
         restore them from a copy"
    )]
    Damaged {
        /// The shard.
        shard: String,
        /// The failure.
        cause: String,
    },
    /// A bug, here or in the database.
    #[error("the shard {shard} failed: {cause}")]
    Internal {
        /// The shard.
        shard: String,
        /// The failure.
        cause: String,
    },
    /// The store cannot hold shards.
    #[error("the store cannot hold shards, {cause}: check its path and its rights")]
    Store {
        /// The failure.
        cause: String,
    },
}

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The error of a shard's database.
    pub(crate) fn of(shard: &str, error: &slatedb::Error) -> Self {
        use slatedb::{CloseReason, ErrorKind};
        let (shard, cause) = (shard.to_owned(), error.to_string());
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => Self::Fenced { shard },
            ErrorKind::Closed(CloseReason::Clean) => Self::Closed { shard },
            // A background task that met the store's failure.
            ErrorKind::Closed(_) | ErrorKind::Unavailable => Self::Unavailable { shard, cause },
            ErrorKind::Data => Self::Damaged { shard, cause },
            _ => Self::Internal { shard, cause },
        }
    }

    /// The error of an operation that took too long.
    pub(crate) fn late(shard: &str, what: &str, limit: std::time::Duration) -> Self {
        Self::Unavailable {
            shard: shard.to_owned(),
            cause: format!("{what} took more than {} s", limit.as_secs()),
        }
    }

    /// Returns whether opening the shard anew may help, without anybody's doing.
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Damaged { .. } | Self::Store { .. })
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let code = match error {
            Error::Fenced { .. } | Error::Closed { .. } => ErrorCode::Busy,
            Error::Unavailable { .. } | Error::Store { .. } => ErrorCode::StoreUnavailable,
            Error::Damaged { .. } | Error::Internal { .. } => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}
