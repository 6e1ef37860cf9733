//! Small outputs of invocations, kept in the state itself: a file for each would cost more than its bytes.

use serde::{Deserialize, Serialize};

use crate::bounds::MAX_INLINE_OUTPUT_BYTES;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// An output of a few bytes; in JSON a text of hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InlineOutput(Vec<u8>);

impl InlineOutput {
    /// The output, or nothing if it is larger than [`MAX_INLINE_OUTPUT_BYTES`].
    pub fn new(output: &[u8]) -> Option<Self> {
        (output.len() <= MAX_INLINE_OUTPUT_BYTES).then(|| Self(output.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<InlineOutput> for String {
    fn from(InlineOutput(bytes): InlineOutput) -> Self {
        let digit = |nibble: u8| char::from(HEX[usize::from(nibble)]);
        let mut digits = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            digits.push(digit(byte >> 4));
            digits.push(digit(byte & 15));
        }
        digits
    }
}

impl TryFrom<String> for InlineOutput {
    type Error = &'static str;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(nibble(*high)? * 16 + nibble(*low)?).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or("an output is not hex digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_survive_json() {
        let all: Vec<u8> = (0..=255).collect();
        for output in [&all[..], b"", b"ok"] {
            let kept = InlineOutput::new(output).expect("it is small");
            let json = serde_json::to_string(&kept).expect("it is plain data");
            assert_eq!(json.len(), 2 + 2 * output.len());
            let read: InlineOutput = serde_json::from_str(&json).expect("it is read");
            assert_eq!(read.as_bytes(), output);
        }
        assert_eq!(InlineOutput::new(&[0; MAX_INLINE_OUTPUT_BYTES + 1]), None);
        for damaged in ["\"a\"", "\"0g\"", "\"+1\"", "\"0\u{e9}\""] {
            assert!(serde_json::from_str::<InlineOutput>(damaged).is_err());
        }
    }
}
