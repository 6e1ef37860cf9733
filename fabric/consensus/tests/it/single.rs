//! A group of one: durability, snapshots, limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use raft_engine::Engine;
use weft_consensus::{
    Capture, Change, Error, ErrorKind, NoTransport, Settings, StateMachine, start,
};

use crate::support::{Journal, UNREADABLE, command, commands, settings, start_single, wait};

fn snapshot_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("snapshot-")
        })
        .collect()
}

#[tokio::test]
async fn commands_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _) = start_single(settings(folder.path())).await;
    for number in 0..5 {
        let answer = handle.propose(command(number)).await.unwrap();
        assert_eq!(answer, format!("did command {number}").into_bytes());
    }
    let before = handle.status();
    assert_eq!(before.leader_id, Some(1));
    assert!(before.applied_index >= 6 && before.commit_index >= before.applied_index);
    handle.shutdown().await.unwrap();
    assert_eq!(
        handle.propose(command(5)).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert!(!handle.status().is_leader);

    let (handle, journal) = start_single(settings(folder.path())).await;
    assert_eq!(journal.commands(), commands(0..5));
    assert!(handle.status().term > before.term);
    handle.propose(command(5)).await.unwrap();
    assert_eq!(journal.commands(), commands(0..6));
    handle.shutdown().await.unwrap();
    assert_eq!(journal.record().leadership, [true, false]);
}

#[tokio::test]
async fn a_group_of_one_leads_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        tick: Duration::from_secs(3600),
        ..settings(folder.path())
    };
    let begin = Instant::now();
    let (handle, _) = start_single(settings).await;
    println!("led after {:?}", begin.elapsed());
    handle.propose(command(0)).await.unwrap();
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn snapshots_compact_the_log_and_later_entries_replay() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, journal) = start_single(settings(folder.path())).await;
    for number in 0..130 {
        handle.propose(command(number)).await.unwrap();
        let applied = handle.status().applied_index;
        wait(&handle, |status| status.snapshot_index == applied / 50 * 50).await;
    }
    assert_eq!(journal.record().n_applied, 130);
    handle.shutdown().await.unwrap();
    let snapshot_index = handle.status().snapshot_index;
    // 130 commands and the leader's empty entry, a snapshot every 50.
    assert_eq!(snapshot_index, 100);
    assert_eq!(
        snapshot_files(folder.path()),
        [folder.path().join("snapshot-100")]
    );
    let log = Engine::open(raft_engine::Config {
        dir: folder.path().join("log").to_str().unwrap().to_owned(),
        ..raft_engine::Config::default()
    })
    .unwrap();
    assert_eq!(log.first_index(1), Some(snapshot_index - 10 + 1));
    drop(log);

    let (handle, journal) = start_single(settings(folder.path())).await;
    assert_eq!(journal.commands(), commands(0..130));
    assert_eq!(journal.record().n_restored, 1);
    // Index 100 is command 98: the commands behind it come from the log.
    assert_eq!(journal.record().n_applied, 130 - 99);
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _) = start_single(settings(folder.path())).await;
    for number in 0..60 {
        handle.propose(command(number)).await.unwrap();
    }
    handle.shutdown().await.unwrap();
    let path = snapshot_files(folder.path()).pop().unwrap();
    let mut image = fs::read(&path).unwrap();
    let middle = image.len() / 2;
    image[middle] ^= 1;
    fs::write(&path, image).unwrap();

    let error = start(settings(folder.path()), Journal::default(), NoTransport)
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert!(text.contains("checksum"), "{text}");
}

/// Bytes that are changed, one at a time.
const FLIPS: usize = 100;

