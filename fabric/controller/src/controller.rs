//! Starts the parts of a controller, in the order in which they need each other.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_consensus::Membership;
use weft_core::{Incarnation, TenantId};
use weft_protocol::{FromAgent, Stores};
use weft_runtime::link::{LinkChange, Member, Peers, WorkChange};
use weft_runtime::{OnError, Tasks};
use weft_store::{Blobs, Error, ErrorKind};
use weft_telemetry::Registry;

use crate::actors::{ActorRouter, GuestCalls};
use crate::api::{self, AllowedSources, Api};
use crate::archive::Archives;
use crate::components::Components;
use crate::folders::Folders;
use crate::group::Answerer;
use crate::invocations::Invocations;
use crate::kept_outputs::KeptOutputs;
use crate::membership;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::ownership;
use crate::pins::Pins;
use crate::replica::{Replica, Signals};
use crate::reserve::Reserve;
use crate::scheduler::driver::{Driver, Inputs};
use crate::scheduler::{Requests, SchedulerSettings, Watch};
use crate::sweep::Sweep;
use crate::traces::Traces;

/// Time in which a start asks a store again that did not answer.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before that.
const START_PAUSE: Duration = Duration::from_millis(200);

/// Requests of the API that may wait for the scheduler.
const REQUESTS_MAX: usize = 256;
/// Bytes of one command.
const COMMAND_BYTES_MAX: usize = 32 << 20;

/// Settings of a controller.
#[derive(Clone)]
pub struct ControllerSettings {
    /// Name of the cluster, which owns the store.
    pub cluster: String,
    /// Folders that it works in.
    pub folders: Folders,
    /// The cluster's store, and those that jobs may use.
    pub stores: Stores,
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
    /// Bounds of outputs that the cluster keeps.
    pub kept_outputs: KeptOutputs,
    /// The group that it is a member of; alone without one.
    pub group: Option<Group>,
}

impl ControllerSettings {
    fn member(&self) -> u64 {
        self.group.as_ref().map_or(1, |group| group.member)
    }

    fn voters(&self) -> Vec<u64> {
        let group = self.group.as_ref();
        group.map_or(vec![1], |group| group.voters.clone())
    }
}

/// A group of controllers.
#[derive(Clone)]
pub struct Group {
    /// Number of this controller.
    pub member: u64,
    /// Numbers of all members of a group that begins; none if this one joins a group, and waits to be added.
    pub voters: Vec<u64>,
    /// The other members.
    pub peers: Arc<dyn Peers>,
}

/// Channels on which nodes come and go, and report.
pub struct NodeInputs {
    /// Control links.
    pub links: mpsc::Receiver<LinkChange>,
    /// Reports of agents.
    pub reports: mpsc::Receiver<FromAgent>,
    /// Connections for invocations and compilations.
    pub workers: mpsc::Receiver<WorkChange>,
}

/// A controller that runs.
pub struct Controller {
    replica: Replica,
    traces: Arc<Traces>,
    member: Arc<dyn Member>,
}

impl Controller {
    /// Starts a controller that serves the API on `listener`. One that is alone leads when this
    /// returns; of a group, members that are not there yet may be missing.
    ///
    /// Errors: the store cannot be used or is another cluster's, the control state cannot be opened, the environment's
    /// collector cannot be reached.
    pub async fn start(
        settings: ControllerSettings,
        listener: TcpListener,
        nodes: NodeInputs,
        registry: &Registry,
        tasks: &Tasks,
        cancel: CancellationToken,
    ) -> anyhow::Result<Self> {
        let blobs = again(async || open_blobs(&settings).await).await?;
        let (replica, signals) = open(&settings).await?;
        let sweep = again(async || begin_sweep(&settings, &blobs, &replica).await).await?;
        let metrics = Arc::new(Metrics::new(registry));
        let traces = Arc::new(Traces::from_environment()?);
        let (requests, waiting) = Requests::new(REQUESTS_MAX);
        let workers = Nodes::default();
        let components = Arc::new(Components::new(&blobs, &workers, &replica, &requests));
        let (scheduler, done) = Driver::new(
            scheduler_settings(&settings),
            Watch::new(&metrics, &traces),
            replica.clone(),
            Arc::clone(&components),
            blobs.clone(),
            keep_reserve(&settings, tasks),
            tasks.clone(),
        );
        let inputs = Inputs::new(signals, waiting, (nodes.links, nodes.reports), done);
        let scheduling = scheduler.run(cancel.clone(), inputs);
        tasks.spawn("scheduler", OnError::Stop, Box::pin(scheduling));
        let sweeping = sweep.keep_sweeping(replica.clone(), Arc::clone(&components));
        sweep_when_owned(tasks, &settings.cluster, &blobs, &replica, sweeping);
        let promoting = membership::keep_promoting(replica.clone());
        tasks.spawn("learners", OnError::Log, promoting);
        let invocations = Invocations::new(workers.clone(), requests.clone(), Arc::clone(&metrics));
        let actors = ActorRouter::new(&replica, &workers, &requests, &metrics);
        let pins = Pins::new(&replica, &components);
        let calls = GuestCalls::new(&actors, &pins, &invocations, tasks);
        let following = workers.clone().follow(nodes.workers, calls);
        tasks.spawn("workers", OnError::Stop, following);
        let member = Answerer::new(&replica, &components, &requests);
        let api = Api {
            replica: replica.clone(),
            components,
            archives: Arc::new(Archives::new(blobs.clone())),
            blobs,
            folders: settings.folders.clone(),
            nodes: workers,
            requests,
            member: settings.member(),
            invocations,
            actors,
            pins,
            statements: api::flight::Statements::default(),
            bodies: api::body::Bodies::new(&metrics),
            tasks: tasks.clone(),
            metrics,
            registry: registry.clone(),
            traces: Arc::clone(&traces),
            token: settings.token.into(),
            address: listener.local_addr()?,
            allowed: Arc::new(settings.allowed),
            kept_outputs: settings.kept_outputs,
        };
        let serving = api::serve(listener, api, tasks.clone(), cancel);
        tasks.spawn("api", OnError::Stop, serving);
        Ok(Self {
            replica,
            traces,
            member: Arc::new(member),
        })
    }

