//! Settings of controllers and nodes: a TOML file, and environment variables over it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};
use weft_controller::KeptOutputs;
use weft_core::NodeId;
use weft_net::{Certificates, Security};

use crate::stores::{StoreConfig, as_table, trust};

/// All keys of a controller with their meaning, as `weft config` prints them.
pub(crate) const CONTROLLER: &str = include_str!("controller.toml");
/// All keys of a node.
pub(crate) const NODE: &str = include_str!("node.toml");
/// Beginning of the names of environment variables with settings.
const PREFIX: &str = "WEFT__";
/// Commands between two snapshots of the control state.
pub(crate) const SNAPSHOT_EVERY: u64 = 1_000;

/// Seconds of an hour.
const HOUR_SECONDS: u64 = 3_600;

/// Bytes of copies of shuffle objects that a node keeps.
const TIER_BYTES: u64 = 8 << 30;

/// Seconds that a node which is told to stop has for its work.
const DRAIN_SECONDS: u64 = 30;

/// Settings of a controller.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControllerConfig {
    pub(crate) cluster: String,
    pub(crate) member: u64,
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) store: StoreConfig,
    pub(crate) token_file: PathBuf,
    #[serde(default)]
    pub(crate) join: bool,
    #[serde(default)]
    pub(crate) allow_host: Vec<String>,
    #[serde(default)]
    pub(crate) allow_origin: Vec<String>,
    #[serde(default)]
    plain_text: bool,
    #[serde(default)]
    pub(crate) members: Vec<u64>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    peers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) etcd: Option<EtcdConfig>,
    #[serde(default)]
    tls: Option<TlsConfig>,
    #[serde(default)]
    pub(crate) raft: RaftConfig,
    #[serde(default)]
    pub(crate) scheduler: SchedulerConfig,
    #[serde(default)]
    pub(crate) outputs: OutputsConfig,
}

/// Settings of a node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeConfig {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    pub(crate) data: PathBuf,
    pub(crate) store: StoreConfig,
    #[serde(default)]
    pub(crate) slots: u32,
    #[serde(default = "trust")]
    pub(crate) tenants_trust_each_other: bool,
    #[serde(default = "drain_seconds")]
    pub(crate) drain_seconds: u64,
    #[serde(default)]
    pub(crate) tier: TierConfig,
    #[serde(default)]
    plain_text: bool,
    #[serde(default)]
    controllers: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) etcd: Option<EtcdConfig>,
    #[serde(default)]
    tls: Option<TlsConfig>,
}

fn drain_seconds() -> u64 {
    DRAIN_SECONDS
}

/// The etcd that knows addresses of controllers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EtcdConfig {
    pub(crate) endpoints: Vec<String>,
}

/// Files with certificates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsConfig {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// Settings of Raft.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RaftConfig {
    pub(crate) snapshot_every: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            snapshot_every: SNAPSHOT_EVERY,
        }
    }
}

/// Settings of the scheduler.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SchedulerConfig {
    pub(crate) run_tasks_twice: bool,
}

/// Settings of outputs that the cluster keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OutputsConfig {
    pub(crate) max_kept_bytes: u64,
    pub(crate) kept_hours: u64,
}

impl Default for OutputsConfig {
    fn default() -> Self {
        let KeptOutputs {
            max_bytes,
            kept_for,
        } = KeptOutputs::default();
        Self {
            max_kept_bytes: max_bytes,
            kept_hours: kept_for.as_secs() / HOUR_SECONDS,
        }
    }
}

/// Settings of a node's copies of shuffle objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TierConfig {
    pub(crate) max_bytes: u64,
}

impl Default for TierConfig {
    fn default() -> Self {
        Self {
            max_bytes: TIER_BYTES,
        }
    }
}

impl OutputsConfig {
    /// The settings as a controller takes them.
    pub(crate) fn kept_outputs(self) -> KeptOutputs {
        KeptOutputs {
            max_bytes: self.max_kept_bytes,
            kept_for: Duration::from_secs(self.kept_hours.saturating_mul(HOUR_SECONDS)),
        }
    }
}

