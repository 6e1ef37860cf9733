//! Files that nobody writes any more and nobody has committed: leftovers of processes that died, in a store that is a
//! folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use weft_protocol::KEPT_OUTPUTS;

use crate::outputs::{PART, is_staging};

/// Folders of a store whose files are looked at. Shards are the business of their owners.
const FOLDERS: [&str; 6] = [
    "components",
    "artefacts",
    "invocations",
    KEPT_OUTPUTS,
    "archive",
    "jobs",
];

/// Removes unfinished files below the folder of a store, all of whose writers have ended: those of attempts in staging
/// folders, and objects that were being written. It needs no control state, so a server that cannot open its log on a
/// full disk has room for it first. Returns how many were removed.
///
/// Errors: a folder cannot be read.
pub fn remove_unfinished(store: &Path) -> io::Result<usize> {
    let folders = FOLDERS.iter().map(|folder| store.join(folder));
    folders.map(|folder| remove_below(&folder)).sum()
}

fn remove_below(folder: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            removed += remove_below(&path)?;
        } else if is_unfinished(&path) {
            match fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "an unfinished file cannot be removed");
                }
            }
        }
    }
    Ok(removed)
}

/// Returns whether a file has the name of one that is being written: an attempt's, or an object's.
fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_object = name.rsplit_once('#').is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    is_object || (name.ends_with(PART) && path.parent().is_some_and(is_staging))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_committed_stays() {
        let store = tempfile::tempdir().expect("a folder");
        let write = |name: &str| {
            let path = store.path().join(name);
            let folder = path.parent().expect("it lies in a folder");
            fs::create_dir_all(folder).expect("it is made");
            fs::write(&path, "rows").expect("it writes");
            path
        };
        let staging = "outputs/job-1/rows/.weft-job-1";
        let dead = [
            format!("{staging}/local-1-2-0-part-rows-00000.arrow.part"),
            "jobs/job-1/0/0.shuffle#3".to_owned(),
            "archive/job-1.json.zst#1".to_owned(),
        ];
        let kept = [
            format!("{staging}/local-1-1-0-part-rows-00000.arrow"),
            "outputs/job-1/rows/notes.part".to_owned(),
            "jobs/job-1/0/0.shuffle".to_owned(),
            "jobs/job-1/0/a#b".to_owned(),
            "shards/default/0/wal/1.sst#1".to_owned(),
        ];
        let (dead, kept) = (dead.map(|name| write(&name)), kept.map(|name| write(&name)));
        assert_eq!(remove_unfinished(store.path()).expect("it reads"), 3);
        assert!(dead.iter().all(|path| !path.exists()));
        assert!(kept.iter().all(|path| path.exists()));
        assert_eq!(remove_unfinished(store.path()).expect("it reads"), 0);
    }
}
