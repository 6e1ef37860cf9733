//! Why a call has no result.

use crate::problem::ApiProblem;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An endpoint or the token is not one that can be used.
    #[error("{0}")]
    Invalid(String),
    /// The server refuses the call, and says why.
    #[error("{0}")]
    Problem(Box<ApiProblem>),
    /// No endpoint answers.
    #[error("{0}")]
    Unreachable(String),
    /// Everything else: a file that cannot be read, an answer that makes no sense.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// A failure of this machine or of the connection, not of what was asked.
    pub(crate) fn other(message: impl std::fmt::Display) -> Self {
        Error::Other(message.to_string())
    }
}
