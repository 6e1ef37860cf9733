//! Whose the cluster's store is: it is marked before anything in it is removed as a leftover.
//!
//! ```text
//! start ──▶ `owner`: name of the cluster ──▶ Raft, API ──▶ the first leader makes an id of the group
//!                                                                          │ replicated
//!                                            sweep ◀── `owner.group`: name and id, by every controller
//! ```

use std::time::Duration;

use anyhow::Context;
use weft_control::Command;
use weft_core::{Problem, TenantId};
use weft_runtime::random;
use weft_store::{Blobs, ErrorKind};

use crate::controller::ControllerSettings;
use crate::replica::Replica;

/// Pause before the group's id is made, or the store is marked, once more.
const TRY_PAUSE: Duration = Duration::from_secs(1);

/// Marks the store as the cluster's, by name, and makes the folder for uploads, which may lie in it.
///
/// Errors: the store is another cluster's, or holds something.
pub(crate) async fn claim(settings: &ControllerSettings, blobs: &Blobs) -> anyhow::Result<()> {
    let own = settings.folders.root.join("store");
    match blobs.folder() == Some(own.as_path()) {
        true => blobs.adopt(&settings.cluster).await?,
        false => blobs.claim(&settings.cluster).await?,
    }
    let uploads = &settings.folders.uploads;
    std::fs::create_dir_all(uploads)
        .with_context(|| format!("`{}` cannot be made", uploads.display()))
}

/// Marks the store as that of this group, if the group has an id. Returns whether it has.
///
/// Errors: the store is another group's whose cluster has the same name.
pub(crate) async fn claim_for_known_group(
    cluster: &str,
    blobs: &Blobs,
    replica: &Replica,
) -> Result<bool, weft_store::Error> {
    let known = replica.state().group.clone();
    let Some(group) = known else {
        return Ok(false);
    };
    blobs.claim_for_group(&format!("{cluster} {group}")).await?;
    Ok(true)
}

/// Marks the store as that of this group, and returns when that is done. The leader makes the group's id if there is
/// none. A server that is alone has a name of its own, and needs none.
///
/// Errors: the store is another group's whose cluster has the same name.
pub(crate) async fn claim_for_group(
    cluster: String,
    blobs: Blobs,
    replica: Replica,
) -> anyhow::Result<()> {
    if replica.peers().is_none() {
        return Ok(());
    }
    let mut status = replica.handle().watch_status();
    let mut version = replica.version();
    loop {
        let tried = match claim_for_known_group(&cluster, &blobs, &replica).await {
            Ok(true) => return Ok(()),
            Ok(false) if replica.status().is_leader => name_group(&replica).await,
            Ok(false) => {
                tokio::select! {
                    changed = status.changed() => changed?,
                    changed = version.changed() => changed?,
                }
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Err(error.problem()),
            Err(error) => return Err(error.into()),
        };
        if let Err(problem) = tried {
            tracing::warn!(%problem, "the store cannot be marked as the group's now");
            replica.clock().sleep(TRY_PAUSE).await;
        }
    }
}

/// Gives the group an id, if no other leader has done so.
async fn name_group(replica: &Replica) -> Result<(), Problem> {
    let group = random::name::<16>()?;
    let tenant = TenantId::default_tenant();
    let named = replica.propose(&tenant, Command::NameGroup { group });
    named.await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use weft_consensus::Settings;
    use weft_core::Incarnation;

    use super::*;
    use crate::replica::Signals;

    async fn leader(folder: &Path, number: u8) -> (Replica, Signals) {
        let raft = Settings::single(folder.join(format!("raft-{number}")));
        let life = Incarnation::from_random([number; 16]);
        let started = Replica::start(raft, life, None).expect("it starts");
        started.0.leads().await.expect("it leads");
        started
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_second_group_of_the_same_name_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(&root.path().join("store")).expect("a store");
        let groups = [leader(root.path(), 1).await, leader(root.path(), 2).await];
        for (replica, _) in &groups {
            let known = claim_for_known_group("weft", &blobs, replica).await;
            assert!(!known.expect("it has no id"));
            // Two leaders may make one: the first stays.
            for _ in 0..2 {
                name_group(replica).await.expect("it is named");
            }
        }
        let [(first, _), (second, _)] = &groups;
        for _ in 0..2 {
            let claimed = claim_for_known_group("weft", &blobs, first).await;
            assert!(claimed.expect("it came first"));
        }
        let refused = claim_for_known_group("weft", &blobs, second).await;
        let text = refused.expect_err("it is another group").to_string();
        assert!(text.contains("belongs to the cluster `weft "), "{text}");
        for (replica, _) in &groups {
            replica.shutdown().await.expect("it stops");
        }
    }
}
