//! `weft node`: a machine that runs functions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use weft_agent::{Agent, AgentSettings, NodeSettings};
use weft_core::Incarnation;
use weft_net::{Book, Cluster, Party, ToControllers, WorkSettings};
use weft_runtime::link::local_link;
use weft_runtime::{OnError, Tasks, random};
use weft_telemetry::Registry;

use crate::config::NodeConfig;
use crate::data_folder::DataFolder;
use crate::discovery;
use crate::identity::Owner;
use crate::serving::{check_store, run_until_stopped, slots, stop_signal};
use crate::stores::{check_trust, warn_of_unreachable};

/// Runs `weft node` until it gets SIGINT or SIGTERM.
pub(crate) fn run(config: &Path) -> anyhow::Result<()> {
    let config = NodeConfig::read(config)?;
    run_until_stopped("weft-node", serve(config))
}

/// Addresses of the controllers: those of the settings, and those that are found.
async fn book(config: &NodeConfig, tasks: &Tasks) -> anyhow::Result<Book> {
    let book = Book::new(config.controllers()?);
    let (etcd, id) = (config.etcd.as_ref(), &config.cluster);
    discovery::begin(etcd, id, None, &config.data, &book, tasks).await?;
    Ok(book)
}

/// The cluster, with this life of the node as its member.
fn membership(config: &NodeConfig, incarnation: Incarnation) -> Cluster {
    Cluster {
        id: config.cluster.clone(),
        me: Party::Node {
            node: config.node.clone(),
            incarnation,
        },
    }
}

async fn serve(config: NodeConfig) -> anyhow::Result<()> {
    let security = config.security()?;
    let owner = Owner::Node {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
    };
    let data = config.data.clone();
    let folder = tokio::task::spawn_blocking(move || DataFolder::open(&data, &owner)).await??;
    let stores = config.store.stores(std::env::vars())?;
    check_store(&stores)?;
    check_trust(&stores, config.tenants_trust_each_other)?;
    let cancel = CancellationToken::new();
    let tasks = Tasks::new(cancel.clone());
    warn_of_unreachable(stores.clone(), &tasks);
    let incarnation = Incarnation::from_random(random::bytes()?);
    let settings = AgentSettings {
        node: NodeSettings {
            node: config.node.clone(),
            incarnation,
            compatibility: tokio::task::spawn_blocking(weft_sandbox::compatibility).await?,
            slots: slots(Some(config.slots).filter(|slots| *slots > 0)),
        },
        stores,
        cache: folder.cache(),
        tier: folder.tier(),
        tier_bytes: config.tier.max_bytes,
        spill: folder.spill(),
    };
    let registry = Registry::new();
    let metrics = weft_agent::Metrics::new(&registry);
    let agent = Agent::new(settings, tasks.clone(), metrics).context("the agent does not start")?;
    let book = book(&config, &tasks).await?;
    let to = ToControllers {
        cluster: membership(&config, incarnation),
        security,
        book,
    };
    let (link, to_controllers) = local_link();
    let work = WorkSettings {
        to: to.clone(),
        invoker: Arc::new(agent.invocations()),
        compilers: agent.compilers(),
    };
    weft_net::follow_controllers(&to, link, &tasks);
    weft_net::offer_work(&work, &tasks);
    let drain = agent.drain_token();
    let drained = CancellationToken::new();
    let (serving, done) = (agent.run(to_controllers, cancel.clone()), drained.clone());
    tasks.spawn("agent", OnError::Stop, async move {
        let ended = serving.await;
        done.cancel();
        ended
    });
    tracing::info!(node = %config.node, "serving");
    eprintln!(
        "node `{}` of `{}` looks for controllers (data in {})",
        config.node,
        config.cluster,
        config.data.display()
    );
    let patience = Duration::from_secs(config.drain_seconds);
    let outcome = tokio::select! {
        outcome = until_drained(&drain, &drained, patience) => outcome,
        () = cancel.cancelled() => Err(anyhow::anyhow!("a part of the node failed; see the log above")),
    };
    cancel.cancel();
    tasks.abort();
    outcome
}

/// Returns when the node has drained: because a controller says so, or the process is told to stop. Then
/// it has so much time for its work, and a second signal ends it at once.
async fn until_drained(
    drain: &CancellationToken,
    drained: &CancellationToken,
    patience: Duration,
) -> anyhow::Result<()> {
    tokio::select! {
        () = drained.cancelled() => return Ok(()),
        stopped = stop_signal() => stopped?,
    }
    drain.cancel();
    tokio::select! {
        () = drained.cancelled() => {}
        () = tokio::time::sleep(patience) => {
            tracing::warn!(?patience, "not drained in time: the rest runs again elsewhere");
        }
        again = stop_signal() => again?,
    }
    Ok(())
}
