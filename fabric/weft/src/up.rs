//! `weft up`: a controller and an agent in one process, on one data folder.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weft_agent::{Agent, AgentSettings, NodeSettings};
use weft_cli::UpSettings;
use weft_controller::{AllowedSources, Controller, ControllerSettings, Local};
use weft_core::Incarnation;
use weft_runtime::link::local_link;
use weft_runtime::{OnError, Tasks, process, random};
use weft_telemetry::Registry;

use crate::data_folder::{DataFolder, PREDECESSOR_PAUSE, PREDECESSOR_TRIES};

/// How long requests that are being served may take when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Commands between two snapshots of the control state.
const SNAPSHOT_EVERY: u64 = 1_000;

/// Runs `weft up` until it gets SIGINT or SIGTERM.
pub(crate) fn run(settings: UpSettings) -> anyhow::Result<()> {
    process::thrifty_heap();
    process::more_files();
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

/// Listens on the address. A server that was killed a moment ago may still hold it.
async fn listen(settings: &UpSettings) -> anyhow::Result<TcpListener> {
    let mut tried = TcpListener::bind(settings.listen).await;
    for _ in 0..PREDECESSOR_TRIES {
        match &tried {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(PREDECESSOR_PAUSE).await;
                tried = TcpListener::bind(settings.listen).await;
            }
            _ => break,
        }
    }
    tried.with_context(|| {
        format!("cannot listen on {}: is another Weft running there? Choose another address with --listen", settings.listen)
    })
}

async fn serve(settings: UpSettings) -> anyhow::Result<()> {
    let data = settings.data.clone();
    let opened = tokio::task::spawn_blocking(move || DataFolder::open(&data));
    let folder = opened.await??;
    let listener = listen(&settings).await?;
    let address = listener.local_addr()?;
    let cancel = CancellationToken::new();
    let tasks = Tasks::new(cancel.clone());
    let slots = settings.slots.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
    });
    let registry = Registry::new();
    let folders = folder.folders();
    let agent = AgentSettings {
        node: NodeSettings {
            node: folder.identity.node.clone(),
            incarnation: Incarnation::from_random(random::bytes()?),
            compatibility: tokio::task::spawn_blocking(weft_sandbox::compatibility).await?,
            slots,
        },
        store: folders.store.clone(),
        spill: folders.spill.clone(),
    };
    let metrics = weft_agent::Metrics::new(&registry);
    let agent = Agent::new(agent, tasks.clone(), metrics)?;
    let (link, to_controller) = local_link();
    let local = Local {
        node: folder.identity.node.clone(),
        link,
        compilers: agent.compilers(),
        invoker: Arc::new(agent.invocations()),
    };
    let serving = agent.run(to_controller, cancel.clone());
    tasks.spawn("agent", OnError::Stop, serving);
    let controller = ControllerSettings {
        folders,
        raft: folder.raft(),
        snapshot_every: number_from_environment("WEFT__RAFT__SNAPSHOT_EVERY")
            .unwrap_or(SNAPSHOT_EVERY),
        incarnation: Incarnation::from_random(random::bytes()?),
        run_tasks_twice: number_from_environment("WEFT__SCHEDULER__RUN_TASKS_TWICE") == Some(1),
        token: folder.token()?,
        allowed: AllowedSources {
            hosts: settings.allow_host,
            origins: settings.allow_origin,
        },
    };
    let starting = Controller::start(
        controller,
        listener,
        local,
        &registry,
        &tasks,
        cancel.clone(),
    );
    let controller = starting.await?;

    tracing::info!(%address, data = %settings.data.display(), slots, "ready");
    eprintln!(
        "weft is ready on http://{address} (data in {})",
        settings.data.display()
    );
    let outcome = until_stopped(&controller, &cancel).await;
    cancel.cancel();
    tasks.abort();
    let _ = tokio::time::timeout(STOP_PATIENCE, controller.shutdown()).await;
    outcome
}

async fn until_stopped(controller: &Controller, cancel: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = cancel.cancelled() => Err(anyhow::anyhow!("a part of the server failed; see the log above")),
        stopped = controller.stopped() => Err(stopped),
    }
}