/// Changes single bytes of the log of a member that took commands: the member refuses to start, or has the first ones of them.
///
/// Where the head of a write changed, all behind it looks as if a crash had cut it off, which cannot be told from damage.
async fn check_flips(n_commands: usize, refused_min: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _) = start_single(settings(folder.path())).await;
    for number in 0..n_commands {
        handle.propose(command(number)).await.unwrap();
    }
    handle.shutdown().await.unwrap();
    let log = folder.path().join("log");
    let files = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap());
    let files: Vec<(PathBuf, Vec<u8>)> = files
        .map(|entry| (entry.path(), fs::read(entry.path()).unwrap()))
        .collect();
    let (path, image) = files.iter().max_by_key(|(_, image)| image.len()).unwrap();
    let mut n_refused = 0;
    for flip in 0..FLIPS {
        for (path, image) in &files {
            fs::write(path, image).unwrap();
        }
        let mut damaged = image.clone();
        damaged[image.len() * flip / FLIPS] ^= 0x10;
        fs::write(path, damaged).unwrap();
        let (settings, journal) = (settings(folder.path()), Journal::default());
        let state_machine = journal.clone();
        // raft-engine keeps what it has read for each thread.
        let started = std::thread::spawn(move || start(settings, state_machine, NoTransport));
        match started.join().expect("it does not panic") {
            Ok(handle) => {
                handle.shutdown().await.unwrap();
                let found = journal.commands();
                assert_eq!(found, commands(0..found.len()), "byte {flip} of {FLIPS}");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
                let text = error.to_string();
                assert!(text.contains(log.to_str().unwrap()), "{text}");
                n_refused += 1;
            }
        }
    }
    println!("{n_refused} of {FLIPS} were refused");
    assert!(
        n_refused > refused_min,
        "{n_refused} of {FLIPS} were refused"
    );
}

#[tokio::test]
async fn a_damaged_log_is_refused_by_name() {
    check_flips(30, FLIPS / 4).await;
}

#[tokio::test]
async fn a_damaged_log_behind_a_snapshot_is_refused_by_name() {
    check_flips(80, FLIPS / 10).await;
}

#[tokio::test]
async fn a_lost_snapshot_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _) = start_single(settings(folder.path())).await;
    for number in 0..60 {
        handle.propose(command(number)).await.unwrap();
    }
    handle.shutdown().await.unwrap();
    // The newest may be one that the log does not yet rely on.
    for file in snapshot_files(folder.path()) {
        fs::remove_file(file).unwrap();
    }
    let error = start(settings(folder.path()), Journal::default(), NoTransport)
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _) = start_single(settings(folder.path())).await;
    assert!(start(settings(folder.path()), Journal::default(), NoTransport).is_err());
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn commands_outside_the_limits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_command_bytes: 100,
        ..settings(folder.path())
    };
    let (handle, journal) = start_single(settings).await;
    let too_large = handle.propose(vec![7; 101]).await.unwrap_err();
    assert_eq!(too_large.kind(), ErrorKind::Invalid);
    assert!(
        too_large.to_string().contains("`max_command_bytes` = 100"),
        "{too_large}"
    );
    let empty = handle.propose(Vec::new()).await.unwrap_err();
    assert_eq!(empty.kind(), ErrorKind::Invalid);
    handle.propose(vec![7; 100]).await.unwrap();
    assert_eq!(journal.record().n_applied, 1);
    handle.shutdown().await.unwrap();
}

#[test]
fn blocking_calls_work_outside_of_async_code() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::default();
    let handle = start(settings(folder.path()), journal.clone(), NoTransport).unwrap();
    // The first proposal may come before the election.
    while let Err(error) = handle.blocking_propose(command(0)) {
        assert_eq!(error.kind(), ErrorKind::NotLeader);
    }
    assert_eq!(journal.commands(), commands(0..1));
    handle.blocking_shutdown().unwrap();
    handle.blocking_shutdown().unwrap();
}

/// A gate in front of the disk: closed, the member waits at `raft-append`.
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    n_appends: AtomicUsize,
}

impl Gate {
    const fn new() -> Gate {
        Gate {
            open: Mutex::new(true),
            opened: Condvar::new(),
            n_appends: AtomicUsize::new(0),
        }
    }

