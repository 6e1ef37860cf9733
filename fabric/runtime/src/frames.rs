//! Reads and writes frames ([`weft_protocol::frame`]) on sockets.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use weft_protocol::frame::{HEADER_BYTES, encode, lengths};

/// Payloads up to this size go out in one write with their message.
const JOINED_PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Reads the next frame; nothing if the other side has closed.
///
/// Not cancel-safe: a dropped future may have read half a frame.
pub async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> anyhow::Result<Option<(T, Vec<u8>)>> {
    let mut header = [0; HEADER_BYTES];
    match stream.read_exact(&mut header).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    let (message, payload) = lengths(header)?;
    let message = part(stream, message).await?;
    let payload = part(stream, payload).await?;
    Ok(Some((serde_json::from_slice(&message)?, payload)))
}

async fn part(stream: &mut (impl AsyncRead + Unpin), length: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Writes one frame.
///
/// Errors: [`EncodeError`](weft_protocol::frame::EncodeError), and then nothing was written; the
/// socket's.
pub async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
    payload: &[u8],
) -> anyhow::Result<()> {
    write_unflushed(stream, message, payload).await?;
    Ok(stream.flush().await?)
}

/// Writes one frame as [`write()`] does, which may stay in a buffer of the stream.
pub async fn write_unflushed<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
    payload: &[u8],
) -> anyhow::Result<()> {
    let mut bytes = encode(message, payload.len())?;
    if payload.len() <= JOINED_PAYLOAD_BYTES_MAX {
        bytes.extend_from_slice(payload);
        stream.write_all(&bytes).await?;
        return Ok(());
    }
    stream.write_all(&bytes).await?;
    stream.write_all(payload).await?;
    Ok(())
}
