//! Failures of Arrow as problems.

use arrow::error::ArrowError;
use weft_core::{ErrorCode, Problem};

/// Our own kernels failing on batches that were checked is our bug.
pub(crate) fn internal(error: &ArrowError) -> Problem {
    match error {
        ArrowError::IoError(_, source) if source.kind() == std::io::ErrorKind::StorageFull => {
            Problem::new(
                ErrorCode::StoreUnavailable,
                format!("the disk is full: {source}; free some space and run the job again"),
            )
        }
        ArrowError::IoError(_, source) => {
            Problem::new(ErrorCode::StoreUnavailable, source.to_string())
        }
        other => Problem::new(ErrorCode::Internal, other.to_string()),
    }
}
