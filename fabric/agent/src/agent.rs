//! The agent with its processes: does what its [`AgentState`] says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_core::{Epoch, TenantId};
use weft_protocol::{FromAgent, Stores};
use weft_runtime::Tasks;
use weft_runtime::clock::boot_ns;
use weft_runtime::link::{ControllerLink, MAX_LINK_MESSAGES};
use weft_store::{Blobs, Issuer};

use crate::children::Children;
use crate::compiler_process::CompilerProcesses;
use crate::credentials::CredentialsOf;
use crate::executor_process::{self, ExecutorEvent, ExecutorProcess};
use crate::invocations::Invocations;
use crate::metrics::Metrics;
use crate::state::{Action, AgentState, NodeSettings};

/// Time between two reports of what invocations used. A dying node's unreported usage is the
/// platform's loss.
const METERING_PERIOD: Duration = Duration::from_secs(1);
/// Time for which an executor may start.
const START_WALL_MAX: Duration = Duration::from_secs(60);

/// Time for controllers to hear that a node drains: what they have sent until then arrives.
const DRAIN_NOTICE: Duration = Duration::from_millis(500);

/// Time for turns of actors to end before a node that has drained otherwise leaves. Then they are taken up elsewhere,
/// as after its loss: shards that nobody serves keep their actors waiting.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// Settings of a node's agent.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// The node.
    pub node: NodeSettings,
    /// The cluster's store, and those that jobs may use.
    pub stores: Stores,
    /// Folder for files that were fetched from a store that is none itself.
    pub cache: PathBuf,
    /// Folder for copies of shuffle objects of such a store.
    pub tier: PathBuf,
    /// Bytes of these copies; 0 for none.
    pub tier_bytes: u64,
    /// Folder for files that tasks spill.
    pub spill: PathBuf,
}

/// A node's agent.
pub struct Agent {
    settings: AgentSettings,
    children: Children,
    issuer: Arc<Issuer>,
    tasks: Tasks,
    invocations: Invocations,
    compilers: Arc<CompilerProcesses>,
    events: (mpsc::Sender<ExecutorEvent>, mpsc::Receiver<ExecutorEvent>),
    state: AgentState,
    /// Executors, and when they were started.
    processes: BTreeMap<Epoch, (ExecutorProcess, Instant)>,
    drain: CancellationToken,
    draining_since: Option<Instant>,
    leaving_since: Option<Instant>,
}

impl Agent {
    /// An agent without executors.
    ///
    /// Errors: the path of this program is unknown, or the settings of a store are wrong.
    pub fn new(settings: AgentSettings, tasks: Tasks, metrics: Metrics) -> anyhow::Result<Self> {
        let (children, metrics) = (Children::new()?, Arc::new(metrics));
        let blobs = Blobs::open(&settings.stores)?;
        let issuer = Arc::new(Issuer::open(&settings.stores)?);
        for store in unscoped(&settings.stores) {
            tracing::warn!(
                store,
                "credentials of executors are unscoped: `executor_role` gives them such as are for their part of it"
            );
        }
        let invocations = Invocations::new(settings.node.slots, Arc::clone(&metrics));
        let compilers = CompilerProcesses::new(
            &settings,
            blobs,
            children.clone(),
            invocations.clone(),
            tasks.clone(),
            metrics,
        );
        Ok(Self {
            state: AgentState::new(settings.node.clone()),
            settings,
            children,
            issuer,
            tasks,
            invocations,
            compilers: Arc::new(compilers),
            events: mpsc::channel(MAX_LINK_MESSAGES),
            processes: BTreeMap::new(),
            drain: CancellationToken::new(),
            draining_since: None,
            leaving_since: None,
        })
    }

    /// The node's invocations.
    pub fn invocations(&self) -> Invocations {
        self.invocations.clone()
    }

    /// The node's compilers.
    pub fn compilers(&self) -> Arc<CompilerProcesses> {
        Arc::clone(&self.compilers)
    }

