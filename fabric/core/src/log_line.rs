//! A line that a function logged.

use serde::{Deserialize, Serialize};

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `error`, `warn`, `info` or `debug`.
    pub level: String,
    /// The function that wrote it.
    pub function: String,
    /// The text, control characters escaped.
    pub message: String,
}
