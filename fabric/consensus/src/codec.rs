//! Raft messages as bytes, for transports.

use protobuf::Message as _;
use raft::eraftpb::Message;

/// Encodes a message.
pub fn encode_message(message: &Message) -> Vec<u8> {
    message
        .write_to_bytes()
        .expect("a message is within the bounds of its encoding")
}

/// Decodes a message; nothing if the bytes are none. They must come from another member: Raft trusts
/// what a message says.
pub fn decode_message(bytes: &[u8]) -> Option<Message> {
    Message::parse_from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let mut message = Message::default();
        message.set_to(3);
        message.set_term(7);
        let bytes = encode_message(&message);
        assert_eq!(decode_message(&bytes), Some(message));
        assert_eq!(decode_message(&[0xff; 3]), None);
    }
}