    /// Cancelling this has the node take no new work, and end once what it has is done.
    pub fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Serves a controller until cancelled, or drained.
    pub async fn run(
        mut self,
        mut link: ControllerLink,
        cancel: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut metering = tokio::time::interval(METERING_PERIOD);
        loop {
            let actions = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                // Before the rest: without renewals, executors stop serving shards.
                () = self.renewal_due() => self.state.renew(boot_ns()),
                Some(message) = link.commands.recv() => self.state.on_command(message),
                Some(event) = self.events.1.recv() => self.on_event(event),
                () = self.drain.cancelled(), if !self.state.is_draining() => self.state.drain(),
                _ = metering.tick() => {
                    self.stop_stillborn();
                    self.meter()
                }
                else => return Ok(()),
            };
            for action in actions {
                self.perform(action, &link.reports).await;
            }
            if self.state.is_draining() {
                self.invocations.drain();
                let since = *self.draining_since.get_or_insert_with(Instant::now);
                let is_known = since.elapsed() >= DRAIN_NOTICE;
                if is_known && self.state.is_drained() && self.has_left() {
                    tracing::info!("drained");
                    return Ok(());
                }
            }
        }
    }

    /// Returns whether no invocation keeps a node that has drained otherwise. Those of actors would for ever: they go
    /// where their shards are, which are the node's until it ends.
    fn has_left(&mut self) -> bool {
        let are_calls_done = self.invocations.are_calls_done();
        if self.leaving_since.is_none() && !are_calls_done {
            return false;
        }
        self.invocations.leave();
        let since = *self.leaving_since.get_or_insert_with(Instant::now);
        self.invocations.are_done() || (are_calls_done && since.elapsed() >= LEAVE_PATIENCE)
    }

    /// Ends when leases are to be renewed.
    fn renewal_due(&self) -> impl Future<Output = ()> + use<> {
        let due_in = self.state.renewal_due_in(boot_ns());
        async move {
            match due_in {
                Some(due_in) => tokio::time::sleep(due_in).await,
                None => std::future::pending().await,
            }
        }
    }

    fn on_event(&mut self, event: ExecutorEvent) -> Vec<Action> {
        match event {
            ExecutorEvent::Said(epoch, message) => self.state.on_message(epoch, message),
            ExecutorEvent::Gone(epoch, how) => {
                self.processes.remove(&epoch);
                self.state.on_gone(epoch, how)
            }
        }
    }

    async fn perform(&mut self, action: Action, reports: &mpsc::Sender<FromAgent>) {
        match action {
            Action::Start { epoch, tenant } => self.start(epoch, tenant).await,
            Action::Stop { epoch } => {
                if let Some((process, _)) = self.processes.get(&epoch) {
                    process.stop();
                }
            }
            Action::Send { epoch, message } => {
                if let Some((process, _)) = self.processes.get(&epoch) {
                    process.send(message);
                }
            }
            // If nobody listens, results are kept, and whoever leads next asks for them.
            Action::Report(message) => drop(reports.send(*message).await),
        }
    }

    async fn start(&mut self, epoch: Epoch, tenant: TenantId) {
        let credentials = CredentialsOf::new(Arc::clone(&self.issuer), &tenant, epoch);
        let started = executor_process::start(
            epoch,
            &self.settings,
            &self.children,
            credentials,
            self.invocations.of(&tenant),
            self.events.0.clone(),
            &self.tasks,
        );
        match started.await {
            Ok(process) => drop(self.processes.insert(epoch, (process, Instant::now()))),
            Err(error) => {
                let how = format!("{error:#}");
                tracing::error!(%epoch, error = how, "an executor does not start");
                // As if it had started and ended.
                let events = self.events.0.clone();
                self.tasks
                    .spawn("executor start", weft_runtime::OnError::Log, async move {
                        let _ = events.send(ExecutorEvent::Gone(epoch, how)).await;
                        Ok(())
                    });
            }
        }
    }

    /// Ends executors that do not become ready.
    fn stop_stillborn(&self) {
        for (epoch, (process, started)) in &self.processes {
            if !self.state.is_ready(*epoch) && started.elapsed() > START_WALL_MAX {
                tracing::error!(%epoch, limit = ?START_WALL_MAX, "an executor is not ready in time");
                process.stop();
            }
        }
    }

    /// Reports what invocations used, of each tenant whose last report was acknowledged.
    fn meter(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for tenant in self.invocations.tenants_with_usage() {
            if self.state.may_report_usage(&tenant) {
                let usage = self.invocations.of(&tenant).take_usage();
                actions.extend(self.state.on_usage(tenant, usage));
            }
        }
        actions
    }
}

/// Names of buckets whose own credentials executors get.
fn unscoped(stores: &Stores) -> impl Iterator<Item = String> {
    let remote = stores.named().filter(|(_, store)| {
        let is_scoped = store.executor_role.is_some();
        store.folder().is_none() && !is_scoped
    });
    remote.map(|(name, _)| name)
}
