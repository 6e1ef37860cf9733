//! A process that dies at any failpoint: the folder, as it was there, holds every acknowledged command.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;
use weft_consensus::Settings;

use crate::support::{command, commands, settings, start_single};

static SCENE: Mutex<Option<Scene>> = Mutex::new(None);

struct Scene {
    folder: PathBuf,
    n_acknowledged: usize,
    copies: Vec<Copy>,
}

/// What a crash would have left.
struct Copy {
    place: &'static str,
    folder: TempDir,
    n_acknowledged: usize,
}

/// Fails where a file vanishes meanwhile: the other thread renames and removes snapshots.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A copy of the folder as it was at one time: it is made again where a file vanished.
fn copy_of(folder: &Path) -> TempDir {
    loop {
        let copy = tempfile::tempdir().unwrap();
        match copy_folder(folder, copy.path()) {
            Ok(()) => return copy,
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }
}

fn keep_copy(place: &'static str) {
    let mut scene = SCENE.lock().unwrap();
    let Some(scene) = scene.as_mut() else { return };
    scene.copies.push(Copy {
        place,
        folder: copy_of(&scene.folder),
        n_acknowledged: scene.n_acknowledged,
    });
}

fn small_steps(folder: &Path) -> Settings {
    Settings {
        snapshot_every_entries: 4,
        keep_entries: 2,
        ..settings(folder)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_anywhere_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        failpoint: keep_copy,
        ..small_steps(folder.path())
    };
    let (handle, _) = start_single(settings).await;
    *SCENE.lock().unwrap() = Some(Scene {
        folder: folder.path().to_owned(),
        n_acknowledged: 0,
        copies: Vec::new(),
    });
    for number in 0..12 {
        handle.propose(command(number)).await.unwrap();
        SCENE.lock().unwrap().as_mut().unwrap().n_acknowledged = number + 1;
    }
    handle.shutdown().await.unwrap();
    let copies = SCENE.lock().unwrap().take().unwrap().copies;
    for place in [
        "raft-append",
        "raft-appended",
        "snapshot-write",
        "snapshot-written",
    ] {
        assert!(
            copies.iter().any(|copy| copy.place == place),
            "{place} never came"
        );
    }
    for copy in copies {
        let (handle, journal) = start_single(small_steps(copy.folder.path())).await;
        let found = journal.commands();
        let what = format!("{} after {} commands", copy.place, copy.n_acknowledged);
        assert!(
            found.len() >= copy.n_acknowledged,
            "{what}: {} are left",
            found.len()
        );
        assert_eq!(found, commands(0..found.len()), "{what}");
        handle.propose(b"goes on".to_vec()).await.unwrap();
        handle.shutdown().await.unwrap();
    }
}
