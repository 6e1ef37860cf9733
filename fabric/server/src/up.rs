//! `weft up`: wires the parts together, in the order in which they need each other, and takes them down again.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_shuffle::Blobs;

use crate::agent::Agent;
use crate::api::{self, Api};
use crate::archive::Archives;
use crate::clock::unix_ms;
use crate::components::Components;
use crate::controller::{Controller, SchedulerSettings, Watch};
use crate::folder::{DataFolder, Kept, PREDECESSOR_PAUSE, PREDECESSOR_TRIES};
use crate::metrics::Metrics;
use crate::replica::Replica;
use crate::tasks::{OnError, Tasks};
use crate::traces::Traces;

/// Requests of the API that may wait for the controller.
const REQUESTS_MAX: usize = 256;
/// How long requests that are being served may take when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How often the store is looked through for what nothing refers to.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);
/// Commands between two snapshots of the control state.
const SNAPSHOT_EVERY: u64 = 1_000;
const COMMAND_BYTES_MAX: usize = 32 << 20;

/// What `weft up` was asked for.
#[derive(Debug, Clone)]
pub struct UpSettings {
    /// The data folder.
    pub data: PathBuf,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Slots of the node's executor; as many as there are cores where none is given.
    pub slots: Option<u32>,
}

/// Runs `weft up` until it gets SIGINT or SIGTERM.
pub fn run(settings: UpSettings) -> anyhow::Result<()> {
    crate::process::thrifty_heap();
    crate::process::more_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("weft-api")
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(STOP_PATIENCE);
    result
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Removes, again and again, what nothing refers to.
async fn keep_sweeping(
    folder: Arc<DataFolder>,
    replica: Replica,
    components: Arc<Components>,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(SWEEP_PERIOD);
    let mut seen = HashMap::new();
    loop {
        ticks.tick().await;
        // Those under way first: what is registered meanwhile is in the state.
        let in_flight = components.in_flight();
        let mut kept = Kept::of(&replica.state());
        kept.components(in_flight.into_iter());
        let folder = Arc::clone(&folder);
        let sweep = move || {
            let swept = folder.sweep_stale(&kept, &mut seen, unix_ms());
            (swept, seen)
        };
        let swept;
        (swept, seen) = tokio::task::spawn_blocking(sweep).await?;
        if let Err(error) = swept {
            tracing::warn!(%error, "what nothing refers to could not be removed");
        }
    }
}

/// Listens on the address. One that is in use may be so by a server that was killed a moment ago, and is about to end.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    for _ in 0..PREDECESSOR_TRIES {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(PREDECESSOR_PAUSE).await;
            }
            other => return other,
        }
    }
    TcpListener::bind(address).await
}

async fn serve(settings: UpSettings) -> anyhow::Result<()> {
    let data = settings.data.clone();
    let opened = tokio::task::spawn_blocking(move || DataFolder::open(&data));
    let folder = Arc::new(opened.await??);
    let listener = listen(settings.listen).await.with_context(|| {
        format!("cannot listen on {}: is another Weft running there? Choose another address with --listen", settings.listen)
    })?;
    let address = listener.local_addr()?;
    let token = folder.token()?;
    let cancel = CancellationToken::new();
    let tasks = Tasks::new(cancel.clone());

    let raft = weft_consensus::Settings {
        max_command_bytes: COMMAND_BYTES_MAX,
        snapshot_every_entries: number_from_environment("WEFT__RAFT__SNAPSHOT_EVERY")
            .unwrap_or(SNAPSHOT_EVERY),
        failpoint: weft_core::failpoint::hit,
        ..weft_consensus::Settings::single(folder.raft())
    };
    let compatibility = tokio::task::spawn_blocking(weft_sandbox::compatibility);
    let started = tokio::task::spawn_blocking(move || Replica::start(raft));
    let (replica, signals) = started
        .await?
        .context("the control state cannot be opened")?;
    let compatibility = compatibility.await?;
    replica.leads().await?;
    let swept = folder.sweep(&Kept::of(&replica.state()))?;
    if swept > 0 {
        tracing::info!(swept, "removed what nothing refers to");
    }

    let slots = settings.slots.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
    });
    let blobs = Blobs::local(&folder.store())?;
    let metrics = Arc::new(Metrics::new());
    let traces = Arc::new(Traces::from_environment()?);
    let (agent, events) = Agent::new(
        &folder,
        compatibility,
        slots,
        tasks.clone(),
        Arc::clone(&metrics),
    )?;
    let agent = Arc::new(agent);
    let invocations = agent.invocations();
    let (requests, waiting) = mpsc::channel(REQUESTS_MAX);
    let components = Arc::new(Components::new(
        Arc::clone(&folder),
        Arc::clone(&agent),
        replica.clone(),
        requests,
    ));
    let scheduler = SchedulerSettings {
        slots,
        run_tasks_twice: number_from_environment("WEFT__SCHEDULER__RUN_TASKS_TWICE") == Some(1),
    };
    let (controller, done) = Controller::new(
        scheduler,
        replica.clone(),
        agent,
        Arc::clone(&components),
        blobs.clone(),
        tasks.clone(),
        Watch {
            metrics: Arc::clone(&metrics),
            traces: Arc::clone(&traces),
        },
    );
    tasks.spawn(
        "controller",
        OnError::Stop,
        Box::pin(controller.run(cancel.clone(), signals, waiting, events, done)),
    );
    let registering = Arc::clone(&components);
    let api = Api {
        replica: replica.clone(),
        components,
        archives: Arc::new(Archives::new(blobs.clone())),
        blobs,
        folder: Arc::clone(&folder),
        invocations: Arc::clone(&invocations),
        bodies: api::body::Bodies::new(&metrics),
        tasks: tasks.clone(),
        metrics,
        traces: Arc::clone(&traces),
        token: token.into(),
        address,
    };
    tasks.spawn(
        "sweep",
        OnError::Log,
        keep_sweeping(folder, replica.clone(), registering),
    );
    let metering = replica.clone();
    tasks.spawn("metering", OnError::Stop, async move {
        invocations.keep_metering(metering).await
    });
    tasks.spawn(
        "api",
        OnError::Stop,
        api::serve(listener, api, tasks.clone(), cancel.clone()),
    );

    tracing::info!(%address, data = %settings.data.display(), slots, "ready");
    eprintln!(
        "weft is ready on http://{address} (data in {})",
        settings.data.display()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outcome = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = cancel.cancelled() => Err(anyhow::anyhow!("a part of the server failed; see the log above")),
        stopped = replica.stopped() => Err(anyhow::anyhow!("the Raft member stopped: {stopped:?}")),
    };
    cancel.cancel();
    tasks.abort();
    // Nothing is lost whenever the process ends; a member that is told can close its files.
    let _ = tokio::time::timeout(STOP_PATIENCE, replica.shutdown()).await;
    let _ = tokio::task::spawn_blocking(move || traces.flush()).await;
    outcome
}
