//! A disk that refuses a write: the process ends, and what it had acknowledged is there.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use weft_consensus::{ErrorKind, NoTransport, Settings, start};

use crate::support::{Journal, settings, start_single};

/// Names the folder to a process that is to fail in it.
const CHILD_FOLDER: &str = "WEFT_TEST_CHILD_FOLDER";
const SIGABRT: i32 = 6;

fn large_commands(folder: &Path) -> Settings {
    Settings {
        max_command_bytes: 200,
        snapshot_every_entries: 1_000_000,
        ..settings(folder)
    }
}

/// Proposes until the disk refuses, noting after each answer how many there were.
fn propose_until_the_end(folder: &Path) {
    let member = start(
        large_commands(&folder.join("member")),
        Journal::default(),
        NoTransport,
    );
    let member = member.unwrap();
    let mut n_acknowledged = 0;
    while n_acknowledged < 1_000 {
        match member.blocking_propose(vec![n_acknowledged as u8; 200]) {
            Ok(_) => n_acknowledged += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotLeader),
        }
        fs::write(folder.join("acknowledged"), n_acknowledged.to_string()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refused_write_ends_the_process_and_nothing_acknowledged_is_lost() {
    if let Ok(folder) = std::env::var(CHILD_FOLDER) {
        return tokio::task::block_in_place(|| propose_until_the_end(Path::new(&folder)));
    }
    let folder = tempfile::tempdir().unwrap();
    // No file may grow above 64 blocks of 512 bytes, and to try is an error of the write, not a signal.
    let limited = "trap '' XFSZ; ulimit -c 0; ulimit -f 64; exec \"$0\" \"$@\"";
    let child = Command::new("sh")
        .args(["-c", limited])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("disk::a_refused_write_ends_the_process_and_nothing_acknowledged_is_lost")
        .env(CHILD_FOLDER, folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.signal(), Some(SIGABRT), "{errors}");
    assert!(errors.contains("writing the log"), "{errors}");

    let n_acknowledged = fs::read_to_string(folder.path().join("acknowledged")).unwrap();
    let n_acknowledged: usize = n_acknowledged.parse().unwrap();
    assert!(n_acknowledged > 0);
    let (handle, journal) = start_single(large_commands(&folder.path().join("member"))).await;
    assert!(journal.record().n_applied >= n_acknowledged);
    handle.shutdown().await.unwrap();
}
