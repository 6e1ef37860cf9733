//! Frames between processes: the lengths of message and payload, four bytes each, little endian;
//! the message as JSON; the payload, bytes that only functions understand.
//!
//! ```text
//! ┌────────────┬────────────┬───────────┬───────────┐
//! │ message: 4 │ payload: 4 │ message … │ payload … │
//! └────────────┴────────────┴───────────┴───────────┘
//! ```

use serde::Serialize;

/// Bytes of the message, and of the payload.
pub const FRAME_BYTES_MAX: u32 = 64 << 20;
/// Bytes of the lengths that begin a frame.
pub const HEADER_BYTES: usize = 8;

/// Reason why a message is not sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Message or payload is larger than a frame may be.
    #[error("a message of {0} bytes is larger than a frame of {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// The message has no JSON.
    #[error("the message cannot be encoded: {0}")]
    Json(#[from] serde_json::Error),
}

/// Encodes lengths and message of a frame whose payload has `payload` bytes.
pub fn encode(message: &impl Serialize, payload: usize) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut bytes, message)?;
    let lengths = [length(bytes.len() - HEADER_BYTES)?, length(payload)?];
    bytes[..HEADER_BYTES].copy_from_slice(&lengths.map(u32::to_le_bytes).concat());
    Ok(bytes)
}

fn length(length: usize) -> Result<u32, EncodeError> {
    let fits = u32::try_from(length)
        .ok()
        .filter(|length| *length <= FRAME_BYTES_MAX);
    fits.ok_or(EncodeError::TooLarge(length))
}

/// Returns the lengths of message and payload. Errors: the length that is larger than a frame.
pub fn lengths(header: [u8; HEADER_BYTES]) -> Result<(usize, usize), EncodeError> {
    let (message, payload) = header.split_at(HEADER_BYTES / 2);
    let read = |bytes: &[u8]| {
        let length = u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize;
        if length > FRAME_BYTES_MAX as usize {
            return Err(EncodeError::TooLarge(length));
        }
        Ok(length)
    };
    Ok((read(message)?, read(payload)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_back_and_are_bounded() {
        let frame = encode(&"hello", 7).expect("it is small");
        let header: [u8; HEADER_BYTES] = frame[..HEADER_BYTES].try_into().expect("eight bytes");
        assert_eq!(lengths(header).expect("within the bound"), (7, 7));
        assert_eq!(&frame[HEADER_BYTES..], br#""hello""#);
        assert!(matches!(
            encode(&1, usize::MAX),
            Err(EncodeError::TooLarge(_))
        ));
        let lie = [[0xff; 4], [0; 4]]
            .concat()
            .try_into()
            .expect("eight bytes");
        assert!(matches!(lengths(lie), Err(EncodeError::TooLarge(_))));
    }
}
