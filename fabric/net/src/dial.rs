//! Dials a controller until it is reached.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::book::Book;
use crate::handshake::{Cluster, HANDSHAKE_TIMEOUT, Purpose, Refusal, introduce};
use crate::members::Members;
use crate::security::{Security, Wire};

/// The first pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a process that is back is found within it.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Dials one controller for one purpose.
pub(crate) struct Dialler {
    cluster: Cluster,
    security: Security,
    member: u64,
    book: Book,
    purpose: Purpose,
    /// Controllers check each other's data folders.
    members: Option<Members>,
    /// Pause before the next attempt; none before the first one.
    pause: Option<Duration>,
    /// Reason why the controller is not reached, as it was reported.
    reported: Option<String>,
}

impl Dialler {
    pub(crate) fn new(
        cluster: &Cluster,
        security: &Security,
        member: u64,
        book: &Book,
        purpose: Purpose,
        members: Option<Members>,
    ) -> Self {
        Self {
            cluster: cluster.clone(),
            security: security.clone(),
            member,
            book: book.clone(),
            purpose,
            members,
            pause: None,
            reported: None,
        }
    }

    /// Number of the controller.
    pub(crate) fn member(&self) -> u64 {
        self.member
    }

    /// Dials until the controller is reached: not at once again after a connection that broke. Reports
    /// once why the controller cannot be reached, and that it can.
    pub(crate) async fn reach(&mut self) -> Wire {
        let (member, purpose) = (self.member, self.purpose);
        loop {
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
            }
            match self.dial().await {
                Ok(wire) => {
                    tracing::info!(member, ?purpose, "a controller is reached");
                    (self.pause, self.reported) = (Some(PAUSE_MIN), None);
                    return wire;
                }
                Err(refusal) => {
                    let reason = refusal.to_string();
                    if self.reported.as_ref() != Some(&reason) {
                        let what = "a controller is not reached; trying again";
                        tracing::warn!(member, ?purpose, reason, "{what}");
                        self.reported = Some(reason);
                    }
                    let doubled = self.pause.map_or(PAUSE_MIN, |pause| pause * 2);
                    self.pause = Some(doubled.min(PAUSE_MAX));
                }
            }
        }
    }

    /// Dials once, and introduces this process.
    async fn dial(&self) -> Result<Wire, Refusal> {
        let unknown = || anyhow::anyhow!("no address of controller {} is known", self.member);
        let address = self.book.address(self.member).ok_or_else(unknown)?;
        let dialling = async {
            let stream = TcpStream::connect(&address).await;
            let stream = stream.map_err(|error| anyhow::anyhow!("`{address}`: {error}"))?;
            let mut wire = self.security.dialled(stream, self.member).await?;
            let party = introduce(&mut wire, &self.cluster, self.member, self.purpose).await?;
            if let Some(members) = &self.members {
                members.check(&party).map_err(Refusal::Refused)?;
            }
            Ok(wire)
        };
        let dialled = timeout(HANDSHAKE_TIMEOUT, dialling).await;
        dialled.unwrap_or_else(|_| {
            let error = anyhow::anyhow!("`{address}` does not answer within {HANDSHAKE_TIMEOUT:?}");
            Err(Refusal::Broken(error))
        })
    }
}
