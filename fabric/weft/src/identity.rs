//! The identity file of a data folder: which format it has, and whose it is.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use weft_core::{Incarnation, NodeId};

/// Format of data folders that this version writes and reads.
const FORMAT: u32 = 2;
/// Name of the identity file.
pub(crate) const FILE: &str = "identity.json";

/// Process that a data folder belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A server with every role.
    Up,
    /// A controller of a cluster.
    Controller {
        /// The cluster.
        cluster: String,
        /// The controller's number.
        member: u64,
    },
    /// A node of a cluster.
    Node {
        /// The cluster.
        cluster: String,
        /// The node.
        node: NodeId,
    },
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Owner::Up => write!(f, "a `weft up`"),
            Owner::Controller { cluster, member } => {
                write!(f, "controller {member} of the cluster `{cluster}`")
            }
            Owner::Node { cluster, node } => write!(f, "node `{node}` of the cluster `{cluster}`"),
        }
    }
}

/// Role of the process that a data folder belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    #[default]
    Up,
    Controller,
    Node,
}

/// Identity of a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Format of all that is in the folder.
    pub(crate) format: u32,
    /// Role of its process.
    #[serde(default)]
    role: Role,
    /// Name of the cluster that it belongs to; random for a server with every role.
    pub(crate) cluster: String,
    /// Number of the controller in its Raft group; 0 of a node.
    pub(crate) member: u64,
    /// The node.
    pub(crate) node: NodeId,
    /// Random name of the folder: a controller that lost its folder is not the same member.
    #[serde(default)]
    pub(crate) folder: String,
}

/// The format alone: the rest of another format's identity may not be readable.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Identity {
    /// Reads the identity of a folder, or gives it to `owner` if it is new.
    ///
    /// Errors: the folder has another format or owner, or its identity is damaged.
    pub(crate) fn of(root: &Path, owner: &Owner) -> anyhow::Result<Self> {
        match fs::read(root.join(FILE)) {
            Ok(text) => {
                let identity = read(root, &text)?;
                let found = identity.owner();
                if found != *owner {
                    bail!(
                        "the data folder `{}` belongs to {found}, and this is {owner}; choose another folder",
                        root.display()
                    );
                }
                Ok(identity)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if root.join("raft").exists() {
                    bail!(
                        "the data folder `{}` was written by an earlier version of Weft (format 1), which this one (format {FORMAT}) does not read; choose another with --data, or go on with the earlier version",
                        root.display()
                    );
                }
                create(root, owner)
            }
            Err(error) => Err(error).with_context(|| format!("`{}`", root.join(FILE).display())),
        }
    }

    fn owner(&self) -> Owner {
        let cluster = self.cluster.clone();
        match self.role {
            Role::Up => Owner::Up,
            Role::Controller => Owner::Controller {
                cluster,
                member: self.member,
            },
            Role::Node => Owner::Node {
                cluster,
                node: self.node.clone(),
            },
        }
    }

    /// The identity of a new folder.
    fn new(owner: &Owner) -> anyhow::Result<Self> {
        let (role, cluster, member, node) = match owner {
            Owner::Up => {
                let random = Incarnation::from_random(weft_runtime::random::bytes()?);
                (Role::Up, random.to_string(), 1, NodeId::local())
            }
            Owner::Controller { cluster, member } => {
                (Role::Controller, cluster.clone(), *member, NodeId::local())
            }
            Owner::Node { cluster, node } => (Role::Node, cluster.clone(), 0, node.clone()),
        };
        Ok(Self {
            format: FORMAT,
            role,
            cluster,
            member,
            node,
            folder: weft_runtime::random::name::<16>()?,
        })
    }
}

fn read(root: &Path, text: &[u8]) -> anyhow::Result<Identity> {
    let damaged = || {
        let path = root.join(FILE);
        format!(
            "the identity file `{}` is damaged; restore it from a copy of the folder",
            path.display()
        )
    };
    let Format { format } = serde_json::from_slice(text).with_context(damaged)?;
    if format != FORMAT {
        let (which, advice) = match format > FORMAT {
            true => ("a newer", "upgrade this one"),
            false => ("an earlier", "go on with the earlier version"),
        };
        bail!(
            "the data folder `{}` was written by {which} version of Weft (format {format}), which this one (format {FORMAT}) does not read; {advice}, or choose another folder with --data",
            root.display()
        );
    }
    serde_json::from_slice(text).with_context(damaged)
}

/// Writes the identity of a new folder; it is there whole or not at all.
fn create(root: &Path, owner: &Owner) -> anyhow::Result<Identity> {
    let identity = Identity::new(owner)?;
    let draft = root.join("identity.draft");
    let mut file = File::create(&draft)?;
    serde_json::to_writer_pretty(&mut file, &identity)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&draft, root.join(FILE))?;
    File::open(root)?.sync_all()?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(root: &Path) -> String {
        let refused = Identity::of(root, &Owner::Up);
        format!("{:#}", refused.expect_err("it is refused"))
    }

    #[test]
    fn a_new_folder_gets_an_identity_and_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Identity::of(folder.path(), &Owner::Up).expect("it is new");
        assert_eq!((first.format, first.member), (FORMAT, 1));
        let again = Identity::of(folder.path(), &Owner::Up).expect("it is known");
        assert_eq!(again, first);
        let other = tempfile::tempdir().expect("a folder");
        let other = Identity::of(other.path(), &Owner::Up).expect("it is new");
        assert_ne!(other.cluster, first.cluster);
    }

    #[test]
    fn folders_of_other_processes_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let controller = |cluster: &str, member| Owner::Controller {
            cluster: cluster.into(),
            member,
        };
        let first = controller("blue", 1);
        Identity::of(folder.path(), &first).expect("it is new");
        Identity::of(folder.path(), &first).expect("it is its own");
        let node = Owner::Node {
            cluster: "blue".into(),
            node: NodeId::local(),
        };
        for other in [
            controller("blue", 2),
            controller("green", 1),
            node,
            Owner::Up,
        ] {
            let refused = Identity::of(folder.path(), &other).expect_err("it is refused");
            let text = refused.to_string();
            assert!(
                text.contains("belongs to controller 1 of the cluster `blue`"),
                "{text}"
            );
        }
    }

    #[test]
    fn folders_of_other_formats_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("raft")).expect("it is made");
        let text = refusal(folder.path());
        assert!(
            text.contains("earlier version") && text.contains("format 1"),
            "{text}"
        );
        let write = |text: &str| fs::write(folder.path().join(FILE), text).expect("it is written");
        write(r#"{ "format": 3, "cluster": { "of": "another kind" } }"#);
        let text = refusal(folder.path());
        assert!(
            text.contains("newer version") && text.contains("upgrade"),
            "{text}"
        );
        write(r#"{ "format": 2 }"#);
        assert!(refusal(folder.path()).contains("damaged"));
        write("");
        assert!(refusal(folder.path()).contains("damaged"));
    }
}
