//! Pieces of bodies that stream, as a controller and a node cut and read them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use weft_core::Problem;

use crate::rpc::{LENGTH_BYTES, lost};

/// Bytes of the head of a stream.
const HEAD_BYTES_MAX: usize = 8 << 20;
/// Bytes of one piece of a stream's answer.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// Pieces of a stream's answer: a byte for the kind, a length, and so many bytes.
pub(super) mod kind {
    pub(in crate::work) const OUTPUT: u8 = 0;
    pub(in crate::work) const ENDED: u8 = 1;
    pub(in crate::work) const FAILED: u8 = 2;
    pub(in crate::work) const HEADER_BYTES: usize = 5;
}

/// A piece of this kind.
pub(super) fn piece(kind: u8, bytes: &[u8]) -> Bytes {
    let mut piece = BytesMut::with_capacity(kind::HEADER_BYTES + bytes.len());
    piece.put_u8(kind);
    piece.put_u32_le(u32::try_from(bytes.len()).expect("a piece is small"));
    piece.put_slice(bytes);
    piece.freeze()
}

/// A piece that is a message.
pub(super) fn piece_of(kind: u8, message: &impl Serialize) -> Bytes {
    let bytes = serde_json::to_vec(message).expect("replies are plain data");
    piece(kind, &bytes)
}

/// Bytes of a body as they come, cut into blocks that have their length before them.
pub(super) struct Pieces {
    body: Incoming,
    held: BytesMut,
}

impl Pieces {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            held: BytesMut::new(),
        }
    }

    /// Reads until there are so many bytes. Returns whether there are; the body may end before.
    async fn fill(&mut self, bytes: usize) -> Result<bool, Problem> {
        while self.held.len() < bytes {
            let Some(frame) = self.body.frame().await else {
                return Ok(false);
            };
            let frame = frame.map_err(|error| lost(&error))?;
            if let Ok(data) = frame.into_data() {
                self.held.extend_from_slice(&data);
            }
        }
        Ok(true)
    }

    /// Takes the next head, without the length before it; nothing if the body has ended.
    pub(super) async fn take_head(&mut self) -> Result<Option<Bytes>, Problem> {
        self.take_block(LENGTH_BYTES, HEAD_BYTES_MAX).await
    }

    /// Takes the next block: bytes of a header that ends with a length are passed over, and so many are
    /// returned as it says.
    async fn take_block(
        &mut self,
        header_bytes: usize,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, Problem> {
        if !self.fill(header_bytes).await? {
            return Ok(None);
        }
        let length = self.held[..header_bytes].last_chunk();
        let length = u32::from_le_bytes(*length.expect("a header ends with a length")) as usize;
        if length > bytes_max {
            return Err(lost(&format!("a message of {length} bytes is too large")));
        }
        if !self.fill(header_bytes + length).await? {
            return Ok(None);
        }
        self.held.advance(header_bytes);
        Ok(Some(self.held.split_to(length).freeze()))
    }

    /// Takes the next piece of a stream's answer, with its kind; nothing if the body has ended.
    pub(super) async fn take_piece(&mut self) -> Result<Option<(u8, Bytes)>, Problem> {
        if !self.fill(1).await? {
            return Ok(None);
        }
        let kind = self.held[0];
        let piece = self.take_block(kind::HEADER_BYTES, PIECE_BYTES_MAX).await?;
        Ok(piece.map(|piece| (kind, piece)))
    }

    /// The rest of the body, in pieces.
    pub(super) fn rest(self) -> impl futures::Stream<Item = Result<Bytes, Problem>> + Send {
        let held = (!self.held.is_empty()).then(|| Ok(self.held.freeze()));
        let more = stream::unfold(self.body, |mut body| async move {
            loop {
                match body.frame().await? {
                    Ok(frame) => {
                        if let Ok(data) = frame.into_data() {
                            return Some((Ok(data), body));
                        }
                    }
                    Err(error) => return Some((Err(lost(&error)), body)),
                }
            }
        });
        stream::iter(held).chain(more)
    }
}
