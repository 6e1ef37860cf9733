//! Control links: commands of the leader to a node, and the node's reports.
//!
//! ```text
//! scheduler ─┬─commands─▶ writer ──frames──▶ reader ─▶ commands ─▶ agent
//!            ◀─reports─── reader ◀─frames─── writer ◀─ reports ──┘
//! ```
//!
//! A node is linked to every controller, and reports to the one with the highest term. Both sides
//! send a sign of life every [`HEARTBEAT`]; a link that is silent for [`SILENCE_MAX`] is closed, and
//! dialled again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, timeout};
use weft_core::{NodeId, lock};
use weft_protocol::{FromAgent, ToAgent};
use weft_runtime::link::{LinkChange, MAX_LINK_MESSAGES, NodeLink};
use weft_runtime::{OnError, Tasks, frames};

use crate::book::Book;
use crate::dial::Dialler;
use crate::handshake::{Cluster, Purpose};
use crate::security::{Security, Wire};

/// Time between two signs of life on a link.
const HEARTBEAT: Duration = Duration::from_millis(300);
/// Silence after which a link is closed: three signs of life were lost.
const SILENCE_MAX: Duration = Duration::from_millis(1_200);

/// Bytes of one part of a message: a sign of life is due within the time that it takes.
const PART_BYTES: usize = 256 << 10;
/// Bytes of a message: a status with all results of a node.
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// One frame of a control link.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Frame {
    /// The sender lives.
    Alive,
    /// The payload is a part of a command or a report, in JSON.
    Part {
        /// The message ends with it.
        last: bool,
    },
}

/// The controllers of a cluster, as a node reaches them.
#[derive(Clone)]
pub struct ToControllers {
    /// The cluster, and the node.
    pub cluster: Cluster,
    /// Protection of the connections.
    pub security: Security,
    /// Addresses of the controllers.
    pub book: Book,
}

impl ToControllers {
    /// Does something with a dialler of each controller, as soon as its address is known.
    pub(crate) async fn dial_each(
        self,
        purpose: Purpose,
        mut act: impl FnMut(Dialler),
    ) -> anyhow::Result<()> {
        let mut members = self.book.members();
        loop {
            for member in members.known() {
                let (cluster, security) = (&self.cluster, &self.security);
                act(Dialler::new(
                    cluster, security, member, &self.book, purpose, None,
                ));
            }
            members.changed().await?;
        }
    }
}

/// Writes messages and signs of life, until the senders of messages are gone or the link breaks.
async fn write_all<T: Serialize>(
    writer: &mut (impl AsyncWrite + Unpin),
    messages: &mut mpsc::Receiver<T>,
) -> anyhow::Result<()> {
    frames::write(writer, &Frame::Alive, &[]).await?;
    let mut beats = interval(HEARTBEAT);
    loop {
        tokio::select! {
            biased;
            message = messages.recv() => match message {
                Some(message) => write_message(writer, &message).await?,
                None => return Ok(()),
            },
            _ = beats.tick() => frames::write(writer, &Frame::Alive, &[]).await?,
        }
    }
}

/// Writes a message in parts: a large one must not pass for silence.
async fn write_message(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut parts = bytes.chunks(PART_BYTES).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        frames::write(writer, &Frame::Part { last }, part).await?;
    }
    Ok(())
}

/// Reads the next message; nothing once the link is closed. Errors: it broke, or is silent.
///
/// Not cancel-safe: a dropped future may have read half a frame.
async fn read_message<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
    heard: &Mutex<Instant>,
) -> anyhow::Result<Option<T>> {
    let mut message = Vec::new();
    loop {
        let frame = timeout(SILENCE_MAX, frames::read::<Frame>(reader)).await;
        let frame = frame.map_err(|_| anyhow::anyhow!("silent for {SILENCE_MAX:?}"))??;
        let Some((frame, part)) = frame else {
            return Ok(None);
        };
        *lock(heard) = Instant::now();
        if let Frame::Part { last } = frame {
            message.extend_from_slice(&part);
            anyhow::ensure!(
                message.len() <= MESSAGE_BYTES_MAX,
                "a message is larger than {MESSAGE_BYTES_MAX} bytes"
            );
            if last {
                return Ok(Some(serde_json::from_slice(&message)?));
            }
        }
    }
}

