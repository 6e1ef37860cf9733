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

/// Identity of a data folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Format of all that is in the folder.
    pub(crate) format: u32,
    /// Random name of the cluster that it belongs to.
    pub(crate) cluster: Incarnation,
    /// Number of the controller in its Raft group.
    pub(crate) member: u64,
    /// The node.
    pub(crate) node: NodeId,
}

/// The format alone: the rest of another format's identity may not be readable.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Identity {
    /// Reads the identity of a folder, or gives it one if it is new.
    ///
    /// Errors: the folder has another format, or its identity is damaged.
    pub(crate) fn of(root: &Path) -> anyhow::Result<Self> {
        match fs::read(root.join(FILE)) {
            Ok(text) => read(root, &text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if root.join("raft").exists() {
                    bail!(
                        "the data folder `{}` was written by an earlier version of Weft (format 1), which this one (format {FORMAT}) does not read; choose another with --data, or go on with the earlier version",
                        root.display()
                    );
                }
                create(root)
            }
            Err(error) => Err(error).with_context(|| format!("`{}`", root.join(FILE).display())),
        }
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
fn create(root: &Path) -> anyhow::Result<Identity> {
    let identity = Identity {
        format: FORMAT,
        cluster: Incarnation::from_random(weft_runtime::random::bytes()?),
        member: 1,
        node: NodeId::local(),
    };
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
        format!("{:#}", Identity::of(root).expect_err("it is refused"))
    }

    #[test]
    fn a_new_folder_gets_an_identity_and_keeps_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Identity::of(folder.path()).expect("it is new");
        assert_eq!((first.format, first.member), (FORMAT, 1));
        assert_eq!(Identity::of(folder.path()).expect("it is known"), first);
        let other = tempfile::tempdir().expect("a folder");
        let other = Identity::of(other.path()).expect("it is new");
        assert_ne!(other.cluster, first.cluster);
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
