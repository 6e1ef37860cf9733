//! Rows as messages of gRPC: an executor's Arrow messages, wrapped in `FlightData` as their pieces come.
//!
//! ```text
//! executor: lengths | header            | body
//! client:   prefix  | 0x12 length header | 0xC23E length body
//! ```
//!
//! Nothing is parsed and no message is held: its lengths come first, and they are all that the frames around it need.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::response::Response;
use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use prost::{encode_length_delimiter, length_delimiter_len};
use tokio::sync::mpsc;
use weft_protocol::MessageHead;

use super::super::rows::{self, Coming, Ended};
use super::grpc::{self, Code, PREFIX_BYTES, Status};

/// Bytes of one message, of which a client holds all.
const MAX_MESSAGE_BYTES: u64 = 1 << 30;
/// Key of the field `data_header` of `FlightData`, which is number 2.
const DATA_HEADER: [u8; 1] = [0x12];
/// Key of the field `data_body`, which is number 1000.
const DATA_BODY: [u8; 2] = [0xC2, 0x3E];

/// Phase of a message that is passed on, with the bytes that are left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessagePhase {
    Head,
    Header { left: usize, body: usize },
    Body { left: usize },
}

/// Wraps messages.
struct Wrapper {
    phase: MessagePhase,
    /// Lengths of the next message, as far as they have come.
    head: BytesMut,
}

impl Wrapper {
    fn new() -> Self {
        Self {
            phase: MessagePhase::Head,
            head: BytesMut::with_capacity(MessageHead::BYTES),
        }
    }

    /// Wraps a piece. Errors: a message that is too large.
    fn push(&mut self, mut piece: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), Status> {
        while !piece.is_empty() {
            match self.phase {
                MessagePhase::Head => {
                    let missing = MessageHead::BYTES - self.head.len();
                    self.head
                        .extend_from_slice(&piece.split_to(missing.min(piece.len())));
                    let head = self.head.first_chunk();
                    if let Some(head) = head.map(|head| MessageHead::decode(*head)) {
                        self.head.clear();
                        self.begin(head, out)?;
                    }
                }
                MessagePhase::Header { left, body } => {
                    let now = left.min(piece.len());
                    out.push_back(piece.split_to(now));
                    self.phase = header(left - now, body, out);
                }
                MessagePhase::Body { left } => {
                    let now = left.min(piece.len());
                    out.push_back(piece.split_to(now));
                    self.phase = rest_of_body(left - now);
                }
            }
        }
        Ok(())
    }

    /// Writes what comes before a header.
    fn begin(&mut self, head: MessageHead, out: &mut VecDeque<Bytes>) -> Result<(), Status> {
        let bytes = u64::from(head.header_bytes).saturating_add(head.body_bytes);
        let lengths = usize::try_from(head.header_bytes)
            .ok()
            .zip(usize::try_from(head.body_bytes).ok());
        let (Some((header_bytes, body)), true) = (lengths, bytes <= MAX_MESSAGE_BYTES) else {
            let most = MAX_MESSAGE_BYTES >> 30;
            let what = format!(
                "a message of rows is larger than {most} GiB: take fewer columns, or smaller values"
            );
            return Err(Status::new(Code::ResourceExhausted, what));
        };
        let length = field_bytes(&DATA_HEADER, header_bytes) + body_field_bytes(body);
        let length = u32::try_from(length)
            .map_err(|_| Status::new(Code::Internal, "a message of rows has no length"))?;
        let mut before = BytesMut::with_capacity(PREFIX_BYTES + 16);
        before.extend_from_slice(&grpc::prefix(length));
        before.extend_from_slice(&begin_field(&DATA_HEADER, header_bytes));
        out.push_back(before.freeze());
        self.phase = header(header_bytes, body, out);
        Ok(())
    }

    /// Returns whether no message is cut off here.
    fn is_whole(&self) -> bool {
        self.phase == MessagePhase::Head && self.head.is_empty()
    }
}

/// The phase that a message is in, with so much left of its header.
fn header(left: usize, body: usize, out: &mut VecDeque<Bytes>) -> MessagePhase {
    match (left, body) {
        (0, 0) => MessagePhase::Head,
        (0, body) => {
            out.push_back(begin_field(&DATA_BODY, body).freeze());
            MessagePhase::Body { left: body }
        }
        _ => MessagePhase::Header { left, body },
    }
}

fn rest_of_body(left: usize) -> MessagePhase {
    match left {
        0 => MessagePhase::Head,
        left => MessagePhase::Body { left },
    }
}

/// Bytes of a field with its key and length.
fn field_bytes(key: &[u8], length: usize) -> usize {
    key.len() + length_delimiter_len(length) + length
}

