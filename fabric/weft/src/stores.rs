//! Stores in the settings of servers: the cluster's own, and those that jobs may use.
//!
//! ```toml
//! [store]
//! url = "s3://bucket/prefix"        # or store = "s3://bucket/prefix"
//!
//! [store.lake]
//! url = "s3://lake/"
//! roots = ["s3://lake/raw", "s3://lake/out"]
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::{Table, Value};
use weft_cli::UpSettings;
use weft_core::Location;
use weft_protocol::{Secret, StoreSettings, Stores};
use weft_runtime::{OnError, Tasks};
use weft_store::{Access, unreachable_stores, with_environment};

use crate::config::{overridden, table};
use crate::remembered_store::RememberedStore;

/// Beginning of the variables with settings of stores.
const STORE_PREFIX: &str = "WEFT__STORE";
/// The variable that says whether tenants trust each other.
const TRUST: &str = "WEFT__TENANTS_TRUST_EACH_OTHER";

/// Keys of a store beside the provider's options, for people.
const KEYS: &str = "`url`, `endpoint`, `region`, `roots`, `executor_role`, `sts_endpoint`";

/// `store` of a server's settings.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) struct StoreConfig {
    own: StoreSettings,
    granted: BTreeMap<String, StoreSettings>,
}

impl TryFrom<Value> for StoreConfig {
    type Error = String;

    fn try_from(mut value: Value) -> Result<Self, String> {
        as_table(&mut value);
        let Value::Table(table) = value else {
            return Err("`store` must be a URL, or a table with `url`".into());
        };
        let (granted, own): (Table, Table) =
            table.into_iter().partition(|(_, value)| value.is_table());
        let own = store("store", own)?;
        if !own.roots.is_empty() {
            return Err(
                "`roots` of `store`: jobs do not use the cluster's own store; name another one as `[store.NAME]`"
                    .into(),
            );
        }
        let granted = granted.into_iter().map(|(name, value)| {
            let Value::Table(table) = value else {
                return Err(format!("`store.{name}` must be a table"));
            };
            let path = format!("store.{name}");
            let settings = store(&path, table)?;
            match settings.url.is_empty() {
                true => Err(format!("`{path}.url` is missing")),
                false => Ok((name, settings)),
            }
        });
        let granted = granted.collect::<Result<_, _>>()?;
        Ok(Self { own, granted })
    }
}

impl StoreConfig {
    /// The stores, with what the environment's variables say of credentials. Errors: the cluster's own has no URL.
    pub(crate) fn stores(
        &self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Stores> {
        if self.own.url.is_empty() {
            bail!("`store.url` is missing: the store that all processes of the cluster share");
        }
        let variables: Vec<(String, String)> = variables.collect();
        let complete = |settings: &StoreSettings| {
            with_environment(settings.clone(), variables.iter().cloned())
        };
        let granted = self.granted.iter();
        let granted = granted.map(|(name, settings)| (name.clone(), complete(settings)));
        Ok(Stores {
            own: complete(&self.own),
            granted: granted.collect(),
        })
    }
}

/// Turns a URL alone into a table with it.
pub(crate) fn as_table(value: &mut Value) {
    if let Value::String(url) = value {
        let url = Value::String(std::mem::take(url));
        *value = Value::Table(Table::from_iter([("url".to_owned(), url)]));
    }
}

/// The settings of one store; keys that are none of ours are the provider's options.
fn store(path: &str, table: Table) -> Result<StoreSettings, String> {
    let mut settings = StoreSettings::default();
    for (key, value) in table {
        let at = format!("`{path}.{key}`");
        match (key.as_str(), value) {
            ("roots", Value::Array(roots)) => {
                let texts = roots.into_iter().map(|root| text(&at, root));
                settings.roots = texts.collect::<Result<_, _>>()?;
            }
            ("roots", root) => settings.roots = vec![text(&at, root)?],
            ("url", url) => settings.url = text(&at, url)?,
            ("endpoint", endpoint) => settings.endpoint = Some(text(&at, endpoint)?),
            ("region", region) => settings.region = Some(text(&at, region)?),
            ("executor_role", role) => settings.executor_role = Some(text(&at, role)?),
            ("sts_endpoint", endpoint) => settings.sts_endpoint = Some(text(&at, endpoint)?),
            (_, value) => {
                let value = text(&at, value).map_err(|_| {
                    format!(
                        "unknown key {at}: a store has {KEYS}, and the provider's options, which are texts"
                    )
                })?;
                let value = Secret::new(value);
                settings.options.insert(key, value);
            }
        }
    }
    Ok(settings)
}

/// A value as the text that stands for it: variables make numbers of what looks like one.
fn text(at: &str, value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err(format!("{at} must be text"))
        }
    }
}

/// Fails if tenants do not trust each other, and executors of one could use credentials on objects of another.
pub(crate) fn check_trust(stores: &Stores, tenants_trust_each_other: bool) -> anyhow::Result<()> {
    if tenants_trust_each_other {
        return Ok(());
    }
    for (name, settings) in stores.named() {
        if settings.executor_role.is_none() {
            bail!(
                "`tenants_trust_each_other` is false, and executors would get unscoped access to `{}`, the store `{name}`: \
                 set `{name}.executor_role` to a role of `s3://` that gives them their part of it",
                settings.url
            );
        }
    }
    Ok(())
}

