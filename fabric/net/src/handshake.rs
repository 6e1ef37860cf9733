//! The first exchange on every connection: whoever dials says who it is and what the connection is
//! for, and the controller that it dialled accepts it or says why not.
//!
//! ```text
//! dialler ──Hello──▶ controller
//!         ◀─Welcome─
//! ```

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weft_core::{ErrorCode, Incarnation, NodeId, Problem, lock};
use weft_protocol::MESSAGE_VERSION;
use weft_runtime::clock::unix_ms;
use weft_runtime::frames;

use crate::members::Members;
use crate::security::Wire;

/// Version of the handshake and of the framing of connections.
const NET_VERSION: u32 = 2;
/// Time for TLS and handshake of one connection.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest difference of two clocks. Time is the leader's stamp: a leader whose clock is off would
/// expire keys and deadlines early.
const CLOCK_SKEW_MS_MAX: u64 = 60_000;

/// Time for which a refusal is not logged again.
const REFUSAL_TOLD_FOR: Duration = Duration::from_secs(60);
/// Refusals that are logged within that time.
const REFUSALS_MAX: usize = 64;

/// A process of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// A controller.
    Controller {
        /// The number in the Raft group.
        member: u64,
        /// Life of the process.
        incarnation: Incarnation,
        /// Name of its data folder, which holds its vote and its log.
        folder: String,
    },
    /// A node.
    Node {
        /// The node.
        node: NodeId,
        /// Life of its agent.
        incarnation: Incarnation,
    },
}

impl Party {
    /// The name that its certificate must be valid for.
    pub(crate) fn certificate_name(&self) -> String {
        match self {
            Party::Controller { member, .. } => controller_name(*member),
            Party::Node { node, .. } => node_name(node.as_str()),
        }
    }

    fn incarnation(&self) -> &Incarnation {
        match self {
            Party::Controller { incarnation, .. } | Party::Node { incarnation, .. } => incarnation,
        }
    }
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Party::Controller { member, .. } => write!(f, "controller {member}"),
            Party::Node { node, .. } => write!(f, "node `{node}`"),
        }
    }
}

/// The name that a controller's certificate is valid for.
pub(crate) fn controller_name(member: u64) -> String {
    format!("{member}.controller.weft")
}

/// The name that a node's certificate is valid for.
pub(crate) fn node_name(node: &str) -> String {
    format!("{node}.node.weft")
}

/// A process, and the cluster that it belongs to.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Name of the cluster.
    pub id: String,
    /// This process.
    pub me: Party,
}

/// Purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Purpose {
    /// Raft messages of a controller.
    Raft,
    /// Questions of a controller.
    Ask,
    /// Commands to a node, and its reports.
    Control,
    /// Invocations and compilations on a node.
    Work,
}

