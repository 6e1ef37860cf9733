//! Documents of the server's own as they are stored: JSON, compressed. One that tells of ten thousand tasks repeats itself.

use std::io::{BufReader, BufWriter};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Fast, and enough for documents that repeat themselves.
const ZSTD_LEVEL: i32 = 1;
/// JSON that is gathered before it is compressed: the serializer writes a few bytes at a time, and
/// most of a write's price at the compressor is the same for few as for many.
const BUFFER_BYTES: usize = 64 << 10;
/// How what is compressed begins; JSON never does.
const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

/// Packs a document; it is never there uncompressed as a whole.
pub(crate) fn pack(document: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).map_err(serde_json::Error::io)?;
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, encoder);
    serde_json::to_writer(&mut buffered, document)?;
    let encoder = buffered.into_inner();
    let encoder = encoder.map_err(|error| serde_json::Error::io(error.into_error()))?;
    encoder.finish().map_err(serde_json::Error::io)
}

/// Reads a document that was packed, or is plain JSON, as earlier versions wrote it.
pub(crate) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    if !bytes.starts_with(&MAGIC) {
        return serde_json::from_slice(bytes);
    }
    let decoder = zstd::Decoder::with_buffer(bytes).map_err(serde_json::Error::io)?;
    serde_json::from_reader(BufReader::new(decoder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_back_packed_or_plain() {
        let document: Vec<String> = (0..1000).map(|n| format!("task {}", n % 7)).collect();
        let packed = pack(&document).expect("it packs");
        let plain = serde_json::to_vec(&document).expect("it is plain data");
        assert!(packed.len() < plain.len() / 10);
        for bytes in [packed, plain] {
            assert_eq!(unpack::<Vec<String>>(&bytes).expect("it unpacks"), document);
        }
    }
}