/// The same for a body, which is left out if it is empty.
fn body_field_bytes(length: usize) -> usize {
    match length {
        0 => 0,
        length => field_bytes(&DATA_BODY, length),
    }
}

/// Key and length of a field.
fn begin_field(key: &[u8], length: usize) -> BytesMut {
    let mut bytes = BytesMut::from(key);
    encode_length_delimiter(length, &mut bytes).expect("the buffer grows");
    bytes
}

/// Rows on their way to a client.
struct Sending {
    pieces: mpsc::Receiver<Bytes>,
    ended: Ended,
    wrapper: Wrapper,
    /// Bytes that wait to be sent.
    waiting: VecDeque<Bytes>,
}

impl Sending {
    /// Waits for bytes to send, or for the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Ok(Some(bytes));
            }
            let Some(piece) = self.pieces.recv().await else {
                return Ok(None);
            };
            self.wrapper.push(piece, &mut self.waiting)?;
        }
    }

    /// Waits for the outcome, once there are no more pieces.
    async fn outcome(self) -> Result<(), Status> {
        rows::result(self.ended).await.map_err(Status::from)?;
        match self.wrapper.is_whole() {
            true => Ok(()),
            false => Err(Status::new(
                Code::Internal,
                "the last message of rows is cut off",
            )),
        }
    }
}

/// Passes rows on as they come.
pub(super) fn answer((pieces, ended): Coming) -> Response {
    let begin = Sending {
        pieces,
        ended,
        wrapper: Wrapper::new(),
        waiting: VecDeque::new(),
    };
    grpc::answer(futures::stream::unfold(Some(begin), |sending| async move {
        let mut sending = sending?;
        let next = sending.next().await;
        let trailers = match next {
            Ok(Some(bytes)) => {
                return Some((Ok::<_, Infallible>(Frame::data(bytes)), Some(sending)));
            }
            Ok(None) => match sending.outcome().await {
                Ok(()) => grpc::succeeded(),
                Err(status) => status.trailers(),
            },
            Err(status) => status.trailers(),
        };
        Some((Ok(Frame::trailers(trailers)), None))
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct FlightData {
        #[prost(bytes = "bytes", tag = "2")]
        data_header: Bytes,
        #[prost(bytes = "bytes", tag = "1000")]
        data_body: Bytes,
    }

    fn framed(header: &[u8], body: &[u8]) -> Vec<u8> {
        let head = MessageHead {
            header_bytes: u32::try_from(header.len()).expect("short"),
            body_bytes: body.len() as u64,
        };
        [&head.encode()[..], header, body].concat()
    }

    /// The messages that a client of gRPC finds.
    fn taken(mut bytes: Bytes) -> Vec<FlightData> {
        let mut taken = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(bytes.get_u8(), 0, "it is not compressed");
            let length = usize::try_from(bytes.get_u32()).expect("short");
            taken.push(FlightData::decode(bytes.split_to(length)).expect("a message"));
        }
        taken
    }

    #[test]
    fn messages_are_wrapped_wherever_their_pieces_end() {
        let (header, body) = (vec![7; 200], vec![9; 300]);
        let sent = [
            framed(&header, &[]),
            framed(&header, &body),
            framed(b"h", b"b"),
        ]
        .concat();
        let data = |header: &[u8], body: &[u8]| FlightData {
            data_header: Bytes::copy_from_slice(header),
            data_body: Bytes::copy_from_slice(body),
        };
        let expected = [data(&header, &[]), data(&header, &body), data(b"h", b"b")];
        for size in [1, 5, 12, 13, 211, 212, 213, sent.len()] {
            let (mut wrapper, mut out) = (Wrapper::new(), VecDeque::new());
            for piece in sent.chunks(size) {
                let pushed = wrapper.push(Bytes::copy_from_slice(piece), &mut out);
                pushed.expect("it is small");
            }
            assert!(wrapper.is_whole(), "{size}");
            let all: Vec<u8> = out.into_iter().flatten().collect();
            assert_eq!(taken(all.into()), expected, "{size}");
        }
    }

    #[test]
    fn what_is_cut_off_or_too_large_is_told() {
        let (mut wrapper, mut out) = (Wrapper::new(), VecDeque::new());
        let whole = framed(b"header", b"body");
        for cut in [3, 12, 20] {
            let pushed = wrapper.push(Bytes::copy_from_slice(&whole[..cut]), &mut out);
            pushed.expect("it is small");
            assert!(!wrapper.is_whole(), "{cut}");
            wrapper = Wrapper::new();
        }
        let head = MessageHead {
            header_bytes: 1,
            body_bytes: u64::MAX,
        };
        let pushed = wrapper.push(Bytes::copy_from_slice(&head.encode()), &mut out);
        let refused = pushed.expect_err("it is too large");
        assert_eq!(refused.code, Code::ResourceExhausted);
    }
}
