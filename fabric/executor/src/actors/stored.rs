//! Values that a shard holds beside the state of actors, as bytes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft_core::{ActorRef, ErrorCode, Problem};

/// First byte of each value: another one is of another version of Weft.
const FORMAT: u8 = 1;

/// Record of an actor that has written something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// When its alarm is due, in Unix milliseconds.
    pub(super) alarm_ms: Option<u64>,
    /// Failures of this alarm.
    pub(super) alarm_attempts: u32,
    /// When an alarm fired last, in Unix milliseconds.
    pub(super) fired_ms: u64,
    /// Turns that wrote something.
    pub(super) turns: u64,
    /// When it wrote last, in Unix milliseconds.
    pub(super) changed_ms: u64,
    /// `component@version/actor` that wrote last.
    pub(super) label: String,
    /// The actor is being deleted: what is left of its state goes before its next turn.
    pub(super) is_deleted: bool,
}

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    /// The sender.
    pub(super) from: ActorRef,
    /// The receiver.
    pub(super) to: ActorRef,
    /// The method.
    pub(super) method: String,
    /// The input.
    pub(super) input: Vec<u8>,
}

/// Answer of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptAnswer {
    /// Digest of the request.
    digest: String,
    /// Until then it is kept, in Unix milliseconds.
    pub(super) until_ms: u64,
    /// The output, or the problem as JSON.
    result: Result<Vec<u8>, String>,
}

impl KeptAnswer {
    pub(super) fn new(digest: String, until_ms: u64, result: &Result<Vec<u8>, Problem>) -> Self {
        let result = match result {
            Ok(output) => Ok(output.clone()),
            Err(problem) => {
                Err(serde_json::to_string(problem).expect("a problem is text and numbers"))
            }
        };
        Self {
            digest,
            until_ms,
            result,
        }
    }

    /// Returns whether it is the answer to the request with that digest.
    pub(super) fn is_of(&self, digest: &str) -> bool {
        self.digest == digest
    }

    /// The answer.
    pub(super) fn into_result(self) -> Result<Vec<u8>, Problem> {
        self.result.map_err(|json| {
            serde_json::from_str(&json).unwrap_or_else(|error| unreadable("answer", &error))
        })
    }
}

fn unreadable(what: &str, error: &dyn std::fmt::Display) -> Problem {
    let detail = format!(
        "the shard holds a stored {what} that cannot be read ({error}): run the version of Weft that wrote it"
    );
    Problem::new(ErrorCode::Internal, detail)
}

/// Encodes a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("values of actors are numbers, texts and lists")
}

/// Decodes a value; `what` names it in errors.
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Problem> {
    let Some((&FORMAT, value)) = bytes.split_first() else {
        return Err(unreadable(what, &"it is of another format"));
    };
    postcard::from_bytes(value).map_err(|error| unreadable(what, &error))
}

/// Encodes a number.
pub(super) fn encode_number(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Decodes a number; `what` names it in errors.
pub(super) fn decode_number(what: &str, bytes: &[u8]) -> Result<u64, Problem> {
    let bytes: Result<[u8; 8], _> = bytes.try_into();
    let number = bytes.map_err(|error| unreadable(what, &error));
    number.map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use weft_core::LimitKind;

    use super::*;

    #[test]
    fn values_come_back_and_others_are_refused() {
        let record = Record {
            alarm_ms: Some(7),
            turns: 3,
            label: "bank@1.0.0/account".into(),
            ..Record::default()
        };
        let bytes = encode(&record);
        assert_eq!(
            decode::<Record>("record", &bytes).expect("it is one"),
            record
        );
        for wrong in [&[][..], &[2, 0], &bytes[..bytes.len() - 1]] {
            let problem = decode::<Record>("record", wrong).expect_err("it is none");
            assert!(problem.detail.contains("stored record"), "{problem}");
        }
        assert_eq!(decode_number("mark", &encode_number(9)), Ok(9));
        assert!(decode_number("mark", &[1]).is_err());
    }

    #[test]
    fn kept_problems_come_back_whole() {
        let problem = Problem::new(ErrorCode::LimitExceeded, "too much")
            .of_limit(LimitKind::Cpu, "60 s")
            .of_function("bank@1.0.0/account");
        let kept = KeptAnswer::new("d".into(), 1, &Err(problem.clone()));
        let back: KeptAnswer = decode("answer", &encode(&kept)).expect("it is one");
        assert!(back.is_of("d") && !back.is_of("e"));
        assert_eq!(back.into_result(), Err(problem));
    }
}
