//! `weft up`: a controller and an agent in one process, on one data folder.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_agent::{Agent, AgentSettings, NodeSettings};
use weft_cli::UpSettings;
use weft_controller::{AllowedSources, Controller, ControllerSettings, Folders, NodeInputs};
use weft_core::{Incarnation, NodeId};
use weft_protocol::Stores;
use weft_runtime::link::{LinkChange, NodeLink, WorkChange, Worker, local_link};
use weft_runtime::{OnError, Tasks, random};
use weft_telemetry::Registry;

use crate::config::{OutputsConfig, SNAPSHOT_EVERY, TierConfig};
use crate::controller::shared_folders;
use crate::data_folder::DataFolder;
use crate::identity::Owner;
use crate::serving::{listen, run_until_stopped, slots, until_stopped};
use crate::stores;

/// Runs `weft up` until it gets SIGINT or SIGTERM.
pub(crate) fn run(settings: UpSettings) -> anyhow::Result<()> {
    run_until_stopped("weft-api", serve(settings))
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Bounds of outputs that the server keeps: those of a controller, unless the environment has others.
fn kept_outputs() -> OutputsConfig {
    let default = OutputsConfig::default();
    let number = |name, default| number_from_environment(name).unwrap_or(default);
    OutputsConfig {
        max_kept_bytes: number("WEFT__OUTPUTS__MAX_KEPT_BYTES", default.max_kept_bytes),
        kept_hours: number("WEFT__OUTPUTS__KEPT_HOURS", default.kept_hours),
    }
}

async fn serve(settings: UpSettings) -> anyhow::Result<()> {
    let data = settings.data.clone();
    let opened = tokio::task::spawn_blocking(move || DataFolder::open(&data, &Owner::Up));
    let folder = opened.await??;
    let listener = listen(settings.listen, "--listen").await?;
    let address = listener.local_addr()?;
    let cancel = CancellationToken::new();
    let tasks = Tasks::new(cancel.clone());
    let slots = slots(settings.slots);
    let registry = Registry::new();
    let remembered = folder.remembered_store()?;
    let stores = stores::of_up(&remembered, &settings, std::env::vars())?;
    stores::warn_of_unreachable(stores.clone(), &tasks);
    let folders = match stores.own.folder() == Some(folder.store().as_path()) {
        true => folder.folders(),
        false => shared_folders(&stores, 1, &folder)?,
    };
    let node = folder.identity.node.clone();
    let agent = AgentSettings {
        node: NodeSettings {
            node: node.clone(),
            incarnation: Incarnation::from_random(random::bytes()?),
            compatibility: tokio::task::spawn_blocking(weft_sandbox::compatibility).await?,
            slots,
        },
        stores: stores.clone(),
        cache: folder.cache(),
        tier: folder.tier(),
        tier_bytes: number_from_environment("WEFT__TIER__MAX_BYTES")
            .unwrap_or_else(|| TierConfig::default().max_bytes),
        spill: folder.spill(),
    };
    let metrics = weft_agent::Metrics::new(&registry);
    let agent = Agent::new(agent, tasks.clone(), metrics)?;
    let (link, to_controller) = local_link();
    let worker = Worker {
        invoker: Arc::new(agent.invocations()),
        compilers: agent.compilers(),
    };
    let nodes = local_node(node, link, worker);
    let serving = agent.run(to_controller, cancel.clone());
    tasks.spawn("agent", OnError::Stop, serving);
    let allowed = AllowedSources {
        hosts: settings.allow_host,
        origins: settings.allow_origin,
    };
    let own = stores.own.clone();
    let starting = Controller::start(
        controller_settings(&folder, folders, stores, allowed)?,
        listener,
        nodes,
        &registry,
        &tasks,
        cancel.clone(),
    );
    let controller = starting.await?;
    // The store is this server's by now.
    remembered.keep(&own)?;

    tracing::info!(%address, data = %settings.data.display(), slots, "ready");
    eprintln!(
        "weft is ready on http://{address} (data in {})",
        settings.data.display()
    );
    until_stopped(&controller, &cancel, &tasks).await
}

/// Settings of a controller that is alone.
fn controller_settings(
    folder: &DataFolder,
    folders: Folders,
    stores: Stores,
    allowed: AllowedSources,
) -> anyhow::Result<ControllerSettings> {
    Ok(ControllerSettings {
        cluster: folder.identity.cluster.clone(),
        folders,
        stores,
        raft: folder.raft(),
        snapshot_every: number_from_environment("WEFT__RAFT__SNAPSHOT_EVERY")
            .unwrap_or(SNAPSHOT_EVERY),
        incarnation: Incarnation::from_random(random::bytes()?),
        run_tasks_twice: number_from_environment("WEFT__SCHEDULER__RUN_TASKS_TWICE") == Some(1),
        token: folder.token()?,
        allowed,
        kept_outputs: kept_outputs().kept_outputs(),
        group: None,
    })
}

/// The node in this process, as the one that never goes away.
fn local_node(node: NodeId, link: NodeLink, worker: Worker) -> NodeInputs {
    let (links, linked) = mpsc::channel(1);
    let (workers, working) = mpsc::channel(1);
    let linked_now = links.try_send(LinkChange::Up(node.clone(), link.commands));
    linked_now.expect("there is room for one");
    let works_now = workers.try_send(WorkChange::Up(node, worker));
    assert!(works_now.is_ok(), "there is room for one");
    NodeInputs {
        links: linked,
        reports: link.reports,
        workers: working,
    }
}
