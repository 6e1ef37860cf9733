//! Executor processes: started with a socket as standard input, relayed until they end.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;
use weft_core::Epoch;
use weft_protocol::{FromExecutor, MESSAGE_VERSION, ToExecutor};
use weft_runtime::link::MAX_LINK_MESSAGES;
use weft_runtime::{OnError, Tasks, frames};

use crate::agent::AgentSettings;
use crate::children::Children;
use crate::invocations::OfTenant;

/// Message to an executor, with its payload.
pub(crate) type Outbound = (ToExecutor, Bytes);

/// News of an executor.
#[derive(Debug)]
pub(crate) enum ExecutorEvent {
    /// It sent a message.
    Said(Epoch, FromExecutor),
    /// Its process is gone, and how it ended.
    Gone(Epoch, String),
}

/// A running executor.
pub(crate) struct ExecutorProcess {
    sender: mpsc::Sender<Outbound>,
    stop: CancellationToken,
}

impl ExecutorProcess {
    /// Sends a message. If the executor is gone, its `Gone` is on the way; one that does not read is
    /// ended, because it must not hold up the others.
    pub(crate) fn send(&self, message: ToExecutor) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send((message, Bytes::new())) {
            tracing::error!(
                limit = MAX_LINK_MESSAGES,
                "an executor does not read its messages"
            );
            self.stop();
        }
    }

    /// Ends the process; its `Gone` comes as an event.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// Starts an executor for the tenant of `invocations`. Its `Ready` comes as an event.
///
/// Errors: no process can be started.
pub(crate) async fn start(
    epoch: Epoch,
    settings: &AgentSettings,
    children: &Children,
    invocations: Arc<OfTenant>,
    events: mpsc::Sender<ExecutorEvent>,
    tasks: &Tasks,
) -> anyhow::Result<ExecutorProcess> {
    let spill = settings.spill.join(format!("executor-{epoch}"));
    tokio::fs::create_dir_all(&spill)
        .await
        .with_context(|| format!("`{}`", spill.display()))?;
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = children.command(&["executor".as_ref()]);
    command
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null());
    let child = command.spawn().context("an executor does not start")?;
    let (sender, receiver) = mpsc::channel(MAX_LINK_MESSAGES);
    let process = ExecutorProcess {
        sender: sender.clone(),
        stop: CancellationToken::new(),
    };
    let setup = ToExecutor::Setup {
        version: MESSAGE_VERSION,
        stores: Box::new(settings.stores.clone()),
        cache: settings.cache.clone(),
        tier: settings.tier.clone(),
        tier_bytes: settings.tier_bytes,
        spill: spill.clone(),
        slots: settings.node.slots,
        compatibility: settings.node.compatibility.clone(),
    };
    process.send(setup);
    let socket = UnixStream::from_std(ours)?;
    let stop = process.stop.clone();
    tasks.spawn("executor link", OnError::Log, async move {
        let relay = Relay {
            epoch,
            events: &events,
            invocations: &invocations,
            calls: sender,
        };
        let ended = relay.run(child, socket, receiver, stop).await;
        invocations.disconnect(epoch);
        remove(&spill).await;
        let _ = events.send(ExecutorEvent::Gone(epoch, ended)).await;
        Ok(())
    });
    Ok(process)
}

/// Removes the folder that a process spilled in, which it may not have done itself.
async fn remove(spill: &Path) {
    match tokio::fs::remove_dir_all(spill).await {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let folder = spill.display();
            tracing::warn!(%folder, %error, "spilled files cannot be removed");
        }
        _ => {}
    }
}

/// Relay between an executor and those who talk to it.
struct Relay<'a> {
    epoch: Epoch,
    events: &'a mpsc::Sender<ExecutorEvent>,
    invocations: &'a OfTenant,
    /// Queue for invocations.
    calls: mpsc::Sender<Outbound>,
}

impl Relay<'_> {
    /// Passes messages both ways until the executor ends; returns how it ended.
    async fn run(
        self,
        mut child: Child,
        socket: UnixStream,
        mut outbox: mpsc::Receiver<Outbound>,
        stop: CancellationToken,
    ) -> String {
        let (reader, mut writer) = socket.into_split();
        let mut reader = BufReader::new(reader);
        let reading = async {
            while let Some((message, payload)) = frames::read::<FromExecutor>(&mut reader).await? {
                self.heard(message, payload).await?;
            }
            anyhow::Ok(())
        };
        let writing = async {
            while let Some((message, payload)) = outbox.recv().await {
                frames::write(&mut writer, &message, &payload).await?;
            }
            anyhow::Ok(())
        };
        let ended = tokio::select! {
            ended = reading => ended,
            ended = writing => ended,
            () = stop.cancelled() => Ok(()),
        };
        let _ = child.start_kill();
        let status = child
            .wait()
            .await
            .map_or_else(|error| error.to_string(), |status| status.to_string());
        match ended {
            Ok(()) => status,
            Err(error) => format!("{status}: {error:#}"),
        }
    }

    async fn heard(&self, message: FromExecutor, payload: Vec<u8>) -> anyhow::Result<()> {
        match message {
            FromExecutor::Invoked(reply) => self.invocations.answer(*reply, payload),
            FromExecutor::Output { request } => self.invocations.output(request, payload.into()),
            FromExecutor::InputRead { request, bytes } => {
                self.invocations.input_read(request, bytes);
            }
            FromExecutor::RowsSent { request, result } => {
                self.invocations.rows_sent(request, result);
            }
            message => {
                if let FromExecutor::Ready { .. } = message {
                    self.invocations.connect(self.epoch, self.calls.clone());
                }
                self.events
                    .send(ExecutorEvent::Said(self.epoch, message))
                    .await?;
            }
        }
        Ok(())
    }
}
