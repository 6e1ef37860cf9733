//! A segment: the rows of one partition, as one uncompressed Arrow IPC stream inside one LZ4 frame.

use std::io::Read;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::error::{Error, Result};

/// Names the segment format: executors with another one take no part in a job.
pub const FORMAT: &str = "ipc59-lz4-xxh3-1";

pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) raw_bytes: u64,
    pub(crate) rows: u64,
}

struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: std::io::Write> std::io::Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // Flushing would end an LZ4 block early.
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Encoding(error.to_string())
}

/// Encodes `batches`, all with `schema`.
pub(crate) fn encode(schema: &Schema, batches: &[RecordBatch]) -> Result<Encoded> {
    let frame = FrameInfo::new().block_size(BlockSize::Max256KB);
    let counted = Counted {
        inner: FrameEncoder::with_frame_info(frame, Vec::new()),
        bytes: 0,
    };
    let mut writer = StreamWriter::try_new(counted, schema).map_err(failed)?;
    for batch in batches {
        writer.write(batch).map_err(failed)?;
    }
    let counted = writer.into_inner().map_err(failed)?;
    let bytes = counted.inner.finish().map_err(failed)?;
    Ok(Encoded {
        bytes,
        raw_bytes: counted.bytes,
        rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
    })
}

/// Decodes a segment whose checksum was found right. `raw_bytes` bounds what is decompressed.
pub(crate) fn decode(bytes: &Bytes, raw_bytes: u64) -> Result<Vec<RecordBatch>> {
    let mut raw = Vec::with_capacity(usize::try_from(raw_bytes).map_err(failed)?);
    FrameDecoder::new(bytes.as_ref())
        .take(raw_bytes + 1)
        .read_to_end(&mut raw)
        .map_err(failed)?;
    if raw.len() as u64 != raw_bytes {
        return Err(failed(format!(
            "a segment has {} bytes, its index says {raw_bytes}",
            raw.len()
        )));
    }
    let mut buffer = Buffer::from_vec(raw);
    let mut decoder = StreamDecoder::new();
    let mut batches = Vec::new();
    while !buffer.is_empty() {
        batches.extend(decoder.decode(&mut buffer).map_err(failed)?);
    }
    decoder.finish().map_err(failed)?;
    Ok(batches)
}
