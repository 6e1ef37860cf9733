//! Starts the parts of a controller, in the order in which they need each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_core::{Incarnation, NodeId, TenantId};
use weft_runtime::link::{Compilers, Invoker, NodeLink};
use weft_runtime::{OnError, Tasks};
use weft_store::Blobs;
use weft_telemetry::Registry;

use crate::api::{self, AllowedSources, Api};
use crate::archive::Archives;
use crate::components::Components;
use crate::folders::Folders;
use crate::invocations::Invocations;
use crate::metrics::Metrics;
use crate::replica::{Replica, Signals};
use crate::scheduler::driver::{Driver, Inputs};
use crate::scheduler::{SchedulerSettings, Watch};
use crate::sweep::{Kept, Sweep};
use crate::traces::Traces;

/// Requests of the API that may wait for the scheduler.
const REQUESTS_MAX: usize = 256;
/// Bytes of one command.
const COMMAND_BYTES_MAX: usize = 32 << 20;

/// Settings of a controller.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// Folders that it works in.
    pub folders: Folders,
    /// Folder of the Raft log.
    pub raft: PathBuf,
    /// Commands between two snapshots of the control state.
    pub snapshot_every: u64,
    /// Life of this process.
    pub incarnation: Incarnation,
    /// Starts every task twice, to show that nothing depends on which attempt wins.
    pub run_tasks_twice: bool,
    /// Token of the API.
    pub token: String,
    /// Hosts and origins beside the server's own.
    pub allowed: AllowedSources,
}

/// The node in the same process.
pub struct Local {
    /// Its id.
    pub node: NodeId,
    /// The link to its agent.
    pub link: NodeLink,
    /// Its compilers.
    pub compilers: Arc<dyn Compilers>,
    /// Its invocations.
    pub invoker: Arc<dyn Invoker>,
}

/// A controller that runs.
pub struct Controller {
    replica: Replica,
    traces: Arc<Traces>,
}

impl Controller {
    /// Starts a controller that serves the API on `listener`, and returns when it leads.
    ///
    /// Errors: the control state cannot be opened, the environment's collector cannot be reached.
    pub async fn start(
        settings: ControllerSettings,
        listener: TcpListener,
        local: Local,
        registry: &Registry,
        tasks: &Tasks,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let (replica, signals) = lead(&settings).await?;
        let sweep = Sweep::new(settings.folders.clone());
        first_sweep(&sweep, &replica)?;
        let blobs = Blobs::local(&settings.folders.store)?;
        let metrics = Arc::new(Metrics::new(registry));
        let traces = Arc::new(Traces::from_environment()?);
        let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
        let components = Arc::new(Components::new(
            settings.folders.clone(),
            local.compilers,
            replica.clone(),
            requests.clone(),
        ));
        let scheduler = SchedulerSettings {
            run_tasks_twice: settings.run_tasks_twice,
            eager: vec![TenantId::default_tenant()],
        };
        let watch = Watch {
            metrics: Arc::clone(&metrics),
            traces: Arc::clone(&traces),
        };
        let (scheduler, done) = Driver::new(
            scheduler,
            watch,
            replica.clone(),
            Arc::clone(&components),
            blobs.clone(),
            tasks.clone(),
            BTreeMap::from([(local.node, local.link.commands)]),
        );
        let inputs = Inputs::new(signals, waiting, local.link.reports, done);
        let scheduling = scheduler.run(cancel.clone(), inputs);
        tasks.spawn("scheduler", OnError::Stop, Box::pin(scheduling));
        let sweeping = sweep.keep_sweeping(replica.clone(), Arc::clone(&components));
        tasks.spawn("sweep", OnError::Log, sweeping);
        let invocations = Invocations::new(local.invoker, requests, Arc::clone(&metrics));
        let api = Api {
            replica: replica.clone(),
            components,
            archives: Arc::new(Archives::new(blobs.clone())),
            blobs,
            folders: settings.folders,
            invocations,
            bodies: api::body::Bodies::new(&metrics),
            tasks: tasks.clone(),
            metrics,
            registry: registry.clone(),
            traces: Arc::clone(&traces),
            token: settings.token.into(),
            address,
            allowed: Arc::new(settings.allowed),
        };
        let serving = api::serve(listener, api, tasks.clone(), cancel);
        tasks.spawn("api", OnError::Stop, serving);
        Ok(Self { replica, traces })
    }

    /// Returns when the Raft member has stopped by itself, with the reason.
    pub async fn stopped(&self) -> anyhow::Error {
        let stopped = self.replica.stopped().await;
        anyhow::anyhow!("the Raft member stopped: {stopped:?}")
    }

    /// Closes the Raft log, and sends the last spans.
    pub async fn shutdown(&self) {
        // Nothing is lost whenever the process ends; a member that is told can close its files.
        let _ = self.replica.shutdown().await;
        let traces = Arc::clone(&self.traces);
        let _ = tokio::task::spawn_blocking(move || traces.flush()).await;
    }
}

/// Removes what an earlier process left behind.
fn first_sweep(sweep: &Sweep, replica: &Replica) -> anyhow::Result<()> {
    let kept = {
        let state = replica.state();
        Kept::of(&state, state.now_ms)
    };
    let swept = sweep.sweep(&kept)?;
    if swept > 0 {
        tracing::info!(swept, "removed unreferenced files");
    }
    Ok(())
}

/// Opens the control state and waits until this member leads.
async fn lead(settings: &ControllerSettings) -> anyhow::Result<(Replica, Signals)> {
    let raft = weft_consensus::Settings {
        max_command_bytes: COMMAND_BYTES_MAX,
        snapshot_every_entries: settings.snapshot_every,
        failpoint: weft_failpoint::hit,
        ..weft_consensus::Settings::single(settings.raft.clone())
    };
    let incarnation = settings.incarnation;
    let started = tokio::task::spawn_blocking(move || Replica::start(raft, incarnation));
    let (replica, signals) = started
        .await?
        .context("the control state cannot be opened")?;
    replica.leads().await?;
    Ok((replica, signals))
}