impl ControllerConfig {
    /// Reads settings of a controller. Errors: what is wrong with them, and where.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let config: Self = read(path)?;
        config.address()?;
        let founders = config.founders()?;
        if !config.join && !founders.contains(&config.member) {
            bail!(
                "`{}`: `member` is {}, and the members of the group are {founders:?}",
                path.display(),
                config.member
            );
        }
        Ok(config)
    }

    /// Addresses of the controllers that the settings name.
    pub(crate) fn peers(&self) -> anyhow::Result<BTreeMap<u64, String>> {
        numbered("peers", &self.peers, self.etcd.is_some())
    }

    /// Address on which this controller listens for nodes and other controllers, and which it tells.
    pub(crate) fn address(&self) -> anyhow::Result<String> {
        let named = self.address.clone();
        let address = named.or_else(|| self.peers.get(&self.member.to_string()).cloned());
        address.with_context(|| {
            format!(
                "`member` is {}, and `peers` has no address for it; with etcd, `address` is it",
                self.member
            )
        })
    }

    /// Members of a group that begins; none if this controller joins one.
    pub(crate) fn founders(&self) -> anyhow::Result<Vec<u64>> {
        if self.join {
            return Ok(Vec::new());
        }
        if !self.members.is_empty() {
            return Ok(self.members.clone());
        }
        if self.etcd.is_some() {
            bail!(
                "`members` is missing: with etcd, it lists the controllers of a group that begins"
            );
        }
        Ok(self.peers()?.into_keys().collect())
    }

    /// Protection of connections.
    pub(crate) fn security(&self) -> anyhow::Result<Security> {
        security(self.plain_text, self.tls.as_ref())
    }
}

impl NodeConfig {
    /// Reads settings of a node. Errors: what is wrong with them, and where.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let config: Self = read(path)?;
        config.controllers()?;
        Ok(config)
    }

    /// Addresses of the controllers.
    pub(crate) fn controllers(&self) -> anyhow::Result<BTreeMap<u64, String>> {
        numbered("controllers", &self.controllers, self.etcd.is_some())
    }

    /// Protection of connections.
    pub(crate) fn security(&self) -> anyhow::Result<Security> {
        security(self.plain_text, self.tls.as_ref())
    }
}

fn security(plain_text: bool, tls: Option<&TlsConfig>) -> anyhow::Result<Security> {
    match (plain_text, tls) {
        (true, None) => Ok(Security::plain()),
        (false, Some(tls)) => Security::tls(&Certificates {
            ca: tls.ca.clone(),
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
        }),
        (true, Some(_)) => bail!("`plain_text` and `tls` exclude each other"),
        (false, None) => bail!(
            "`tls` is missing: `weft certs` makes certificates; on one machine, `plain_text = true` does without"
        ),
    }
}

fn numbered(
    key: &str,
    addresses: &BTreeMap<String, String>,
    may_be_empty: bool,
) -> anyhow::Result<BTreeMap<u64, String>> {
    if addresses.is_empty() && !may_be_empty {
        bail!("`{key}` is empty");
    }
    let numbered = addresses.iter().map(|(number, address)| {
        let member: Option<u64> = number.parse().ok().filter(|member| *member > 0);
        let member =
            member.with_context(|| format!("`{key}`: `{number}` is not a number above 0"))?;
        Ok((member, address.clone()))
    });
    numbered.collect()
}

