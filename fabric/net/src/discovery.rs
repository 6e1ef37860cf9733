//! Discovery by etcd: every controller tells its address there, and all processes read them.
//!
//! ```text
//! controller ──put, under a lease──▶ weft/CLUSTER/controllers/NUMBER ──once a second──▶ book of a process
//!                                                                                └─▶ addresses.json
//! ```
//!
//! etcd holds hints and nothing else: who belongs to the group is in the Raft log, and whoever is dialled
//! shows its certificate. It may be gone for as long as it likes: addresses that were found stay, also for
//! the next start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use etcd_client::{Client, ConnectOptions, GetOptions, PutOptions};
use tokio::time::timeout;
use weft_runtime::{OnError, Tasks};

use crate::book::Book;

/// Time between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Time for which etcd is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Seconds after which the address of a controller that is gone is forgotten by etcd.
const LEASE_SECONDS: i64 = 30;
/// Controllers that are read.
const CONTROLLERS_MAX: usize = 64;

/// Settings of the discovery.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// Addresses of etcd's members: `http://10.0.0.5:2379`.
    pub endpoints: Vec<String>,
    /// The cluster.
    pub cluster: String,
    /// Number and address of this controller; a node tells nothing.
    pub me: Option<(u64, String)>,
    /// File for the addresses that were found.
    pub kept: PathBuf,
}

/// A connection to etcd, and the lease of this controller's address.
struct Session {
    client: Client,
    lease: Option<i64>,
}

impl Discovery {
    /// Reads addresses into the book, and goes on doing so as long as the process runs.
    ///
    /// Errors: etcd is not reached, and no addresses are kept of earlier.
    pub async fn begin(self, book: Book, tasks: &Tasks) -> anyhow::Result<()> {
        let kept = self.read_kept();
        book.learn(kept);
        let me = self.me.as_ref().map(|(member, _)| *member);
        let session = match self.open().await {
            Ok((session, found)) => {
                self.learn(&book, found);
                Some(session)
            }
            Err(error) if !book.has_others(me) => {
                let endpoints = self.endpoints.join(", ");
                return Err(error.context(format!(
                    "etcd at {endpoints} is not reached, and no addresses of controllers are known: start it, or name the controllers in the settings"
                )));
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(
                    error,
                    "etcd is not reached: the controllers' addresses are those of earlier"
                );
                None
            }
        };
        tasks.spawn("discovery", OnError::Stop, self.keep_looking(session, book));
        Ok(())
    }

    async fn keep_looking(self, mut session: Option<Session>, book: Book) -> anyhow::Result<()> {
        let mut reported = session.is_none();
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            let looked = match &mut session {
                Some(session) => self.look(session).await,
                None => self.open().await.map(|(opened, found)| {
                    session = Some(opened);
                    found
                }),
            };
            match looked {
                Ok(found) => {
                    if std::mem::take(&mut reported) {
                        tracing::info!("etcd is reached");
                    }
                    self.learn(&book, found);
                }
                Err(error) => {
                    session = None;
                    if !std::mem::replace(&mut reported, true) {
                        let error = format!("{error:#}");
                        tracing::warn!(
                            error,
                            "etcd is not reached: the addresses that are known stay"
                        );
                    }
                }
            }
        }
    }

    /// Connects, tells the own address, and reads those of the others.
    async fn open(&self) -> anyhow::Result<(Session, BTreeMap<u64, String>)> {
        let opening = async {
            let options = ConnectOptions::new()
                .with_connect_timeout(PATIENCE)
                .with_timeout(PATIENCE);
            let mut client = Client::connect(&self.endpoints, Some(options)).await?;
            let lease = match &self.me {
                Some((member, address)) => {
                    let lease = client.lease_grant(LEASE_SECONDS, None).await?.id();
                    let key = format!("{}{member}", self.prefix());
                    let options = PutOptions::new().with_lease(lease);
                    client.put(key, address.as_str(), Some(options)).await?;
                    Some(lease)
                }
                None => None,
            };
            let mut session = Session { client, lease };
            let found = self.look(&mut session).await?;
            anyhow::Ok((session, found))
        };
        timeout(PATIENCE, opening)
            .await
            .context("it does not answer")?
    }

    /// Keeps the own address alive, and reads those of the others.
    async fn look(&self, session: &mut Session) -> anyhow::Result<BTreeMap<u64, String>> {
        let Session { client, lease } = session;
        let looking = async {
            if let Some(lease) = *lease {
                let (mut keeper, mut kept) = client.lease_keep_alive(lease).await?;
                keeper.keep_alive().await?;
                let alive = kept.message().await?;
                if alive.is_none_or(|answer| answer.ttl() <= 0) {
                    bail!("the lease of this controller's address has expired");
                }
            }
            let options = GetOptions::new()
                .with_prefix()
                .with_limit(CONTROLLERS_MAX as i64);
            Ok(client.get(self.prefix(), Some(options)).await?)
        };
        let answer = timeout(PATIENCE, looking)
            .await
            .context("it does not answer")??;
        let prefix = self.prefix();
        let entry = |pair: &etcd_client::KeyValue| {
            let member = pair.key_str().ok()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((member, pair.value_str().ok()?.to_owned()))
        };
        Ok(answer.kvs().iter().filter_map(entry).collect())
    }

    fn prefix(&self) -> String {
        format!("weft/{}/controllers/", self.cluster)
    }

    /// Takes what was found into the book, and keeps it for the next start.
    fn learn(&self, book: &Book, found: BTreeMap<u64, String>) {
        book.learn(found.clone());
        let before = self.read_kept();
        let mut kept = before.clone();
        kept.extend(found);
        if kept == before {
            return;
        }
        if let Err(error) = write(&self.kept, &kept) {
            let path = self.kept.display().to_string();
            tracing::warn!(path, %error, "addresses of controllers are not kept");
        }
    }

    /// Addresses that were found earlier. They are hints: a file that cannot be read is as good as none.
    fn read_kept(&self) -> BTreeMap<u64, String> {
        read(&self.kept).unwrap_or_else(|error| {
            let error = format!("{error:#}");
            tracing::warn!(error, "addresses of earlier are not known");
            BTreeMap::new()
        })
    }
}

fn read(path: &Path) -> anyhow::Result<BTreeMap<u64, String>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .with_context(|| format!("`{}` is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("`{}`", path.display())),
    }
}

fn write(path: &Path, addresses: &BTreeMap<u64, String>) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = fs::File::create(&draft)?;
    serde_json::to_writer_pretty(&mut file, addresses)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(())
}
