//! Frames on the socket between agent and executor: the lengths of message and payload, each in four bytes, little endian; the
//! message as JSON; the payload, bytes that only functions understand.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the message, and of the payload.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// A message or payload is larger than a frame may be.
#[derive(Debug, thiserror::Error)]
#[error("a message of {0} bytes is larger than a frame of {FRAME_BYTES_MAX}")]
pub(crate) struct TooLarge(pub(crate) usize);

/// Reads the next frame; nothing where the other side has closed.
///
/// Not cancel-safe: a dropped future may have read half a frame.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> anyhow::Result<Option<(T, Vec<u8>)>> {
    let mut lengths = [0; 8];
    match stream.read_exact(&mut lengths).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    let (message, payload) = lengths.split_at(4);
    let length = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let message = part(stream, length(message)).await?;
    let payload = part(stream, length(payload)).await?;
    Ok(Some((serde_json::from_slice(&message)?, payload)))
}

async fn part(stream: &mut (impl AsyncRead + Unpin), length: u32) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        length <= FRAME_BYTES_MAX,
        "a frame of {length} bytes is larger than {FRAME_BYTES_MAX}"
    );
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Writes one frame. Errors: [`TooLarge`], and then nothing was written; the socket's.
pub(crate) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
    payload: &[u8],
) -> anyhow::Result<()> {
    let mut bytes = vec![0; 8];
    serde_json::to_writer(&mut bytes, message)?;
    let length = |length: usize| {
        let fits = u32::try_from(length)
            .ok()
            .filter(|length| *length <= FRAME_BYTES_MAX);
        fits.ok_or(TooLarge(length))
    };
    let lengths = [length(bytes.len() - 8)?, length(payload.len())?]
        .map(u32::to_le_bytes)
        .concat();
    bytes[..8].copy_from_slice(&lengths);
    // A small payload goes out with its message.
    if payload.len() <= 64 << 10 {
        bytes.extend_from_slice(payload);
        stream.write_all(&bytes).await?;
        return Ok(());
    }
    stream.write_all(&bytes).await?;
    stream.write_all(payload).await?;
    Ok(())
}