    fn set(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.opened.notify_all();
    }

    fn pass(&self, place: &str) {
        if place != "raft-append" {
            return;
        }
        self.n_appends.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

/// Polls each future once, which puts its command into the queue.
fn enqueue<F: Future>(futures: &mut [Pin<Box<F>>]) {
    let mut context = Context::from_waker(Waker::noop());
    for future in futures {
        assert!(matches!(future.as_mut().poll(&mut context), Poll::Pending));
    }
}

#[tokio::test]
async fn many_proposals_share_a_sync() {
    static GATE: Gate = Gate::new();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        failpoint: |place| GATE.pass(place),
        ..settings(folder.path())
    };
    let (handle, journal) = start_single(settings).await;
    GATE.set(false);
    let before = GATE.n_appends.load(Ordering::SeqCst);
    let proposals = (0..500).map(|number| Box::pin(handle.propose(command(number))));
    let mut proposals: Vec<_> = proposals.collect();
    enqueue(&mut proposals);
    GATE.set(true);
    for proposal in proposals {
        proposal.await.unwrap();
    }
    let n_appends = GATE.n_appends.load(Ordering::SeqCst) - before;
    // One for what the member had taken before the gate held it, one for all others.
    assert!(
        (1..=2).contains(&n_appends),
        "{n_appends} syncs for 500 proposals"
    );
    assert_eq!(journal.commands(), commands(0..500));
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_and_a_dropped_proposal_makes_room() {
    static GATE: Gate = Gate::new();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        failpoint: |place| GATE.pass(place),
        max_queued_proposals: 3,
        ..settings(folder.path())
    };
    let (handle, _) = start_single(settings).await;
    GATE.set(false);
    let proposals = (0..3).map(|number| Box::pin(handle.propose(command(number))));
    let mut proposals: Vec<_> = proposals.collect();
    enqueue(&mut proposals);
    let refused = handle.propose(command(3)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(
        refused.to_string().contains("`max_queued_proposals` = 3"),
        "{refused}"
    );
    drop(proposals);
    GATE.set(true);
    // The dropped ones leave the queue once the member has looked at them.
    while let Err(error) = handle.propose(command(4)).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    handle.shutdown().await.unwrap();
}

/// Keeps its snapshots back until it is told what to make of them.
struct SlowSnapshots {
    journal: Journal,
    told: Arc<Mutex<mpsc::Receiver<Result<(), String>>>>,
}

impl StateMachine for SlowSnapshots {
    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Vec<u8>, String> {
        self.journal.apply(index, command)
    }

    fn snapshot(&self) -> Capture {
        let (capture, told) = (self.journal.snapshot(), Arc::clone(&self.told));
        Box::new(move || {
            let told = told.lock().unwrap().recv().unwrap();
            told.expect("a snapshot that can be made");
            capture()
        })
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.journal.restore(snapshot)
    }
}

#[tokio::test]
async fn commands_do_not_wait_for_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let (tell, told) = mpsc::channel();
    let machine = SlowSnapshots {
        journal: Journal::default(),
        told: Arc::new(Mutex::new(told)),
    };
    let handle = start(settings(folder.path()), machine, NoTransport).unwrap();
    wait(&handle, |status| status.is_leader).await;
    for number in 0..130 {
        handle.propose(command(number)).await.unwrap();
    }
    assert_eq!(handle.status().snapshot_index, 0);
    tell.send(Ok(())).unwrap();
    wait(&handle, |status| status.snapshot_index == 50).await;
    // The next one was due while the first was written, and holds what was applied since.
    handle.propose(command(130)).await.unwrap();
    tell.send(Ok(())).unwrap();
    wait(&handle, |status| status.snapshot_index > 130).await;
    handle.shutdown().await.unwrap();

    let (handle, journal) = start_single(settings(folder.path())).await;
    assert_eq!(journal.commands(), commands(0..131));
    handle.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_made_stops_its_member() {
    let folder = tempfile::tempdir().unwrap();
    let (tell, told) = mpsc::channel();
    tell.send(Err("broken on purpose".into())).unwrap();
    let machine = SlowSnapshots {
        journal: Journal::default(),
        told: Arc::new(Mutex::new(told)),
    };
    let handle = start(settings(folder.path()), machine, NoTransport).unwrap();
    wait(&handle, |status| status.is_leader).await;
    for number in 0..60 {
        // The member may have stopped.
        let _ = handle.propose(command(number)).await;
    }
    let error = handle.stopped().await.unwrap_err().to_string();
    assert!(error.contains("the snapshot at index 50"), "{error}");
}

#[tokio::test]
async fn a_state_machine_that_panics_stops_its_member() {
    struct Broken;
    impl StateMachine for Broken {
        fn apply(&mut self, _index: u64, _command: &[u8]) -> Result<Vec<u8>, String> {
            panic!("broken on purpose")
        }
        fn snapshot(&self) -> Capture {
            Box::new(Vec::new)
        }
        fn restore(&mut self, _snapshot: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let handle = start(settings(folder.path()), Broken, NoTransport).unwrap();
    wait(&handle, |status| status.is_leader).await;
    let error = handle.propose(command(0)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = handle.stopped().await.unwrap_err();
    assert!(error.to_string().contains("broken on purpose"), "{error}");
    assert!(!handle.status().is_leader);
}

/// Passed over, the command would be missing from this member's state alone.
#[tokio::test]
async fn a_command_that_is_not_read_stops_its_member_now_and_at_every_start() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, journal) = start_single(settings(folder.path())).await;
    handle.propose(command(0)).await.unwrap();
    handle.propose(UNREADABLE.to_vec()).await.unwrap_err();
    let error = handle.stopped().await.unwrap_err().to_string();
    assert!(error.contains("it is of version 9"), "{error}");
    assert_eq!(journal.commands(), commands(0..1));

    let again = Journal::default();
    let handle = start(settings(folder.path()), again.clone(), NoTransport).unwrap();
    let error = handle.stopped().await.unwrap_err().to_string();
    assert!(error.contains("it is of version 9"), "{error}");
    assert_eq!(again.commands(), commands(0..1));
}

#[tokio::test]
async fn a_leader_hears_the_term_in_which_it_leads() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0;
    for _ in 0..3 {
        let (handle, journal) = start_single(settings(folder.path())).await;
        let term = handle.status().term;
        assert_eq!(journal.record().terms, [term]);
        assert!(term > before, "terms grow");
        before = term;
        handle.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_member_that_nobody_has_heard_gets_no_vote() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _) = start_single(settings(folder.path())).await;
    handle.propose(command(1)).await.unwrap();
    handle.change_members(Change::AddLearner(2)).await.unwrap();
    assert_eq!(handle.lag(2).await.unwrap(), None);
    for wrong in [
        Change::AddVoter(2),
        Change::AddLearner(2),
        Change::AddVoter(3),
        Change::Remove(3),
    ] {
        let refused = handle.change_members(wrong).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{wrong:?}: {refused}");
    }
    let refused = handle.change_members(Change::Remove(1)).await.unwrap_err();
    assert!(
        matches!(refused, Error::RemovesLeader { member: 1 }),
        "{refused}"
    );
    handle.propose(command(2)).await.unwrap();
    handle.shutdown().await.unwrap();
    // Also after a start, the log says who the members are.
    let (handle, _) = start_single(settings(folder.path())).await;
    let members = handle.watch_members().borrow().clone();
    assert_eq!((members.voters, members.learners), (vec![1], vec![2]));
    handle.change_members(Change::Remove(2)).await.unwrap();
    handle.propose(command(3)).await.unwrap();
    handle.shutdown().await.unwrap();
}
