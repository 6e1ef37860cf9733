//! Checks of the stores that settings name: whether they answer, and what their credentials may do there.
//!
//! ```text
//! list ──▶ write <place>/.weft-probe/<id> ──▶ create it again: refused ──▶ read ──▶ remove
//!     └──▶ read a byte of the first object, where jobs may write no outputs
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::{join, join_all};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutMode};
use weft_core::{Location, StoreKind, TenantId};
use weft_protocol::{Secret, StoreSettings, Stores};

use crate::credentials::Issuer;
use crate::error::{Error, Result};
use crate::grants;
use crate::remote::{Patience, Remote};

/// Folder of the objects that checks write and remove. No pattern of an input matches it, and outputs pass over it.
pub const PROBES: &str = ".weft-probe";
/// Objects that checks left behind in one place, as they may not remove any: then they write over one of them.
const MAX_LEFT: usize = 16;
/// Age at which what a check left behind is removed by the next one: no check takes as long.
const LEFT_AFTER: TimeDelta = TimeDelta::hours(1);
/// Time for a connection, and for one request, of a check.
const CHECK_CONNECT_WALL_MAX: Duration = Duration::from_secs(3);
const CHECK_REQUEST_WALL_MAX: Duration = Duration::from_secs(10);
/// Name of the cluster's own store in settings.
const OWN: &str = "store";
/// Name of a check in the logs of services that give credentials.
const SESSION: &str = "weft-doctor";

/// A place of a store, and what may be done there.
#[derive(Debug)]
pub struct Probed {
    /// Name of the store in settings: `store`, `store.lake`.
    pub store: String,
    /// The place, for people: `s3://lake/raw`.
    pub uri: String,
    /// The rights in it.
    pub access: Access,
}

/// Rights in a place of a store.
#[derive(Debug)]
pub enum Access {
    /// All that is needed.
    Full {
        /// When an object was written by the store's clock, in Unix milliseconds.
        written_ms: Option<u64>,
    },
    /// Jobs can read there, and write no outputs: the reason.
    Reading(Error),
    /// The store is of no use: the reason.
    None(Error),
}

/// Checks all buckets among the stores, side by side. In each it writes a small object, and removes it. `id`: the name
/// of that, which no other check has at this time. Somebody waits, so that a store which does not answer is given up
/// within seconds.
pub async fn probe_stores(stores: &Stores, id: &str) -> Vec<Probed> {
    let probes = buckets(stores).map(|(name, settings)| async move {
        let settings = &hasty(settings);
        let opened = match opened(&name, settings, Patience::Check) {
            Ok(opened) => opened,
            Err(wrong) => return vec![wrong],
        };
        let is_own = name == OWN;
        let places = opened.places().map(|place| place.probe(is_own, id));
        let places: Vec<_> = places.collect();
        let (found, role) = join(join_all(places), assume_role(&name, settings)).await;
        let mut probed = opened.told(&name, found);
        if let Err(error) = role {
            probed.push(Probed::useless(&name, settings, error));
        }
        probed
    });
    let probes: Vec<_> = probes.collect();
    join_all(probes).await.into_iter().flatten().collect()
}

/// Lists one name in each place of the buckets among the stores, and returns those that cannot be listed.
pub async fn unreachable_stores(stores: &Stores) -> Vec<Probed> {
    let looks = buckets(stores).map(|(name, settings)| async move {
        let opened = match opened(&name, settings, Patience::Work) {
            Ok(opened) => opened,
            Err(wrong) => return vec![wrong],
        };
        let places = opened.places().map(|place| async move {
            match place.first().await {
                Ok(_) => Access::Full { written_ms: None },
                Err(error) => Access::None(error),
            }
        });
        let places: Vec<_> = places.collect();
        let mut looked = opened.told(&name, join_all(places).await);
        looked.retain(|one| matches!(one.access, Access::None(_)));
        looked
    });
    let looks: Vec<_> = looks.collect();
    join_all(looks).await.into_iter().flatten().collect()
}

/// The stores without the cluster's own if that is a folder. One for jobs that is a folder is a mistake, which is told.
fn buckets(stores: &Stores) -> impl Iterator<Item = (String, &StoreSettings)> {
    let named = stores.named();
    named.filter(|(name, settings)| name != OWN || settings.folder().is_none())
}

/// A store, and the places in it that are used.
struct Opened {
    remote: Remote,
    roots: Vec<(Location, Path)>,
}

/// Settings whose requests do not wait for long, unless they say themselves how long.
fn hasty(settings: &StoreSettings) -> StoreSettings {
    let mut hasty = settings.clone();
    for (name, wall) in [
        ("connect_timeout", CHECK_CONNECT_WALL_MAX),
        ("timeout", CHECK_REQUEST_WALL_MAX),
    ] {
        let wall = || Secret::new(format!("{}s", wall.as_secs()));
        hasty.options.entry(name.to_owned()).or_insert_with(wall);
    }
    hasty
}

fn opened(
    name: &str,
    settings: &StoreSettings,
    patience: Patience,
) -> std::result::Result<Opened, Probed> {
    let open = || -> Result<Opened> {
        let (remote, roots) = match name {
            OWN => {
                let remote = Remote::open_with(settings, None, patience)?;
                let own = remote.location().clone();
                (remote, vec![own])
            }
            _ => grants::opened(settings, patience)?,
        };
        let roots = roots.into_iter().map(|root| {
            let path = Path::parse(&root.key);
            let path = path.map_err(|error| Error::settings(&settings.url, error.to_string()))?;
            Ok((root, path))
        });
        let roots = roots.collect::<Result<_>>()?;
        Ok(Opened { remote, roots })
    };
    open().map_err(|error| Probed::useless(name, settings, error))
}