/// Warns in the log of buckets that cannot be listed, while the server starts: what jobs use may come back later.
pub(crate) fn warn_of_unreachable(stores: Stores, tasks: &Tasks) {
    tasks.spawn("stores", OnError::Log, async move {
        for found in unreachable_stores(&stores).await {
            let (store, uri) = (&found.store, &found.uri);
            if let Access::None(error) = found.access {
                let error = error.problem().detail;
                tracing::warn!(%store, %uri, error, "a store cannot be used: `weft doctor` checks it again");
            }
        }
        Ok(())
    });
}

/// Tenants trust each other unless settings say otherwise.
pub(crate) fn trust() -> bool {
    true
}

/// File of settings of `weft up`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpConfig {
    store: StoreConfig,
    #[serde(default = "trust")]
    tenants_trust_each_other: bool,
}

/// The stores of `weft up`: its flags go over the environment, that over a file. Without any, the store is the one that
/// the data folder had before, or a folder in it.
///
/// Errors: settings are wrong, or name another store than the data folder had.
pub(crate) fn of_up(
    remembered: &RememberedStore,
    settings: &UpSettings,
    variables: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<Stores> {
    let variables: Vec<(String, String)> = variables.collect();
    let (config, store) = (settings.config.as_deref(), settings.store.as_deref());
    let Merged { table, is_named } = merged(remembered, config, store, &variables)?;
    let config: UpConfig = table
        .try_into()
        .with_context(|| source(settings.config.as_deref()))?;
    let stores = config.store.stores(variables.into_iter())?;
    remembered.check(&stores.own, is_named)?;
    check_trust(&stores, config.tenants_trust_each_other)?;
    Ok(stores)
}

/// The stores of a server of any role, as its file, the environment and the `--store` of `weft up` name them. Without
/// any, the store is that of a `weft up` on its data folder.
pub(crate) fn of_any(
    remembered: &RememberedStore,
    config: Option<&Path>,
    store: Option<&str>,
    variables: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<Stores> {
    let variables: Vec<(String, String)> = variables.collect();
    let mut merged = merged(remembered, config, store, &variables)?;
    // Other keys are the business of the server.
    let named = merged.table.remove("store");
    let named = named.unwrap_or_else(|| Value::Table(Table::new()));
    let stores = StoreConfig::try_from(named).map_err(anyhow::Error::msg);
    let stores = stores.with_context(|| source(config))?;
    stores.stores(variables.into_iter())
}

/// Says where settings come from.
fn source(config: Option<&Path>) -> String {
    match config {
        Some(path) => format!("`{}`", path.display()),
        None => "the environment".to_owned(),
    }
}

/// A file of settings with those that go over it, and with a store.
struct Merged {
    table: Table,
    /// The cluster's own store is named, and not just the one that the data folder had.
    is_named: bool,
}

fn merged(
    remembered: &RememberedStore,
    config: Option<&Path>,
    url: Option<&str>,
    variables: &[(String, String)],
) -> anyhow::Result<Merged> {
    let file = match config {
        Some(path) => table(path)?,
        None => Table::new(),
    };
    let named = variables.iter().filter(|(name, _)| {
        let rest = name.strip_prefix(STORE_PREFIX);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("__")) || name == TRUST
    });
    let mut table = overridden(file, named.cloned());
    let mut is_named = true;
    let store = table
        .entry("store")
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(store) = store {
        match url {
            Some(url) => {
                store.insert("url".into(), Value::String(absolute(url)?));
            }
            None => {
                is_named = store.contains_key("url");
                let default = Value::String(remembered.default_url());
                store.entry("url").or_insert(default);
            }
        }
    }
    Ok(Merged { table, is_named })
}

/// A path that the user gave, seen from the current folder.
fn absolute(url: &str) -> anyhow::Result<String> {
    if Location::is_one(url) || url.starts_with("file://") {
        return Ok(url.to_owned());
    }
    let path = std::path::absolute(url).with_context(|| format!("`{url}`"))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data folder that is not there.
    fn never_started() -> RememberedStore {
        RememberedStore::of("/data".as_ref()).expect("it is not there")
    }

    fn config(text: &str) -> Result<StoreConfig, String> {
        #[derive(Debug, Deserialize)]
        struct File {
            store: StoreConfig,
        }
        let file: Result<File, _> = toml::from_str(text);
        file.map(|file| file.store)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_alone_is_the_clusters_store() {
        let stores = config("store = \"/srv/weft\"").expect("it is right");
        let stores = stores.stores([].into_iter()).expect("it has a URL");
        assert_eq!(stores, Stores::folder("/srv/weft".as_ref()));
    }

    #[test]
    fn tables_in_the_table_are_other_stores() {
        let text = r#"
            [store]
            url = "s3://cluster/weft"
            region = "eu-west-1"
            [store.lake]
            url = "s3://lake/"
            endpoint = "http://127.0.0.1:9000"
            roots = ["s3://lake/raw"]
            access_key_id = "me"
            allow_http = true
        "#;
        let variables = [("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned())];
        let stores = config(text).expect("it is right");
        let stores = stores.stores(variables.into_iter()).expect("it has a URL");
        assert_eq!(stores.own.region.as_deref(), Some("eu-west-1"));
        assert_eq!(stores.own.options["aws_secret_access_key"].reveal(), "hush");
        let lake = &stores.granted["lake"];
        assert_eq!(lake.options["allow_http"].reveal(), "true");
        assert!(
            !lake.options.contains_key("aws_secret_access_key"),
            "it has a key of its own"
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("store = 3", "must be a URL"),
            (
                "[store.lake]\nregion = \"a\"",
                "`store.lake.url` is missing",
            ),
            (
                "[store]\nurl = \"s3://a\"\nroots = [\"s3://a\"]",
                "[store.NAME]",
            ),
            ("[store]\nurl = [1]", "`store.url` must be text"),
            (
                "[store.lake]\nurl = \"s3://a\"\nrots = [\"s3://a\"]",
                "unknown key `store.lake.rots`: a store has `url`, `endpoint`, `region`, `roots`",
            ),
        ] {
            let error = config(text).expect_err("it is wrong");
            assert!(error.contains(expected), "{error}");
        }
        let without = config("[store.lake]\nurl = \"s3://a\"").expect("a lake alone");
        assert!(without.stores([].into_iter()).is_err());
    }

    #[test]
    fn static_keys_are_refused_where_tenants_do_not_trust_each_other() {
        let role = "executor_role = \"arn:aws:iam::1:role/weft\"";
        let check = |own: &str, lake: &str, trust: bool| {
            let text = format!(
                "[store]\nurl = \"s3://cluster\"\n{own}\n[store.lake]\nurl = \"s3://lake/\"\n{lake}"
            );
            let stores = config(&text).expect("it is right");
            let stores = stores.stores([].into_iter()).expect("it has a URL");
            check_trust(&stores, trust).map_err(|error| error.to_string())
        };
        assert_eq!(check("", "", true), Ok(()));
        assert_eq!(check(role, role, false), Ok(()));
        let keys = "access_key_id = \"A\"\nsecret_access_key = \"B\"";
        let refused = check(role, keys, false).expect_err("they are unscoped");
        assert!(refused.contains("`store.lake.executor_role`"), "{refused}");
        let refused = check("", role, false).expect_err("they are unscoped");
        assert!(refused.contains("`store.executor_role`"), "{refused}");
        let folder = Stores::folder("/srv/weft".as_ref());
        check_trust(&folder, false).expect_err("all executors use the folder");
    }

    #[test]
    fn files_of_all_roles_name_stores() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |text: &str, store| {
            let path = folder.path().join("weft.toml");
            std::fs::write(&path, text).expect("it writes");
            let name = "WEFT__STORE__LAKE__URL".to_owned();
            let variables = [(name, "s3://lake".to_owned())].into_iter();
            of_any(&never_started(), Some(path.as_path()), store, variables)
        };
        for role in [crate::config::CONTROLLER, crate::config::NODE, ""] {
            let stores = of(role, None).expect("it is right");
            assert!(stores.own.folder().is_some(), "{role}");
            assert_eq!(stores.granted["lake"].url, "s3://lake");
        }
        let stores = of("store = \"/srv\"", Some("s3://flag/a")).expect("it is right");
        assert_eq!(stores.own.url, "s3://flag/a");
        let wrong = "[store.pond]\nregion = \"a\"";
        let error = of(wrong, None).expect_err("it has no URL");
        assert!(format!("{error:#}").contains("weft.toml"), "{error:#}");
    }

    #[test]
    fn flags_go_over_the_environment() {
        let up = |store: Option<&str>| UpSettings {
            data: "/data".into(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            slots: None,
            store: store.map(str::to_owned),
            config: None,
            allow_host: Vec::new(),
            allow_origin: Vec::new(),
        };
        let variables = [
            ("WEFT__STORE__URL", "s3://environment"),
            ("WEFT__STORE__LAKE__URL", "s3://lake"),
            ("WEFT__STORED", "no"),
        ];
        let of = |store, variables: &[(&str, &str)]| {
            let variables = variables.iter();
            let variables = variables.map(|(name, value)| ((*name).into(), (*value).into()));
            of_up(&never_started(), &up(store), variables).expect("it is right")
        };
        assert_eq!(of(None, &[]), Stores::folder("/data/store".as_ref()));
        let stores = of(None, &variables);
        assert_eq!(stores.own.url, "s3://environment");
        assert_eq!(stores.granted["lake"].url, "s3://lake");
        assert_eq!(of(Some("s3://flag/a"), &variables).own.url, "s3://flag/a");
        let folder = of(Some("shared"), &[]).own;
        assert!(folder.folder().expect("a folder").is_absolute());
    }
}
