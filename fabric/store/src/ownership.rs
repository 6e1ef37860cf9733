//! The marks that say whose a store is: what another cluster keeps there would be swept as unreferenced.
//!
//! ```text
//! owner        name of the cluster; random for a `weft up`       before a controller serves
//! owner.group  the name, and an id that the group made once       before its leader sweeps
//! ```
//!
//! Names are chosen by people, and copied with settings: two clusters may have one. Ids are not.

use bytes::Bytes;
use futures::StreamExt;

use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::probe::PROBES;
use crate::requests::RequestKind;

/// Key of the cluster's mark.
const OWNER: &str = "owner";
/// Key of the group's mark.
const GROUP: &str = "owner.group";

impl Blobs {
    /// Marks the store as a cluster's own, once and for all. One without a mark must be empty: whatever else lies
    /// there may have the names of leftovers, and would be swept.
    ///
    /// Errors: `Owned` if it is another cluster's, `Occupied` if it holds something and nobody's mark.
    pub async fn claim(&self, cluster: &str) -> Result<()> {
        if self.is_marked(OWNER, cluster).await? {
            return Ok(());
        }
        if let Some(found) = self.any_content().await? {
            // Another controller of the cluster may have marked it, and begun, meanwhile.
            return match self.is_marked(OWNER, cluster).await? {
                true => Ok(()),
                false => Err(Error::Occupied {
                    uri: self.place(""),
                    found,
                    cluster: cluster.to_owned(),
                }),
            };
        }
        self.adopt(cluster).await
    }

    /// The same of a store that may hold something: the folder in a server's own data folder, which nobody else had
    /// and which earlier versions did not mark.
    ///
    /// Errors: `Owned` if it is another cluster's.
    pub async fn adopt(&self, cluster: &str) -> Result<()> {
        self.mark(OWNER, cluster).await
    }

    /// Marks the store of a cluster as its group's own. `group`: the cluster's name, and an id that no other group has.
    ///
    /// Errors: `Owned` if it is another group's.
    pub async fn claim_for_group(&self, group: &str) -> Result<()> {
        self.mark(GROUP, group).await
    }

    async fn mark(&self, key: &str, owner: &str) -> Result<()> {
        if self.is_marked(key, owner).await? {
            return Ok(());
        }
        let mark = Bytes::from(owner.to_owned());
        if self.create_durable(key, mark).await? || self.is_marked(key, owner).await? {
            return Ok(());
        }
        Err(Error::Owned {
            uri: self.place(key),
            owner: "somebody else".to_owned(),
            cluster: owner.to_owned(),
        })
    }

    /// Returns whether a mark is there. Errors: `Owned` if it names another owner.
    async fn is_marked(&self, key: &str, owner: &str) -> Result<bool> {
        let found = match self.get(key).await {
            Err(error) if error.is_not_found() => return Ok(false),
            found => found?,
        };
        let found = String::from_utf8_lossy(&found);
        if found.contains('<') {
            return Err(Error::Refused {
                uri: self.place(key),
                fault: Fault::NotAStore,
                cause: "a page instead of the object".to_owned(),
            });
        }
        // An operator's editor may have ended the line.
        match found.trim_end() == owner {
            true => Ok(true),
            false => Err(Error::Owned {
                uri: self.place(key),
                owner: found.into_owned(),
                cluster: owner.to_owned(),
            }),
        }
    }

    /// A name in the store, if there is any beside the mark: of a bucket the first that it lists.
    async fn any_content(&self) -> Result<Option<String>> {
        let Some(remote) = self.remote() else {
            let entries = self.entries("").await?;
            let mut names = entries.into_iter().map(|entry| entry.name);
            return Ok(names.find(|name| !is_of_no_concern(name)));
        };
        remote.requests().count(RequestKind::List);
        let prefix = Some(&remote.prefix).filter(|prefix| !prefix.is_root());
        let mut objects = remote.objects.list(prefix);
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| remote.error(&remote.prefix, error))?;
            // Consoles make an empty object that stands for the folder, and a check may run or have been cut off.
            let is_of_no_concern = object.location == remote.prefix
                || object.location == remote.path(OWNER)
                || object.location.prefix_matches(&remote.path(PROBES));
            if !is_of_no_concern {
                return Ok(Some(object.location.to_string()));
            }
        }
        Ok(None)
    }

    /// A key as people read it.
    fn place(&self, key: &str) -> String {
        match (self.remote(), self.folder()) {
            (Some(remote), _) => remote.uri(key),
            (None, Some(folder)) => folder.join(key).display().to_string(),
            (None, None) => key.to_owned(),
        }
    }
}

/// Returns whether a name in a folder may be there before the mark: drafts of the mark, and what file systems and
/// their tools make by themselves, which no sweep touches.
fn is_of_no_concern(name: &str) -> bool {
    name.starts_with('.') || name == "lost+found" || name == OWNER || name.starts_with("owner#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::Grants;
    use crate::remote::Remote;

    fn stores(root: &std::path::Path) -> [Blobs; 2] {
        let remote = Remote::in_memory("s3://lake/weft").expect("it opens");
        [
            Blobs::local(root).expect("a store"),
            Blobs::of_remote(remote, Grants::default()),
        ]
    }

    #[tokio::test]
    async fn a_store_belongs_to_the_cluster_that_came_first() {
        let root = tempfile::tempdir().expect("a folder");
        for blobs in stores(root.path()) {
            blobs.claim("blue").await.expect("it is empty");
            let put = blobs.put("components/a", "code").await;
            put.expect("it is written");
            blobs.claim("blue").await.expect("it is blue's");
            let claims = [blobs.claim("green").await, blobs.adopt("green").await];
            for refused in claims {
                let text = refused.expect_err("it is blue's").to_string();
                assert!(text.contains("`blue`"), "{text}");
            }
            assert!(blobs.exists("components/a").await.expect("it looks"));
        }
    }

    #[tokio::test]
    async fn a_store_that_holds_something_is_nobodys_to_claim() {
        let root = tempfile::tempdir().expect("a folder");
        for blobs in stores(root.path()) {
            let put = blobs.put("components/button.js", "a button").await;
            put.expect("it is written");
            let error = blobs.claim("blue").await.expect_err("it holds something");
            let text = error.to_string();
            assert!(
                text.contains("components") && text.contains("`blue`"),
                "{text}"
            );
            assert!(!blobs.exists(OWNER).await.expect("it looks"));
            // The folder of a server's own may hold what an earlier version wrote.
            blobs.adopt("blue").await.expect("it is not marked");
            blobs.claim("blue").await.expect("it is blue's");
        }
    }

    #[tokio::test]
    async fn what_a_check_left_behind_is_nobodys() {
        let root = tempfile::tempdir().expect("a folder");
        for blobs in stores(root.path()) {
            let put = blobs.put(&format!("{PROBES}/a"), "a").await;
            put.expect("it is written");
            blobs.claim("blue").await.expect("it holds nothing else");
        }
    }

    #[tokio::test]
    async fn groups_of_one_name_are_told_apart() {
        let root = tempfile::tempdir().expect("a folder");
        for blobs in stores(root.path()) {
            for _ in 0..2 {
                blobs.claim("weft").await.expect("the name fits");
                let claimed = blobs.claim_for_group("weft 01").await;
                claimed.expect("the group came first");
            }
            blobs.claim("weft").await.expect("the name fits");
            let error = blobs.claim_for_group("weft 02").await;
            let text = error.expect_err("another group").to_string();
            assert!(text.contains("`weft 01`"), "{text}");
        }
    }
}
