//! What went wrong, as people and programs see it: a code from a closed list, a message, and what to do.

use serde::{Deserialize, Serialize};

use crate::limits::LimitKind;

/// The closed list of problem codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The bytes are not a component that Weft can run.
    InvalidComponent,
    /// The component imports something that Weft does not offer.
    UnknownImport,
    /// Another digest is registered under this version, or what a request began with has changed.
    VersionConflict,
    /// The job document is wrong; `errors` lists where.
    InvalidJob,
    /// No such component or function.
    UnknownFunction,
    /// An input matches no file.
    NoInput,
    /// An input holds something that cannot be read.
    BadRecord,
    /// A function's output or input does not have the schema it was bound to.
    SchemaMismatch,
    /// The output folder already holds files.
    OutputExists,
    /// A limit was reached; `limit`, `value` and `function` say which.
    LimitExceeded,
    /// The guest trapped.
    GuestTrap,
    /// The guest's function returned an error.
    GuestError,
    /// A SQL statement cannot be evaluated over its rows: a division by zero, a cast that fails, an overflow.
    QueryError,
    /// The store failed and retries did not help.
    StoreUnavailable,
    /// Nothing is there.
    NotFound,
    /// The token is missing or wrong, or the request comes from a foreign origin.
    Unauthorized,
    /// The body is larger than its bound.
    TooLarge,
    /// Too much at once; try again after `Retry-After`.
    Busy,
    /// Our bug.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorCode::InvalidComponent | ErrorCode::UnknownImport | ErrorCode::InvalidJob => 400,
            ErrorCode::VersionConflict | ErrorCode::OutputExists => 409,
            ErrorCode::UnknownFunction
            | ErrorCode::NoInput
            | ErrorCode::BadRecord
            | ErrorCode::SchemaMismatch => 422,
            ErrorCode::LimitExceeded
            | ErrorCode::GuestTrap
            | ErrorCode::GuestError
            | ErrorCode::QueryError => 422,
            ErrorCode::NotFound => 404,
            ErrorCode::Unauthorized => 401,
            ErrorCode::TooLarge => 413,
            ErrorCode::Busy => 429,
            ErrorCode::StoreUnavailable => 503,
            ErrorCode::Internal => 500,
        }
    }

    /// True where the platform, not the user, is at fault: retried, and never billed.
    pub fn is_platform_fault(self) -> bool {
        matches!(
            self,
            ErrorCode::StoreUnavailable | ErrorCode::Busy | ErrorCode::Internal
        )
    }
}

/// One thing that is wrong in a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Where: `stage[1].shuffle.keys`.
    pub path: String,
    /// What is wrong there.
    pub message: String,
    /// What was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// A problem in the sense of RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// From the closed list.
    pub code: ErrorCode,
    /// What happened, where, and what to do.
    pub detail: String,
    /// For `invalid_job`: everything that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// For `limit_exceeded`: the limit's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// For `limit_exceeded`: the limit's value, with its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The function at fault, `component/function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// For `busy`: seconds until another try may succeed, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// Bytes of a problem's text: it may quote what users and guests wrote.
const DETAIL_BYTES_MAX: usize = 4096;

impl Problem {
    /// A problem with nothing but its code and text.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if detail.len() > DETAIL_BYTES_MAX {
            let cut = detail.len() - DETAIL_BYTES_MAX;
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
            detail += &format!(" … ({cut} bytes cut)");
        }
        Self {
            code,
            detail,
            errors: Vec::new(),
            limit: None,
            value: None,
            function: None,
            retry_after_s: None,
        }
    }

    /// The same problem, said to be of `function`.
    #[must_use]
    pub fn of_function(mut self, function: impl Into<String>) -> Self {
        self.function = Some(function.into());
        self
    }

    /// The same, with the seconds until another try may succeed.
    #[must_use]
    pub fn with_retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same, with the limit that was reached and its value with its unit.
    #[must_use]
    pub fn of_limit(mut self, limit: LimitKind, value: impl Into<String>) -> Self {
        self.limit = Some(limit.to_string());
        self.value = Some(value.into());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)?;
        for error in &self.errors {
            write!(f, "\n  {}: {}", error.path, error.message)?;
            if let Some(suggestion) = &error.suggestion {
                write!(f, " (did you mean `{suggestion}`?)")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
