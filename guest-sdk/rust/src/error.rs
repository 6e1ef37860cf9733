/// What a function answers with when it fails: a message for the people who run the job.
///
/// Everything that is an error converts with `?`, as do `&str` and `String`. A failing function fails the job; it is not
/// called again with the same rows.
pub struct Error(String);

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of a message: lowercase, no final dot, values in backticks.
    pub fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.0
    }
}

// By way of `Box<dyn Error>`, which is made of errors and of strings alike; this is why `Error` is no `std::error::Error`.
impl<E: Into<Box<dyn std::error::Error>>> From<E> for Error {
    fn from(error: E) -> Error {
        Error(error.into().to_string())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