/// Reads a file of settings.
pub(crate) fn table(path: &Path) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
    text.parse()
        .with_context(|| format!("`{}` is not TOML", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let settings = table(path)?;
    let variables = std::env::vars().filter(|(name, _)| name.starts_with(PREFIX));
    let settings = overridden(settings, variables);
    let settings = settings.try_into();
    settings.with_context(|| format!("`{}` (`weft config` prints all keys)", path.display()))
}

/// Puts the values of environment variables over those of a file.
pub(crate) fn overridden(
    mut settings: Table,
    variables: impl Iterator<Item = (String, String)>,
) -> Table {
    // `store` is a URL, or a table with it: a variable may add to either.
    if let Some(store) = settings.get_mut("store") {
        as_table(store);
    }
    for (name, text) in variables {
        let name = name[PREFIX.len()..].to_lowercase();
        let keys: Vec<&str> = match name.as_str() {
            "store" => vec!["store", "url"],
            name => name.split("__").collect(),
        };
        let Some((last, tables)) = keys.split_last() else {
            continue;
        };
        let mut table = &mut settings;
        for key in tables {
            let inner = table
                .entry((*key).to_owned())
                .or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            table = inner.as_table_mut().expect("it is one now");
        }
        table.insert((*last).to_owned(), value(&text));
    }
    settings
}

/// The value of a variable: TOML, or a text.
fn value(text: &str) -> Value {
    let parsed: Option<Table> = format!("value = {text}").parse().ok();
    let parsed = parsed.and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_settings_are_complete_and_valid() {
        let controller: ControllerConfig = toml::from_str(CONTROLLER).expect("it is valid");
        assert_eq!(controller.peers().expect("numbers").len(), 1);
        assert_eq!(controller.raft.snapshot_every, SNAPSHOT_EVERY);
        assert_eq!(controller.outputs, OutputsConfig::default());
        assert_eq!(
            controller.outputs.kept_outputs(),
            KeptOutputs::default(),
            "whole hours"
        );
        let node: NodeConfig = toml::from_str(NODE).expect("it is valid");
        assert_eq!(node.controllers().expect("numbers").len(), 1);
        assert_eq!(node.drain_seconds, DRAIN_SECONDS);
        assert_eq!(node.tier, TierConfig::default());
        assert_eq!(node.tenants_trust_each_other, trust());
    }

    #[test]
    fn variables_go_over_the_file() {
        let file: Table = NODE.parse().expect("TOML");
        let variables = [
            ("WEFT__SLOTS", "3"),
            ("WEFT__NODE", "node-7"),
            ("WEFT__TLS__CA", "/elsewhere/ca.pem"),
            ("WEFT__CONTROLLERS", "{ 1 = \"a:1\", 2 = \"b:1\" }"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let node: NodeConfig = overridden(file, variables.into_iter())
            .try_into()
            .expect("it is valid");
        assert_eq!((node.slots, node.node.as_str()), (3, "node-7"));
        assert_eq!(
            node.tls.as_ref().expect("a table").ca,
            Path::new("/elsewhere/ca.pem")
        );
        let controllers = node.controllers().expect("numbers");
        assert_eq!(controllers[&2], "b:1");
    }

    #[test]
    fn variables_add_to_stores() {
        let file: Table = NODE.parse().expect("TOML");
        let variables = [
            ("WEFT__STORE__LAKE__URL", "s3://lake/"),
            ("WEFT__STORE__LAKE__SECRET_ACCESS_KEY", "12"),
            ("WEFT__STORE__LAKE__ROOTS", "[\"s3://lake/raw\"]"),
            ("WEFT__STORE", "s3://cluster/weft"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let node: NodeConfig = overridden(file, variables.into_iter())
            .try_into()
            .expect("it is valid");
        let stores = node.store.stores([].into_iter()).expect("it has a URL");
        assert_eq!(stores.own.url, "s3://cluster/weft");
        let lake = &stores.granted["lake"];
        assert_eq!(lake.roots, ["s3://lake/raw"]);
        assert_eq!(lake.options["secret_access_key"].reveal(), "12");
    }

    #[test]
    fn protection_is_chosen_openly() {
        let refusal = |plain, tls: Option<&TlsConfig>| {
            security(plain, tls)
                .err()
                .expect("it is refused")
                .to_string()
        };
        assert!(refusal(false, None).contains("weft certs"));
        let tls = TlsConfig {
            ca: "ca.pem".into(),
            certificate: "a.pem".into(),
            key: "a.key".into(),
        };
        assert!(refusal(true, Some(&tls)).contains("exclude"));
        assert!(refusal(false, Some(&tls)).contains("ca.pem"));
        assert!(security(true, None).is_ok());
    }
}