    /// This controller, as the others of its group reach it.
    pub fn member(&self) -> Arc<dyn Member> {
        Arc::clone(&self.member)
    }

    /// Sees who belongs to the group, as far as this controller knows.
    pub fn members(&self) -> watch::Receiver<Membership> {
        self.replica.handle().watch_members()
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

/// Keeps the reserve of the data folder filled, and returns it.
fn keep_reserve(settings: &ControllerSettings, tasks: &Tasks) -> Reserve {
    let reserve = Reserve::of(&settings.folders.root);
    tasks.spawn("reserve", OnError::Log, reserve.clone().keep_filled());
    reserve
}

fn scheduler_settings(settings: &ControllerSettings) -> SchedulerSettings {
    SchedulerSettings {
        run_tasks_twice: settings.run_tasks_twice,
        eager: vec![TenantId::default_tenant()],
        max_kept_bytes: settings.kept_outputs.max_bytes,
    }
}

/// Does once more what a store did not answer, as long as that takes [`START_PATIENCE`] in all: a start asks much of a
/// store, and answers that break off within a list come through.
async fn again<T>(mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        let error = match ask().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let passes = match error.downcast_ref::<weft_store::Error>() {
            Some(error @ Error::Refused { .. }) => error.kind() == ErrorKind::Unavailable,
            _ => false,
        };
        if !passes || began.elapsed() >= START_PATIENCE {
            return Err(error);
        }
        tracing::warn!(%error, "asking the store once more");
        tokio::time::sleep(START_PAUSE).await;
    }
}

/// Opens the stores, and claims the cluster's own.
async fn open_blobs(settings: &ControllerSettings) -> anyhow::Result<Blobs> {
    let blobs = Blobs::open(&settings.stores)?;
    blobs.check().await?;
    // Before anything is swept: the objects of another cluster are no leftovers.
    ownership::claim(settings, &blobs).await?;
    Ok(blobs)
}

/// Removes what earlier processes left behind: alone all of it, once this one leads; of a group what is
/// this controller's own.
async fn begin_sweep(
    settings: &ControllerSettings,
    blobs: &Blobs,
    replica: &Replica,
) -> anyhow::Result<Sweep> {
    let uploads = settings.folders.uploads.clone();
    let sweep = Sweep::new(blobs.clone(), uploads, settings.kept_outputs);
    if settings.group.is_some() {
        // Without an id, it has left nothing that could be told from what another group keeps there.
        if ownership::claim_for_known_group(&settings.cluster, blobs, replica).await? {
            sweep.sweep_own()?;
        }
        return Ok(sweep);
    }
    replica.leads().await?;
    first_sweep(&sweep, replica).await?;
    Ok(sweep)
}

/// Sweeps from when the store is known to be the group's own; the controller stops if it is another's.
fn sweep_when_owned(
    tasks: &Tasks,
    cluster: &str,
    blobs: &Blobs,
    replica: &Replica,
    sweeping: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    let owning = ownership::claim_for_group(cluster.to_owned(), blobs.clone(), replica.clone());
    let sweepers = tasks.clone();
    tasks.spawn("owner", OnError::Stop, async move {
        owning.await?;
        sweepers.spawn("sweep", OnError::Log, sweeping);
        Ok(())
    });
}

/// Removes what an earlier process left behind.
async fn first_sweep(sweep: &Sweep, replica: &Replica) -> anyhow::Result<()> {
    let kept = {
        let state = replica.state();
        sweep.kept(&state, state.now_ms)
    };
    let swept = sweep.sweep(&kept).await?;
    if swept > 0 {
        tracing::info!(swept, "removed unreferenced files");
    }
    Ok(())
}

/// Opens the control state.
async fn open(settings: &ControllerSettings) -> anyhow::Result<(Replica, Signals)> {
    let raft = weft_consensus::Settings {
        id: settings.member(),
        voters: settings.voters(),
        max_command_bytes: COMMAND_BYTES_MAX,
        snapshot_every_entries: settings.snapshot_every,
        failpoint: weft_failpoint::hit,
        ..weft_consensus::Settings::single(settings.raft.clone())
    };
    let group = settings.group.as_ref();
    let peers = group.map(|group| Arc::clone(&group.peers));
    let incarnation = settings.incarnation;
    let started = tokio::task::spawn_blocking(move || Replica::start(raft, incarnation, peers));
    started.await?.context("the control state cannot be opened")
}
