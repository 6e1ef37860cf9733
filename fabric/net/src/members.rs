//! Data folders of the other controllers, as they were seen first. Raft relies on what a member has
//! promised: one that comes back with another folder has forgotten its vote and its log, and would let
//! the group lose what it has acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use tokio::sync::watch;
use weft_core::{ErrorCode, Problem, lock};

use crate::handshake::Party;

/// The members of a group, and their folders. Clones share them.
#[derive(Clone)]
pub struct Members {
    /// Members of the group now. Nothing for a controller that joins, before it knows: it takes any of the cluster.
    current: Arc<watch::Sender<Option<Vec<u64>>>>,
    known: Arc<Mutex<BTreeMap<u64, String>>>,
    path: PathBuf,
}

impl Members {
    /// The members with these numbers, until others are set; none for a controller that joins a group. Their folders
    /// are kept in the file at `path`.
    ///
    /// Errors: the file cannot be read, or holds something else.
    pub fn open(path: PathBuf, members: Vec<u64>) -> anyhow::Result<Self> {
        let known = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("`{}` is damaged; restore it", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).with_context(|| format!("`{}`", path.display())),
        };
        Ok(Self {
            current: Arc::new(watch::Sender::new((!members.is_empty()).then_some(members))),
            known: Arc::new(Mutex::new(known)),
            path,
        })
    }

    /// Members have come or gone.
    pub fn set(&self, members: Vec<u64>) {
        self.current.send_replace(Some(members));
    }

    /// Returns once a controller is no member: its connections end then. Never for a node.
    pub(crate) async fn excluded(&self, party: &Party) {
        let Party::Controller { member, .. } = party else {
            return std::future::pending().await;
        };
        let mut current = self.current.subscribe();
        let excludes = |current: &Option<Vec<u64>>| {
            let members = current.as_ref();
            members.is_some_and(|members| !members.contains(member))
        };
        // The sender is ours.
        let _ = current.wait_for(excludes).await;
    }

    /// Checks that a controller is a member, and has the folder that it had when it was first seen, which
    /// is kept if this is the first time. Nodes pass.
    pub(crate) fn check(&self, party: &Party) -> Result<(), Problem> {
        let Party::Controller { member, folder, .. } = party else {
            return Ok(());
        };
        let current = self.current.borrow().clone();
        if let Some(current) = current.filter(|current| !current.contains(member)) {
            let detail = format!(
                "controller {member} is not a member: the members are {current:?}; one that is new is added by `weft members add {member}`"
            );
            return Err(Problem::new(ErrorCode::Unauthorized, detail));
        }
        let mut known = lock(&self.known);
        match known.get(member) {
            Some(before) if before == folder => Ok(()),
            Some(_) => {
                let detail = format!(
                    "controller {member} has another data folder than before: without its vote and its log, it could lose what the group has acknowledged; restore its folder"
                );
                Err(Problem::new(ErrorCode::Unauthorized, detail))
            }
            None => {
                known.insert(*member, folder.clone());
                self.write(&known).map_err(|error| {
                    known.remove(member);
                    Problem::new(ErrorCode::StoreUnavailable, format!("{error:#}"))
                })
            }
        }
    }

    fn write(&self, known: &BTreeMap<u64, String>) -> anyhow::Result<()> {
        let draft = self.path.with_extension("draft");
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&draft)?;
            serde_json::to_writer_pretty(&mut file, known)?;
            file.sync_all()?;
            fs::rename(&draft, &self.path)
        };
        write().with_context(|| format!("`{}`", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use weft_core::Incarnation;

    use super::*;

    #[test]
    fn strangers_and_controllers_that_lost_their_folder_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("members.json");
        let party = |member, folder: &str| Party::Controller {
            member,
            incarnation: Incarnation::from_random([1; 16]),
            folder: folder.into(),
        };
        let members = Members::open(path.clone(), vec![1, 2, 3]).expect("it is new");
        members.check(&party(2, "a")).expect("it is the first time");
        members.check(&party(2, "a")).expect("it is the same");
        members.check(&party(3, "b")).expect("it is another member");
        // Also when this controller has started again.
        let members = Members::open(path, vec![1, 2, 3]).expect("it reads");
        let refused = members
            .check(&party(2, "c"))
            .expect_err("it is another folder");
        assert!(refused.detail.contains("restore its folder"), "{refused}");
        members.check(&party(2, "a")).expect("it is back");
        let refused = members.check(&party(4, "d")).expect_err("there are three");
        assert!(refused.detail.contains("not a member"), "{refused}");
    }
}
