//! Frames on the socket between agent and executor: a length in four bytes, little endian, then JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one frame.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// Reads the next frame; nothing where the other side has closed.
///
/// Not cancel-safe: a dropped future may have read half a frame.
pub(crate) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> anyhow::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    let length = u32::from_le_bytes(length);
    anyhow::ensure!(
        length <= FRAME_BYTES_MAX,
        "a frame of {length} bytes is larger than {FRAME_BYTES_MAX}"
    );
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// Writes one frame.
pub(crate) async fn write<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> anyhow::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4)
        .ok()
        .filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| {
        anyhow::anyhow!("a message of {} bytes is larger than a frame", bytes.len())
    })?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&bytes).await?;
    Ok(())
}
