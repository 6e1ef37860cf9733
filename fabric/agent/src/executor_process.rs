//! Executor processes: started with a socket as standard input, relayed until they end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::mpsc;
use weft_protocol::{FromExecutor, ToExecutor};
use weft_runtime::link::{ExecutorEvent, ExecutorLink, Outbound};
use weft_runtime::{OnError, frames};

use crate::agent::{Agent, MESSAGES_MAX};
use crate::invocations::Invocations;

impl Agent {
    /// Starts an executor. Its `Ready` comes as an event.
    pub(crate) async fn start_executor(&self, id: u64) -> anyhow::Result<ExecutorLink> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = self.child(&["executor".as_ref()]);
        command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        let child = command.spawn().context("an executor does not start")?;
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        let link = ExecutorLink::new(id, sender.clone());
        let setup = ToExecutor::Setup {
            store: self.settings.store.clone(),
            spill: self.settings.spill.clone(),
            slots: self.settings.slots,
            compatibility: self.settings.compatibility.clone(),
        };
        link.send(setup).await;
        let (events, invocations) = (self.events.clone(), Arc::clone(&self.invocations));
        let calls = sender;
        let socket = UnixStream::from_std(ours)?;
        self.tasks.spawn("executor link", OnError::Log, async move {
            let relay = Relay {
                id,
                events: &events,
                invocations: &invocations,
                calls,
            };
            let ended = relay.run(child, socket, receiver).await;
            invocations.disconnect(id);
            let _ = events.send(ExecutorEvent::Gone(id, ended)).await;
            Ok(())
        });
        Ok(link)
    }
}

/// Relay between an executor and those who talk to it.
struct Relay<'a> {
    id: u64,
    events: &'a mpsc::Sender<ExecutorEvent>,
    invocations: &'a Invocations,
    /// Where invocations are sent to.
    calls: mpsc::Sender<Outbound>,
}

impl Relay<'_> {
    /// Passes messages both ways until the executor ends; returns how it ended.
    async fn run(
        self,
        mut child: Child,
        socket: UnixStream,
        mut outbox: mpsc::Receiver<Outbound>,
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
            message => {
                if let FromExecutor::Ready { .. } = message {
                    self.invocations.connect(self.id, self.calls.clone());
                }
                self.events
                    .send(ExecutorEvent::Said(self.id, message))
                    .await?;
            }
        }
        Ok(())
    }
}
