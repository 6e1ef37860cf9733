//! Raft messages on a connection. Large ones, which are snapshots, go out in parts, and small ones pass
//! between the parts: heartbeats do not wait for a snapshot.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use weft_runtime::frames;
use weft_runtime::link::Member;

use crate::security::Wire;

/// Bytes of a message that goes out whole: more than entries of one message have.
const WHOLE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a part of a larger message.
const PART_BYTES: usize = 256 << 10;
/// Bytes of a message.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// Large messages that wait on a connection; later ones are dropped, and Raft sends a snapshot again.
const LARGE_MAX: usize = 2;
/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 64 << 10;

/// One frame of a connection. The payload is bytes of a message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Frame {
    /// All of them.
    Whole,
    /// The next ones of a large message.
    Part {
        /// The message ends with it.
        last: bool,
    },
}

/// Sends messages until their sender is gone. Errors: the connection broke, or was closed.
pub(crate) async fn send(wire: Wire, waiting: &mut mpsc::Receiver<Vec<u8>>) -> anyhow::Result<()> {
    let (mut reader, writer) = tokio::io::split(wire);
    let mut nothing = [0];
    tokio::select! {
        sent = send_all(writer, waiting) => sent,
        // Nothing comes this way, so this is the end of the connection.
        ended = reader.read(&mut nothing) => {
            ended?;
            anyhow::bail!("the other side has closed it")
        }
    }
}

async fn send_all(
    writer: impl AsyncWrite + Unpin,
    waiting: &mut mpsc::Receiver<Vec<u8>>,
) -> anyhow::Result<()> {
    let mut writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
    let mut large = Large::default();
    loop {
        match waiting.try_recv() {
            Ok(message) if message.len() > WHOLE_BYTES_MAX => large.add(message),
            Ok(message) => frames::write_unflushed(&mut writer, &Frame::Whole, &message).await?,
            Err(TryRecvError::Disconnected) => return Ok(writer.flush().await?),
            Err(TryRecvError::Empty) => match large.next_part() {
                Some((part, last)) => {
                    frames::write(&mut writer, &Frame::Part { last }, part).await?;
                }
                None => {
                    writer.flush().await?;
                    match waiting.recv().await {
                        Some(message) if message.len() > WHOLE_BYTES_MAX => large.add(message),
                        Some(message) => {
                            frames::write_unflushed(&mut writer, &Frame::Whole, &message).await?;
                        }
                        None => return Ok(()),
                    }
                }
            },
        }
    }
}

/// Large messages on their way, one after the other.
#[derive(Default)]
struct Large {
    messages: VecDeque<Vec<u8>>,
    /// Bytes of the first one that are sent.
    sent: usize,
}

impl Large {
    fn add(&mut self, message: Vec<u8>) {
        let bytes = message.len();
        if bytes > MESSAGE_BYTES_MAX {
            tracing::error!(
                bytes,
                limit = MESSAGE_BYTES_MAX,
                "a Raft message is too large to be sent: the member that waits for it stays behind"
            );
        } else if self.messages.len() < LARGE_MAX {
            self.messages.push_back(message);
        }
    }

    /// The next part, and whether its message ends with it.
    fn next_part(&mut self) -> Option<(&[u8], bool)> {
        if self.messages.front()?.len() == self.sent {
            self.messages.pop_front();
            self.sent = 0;
        }
        let message = self.messages.front()?;
        let end = message.len().min(self.sent + PART_BYTES);
        let part = &message[self.sent..end];
        self.sent = end;
        Some((part, end == message.len()))
    }
}

/// Hands on the messages of another member, until its connection ends.
pub(crate) async fn take(mut wire: Wire, member: &dyn Member) -> anyhow::Result<()> {
    take_all(&mut wire, |message| member.deliver(message)).await
}

async fn take_all(
    reader: &mut (impl AsyncRead + Unpin),
    mut deliver: impl FnMut(&[u8]),
) -> anyhow::Result<()> {
    let mut large = Vec::new();
    while let Some((frame, bytes)) = frames::read::<Frame>(reader).await? {
        let Frame::Part { last } = frame else {
            deliver(&bytes);
            continue;
        };
        large.extend_from_slice(&bytes);
        anyhow::ensure!(
            large.len() <= MESSAGE_BYTES_MAX,
            "a Raft message is larger than {MESSAGE_BYTES_MAX} bytes"
        );
        if last {
            deliver(&std::mem::take(&mut large));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(stream: &mut (impl AsyncRead + Unpin)) -> (Frame, Vec<u8>) {
        let read = frames::read::<Frame>(stream).await;
        read.expect("a frame").expect("an open connection")
    }

    #[tokio::test]
    async fn small_messages_pass_a_large_one() {
        let large = |fill: u8| vec![fill; WHOLE_BYTES_MAX + PART_BYTES / 2];
        let (ours, mut theirs) = tokio::io::duplex(PART_BYTES);
        let (messages, mut waiting) = mpsc::channel(8);
        for message in [vec![1], large(2), large(3)] {
            messages.try_send(message).expect("there is room");
        }
        let sending = async move { send_all(ours, &mut waiting).await };
        let reading = async {
            let (first, bytes) = next(&mut theirs).await;
            assert!(matches!(first, Frame::Whole));
            assert_eq!(bytes, [1]);
            let (second, mut parts) = next(&mut theirs).await;
            assert!(matches!(second, Frame::Part { last: false }));
            // Whatever is sent now comes behind what was read.
            messages.send(vec![4]).await.expect("it is sent");
            let mut found = Vec::new();
            while found.len() < 3 {
                let (frame, bytes) = next(&mut theirs).await;
                match frame {
                    Frame::Whole => found.push(bytes),
                    Frame::Part { last } => {
                        parts.extend_from_slice(&bytes);
                        if last {
                            found.push(std::mem::take(&mut parts));
                        }
                    }
                }
            }
            drop(messages);
            found
        };
        let (sent, found) = tokio::join!(sending, reading);
        sent.expect("it sends");
        assert_eq!(found, [vec![4], large(2), large(3)]);
    }

    #[tokio::test]
    async fn messages_of_any_size_arrive() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let sent = [
            vec![1],
            vec![2; WHOLE_BYTES_MAX + 1],
            vec![3; WHOLE_BYTES_MAX + PART_BYTES],
        ];
        let (messages, mut waiting) = mpsc::channel(sent.len());
        for message in sent.clone() {
            messages.try_send(message).expect("there is room");
        }
        let sending = async move { send_all(ours, &mut waiting).await };
        let mut last = Some(messages);
        let mut found = Vec::new();
        let taking = take_all(&mut theirs, |message| {
            found.push(message.to_vec());
            if found.len() == sent.len() {
                // Without its sender the other side ends.
                last = None;
            }
        });
        let (all_sent, taken) = tokio::join!(sending, taking);
        all_sent.expect("it sends");
        taken.expect("it reads");
        assert_eq!(found, sent);
    }
}
