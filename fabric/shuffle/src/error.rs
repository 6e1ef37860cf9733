//! Errors of the shuffle, by what the caller does next.

use std::path::Path;

use weft_core::{ErrorCode, Problem};
use weft_store::ErrorKind;

/// A failure to write or read shuffle objects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store or a spill file failed.
    #[error(transparent)]
    Store(#[from] weft_store::Error),
    /// The bytes that were read are not those that were written.
    #[error("shuffle {place} is damaged: {message}")]
    Damaged {
        /// Stage, partition and task.
        place: String,
        /// The difference.
        message: String,
    },
    /// Batches could not be encoded or decoded.
    #[error("encoding of batches failed: {0}")]
    Encoding(String),
}

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        weft_store::Error::file(path, source).into()
    }

    /// The next step of the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Store(error) => error.kind(),
            Error::Damaged { .. } => ErrorKind::Damaged,
            Error::Encoding(_) => ErrorKind::Internal,
        }
    }

    /// The error as users see it.
    pub fn problem(&self) -> Problem {
        self.into()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        match error {
            Error::Store(error) => error.into(),
            Error::Damaged { .. } | Error::Encoding(_) => {
                Self::new(ErrorCode::Internal, error.to_string())
            }
        }
    }
}
