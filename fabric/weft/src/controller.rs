//! `weft controller`: one member of a group of controllers.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_controller::{
    AllowedSources, Controller, ControllerSettings, Folders, Group, Membership, NodeInputs,
};
use weft_core::Incarnation;
use weft_net::{Arrivals, Book, Cluster, Members, Party, PeerLinks};
use weft_protocol::Stores;
use weft_runtime::link::{MAX_LINK_MESSAGES, Member};
use weft_runtime::{OnError, Tasks, random};
use weft_telemetry::Registry;

use crate::config::ControllerConfig;
use crate::data_folder::{DataFolder, read_token};
use crate::discovery;
use crate::identity::Owner;
use crate::serving::{check_store, listen, run_until_stopped};
use crate::stores::warn_of_unreachable;

/// Connections of nodes that may wait to be taken note of.
const CHANGES_MAX: usize = 256;

/// Runs `weft controller` until it gets SIGINT or SIGTERM.
pub(crate) fn run(config: &Path) -> anyhow::Result<()> {
    let config = ControllerConfig::read(config)?;
    run_until_stopped("weft-api", serve(config))
}

async fn serve(config: ControllerConfig) -> anyhow::Result<()> {
    let (peers, security) = (config.peers()?, config.security()?);
    let owner = Owner::Controller {
        cluster: config.cluster.clone(),
        member: config.member,
    };
    let data = config.data.clone();
    let folder = tokio::task::spawn_blocking(move || DataFolder::open(&data, &owner)).await??;
    let api = listen(config.listen, "`listen` of its settings").await?;
    let address = config.address()?;
    let arriving = listen(address.as_str(), "its address in the settings").await?;
    let cancel = CancellationToken::new();
    let tasks = Tasks::new(cancel.clone());
    let incarnation = Incarnation::from_random(random::bytes()?);
    let cluster = Cluster {
        id: config.cluster.clone(),
        me: Party::Controller {
            member: config.member,
            incarnation,
            folder: folder.identity.folder.clone(),
        },
    };
    let founders = config.founders()?;
    let members = Members::open(config.data.join("members.json"), founders.clone())?;
    let book = Book::new(peers);
    let me = Some((config.member, address.clone()));
    let (etcd, id) = (config.etcd.as_ref(), &config.cluster);
    discovery::begin(etcd, id, me, &config.data, &book, &tasks).await?;
    let links = PeerLinks::new(&cluster, &security, config.member, &book, &members, &tasks);
    let group = Group {
        member: config.member,
        voters: founders,
        peers: Arc::new(links),
    };
    let stores = config.store.stores(std::env::vars())?;
    warn_of_unreachable(stores.clone(), &tasks);
    let settings = settings(&config, &folder, stores, incarnation, group)?;
    let (arrive, nodes) = channels();
    let registry = Registry::new();
    let starting = Controller::start(settings, api, nodes, &registry, &tasks, cancel.clone());
    let controller = starting.await?;
    let known = members.clone();
    tasks.spawn(
        "members",
        OnError::Stop,
        keep_members(controller.members(), known),
    );
    let arrivals = arrive(controller.member(), members);
    let arriving = weft_net::listen(arriving, cluster, security, arrivals, tasks.clone());
    tasks.spawn("arrivals", OnError::Stop, arriving);
    tracing::info!(listen = %config.listen, member = config.member, "serving");
    eprintln!(
        "controller {} of `{}` serves http://{}, and nodes on {address} (data in {})",
        config.member,
        config.cluster,
        config.listen,
        config.data.display()
    );
    crate::serving::until_stopped(&controller, &cancel, &tasks).await
}

/// Channels on which nodes come and go, and report: both of their ends.
fn channels() -> (
    impl FnOnce(Arc<dyn Member>, Members) -> Arrivals,
    NodeInputs,
) {
    let (changes, links) = mpsc::channel(CHANGES_MAX);
    let (reports, reported) = mpsc::channel(MAX_LINK_MESSAGES);
    let (workers, working) = mpsc::channel(CHANGES_MAX);
    let nodes = NodeInputs {
        links,
        reports: reported,
        workers: working,
    };
    let arrive = move |member, members| Arrivals {
        links: changes,
        reports,
        workers,
        member,
        members,
    };
    (arrive, nodes)
}

/// Has connections of those refused that are no members any more.
async fn keep_members(
    mut membership: watch::Receiver<Membership>,
    members: Members,
) -> anyhow::Result<()> {
    loop {
        let Membership { voters, learners } = membership.borrow_and_update().clone();
        // One that waits to be added knows nobody, and takes any controller of the cluster.
        if !voters.is_empty() {
            members.set(voters.into_iter().chain(learners).collect());
        }
        membership.changed().await?;
    }
}

fn settings(
    config: &ControllerConfig,
    folder: &DataFolder,
    stores: Stores,
    incarnation: Incarnation,
    group: Group,
) -> anyhow::Result<ControllerSettings> {
    Ok(ControllerSettings {
        cluster: config.cluster.clone(),
        folders: shared_folders(&stores, config.member, folder)?,
        stores,
        raft: folder.raft(),
        snapshot_every: config.raft.snapshot_every,
        incarnation,
        run_tasks_twice: config.scheduler.run_tasks_twice,
        token: read_token(&config.token_file)?,
        allowed: AllowedSources {
            hosts: config.allow_host.clone(),
            origins: config.allow_origin.clone(),
        },
        kept_outputs: config.outputs.kept_outputs(),
        group: Some(group),
    })
}

/// The folders of a controller: uploads are received beside a store that is a shared folder, so that they can be
/// renamed into it. The controller makes theirs once the store is its cluster's.
pub(crate) fn shared_folders(
    stores: &Stores,
    member: u64,
    folder: &DataFolder,
) -> anyhow::Result<Folders> {
    check_store(stores)?;
    let Some(store) = stores.own.folder() else {
        return Ok(folder.folders());
    };
    let uploads = store.join(format!("uploads-{member}"));
    Ok(Folders {
        uploads,
        ..folder.folders()
    })
}
