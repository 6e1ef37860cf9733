//! The node's side: starts executor and compiler children, and passes messages between executors and the controller.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};
use weft_core::{ErrorCode, LimitKind, Problem};
use weft_engine::{FromExecutor, ToExecutor};

use crate::compiler::{ARTEFACT_BYTES_MAX, CPU_SECONDS_MAX, MEMORY_BYTES_MAX, Verdict};
use crate::folder::{DataFolder, move_durably};
use crate::invocations::Invocations;
use crate::metrics::Metrics;
use crate::tasks::{OnError, Tasks};
use crate::wire;

/// Messages that may wait on their way to an executor, and from all executors to the controller.
const MESSAGES_MAX: usize = 4096;
/// Wall time of one compilation.
const COMPILE_WALL_MAX: Duration = Duration::from_secs(300);
/// Bytes that a compiler may say.
const VERDICT_BYTES_MAX: u64 = 1 << 20;
/// Compilations side by side: each may take gigabytes.
const COMPILERS_MAX: usize = 1;
/// Threads of a compiler. Timers interrupt those without work, too, and on a large machine those would be many.
const COMPILER_THREADS_MAX: usize = 4;

/// What the controller hears of an executor.
#[derive(Debug)]
pub(crate) enum ExecutorEvent {
    /// It said something.
    Said(u64, FromExecutor),
    /// Its process is gone.
    Gone(u64, String),
}

/// A message to an executor, with its payload.
pub(crate) type Outbound = (ToExecutor, Bytes);

/// A running executor.
pub(crate) struct ExecutorLink {
    /// Unique in the life of this server.
    pub(crate) id: u64,
    sender: mpsc::Sender<Outbound>,
}

impl ExecutorLink {
    /// Sends a message; where the executor is gone, its `Gone` is on the way.
    pub(crate) async fn send(&self, message: ToExecutor) {
        let _ = self.sender.send((message, Bytes::new())).await;
    }
}