/// Serves the link of a node that has dialled this controller, until it ends.
pub(crate) async fn serve(
    wire: Wire,
    node: NodeId,
    changes: &mpsc::Sender<LinkChange>,
    reports: &mpsc::Sender<FromAgent>,
) -> anyhow::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(wire);
    // A dialler that has given up, and dialled again, sends none: its connection must not take the
    // place of the newer one.
    let first = timeout(SILENCE_MAX, frames::read::<Frame>(&mut reader)).await;
    if !matches!(first, Ok(Ok(Some((Frame::Alive, _))))) {
        anyhow::bail!("its link begins without a sign of life");
    }
    let (commands, mut waiting) = mpsc::channel::<ToAgent>(MAX_LINK_MESSAGES);
    // Only the scheduler holds the sender: a link that another one has replaced ends.
    let link = commands.downgrade();
    changes.send(LinkChange::Up(node.clone(), commands)).await?;
    let heard = Mutex::new(Instant::now());
    let of_node = async {
        while let Some(report) = read_message::<FromAgent>(&mut reader, &heard).await? {
            anyhow::ensure!(report.node == node, "it reports for node `{}`", report.node);
            reports.send(report).await?;
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = of_node => ended,
        ended = write_all(&mut writer, &mut waiting) => ended,
    };
    if let Err(error) = &ended {
        tracing::warn!(%node, error = %format!("{error:#}"), "the link to a node broke");
    }
    let silent = lock(&heard).elapsed();
    if let Some(commands) = link.upgrade() {
        changes
            .send(LinkChange::Down(node, commands, silent))
            .await?;
    }
    Ok(())
}

/// Links of a node, by member, and the one that leads.
#[derive(Default)]
struct Links {
    reports: BTreeMap<u64, mpsc::Sender<FromAgent>>,
    /// The highest term of a command, and whose it was.
    leader: Option<(u64, u64)>,
}

impl Links {
    fn commanded(&mut self, member: u64, term: u64) {
        if self.leader.is_none_or(|(highest, _)| term >= highest) {
            self.leader = Some((term, member));
        }
    }

    /// Passes a report on to the leader. If nobody leads or the link does not keep up, it is dropped:
    /// agents repeat results, and a link that comes up again begins with a status.
    fn report(&mut self, report: FromAgent) {
        let Some((_, member)) = self.leader else {
            return;
        };
        if let Some(link) = self.reports.get(&member)
            && link.try_send(report).is_err()
        {
            // Without its sender the link ends, and is dialled again.
            self.reports.remove(&member);
        }
    }
}

/// Links a node to all controllers: `end` is the agent's other end.
pub fn follow_controllers(to: &ToControllers, end: NodeLink, tasks: &Tasks) {
    let NodeLink {
        commands,
        mut reports,
    } = end;
    let links: Arc<Mutex<Links>> = Arc::default();
    let (shared, spawner) = (Arc::clone(&links), tasks.clone());
    let linking = to.clone().dial_each(Purpose::Control, move |mut dialler| {
        let (commands, links) = (commands.clone(), Arc::clone(&shared));
        spawner.spawn("control link", OnError::Stop, async move {
            loop {
                let wire = dialler.reach().await;
                run_link(wire, dialler.member(), &commands, &links).await;
            }
        });
    });
    tasks.spawn("control links", OnError::Stop, linking);
    tasks.spawn("reports", OnError::Stop, async move {
        while let Some(report) = reports.recv().await {
            lock(&links).report(report);
        }
        Ok(())
    });
}

async fn run_link(wire: Wire, member: u64, commands: &mpsc::Sender<ToAgent>, links: &Mutex<Links>) {
    let (reports, mut waiting) = mpsc::channel(MAX_LINK_MESSAGES);
    lock(links).reports.insert(member, reports);
    let heard = Mutex::new(Instant::now());
    let (mut reader, mut writer) = tokio::io::split(wire);
    let to_agent = async {
        while let Some(command) = read_message::<ToAgent>(&mut reader, &heard).await? {
            lock(links).commanded(member, command.term);
            commands.send(command).await?;
        }
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        ended = to_agent => ended,
        ended = write_all(&mut writer, &mut waiting) => ended,
    };
    lock(links).reports.remove(&member);
    if let Err(error) = ended {
        tracing::warn!(member, error = %format!("{error:#}"), "the link to a controller broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_of_any_size_arrive_in_parts() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        let sent = [
            "small".to_owned(),
            "x".repeat(3 * PART_BYTES),
            String::new(),
        ];
        let (messages, mut waiting) = mpsc::channel(sent.len());
        for message in sent.clone() {
            messages.try_send(message).expect("there is room");
        }
        drop(messages);
        let heard = Mutex::new(Instant::now());
        let reading = async {
            let mut found = Vec::new();
            while let Some(message) = read_message::<String>(&mut theirs, &heard).await? {
                found.push(message);
            }
            anyhow::Ok(found)
        };
        let writing = async {
            let written = write_all(&mut ours, &mut waiting).await;
            drop(ours);
            written
        };
        let (found, written) = tokio::join!(reading, writing);
        written.expect("it writes");
        assert_eq!(found.expect("it reads"), sent);
    }
}