impl Opened {
    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let places = self.roots.iter();
        places.map(|(_, root)| Place {
            remote: &self.remote,
            root,
        })
    }

    /// Findings in each of the places.
    fn told(&self, name: &str, found: Vec<Access>) -> Vec<Probed> {
        let places = self.roots.iter().zip(found);
        let told = places.map(|((root, _), access)| Probed {
            store: name.to_owned(),
            uri: root.to_string(),
            access,
        });
        told.collect()
    }
}

impl Probed {
    /// A store that cannot be used at all.
    fn useless(name: &str, settings: &StoreSettings, error: Error) -> Self {
        Self {
            store: name.to_owned(),
            uri: Location::shown(&settings.url),
            access: Access::None(error),
        }
    }
}

/// Asks for credentials of the role that executors work in, if a store has one.
async fn assume_role(name: &str, settings: &StoreSettings) -> Result<()> {
    let stores = match name.strip_prefix("store.") {
        None => Stores {
            own: settings.clone(),
            ..Stores::default()
        },
        Some(name) => Stores {
            granted: BTreeMap::from([(name.to_owned(), settings.clone())]),
            ..Stores::default()
        },
    };
    let tenant = TenantId::default_tenant();
    let issued = Issuer::open(&stores)?.issue(SESSION, &tenant).await;
    issued.map(drop)
}

/// A beginning of keys.
#[derive(Clone, Copy)]
struct Place<'a> {
    remote: &'a Remote,
    root: &'a Path,
}

impl Place<'_> {
    /// Finds out what may be done here.
    async fn probe(self, is_own: bool, id: &str) -> Access {
        let first = match self.first().await {
            Ok(first) => first,
            Err(error) => return Access::None(error),
        };
        // Of other kinds, jobs publish no outputs to the stores that they use.
        let is_written = is_own || self.remote.location().kind == StoreKind::S3;
        let refused = match is_written {
            true => match self.write(id).await {
                Ok(written_ms) => return Access::Full { written_ms },
                Err(error) => Some(error),
            },
            false => None,
        };
        match (refused, self.read(first).await) {
            (Some(error), _) if is_own => Access::None(error),
            (_, Err(error)) => Access::None(error),
            (Some(error), Ok(())) => Access::Reading(error),
            (None, Ok(())) => Access::Full { written_ms: None },
        }
    }

    /// Finds the first object, if there is one.
    async fn first(&self) -> Result<Option<ObjectMeta>> {
        let prefix = Some(self.root).filter(|root| !root.is_root());
        let first = self.remote.objects.list(prefix).next().await;
        let first = first.transpose();
        first.map_err(|error| self.remote.error(self.root, error))
    }

    /// Reads a byte of an object that was listed.
    async fn read(&self, first: Option<ObjectMeta>) -> Result<()> {
        let Some(found) = first.filter(|found| found.size > 0) else {
            return Ok(());
        };
        let path = &found.location;
        let read = self.remote.objects.get_range(path, 0..1).await;
        match read.map_err(|error| self.remote.error(path, error)) {
            // Somebody removed it meanwhile.
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes an object, tries to create it once more, reads it, and removes it. Returns when it was written.
    async fn write(&self, id: &str) -> Result<Option<u64>> {
        let objects = &self.remote.objects;
        let left = self.left().await?;
        let path = match left.as_slice() {
            [first, ..] if left.len() >= MAX_LEFT => first.location.clone(),
            _ => self.path(id),
        };
        let failed = |error| self.remote.error(&path, error);
        let put = objects.put(&path, id.to_owned().into()).await;
        put.map_err(failed)?;
        let again = objects.put_opts(&path, "twice".into(), PutMode::Create.into());
        match again.await {
            Ok(_) => {
                // What stays is the business of the next check.
                let _ = objects.delete(&path).await;
                return Err(Error::Unconditional(self.remote.uri_of(&path)));
            }
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => {}
            Err(error) => return Err(failed(error)),
        }
        let written = match objects.get(&path).await.map_err(failed) {
            Ok(found) => Some(found.meta.last_modified),
            // The sweep of a server that starts removes it, too.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        match objects.delete(&path).await.map_err(failed) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        if let Some(written) = written {
            self.remove_old(&left, written).await;
        }
        Ok(written.and_then(|written| u64::try_from(written.timestamp_millis()).ok()))
    }

    /// Objects that checks left behind, or have not removed yet.
    async fn left(&self) -> Result<Vec<ObjectMeta>> {
        let folder = self.path("");
        let left = self.remote.objects.list(Some(&folder)).take(MAX_LEFT);
        let left = left.try_collect().await;
        left.map_err(|error| self.remote.error(&folder, error))
    }

    /// Removes what checks left behind long before that time.
    async fn remove_old(&self, left: &[ObjectMeta], now: DateTime<Utc>) {
        for old in left {
            if now.signed_duration_since(old.last_modified) > LEFT_AFTER {
                // Of no harm if it stays: the next check tries again.
                let _ = self.remote.objects.delete(&old.location).await;
            }
        }
    }

    /// The whole key of a check's object.
    fn path(&self, id: &str) -> Path {
        let below = Path::from(format!("{PROBES}/{id}"));
        self.root.parts().chain(below.parts()).collect()
    }
}
