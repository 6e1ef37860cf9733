//! The agent: owns a node's processes and admits its invocations.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};
use weft_core::Problem;
use weft_runtime::Tasks;
use weft_runtime::link::{ExecutorEvent, ExecutorLink, Node};

use crate::compiler_process::COMPILERS_MAX;
use crate::invocations::Invocations;
use crate::metrics::Metrics;

/// Messages that may wait on their way to an executor, and from all executors to the controller.
pub(crate) const MESSAGES_MAX: usize = 4096;

/// Variables of the environment that children inherit: for debugging and tests.
const INHERITED: [&str; 5] = [
    "WEFT_LOG",
    "RUST_BACKTRACE",
    "WEFT_FAILPOINTS",
    "WEFT_FAILPOINT_ONCE",
    "TMPDIR",
];

/// Settings of a node's agent.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// Folder of the store.
    pub store: PathBuf,
    /// Folder for files that tasks spill.
    pub spill: PathBuf,
    /// Name of the artefacts that this node's engine takes.
    pub compatibility: String,
    /// Tasks that run side by side.
    pub slots: u32,
    /// Random name of this process.
    pub incarnation: String,
}

/// A node's agent.
pub struct Agent {
    pub(crate) settings: AgentSettings,
    program: PathBuf,
    pub(crate) tasks: Tasks,
    pub(crate) events: mpsc::Sender<ExecutorEvent>,
    pub(crate) invocations: Arc<Invocations>,
    pub(crate) compilers: Arc<Semaphore>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Agent {
    /// An agent whose executors' reports come out of the receiver.
    ///
    /// Errors: the path of this program is unknown.
    pub fn new(
        settings: AgentSettings,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<ExecutorEvent>)> {
        let (events, receiver) = mpsc::channel(MESSAGES_MAX);
        let program = std::env::current_exe().context("the path of the program is unknown")?;
        let invocations = Invocations::new(
            settings.slots,
            settings.incarnation.clone(),
            Arc::clone(&metrics),
        );
        let agent = Self {
            settings,
            program,
            tasks,
            events,
            invocations: Arc::new(invocations),
            compilers: Arc::new(Semaphore::new(COMPILERS_MAX)),
            metrics,
        };
        Ok((agent, receiver))
    }

    /// The node's invocations.
    pub fn invocations(&self) -> Arc<Invocations> {
        Arc::clone(&self.invocations)
    }

    /// A child of this program, with nothing of the agent's environment but [`INHERITED`].
    pub(crate) fn child(&self, arguments: &[&std::ffi::OsStr]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().kill_on_drop(true);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }
}

#[async_trait]
impl Node for Agent {
    async fn start_executor(&self, id: u64) -> anyhow::Result<ExecutorLink> {
        self.start_executor(id).await
    }

    async fn compile(&self, component: &Path, artefact: &Path) -> Result<Vec<String>, Problem> {
        self.compile(component, artefact).await
    }

    fn compatibility(&self) -> &str {
        &self.settings.compatibility
    }
}