impl Purpose {
    fn is_of(self, party: &Party) -> bool {
        let of_controllers = matches!(self, Purpose::Raft | Purpose::Ask);
        of_controllers == matches!(party, Party::Controller { .. })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    net_version: u32,
    message_version: u32,
    cluster: String,
    from: Party,
    /// Member that the dialler means to reach.
    to: u64,
    purpose: Purpose,
    unix_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Welcome {
    /// By this controller.
    Accepted(Party),
    Refused(Problem),
}

/// Reason why a connection is not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The other side says why.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The connection broke.
    #[error("{0:#}")]
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Introduces this process to controller `to`, and returns who it is.
pub(crate) async fn introduce(
    wire: &mut Wire,
    cluster: &Cluster,
    to: u64,
    purpose: Purpose,
) -> Result<Party, Refusal> {
    let hello = Hello {
        net_version: NET_VERSION,
        message_version: MESSAGE_VERSION,
        cluster: cluster.id.clone(),
        from: cluster.me.clone(),
        to,
        purpose,
        unix_ms: unix_ms(),
    };
    frames::write(wire, &hello, &[]).await?;
    let answer = frames::read::<Welcome>(wire).await?;
    match answer {
        Some((Welcome::Accepted(by), _)) => Ok(by),
        Some((Welcome::Refused(problem), _)) => Err(Refusal::Refused(problem)),
        None => Err(Refusal::Broken(anyhow::anyhow!(
            "it closed the connection without an answer"
        ))),
    }
}

/// Refusals that were logged: whoever is refused dials again, twice a second.
#[derive(Default)]
pub(crate) struct Refusals {
    told: Mutex<BTreeMap<String, Instant>>,
}

impl Refusals {
    /// Logs a refusal, unless the same one was logged a while ago.
    pub(crate) fn tell(&self, problem: &str) {
        let mut told = lock(&self.told);
        told.retain(|_, at| at.elapsed() < REFUSAL_TOLD_FOR);
        if told.len() < REFUSALS_MAX && !told.contains_key(problem) {
            tracing::warn!(problem, "a connection is refused");
            told.insert(problem.to_owned(), Instant::now());
        }
    }
}

/// Takes the introduction of whoever dialled.
pub(crate) async fn welcome(
    wire: &mut Wire,
    cluster: &Cluster,
    refusals: &Refusals,
    members: &Members,
) -> anyhow::Result<Option<(Party, Purpose)>> {
    let Some((hello, _)) = frames::read::<Hello>(wire).await? else {
        return Ok(None);
    };
    let judged = check(&hello, cluster, unix_ms())
        .and_then(|()| wire.check_name(&hello.from))
        .and_then(|()| members.check(&hello.from));
    match judged {
        Ok(()) => {
            frames::write(wire, &Welcome::Accepted(cluster.me.clone()), &[]).await?;
            Ok(Some((hello.from, hello.purpose)))
        }
        Err(problem) => {
            refusals.tell(&problem.detail);
            frames::write(wire, &Welcome::Refused(problem), &[]).await?;
            Ok(None)
        }
    }
}

fn check(hello: &Hello, cluster: &Cluster, now_ms: u64) -> Result<(), Problem> {
    let refused = |detail: String| Err(Problem::new(ErrorCode::Unauthorized, detail));
    let Party::Controller { member: me, .. } = &cluster.me else {
        return refused("only controllers take connections".into());
    };
    let versions = (hello.net_version, hello.message_version);
    let ours = (NET_VERSION, MESSAGE_VERSION);
    if versions != ours {
        let (which, advice) = match versions < ours {
            true => ("older", "upgrade it"),
            false => ("newer", "upgrade controller"),
        };
        let version = |(net, messages): (u32, u32)| format!("{net}.{messages}");
        return refused(format!(
            "{} speaks version {} of the protocol, which is {which} than {} of controller {me}: {advice}",
            hello.from,
            version(versions),
            version(ours)
        ));
    }
    if hello.cluster != cluster.id {
        return refused(format!(
            "{} belongs to the cluster `{}`, and controller {me} to `{}`: compare `cluster` in their settings",
            hello.from, hello.cluster, cluster.id
        ));
    }
    if hello.to != *me {
        return refused(format!(
            "{} looks for controller {} here, and this is controller {me}: compare the addresses in their settings",
            hello.from, hello.to
        ));
    }
    if hello.from.incarnation() == cluster.me.incarnation() {
        return refused(format!("{} has dialled itself", hello.from));
    }
    if !hello.purpose.is_of(&hello.from) {
        return refused(format!(
            "a {:?} connection is not for {}",
            hello.purpose, hello.from
        ));
    }
    let skew_ms = hello.unix_ms.abs_diff(now_ms);
    if skew_ms > CLOCK_SKEW_MS_MAX {
        return refused(format!(
            "the clocks of {} and controller {me} are {} s apart, more than {} s: set them",
            hello.from,
            skew_ms / 1000,
            CLOCK_SKEW_MS_MAX / 1000
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(of: u8) -> Incarnation {
        Incarnation::from_random([of; 16])
    }

    fn hello() -> Hello {
        Hello {
            net_version: NET_VERSION,
            message_version: MESSAGE_VERSION,
            cluster: "blue".into(),
            from: Party::Node {
                node: NodeId::local(),
                incarnation: incarnation(1),
            },
            to: 1,
            purpose: Purpose::Control,
            unix_ms: 1_000_000,
        }
    }

    fn refusal(hello: &Hello) -> String {
        let cluster = Cluster {
            id: "blue".into(),
            me: Party::Controller {
                member: 1,
                incarnation: incarnation(2),
                folder: "a".into(),
            },
        };
        let checked = check(hello, &cluster, 1_000_000);
        checked.map_or_else(|problem| problem.detail, |()| String::new())
    }

    #[test]
    fn who_does_not_belong_here_is_told_why() {
        assert_eq!(refusal(&hello()), "");
        type Change = fn(&mut Hello);
        let cases: [(Change, &str); 7] = [
            (|hello| hello.net_version = 0, "older"),
            (|hello| hello.message_version += 1, "newer"),
            (
                |hello| hello.cluster = "green".into(),
                "the cluster `green`",
            ),
            (|hello| hello.to = 2, "looks for controller 2"),
            (|hello| hello.purpose = Purpose::Raft, "is not for node"),
            (|hello| hello.unix_ms += 3_600_000, "3600 s apart"),
            (
                |hello| {
                    hello.purpose = Purpose::Ask;
                    hello.from = Party::Controller {
                        member: 1,
                        incarnation: incarnation(2),
                        folder: "a".into(),
                    };
                },
                "dialled itself",
            ),
        ];
        for (change, expected) in cases {
            let mut changed = hello();
            change(&mut changed);
            let found = refusal(&changed);
            assert!(found.contains(expected), "{found}");
        }
    }
}
