//! Executor processes: started with a socket as standard input, relayed until they end.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::pin::pin;
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
use weft_protocol::{ExecutorCredentials, FromExecutor, MESSAGE_VERSION, ToExecutor};
use weft_runtime::clock::unix_ms;
use weft_runtime::link::MAX_LINK_MESSAGES;
use weft_runtime::{OnError, Tasks, frames};

use crate::agent::AgentSettings;
use crate::children::Children;
use crate::credentials::{CredentialsOf, Renewal};
use crate::invocations::OfTenant;

/// Questions of controllers that wait for the socket of an executor: each has up to a turn's input.
const MAX_ASKED: usize = 1_024;

/// Message to an executor, with its payload.
pub(crate) type Outbound = (ToExecutor, Bytes);

/// News of an executor.
#[derive(Debug)]
pub(crate) enum ExecutorEvent {
    /// It sent a message.
    Said(Epoch, FromExecutor),
    /// The executor's process is gone, and ended so.
    Gone(Epoch, String),
}

/// A running executor.
pub(crate) struct ExecutorProcess {
    /// Commands go before the questions of controllers, so that renewals of the lease do not wait behind those.
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
    credentials: CredentialsOf,
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
    let (sender, commands) = mpsc::channel(MAX_LINK_MESSAGES);
    let (asker, asked) = mpsc::channel(MAX_ASKED);
    let outbox = Outbox { commands, asked };
    let process = ExecutorProcess {
        sender,
        stop: CancellationToken::new(),
    };
    let setup = {
        let (stores, cache) = (credentials.stores().clone(), settings.cache.clone());
        let (tier, tier_bytes) = (settings.tier.clone(), settings.tier_bytes);
        let (spill, slots) = (spill.clone(), settings.node.slots);
        let compatibility = settings.node.compatibility.clone();
        let tenant = credentials.tenant().clone();
        move |credentials: &ExecutorCredentials| ToExecutor::Setup {
            version: MESSAGE_VERSION,
            tenant,
            epoch,
            stores: Box::new(stores),
            credentials: Box::new(credentials.clone()),
            cache,
            tier,
            tier_bytes,
            spill,
            slots,
            compatibility,
        }
    };
    let socket = UnixStream::from_std(ours)?;
    let stop = process.stop.clone();
    tasks.spawn("executor link", OnError::Log, async move {
        let relay = Relay {
            epoch,
            events: &events,
            invocations: &invocations,
            calls: asker,
            credentials,
        };
        let ended = relay.run(setup, child, socket, outbox, stop).await;
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

/// Messages on their way to an executor.
struct Outbox {
    commands: mpsc::Receiver<Outbound>,
    /// Invocations and the like, and credentials that were renewed.
    asked: mpsc::Receiver<Outbound>,
}

impl Outbox {
    /// The next message: a command, if there is one. Nothing once nobody sends any. Safe to drop.
    async fn next(&mut self) -> Option<Outbound> {
        tokio::select! {
            biased;
            Some(command) = self.commands.recv() => Some(command),
            Some(asked) = self.asked.recv() => Some(asked),
            else => None,
        }
    }
}

/// Relay between an executor and those who talk to it.
struct Relay<'a> {
    epoch: Epoch,
    events: &'a mpsc::Sender<ExecutorEvent>,
    invocations: &'a OfTenant,
    /// Queue for invocations, and for credentials that were renewed.
    calls: mpsc::Sender<Outbound>,
    credentials: CredentialsOf,
}

impl Relay<'_> {
    /// Sets the executor up, and passes messages both ways until it ends; returns how it ended.
    async fn run(
        self,
        setup: impl FnOnce(&ExecutorCredentials) -> ToExecutor + Send,
        mut child: Child,
        socket: UnixStream,
        outbox: Outbox,
        stop: CancellationToken,
    ) -> String {
        // The socket stays open until the process has ended, so that it is the signal that ends it.
        let mut serving = pin!(self.serve(setup, socket, outbox));
        let ended = tokio::select! {
            ended = &mut serving => ended,
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

    /// Returns when the executor has closed its socket. Errors: it gets no credentials, or a message is wrong.
    async fn serve(
        &self,
        setup: impl FnOnce(&ExecutorCredentials) -> ToExecutor + Send,
        socket: UnixStream,
        mut outbox: Outbox,
    ) -> anyhow::Result<()> {
        let (reader, mut writer) = socket.into_split();
        let mut reader = BufReader::new(reader);
        let first = self.credentials.issue().await?;
        frames::write(&mut writer, &setup(&first), &[]).await?;
        let reading = async {
            while let Some((message, payload)) = frames::read::<FromExecutor>(&mut reader).await? {
                self.heard(message, payload).await?;
            }
            anyhow::Ok(())
        };
        let writing = async {
            while let Some((message, payload)) = outbox.next().await {
                frames::write(&mut writer, &message, &payload).await?;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = reading => ended,
            ended = writing => ended,
            ended = self.renew(&first) => ended,
        }
    }

    /// Sends the executor new credentials before those that it has expire. Never returns if it needs none.
    async fn renew(&self, first: &ExecutorCredentials) -> anyhow::Result<()> {
        let Some(mut renewal) = Renewal::of(first, unix_ms()) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(renewal.due_in(unix_ms())).await;
            match self.credentials.issue().await {
                Ok(newer) => {
                    renewal.renewed(&newer, unix_ms());
                    let newer = ToExecutor::Credentials(Box::new(newer));
                    self.calls.send((newer, Bytes::new())).await?;
                }
                Err(error) => {
                    let (epoch, error) = (self.epoch, format!("{error:#}"));
                    tracing::error!(%epoch, error, "credentials of an executor are not renewed yet");
                    renewal.failed(unix_ms());
                }
            }
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
            FromExecutor::NotHere { request } => self.invocations.not_here(request),
            FromExecutor::Call(call) => {
                let (epoch, input) = (self.epoch, payload.into());
                self.invocations.call(epoch, *call, input, &self.calls);
            }
            FromExecutor::CancelCall { call } => self.invocations.cancel_call(self.epoch, call),
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

#[cfg(test)]
mod tests {
    use weft_core::JobId;
    use weft_protocol::Work;

    use super::*;

    fn abandon(request: u64) -> Outbound {
        (ToExecutor::Abandon { request }, Bytes::new())
    }

    fn renewal(until_ns: u64) -> Outbound {
        let lease = ToExecutor::Lease {
            until_ns,
            confirmed: 0,
        };
        (lease, Bytes::new())
    }

    /// Renewals would come too late behind thousands of inputs, and a queue that these fill would end the executor.
    #[tokio::test]
    async fn commands_go_before_questions_and_have_room_of_their_own() {
        let (sender, commands) = mpsc::channel(8);
        let (asker, asked) = mpsc::channel(2);
        let mut outbox = Outbox { commands, asked };
        for request in [1, 2] {
            asker.try_send(abandon(request)).expect("there is room");
        }
        let process = ExecutorProcess {
            sender,
            stop: CancellationToken::new(),
        };
        process.send(renewal(7).0);
        let job = JobId::new(1, 2);
        process.send(ToExecutor::Work(Work::Forget { job }));
        assert!(!process.stop.is_cancelled());
        let mut next = async || outbox.next().await.map(|(message, _)| message);
        assert!(matches!(
            next().await,
            Some(ToExecutor::Lease { until_ns: 7, .. })
        ));
        assert!(matches!(next().await, Some(ToExecutor::Work(_))));
        for number in [1, 2] {
            let asked = next().await;
            assert!(matches!(asked, Some(ToExecutor::Abandon { request }) if request == number));
        }
        drop((process, asker));
        assert!(next().await.is_none());
    }
}
