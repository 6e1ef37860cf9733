use raft::{GetEntriesContext, StorageError};

use raft_engine::env::DefaultFileSystem;

use super::*;

fn open(settings: &Settings, snapshot: Option<Position>) -> Result<Log<DefaultFileSystem>, Error> {
    let snapshot = snapshot.map(|position| {
        let voters = settings.voters.clone();
        let members = Membership {
            voters,
            ..Membership::default()
        };
        (position, members)
    });
    Log::open(settings, &Arc::new(DefaultFileSystem), snapshot)
}

fn settings(folder: &Path) -> Settings {
    Settings::single(folder)
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range
        .map(|index| Entry {
            index,
            term,
            data: format!("command {index}").into_bytes().into(),
            ..Entry::default()
        })
        .collect()
}

fn append(log: &mut Log<DefaultFileSystem>, entries: &[Entry]) {
    let mut batch = LogBatch::default();
    log.append(&mut batch, entries);
    log.write(&mut batch, true);
}

fn read(log: &Log<DefaultFileSystem>, low: u64, high: u64) -> raft::Result<Vec<Entry>> {
    log.entries(low, high, None, GetEntriesContext::empty(false))
}

#[test]
fn entries_and_terms_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut log = open(&settings, None).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (Ok(1), Ok(0)));
    append(&mut log, &entries(1..=3, 1));
    append(&mut log, &entries(3..=5, 2));
    drop(log);
    let log = open(&settings, None).unwrap();
    assert_eq!(log.last_index(), Ok(5));
    assert_eq!(
        (log.term(0), log.term(2), log.term(3)),
        (Ok(0), Ok(1), Ok(2))
    );
    assert_eq!(log.term(6), Err(StorageError::Unavailable.into()));
    assert_eq!(read(&log, 3, 6), Ok(entries(3..=5, 2)));
}

#[test]
fn a_compacted_log_keeps_the_term_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut log = open(&settings, None).unwrap();
    append(&mut log, &entries(1..=5, 7));
    log.compact(5).unwrap();
    append(&mut log, &entries(6..=6, 8));
    drop(log);
    let snapshot = Position { index: 5, term: 7 };
    let log = open(&settings, Some(snapshot)).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (Ok(6), Ok(6)));
    assert_eq!((log.term(5), log.term(6)), (Ok(7), Ok(8)));
    assert_eq!(read(&log, 5, 6), Err(StorageError::Compacted.into()));
    assert_eq!(log.term(4), Err(StorageError::Compacted.into()));
}

#[test]
fn a_compacted_log_without_its_snapshot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut log = open(&settings, None).unwrap();
    append(&mut log, &entries(1..=5, 1));
    log.compact(3).unwrap();
    drop(log);
    let refusal = open(&settings, None).err().unwrap();
    assert_eq!(refusal.kind(), crate::ErrorKind::Damaged, "{refusal}");
}

#[test]
fn a_snapshot_that_contradicts_the_log_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut log = open(&settings, None).unwrap();
    append(&mut log, &entries(1..=9, 1));
    drop(log);
    let snapshot = Position { index: 6, term: 4 };
    for _ in 0..2 {
        let log = open(&settings, Some(snapshot)).unwrap();
        assert_eq!((log.first_index(), log.last_index()), (Ok(7), Ok(6)));
        assert_eq!(log.term(6), Ok(4));
        let state = log.initial_state().unwrap();
        assert_eq!((state.hard_state.commit, state.hard_state.term), (6, 4));
    }
}

#[test]
fn a_snapshot_behind_the_end_of_the_log_replaces_it_and_entries_follow() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut log = open(&settings, None).unwrap();
    append(&mut log, &entries(1..=2, 1));
    drop(log);
    let snapshot = Position { index: 50, term: 2 };
    let mut log = open(&settings, Some(snapshot)).unwrap();
    append(&mut log, &entries(51..=52, 3));
    drop(log);
    let log = open(&settings, Some(snapshot)).unwrap();
    assert_eq!(read(&log, 51, 53), Ok(entries(51..=52, 3)));
}

#[test]
fn the_folder_of_another_member_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    drop(open(&settings, None).unwrap());
    let mut other = settings.clone();
    other.id = 2;
    other.voters = vec![2];
    assert!(matches!(
        open(&other, None),
        Err(Error::Setting { setting: "id", .. })
    ));
    // Members come and go: the log says who they are.
    let mut larger = settings;
    larger.voters = vec![1, 2, 3];
    let log = open(&larger, None).unwrap();
    assert_eq!(log.initial_state().unwrap().conf_state.voters, [1]);
}

#[test]
fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let _log = open(&settings, None).unwrap();
    assert!(open(&settings, None).is_err());
}
