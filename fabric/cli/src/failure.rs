//! How a command ends when it does not end well, and the exit code that says so.

use weft_client::{ApiProblem, Error};

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line asks for something that there is not.
    #[error("{0}")]
    Usage(String),
    /// The server, or the check of a job file, says what is wrong.
    #[error("{0}")]
    Problem(Box<ApiProblem>),
    /// The job did not succeed, or the call, and its problem has been written.
    #[error("it did not succeed")]
    JobEnded,
    /// No endpoint answers.
    #[error("{0}")]
    Unreachable(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read standard output has gone: `weft jobs | head`.
    #[error("the reader of standard output has gone")]
    Closed,
    /// Everything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// A failure of this machine, not of the server.
    pub(crate) fn other(message: impl std::fmt::Display) -> Self {
        Failure::Other(anyhow::anyhow!("{message}"))
    }

    /// The exit code, as scripts use it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Closed => 0,
            Failure::Problem(_) | Failure::JobEnded | Failure::Other(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::Interrupted => 130,
        }
    }

    /// True where nothing is left to say: it has been said, or nobody listens.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Failure::Closed | Failure::JobEnded)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(what) => Failure::Usage(what),
            Error::Problem(problem) => Failure::Problem(problem),
            Error::Unreachable(what) => Failure::Unreachable(what),
            Error::Other(what) => Failure::other(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_client::Client;

    use super::*;

    #[test]
    fn an_endpoint_that_is_not_offered_is_wrong_usage() {
        let client = Client::new(&["https://a".into()], None);
        let failure = Failure::from(client.err().expect("not offered"));
        assert!(failure.to_string().contains("not offered"), "{failure}");
        assert_eq!(failure.exit_code(), 2);
    }
}
