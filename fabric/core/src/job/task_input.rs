//! Input of the tasks of a set: text or base64 in job documents, and base64 in specifications.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serializer, de};

/// Bytes of the input that every task of a set gets. It is part of the job, which controllers hold in memory.
pub const MAX_TASK_INPUT_BYTES: usize = 256 << 10;

/// Key and value by which a job document gives the tasks of a set these bytes.
pub fn input_member(bytes: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => ("input", text.to_owned()),
        Err(_) => ("input_base64", STANDARD.encode(bytes)),
    }
}

/// The bytes of a text, if it is base64.
pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// For `#[serde(serialize_with)]`.
pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// For `#[serde(deserialize_with)]`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    decoded(&text).ok_or_else(|| de::Error::custom("the input of a task set is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        assert_eq!(
            input_member("zażółć".as_bytes()),
            ("input", "zażółć".into())
        );
        let (key, text) = input_member(b"\xff\0");
        assert_eq!((key, text.as_str()), ("input_base64", "/wA="));
        assert_eq!(decoded(&text), Some(b"\xff\0".to_vec()));
        assert_eq!(decoded("/wA"), None, "without its padding");
    }
}
