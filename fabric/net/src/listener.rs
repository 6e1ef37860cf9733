//! The port on which a controller takes connections of nodes and of other controllers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use weft_protocol::FromAgent;
use weft_runtime::link::{LinkChange, Member, WorkChange};
use weft_runtime::{OnError, Tasks};

use crate::handshake::{Cluster, HANDSHAKE_TIMEOUT, Party, Purpose, Refusals, welcome};
use crate::members::Members;
use crate::security::{Security, Wire};
use crate::{control, messages, peers, work};

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 4_096;

/// Receivers of whatever arrives.
#[derive(Clone)]
pub struct Arrivals {
    /// Control links that come and go.
    pub links: mpsc::Sender<LinkChange>,
    /// Reports of nodes.
    pub reports: mpsc::Sender<FromAgent>,
    /// Nodes that take invocations, or do no more.
    pub workers: mpsc::Sender<WorkChange>,
    /// The member of the Raft group.
    pub member: Arc<dyn Member>,
    /// The members: other controllers are not listened to.
    pub members: Members,
}

/// Takes connections until it is aborted.
pub async fn listen(
    listener: TcpListener,
    cluster: Cluster,
    security: Security,
    arrivals: Arrivals,
    tasks: Tasks,
) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let shared = Arc::new((cluster, security, arrivals, Refusals::default()));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await?;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tasks.spawn("arrival", OnError::Log, async move {
            let _permit = permit;
            let (cluster, security, arrivals, refusals) = &*shared;
            let served = serve((stream, address), cluster, security, arrivals, refusals);
            if let Err(error) = served.await {
                tracing::warn!(%address, error = %format!("{error:#}"), "a connection ended");
            }
            Ok(())
        });
    }
}

async fn serve(
    (stream, address): (TcpStream, SocketAddr),
    cluster: &Cluster,
    security: &Security,
    arrivals: &Arrivals,
    refusals: &Refusals,
) -> anyhow::Result<()> {
    let arriving = async {
        let mut wire = security.accepted(stream).await?;
        let who = welcome(&mut wire, cluster, refusals, &arrivals.members).await?;
        anyhow::Ok(who.map(|(from, purpose)| (wire, from, purpose)))
    };
    let arrived = timeout(HANDSHAKE_TIMEOUT, arriving).await;
    let arrived = arrived.unwrap_or_else(|late| Err(late.into()));
    let (wire, from, purpose) = match arrived {
        Ok(Some(arrived)) => arrived,
        Ok(None) => return Ok(()),
        Err(error) => {
            // Whoever fails dials again, from another port.
            refusals.tell(&format!("{}: {error:#}", address.ip()));
            return Ok(());
        }
    };
    let party = from.clone();
    tokio::select! {
        ended = dispatch(wire, from, purpose, arrivals) => ended,
        () = arrivals.members.excluded(&party) => anyhow::bail!("{party} is no member any more"),
    }
}

async fn dispatch(
    wire: Wire,
    from: Party,
    purpose: Purpose,
    arrivals: &Arrivals,
) -> anyhow::Result<()> {
    match (from, purpose) {
        (Party::Controller { .. }, Purpose::Raft) => messages::take(wire, &*arrivals.member).await,
        (Party::Controller { .. }, Purpose::Ask) => {
            peers::answer(wire, Arc::clone(&arrivals.member)).await
        }
        (Party::Node { node, .. }, Purpose::Control) => {
            control::serve(wire, node, &arrivals.links, &arrivals.reports).await
        }
        (Party::Node { node, .. }, Purpose::Work) => {
            work::serve(wire, node, &arrivals.workers).await
        }
        // The handshake refuses these.
        (from, purpose) => anyhow::bail!("a {purpose:?} connection is not for {from}"),
    }
}
