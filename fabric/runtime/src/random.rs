//! Bytes that nobody can guess.

use weft_core::{ErrorCode, Problem};

/// Random bytes. Errors: the system has none.
pub fn bytes<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(ErrorCode::Internal, format!("no random bytes: {error}")))?;
    Ok(bytes)
}

/// `N` random bytes as `2 * N` digits.
pub fn name<const N: usize>() -> Result<String, Problem> {
    Ok(bytes::<N>()?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
