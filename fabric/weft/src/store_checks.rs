//! Checks of stores for `weft doctor`, by the settings of a server.

use std::path::Path;

use weft_cli::{StoreAccess, StoreCheck};
use weft_runtime::{clock, random};
use weft_store::{Access, Probed, probe_stores};

use crate::remembered_store::RememberedStore;
use crate::stores;

/// Checks the buckets that a file of settings, the environment and a URL name. `data`: the data folder of a `weft up`.
pub(crate) fn check(
    data: &Path,
    config: Option<&Path>,
    store: Option<&str>,
) -> anyhow::Result<Vec<StoreCheck>> {
    let remembered = RememberedStore::of(data)?;
    let stores = stores::of_any(&remembered, config, store, std::env::vars())?;
    let id = random::name::<8>()?;
    // Requests are driven by the worker.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let probed = runtime.block_on(probe_stores(&stores, &id));
    let now_ms = clock::unix_ms();
    Ok(probed.into_iter().map(|one| told(one, now_ms)).collect())
}

/// Tells the command line of what was found.
fn told(probed: Probed, now_ms: u64) -> StoreCheck {
    let access = match probed.access {
        Access::Full { written_ms } => StoreAccess::Full {
            clock_off_seconds: written_ms.map(|written_ms| written_ms.abs_diff(now_ms) / 1_000),
        },
        Access::Reading(error) => StoreAccess::Reading(error.problem().detail),
        Access::None(error) => StoreAccess::None(error.problem().detail),
    };
    StoreCheck {
        store: probed.store,
        uri: probed.uri,
        access,
    }
}