/// The node.
pub(crate) struct Agent {
    program: PathBuf,
    store: PathBuf,
    spill: PathBuf,
    compatibility: String,
    slots: u32,
    tasks: Tasks,
    events: mpsc::Sender<ExecutorEvent>,
    invocations: Arc<Invocations>,
    compilers: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Agent {
    pub(crate) fn new(
        folder: &DataFolder,
        compatibility: String,
        slots: u32,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<ExecutorEvent>)> {
        let incarnation = crate::random::name::<16>()?;
        let (events, receiver) = mpsc::channel(MESSAGES_MAX);
        let program = std::env::current_exe().context("the path of the program is unknown")?;
        let compilers = Arc::new(Semaphore::new(COMPILERS_MAX));
        Ok((
            Self {
                program,
                store: folder.store(),
                spill: folder.spill(),
                compatibility,
                slots,
                tasks,
                events,
                invocations: Arc::new(Invocations::new(slots, incarnation, Arc::clone(&metrics))),
                compilers,
                metrics,
            },
            receiver,
        ))
    }

    /// Calls of functions, which need no controller.
    pub(crate) fn invocations(&self) -> Arc<Invocations> {
        Arc::clone(&self.invocations)
    }

    /// Names the artefacts of this node's engine.
    pub(crate) fn compatibility(&self) -> &str {
        &self.compatibility
    }

    /// A child of this program with nothing of the server's environment but what is for debugging.
    fn child(&self, arguments: &[&std::ffi::OsStr]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().kill_on_drop(true);
        for name in [
            "WEFT_LOG",
            "RUST_BACKTRACE",
            "WEFT_FAILPOINTS",
            "WEFT_FAILPOINT_ONCE",
            "TMPDIR",
        ] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

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
        let link = ExecutorLink { id, sender };
        let setup = ToExecutor::Setup {
            store: self.store.clone(),
            spill: self.spill.clone(),
            slots: self.slots,
            compatibility: self.compatibility.clone(),
        };
        link.send(setup).await;
        let (events, invocations) = (self.events.clone(), Arc::clone(&self.invocations));
        let calls = link.sender.clone();
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

    /// Compiles the component at `component` into `artefact`, in a child under limits. The artefact appears whole or not at all.
    pub(crate) async fn compile(
        &self,
        component: &Path,
        artefact: &Path,
    ) -> Result<Vec<String>, Problem> {
        let internal = |error: &dyn std::fmt::Display| {
            Problem::new(ErrorCode::Internal, format!("compiling failed: {error}"))
        };
        let permit = Arc::clone(&self.compilers)
            .acquire_owned()
            .await
            .map_err(|error| internal(&error))?;
        let folder = artefact
            .parent()
            .ok_or_else(|| internal(&"the artefact has no folder"))?;
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(|error| internal(&error))?;
        self.metrics.compilations.inc();
        let draft = artefact.with_extension("draft");
        let imports = self.compile_in_child(component, &draft).await?;
        // Comes to its end without whoever asked, too: the next compiler may write a draft of the same name.
        let artefact = artefact.to_owned();
        let moving = async move {
            let _permit = permit;
            move_durably(&draft, &artefact).await
        };
        let moved = self.tasks.run_to_end("artefact", moving).await?;
        moved.map_err(|error| internal(&error))?;
        Ok(imports)
    }

    /// Compiles behind all others, and, where these leave no time for it, among them.
    async fn compile_in_child(
        &self,
        component: &Path,
        draft: &Path,
    ) -> Result<Vec<String>, Problem> {
        for last in [true, false] {
            let threads = self.compiler_threads().to_string();
            let mut command = self.child(&[
                "compiler".as_ref(),
                component.as_os_str(),
                draft.as_os_str(),
                threads.as_ref(),
            ]);
            if last {
                command.arg("--last");
            }
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let verdict = tokio::time::timeout(COMPILE_WALL_MAX, verdict_of(command));
            let verdict = verdict.await.map_err(|_| {
                // Its CPU time has a limit of its own: the machine was busy.
                let detail = format!(
                    "the component could not be compiled within {} s: the machine is busy; try again",
                    COMPILE_WALL_MAX.as_secs()
                );
                Problem::new(ErrorCode::Busy, detail)
            })?;
            match verdict? {
                Verdict::Compiled { imports } => return Ok(imports),
                Verdict::Refused(problem) => return Err(problem),
                Verdict::Starved => {
                    tracing::debug!(
                        "a compiler had no time behind all others, and starts over among them"
                    );
                }
            }
        }
        Err(Problem::new(
            ErrorCode::Internal,
            "the compiler gave up though it was to compile among others",
        ))
    }

    /// As many as there are cores, within a bound; where calls are served when it begins, half of them.
    fn compiler_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match self.invocations.serves() {
            true => cores / 2,
            false => cores,
        };
        threads.clamp(1, COMPILER_THREADS_MAX)
    }
}

fn over_limit(kind: LimitKind, value: String) -> Problem {
    let detail = format!(
        "the component cannot be compiled within the `{kind}` limit of {value}; make it smaller or split it"
    );
    Problem::new(ErrorCode::InvalidComponent, detail).of_limit(kind, value)
}

async fn verdict_of(mut command: Command) -> Result<Verdict, Problem> {
    let internal = |error: &dyn std::fmt::Display| {
        Problem::new(ErrorCode::Internal, format!("the compiler failed: {error}"))
    };
    let mut child = command.spawn().map_err(|error| internal(&error))?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(VERDICT_BYTES_MAX)
            .read_to_end(&mut said)
            .await
            .map_err(|error| internal(&error))?;
    }
    let status = child.wait().await.map_err(|error| internal(&error))?;
    if status.success() {
        return serde_json::from_slice(&said).map_err(|error| internal(&error));
    }
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        // SIGXCPU and SIGXFSZ are the kernel's; running out of memory ends in an abort.
        Some(24) => Err(over_limit(LimitKind::Cpu, format!("{CPU_SECONDS_MAX} s"))),
        Some(25) => Err(over_limit(
            LimitKind::Output,
            format!("{} MiB", ARTEFACT_BYTES_MAX >> 20),
        )),
        Some(6 | 11) => Err(over_limit(
            LimitKind::Memory,
            format!("{} GiB", MEMORY_BYTES_MAX >> 30),
        )),
        Some(9) => {
            let detail = "the compiler was killed, by the kernel where memory is short; try again";
            Err(Problem::new(ErrorCode::Busy, detail))
        }
        _ => Err(internal(&status)),
    }
}

/// What passes messages between an executor and those who talk to it.
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
            while let Some((message, payload)) = wire::read::<FromExecutor>(&mut reader).await? {
                self.heard(message, payload).await?;
            }
            anyhow::Ok(())
        };
        let writing = async {
            while let Some((message, payload)) = outbox.recv().await {
                wire::write(&mut writer, &message, &payload).await?;
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
