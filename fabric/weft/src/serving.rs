//! Parts that all servers share: the runtime, listening, and how they stop.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weft_controller::Controller;
use weft_protocol::Stores;
use weft_runtime::{Tasks, process};

use crate::data_folder::{PREDECESSOR_PAUSE, PREDECESSOR_TRIES};

/// How long requests that are being served may take when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Runs a server on a runtime of its own.
pub(crate) fn run_until_stopped(
    thread: &'static str,
    server: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    process::thrifty_heap();
    process::more_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name(thread)
        .enable_all()
        .build()?;
    let result = runtime.block_on(server);
    runtime.shutdown_timeout(STOP_PATIENCE);
    result
}

/// Listens on an address. A server that was killed a moment ago may still hold it. `option` is what
/// changes the address.
pub(crate) async fn listen(
    address: impl ToSocketAddrs + Copy + std::fmt::Display,
    option: &str,
) -> anyhow::Result<TcpListener> {
    let mut tried = TcpListener::bind(address).await;
    for _ in 0..PREDECESSOR_TRIES {
        match &tried {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(PREDECESSOR_PAUSE).await;
                tried = TcpListener::bind(address).await;
            }
            _ => break,
        }
    }
    tried.with_context(|| {
        format!(
            "cannot listen on {address}: is another Weft running there? Choose another address with {option}"
        )
    })
}

/// Fails unless a store that is a folder is there: a share that is not mounted must not become a folder of its own.
pub(crate) fn check_store(stores: &Stores) -> anyhow::Result<()> {
    let Some(store) = stores.own.folder() else {
        return Ok(());
    };
    anyhow::ensure!(
        store.is_dir(),
        "the store `{}` is not there: make or mount the folder that all processes of the cluster share",
        store.display()
    );
    Ok(())
}

/// Number of slots: the given one, or as many as there are cores.
pub(crate) fn slots(given: Option<u32>) -> u32 {
    given.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
    })
}

/// Returns when the process is told to stop.
pub(crate) async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Serves until the process is told to stop, or a part of it fails; then stops.
pub(crate) async fn until_stopped(
    controller: &Controller,
    cancel: &CancellationToken,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        stopped = stop_signal() => stopped,
        () = cancel.cancelled() => Err(anyhow::anyhow!("a part of the server failed; see the log above")),
        stopped = controller.stopped() => Err(stopped),
    };
    cancel.cancel();
    tasks.abort();
    let _ = tokio::time::timeout(STOP_PATIENCE, controller.shutdown()).await;
    outcome
}
