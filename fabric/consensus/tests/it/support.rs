//! A state machine that remembers, and a group of members that a test can stop, start and cut off.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_consensus::{
    Capture, Error, Handle, MemoryTransport, NoTransport, Settings, StateMachine, Status,
    Transport, start,
};

/// Long enough for a machine that does three things at once; a test that passes never waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Keeps every command in order. Clones share what they keep, so that a test can look inside a running member.
#[derive(Clone, Default)]
pub(crate) struct Journal {
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
pub(crate) struct Record {
    pub(crate) commands: Vec<Vec<u8>>,
    pub(crate) n_applied: usize,
    pub(crate) n_restored: usize,
    pub(crate) leadership: Vec<bool>,
    pub(crate) terms: Vec<u64>,
    last_index: u64,
}

impl Journal {
    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }

    pub(crate) fn commands(&self) -> Vec<Vec<u8>> {
        self.record().commands.clone()
    }
}

impl StateMachine for Journal {
    fn apply(&mut self, index: u64, command: &[u8]) -> Result<Vec<u8>, String> {
        if command == UNREADABLE {
            return Err("it is of version 9".into());
        }
        let mut record = self.record();
        assert!(index > record.last_index, "index {index} came twice");
        record.last_index = index;
        record.n_applied += 1;
        record.commands.push(command.to_vec());
        Ok([b"did ", command].concat())
    }

    fn snapshot(&self) -> Capture {
        let record = self.record();
        let mut bytes = record.last_index.to_le_bytes().to_vec();
        for command in &record.commands {
            bytes.push(u8::try_from(command.len()).unwrap());
            bytes.extend_from_slice(command);
        }
        Box::new(|| bytes)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let (index, mut rest) = snapshot.split_first_chunk().ok_or("too short")?;
        let mut record = self.record();
        record.commands.clear();
        while let Some((length, tail)) = rest.split_first() {
            let (command, tail) = tail.split_at(usize::from(*length));
            record.commands.push(command.to_vec());
            rest = tail;
        }
        record.last_index = u64::from_le_bytes(*index);
        record.n_restored += 1;
        Ok(())
    }

    fn leadership(&mut self, term: Option<u64>) {
        let mut record = self.record();
        record.leadership.push(term.is_some());
        record.terms.extend(term);
    }
}

/// A command that state machines of these tests do not read.
pub(crate) const UNREADABLE: &[u8] = b"of another version";

/// Settings with small numbers, so that a test sees snapshots after a few commands.
pub(crate) fn settings(folder: &Path) -> Settings {
    Settings {
        tick: Duration::from_millis(20),
        snapshot_every_entries: 50,
        keep_entries: 10,
        ..Settings::single(folder)
    }
}

/// Starts a group of one with a new journal and waits until it leads.
pub(crate) async fn start_single(settings: Settings) -> (Handle, Journal) {
    let journal = Journal::default();
    let handle = start(settings, journal.clone(), NoTransport).unwrap();
    wait(&handle, |status| status.is_leader).await;
    (handle, journal)
}

pub(crate) async fn wait(handle: &Handle, holds: impl FnMut(&Status) -> bool) -> Status {
    let mut status = handle.watch_status();
    let found = tokio::time::timeout(DEADLINE, status.wait_for(holds)).await;
    *found.expect("the status never came").unwrap()
}

/// Waits until something holds that no single status shows.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Members 1 to n on one network.
pub(crate) struct Group<T = MemoryTransport> {
    pub(crate) network: MemoryTransport,
    pub(crate) members: Vec<Member>,
    transport: T,
    n_members: u64,
}

pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) folder: TempDir,
    pub(crate) running: Option<(Handle, Journal)>,
}

impl Member {
    pub(crate) fn handle(&self) -> &Handle {
        &self.running.as_ref().expect("the member runs").0
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.running.as_ref().expect("the member runs").1
    }
}

impl Group {
    pub(crate) fn start(n_members: u64) -> Group {
        let network = MemoryTransport::new();
        Group::start_on(n_members, network.clone(), network)
    }
}

impl<T: Transport + Clone> Group<T> {
    pub(crate) fn start_on(n_members: u64, network: MemoryTransport, transport: T) -> Group<T> {
        let mut group = Group {
            network,
            members: Vec::new(),
            transport,
            n_members,
        };
        for id in 1..=n_members {
            group.members.push(Member {
                id,
                folder: tempfile::tempdir().unwrap(),
                running: None,
            });
            group.start_member(id);
        }
        group
    }

    pub(crate) fn start_member(&mut self, id: u64) {
        let settings = Settings {
            id,
            voters: (1..=self.n_members).collect(),
            ..settings(self.member(id).folder.path())
        };
        let journal = Journal::default();
        let handle = start(settings, journal.clone(), self.transport.clone()).unwrap();
        self.network.connect(&handle);
        self.member_mut(id).running = Some((handle, journal));
    }

    pub(crate) async fn stop_member(&mut self, id: u64) {
        let (handle, _) = self.member_mut(id).running.take().expect("the member runs");
        handle.shutdown().await.unwrap();
    }

    pub(crate) fn member(&self, id: u64) -> &Member {
        &self.members[id as usize - 1]
    }

    fn member_mut(&mut self, id: u64) -> &mut Member {
        &mut self.members[id as usize - 1]
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.running.is_some())
    }

    /// The member that leads, of those that can be reached: a leader that was cut off believes in itself for a while.
    pub(crate) async fn leader(&self, reachable: &[u64]) -> u64 {
        let mut leader = None;
        until("a leader", || {
            leader = self
                .running()
                .filter(|member| reachable.contains(&member.id))
                .find(|member| member.handle().status().is_leader)
                .map(|member| member.id);
            leader.is_some()
        })
        .await;
        leader.expect("until returns when there is one")
    }

    /// Proposes at whoever leads, again while the group says that it is worth another try.
    pub(crate) async fn propose(&self, reachable: &[u64], command: &[u8]) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = self.try_propose(reachable, command).await {
            assert!(Instant::now() < deadline, "never committed: {error}");
        }
    }

    async fn try_propose(&self, reachable: &[u64], command: &[u8]) -> Result<(), Error> {
        let leader = self.leader(reachable).await;
        let handle = self.member(leader).handle();
        let answer = handle.propose(command.to_vec());
        let answer = tokio::time::timeout(DEADLINE, answer).await;
        let answer = answer.expect("no answer")?;
        assert_eq!(answer, [b"did ", command].concat());
        Ok(())
    }

    /// Waits until all running members have applied the same, and returns it.
    pub(crate) async fn agreed(&self) -> Vec<Vec<u8>> {
        until("all members have applied the same entries", || {
            let applied = self.running().map(|m| m.handle().status());
            let mut applied = applied.map(|status| (status.applied_index, status.term));
            let first = applied.next();
            applied.all(|other| Some(other) == first)
        })
        .await;
        let mut journals = self.running().map(|member| member.journal().commands());
        let first = journals.next().expect("a member runs");
        for other in journals {
            assert_eq!(first, other);
        }
        first
    }

    pub(crate) async fn stop(mut self) {
        let running: Vec<u64> = self.running().map(|member| member.id).collect();
        for id in running {
            self.stop_member(id).await;
        }
    }
}

pub(crate) fn command(number: usize) -> Vec<u8> {
    format!("command {number}").into_bytes()
}

pub(crate) fn commands(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(command).collect()
}
