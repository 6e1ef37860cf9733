//! The inside of a member: the thread that owns the Raft node.
//!
//! One turn of the loop takes all inputs that wait, then walks the steps that Raft asks for. While a step waits for the
//! disk, inputs gather, so that under load one sync serves many proposals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use protobuf::Message as _;
use raft::eraftpb::{self, ConfChange, Entry, EntryType, Message, MessageType};
use raft::{RawNode, StateRole};
use tokio::sync::watch;

use crate::disk::{Disk, written};
use crate::error::Error;
use crate::handle::{ChangeAsker, Input, Status};
use crate::log::Log;
use crate::member::snapshots::BeingWritten;
use crate::membership::Membership;
use crate::pace::Pace;
use crate::position::Position;
use crate::proposals::{Asker, Proposals};
use crate::reads::Reads;
use crate::settings::Settings;
use crate::snapshot;
use crate::state_machine::StateMachine;
use crate::ticker::Ticker;
use crate::transport::Transport;

mod inputs;
mod snapshots;

/// Election timeouts that a snapshot may be on its way before it counts as lost.
const SNAPSHOT_PATIENCE: usize = 20;

pub(crate) struct Member<S, T, D: Disk> {
    pub(crate) settings: Settings,
    pub(crate) node: RawNode<Log<D>>,
    pub(crate) disk: Arc<D>,
    pub(crate) state_machine: S,
    pub(crate) transport: T,
    pub(crate) inputs: Receiver<Input>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) members: watch::Sender<Membership>,
    pub(crate) applied: Position,
    pub(crate) pace: Pace,
    pub(crate) running: Running,
}

/// What a member gathers while it runs.
pub(crate) struct Running {
    ticker: Ticker,
    proposals: Proposals,
    reads: Reads,
    /// Answers of applied commands, sent once the status shows that they are applied.
    answers: Vec<(Asker, Vec<u8>)>,
    /// The term for which the state machine was told that this member leads.
    leads_in_term: Option<u64>,
    /// Changes of the members in the log of a leader, whose outcome is open.
    pub(crate) changes: BTreeMap<Position, ChangeAsker>,
    /// Whoever asked for changes that are applied.
    changed: Vec<(u64, ChangeAsker)>,
    /// A snapshot is due, whatever its pace.
    snapshot_wanted: bool,
    /// The snapshot of its own that another thread writes.
    snapshot_being_written: Option<BeingWritten>,
    /// Ticks left for the snapshots that are on their way, per member.
    snapshots_under_way: BTreeMap<u64, usize>,
}

impl Running {
    pub(crate) fn new(settings: &Settings) -> Running {
        Running {
            ticker: Ticker::new(settings.tick),
            proposals: Proposals::default(),
            reads: Reads::new(settings.id),
            answers: Vec::new(),
            leads_in_term: None,
            changes: BTreeMap::new(),
            changed: Vec::new(),
            snapshot_wanted: false,
            snapshot_being_written: None,
            snapshots_under_way: BTreeMap::new(),
        }
    }
}

impl<S: StateMachine, T: Transport, D: Disk> Member<S, T, D> {
    /// Runs until it is told to stop or its handles are gone.
    ///
    /// Errors: the state of this member is not to be relied on any more.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        // What is known to be committed comes first: a candidate reads all that it has not applied at once.
        self.take_steps()?;
        if self.members.borrow().voters == [self.settings.id] {
            // Nobody else can be leader, so there is no election timeout to wait for.
            self.node.campaign().map_err(Error::raft)?;
        }
        loop {
            self.take_steps()?;
            if !self.take_inputs() || self.stop.load(Ordering::Relaxed) {
                break;
            }
            self.tick_if_due();
        }
        self.tell_leadership(None);
        Ok(())
    }

    pub(crate) fn take_steps(&mut self) -> Result<(), Error> {
        while self.node.has_ready() {
            self.on_ready()?;
        }
        self.notice_written_snapshot()
    }

    /// Takes one step: all that Raft asks for now, in the order that it prescribes.
    fn on_ready(&mut self) -> Result<(), Error> {
        let mut ready = self.node.ready();
        // A leader's messages need not wait for its own disk.
        self.send(ready.take_messages());
        for read in ready.take_read_states() {
            self.running.reads.answer(&read.request_ctx, read.index);
        }
        // A leader's snapshot replaces the state, and lies in the folder before the log refers to it.
        self.install_snapshot(ready.snapshot())?;
        // Entries, vote and term are on the disk before anybody hears of them.
        self.node.mut_store().persist(&ready);
        // With the log behind the snapshot, the older ones are of no more use.
        if !ready.snapshot().is_empty() {
            snapshot::remove_older(&self.settings.folder, self.pace.snapshot_index);
        }
        // Votes and acknowledgements of a follower are true now.
        self.send(ready.take_persisted_messages());
        // Who stopped leading must know before it sees commands of the next leader.
        self.tell_leadership(self.term_led().and(self.running.leads_in_term));
        // These entries were committed before this step.
        self.apply(ready.take_committed_entries())?;
        // What was written counts towards the majority now.
        let mut light = self.node.advance_append(ready);
        // A leader tells the others how far they may apply.
        self.send(light.take_messages());
        // These entries were committed by this step's write: a group of one gets here.
        self.apply(light.take_committed_entries())?;
        // Raft may forget what it kept for applying.
        self.node.advance_apply();
        // Then everybody outside may hear of it.
        self.tell_outside();
        self.take_snapshot_if_due();
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let patience = SNAPSHOT_PATIENCE * self.settings.election_ticks;
        for message in &messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                let under_way = &mut self.running.snapshots_under_way;
                under_way.insert(message.to, patience);
            }
        }
        self.transport.send(messages);
    }

    fn install_snapshot(&mut self, message: &eraftpb::Snapshot) -> Result<(), Error> {
        if message.is_empty() {
            return Ok(());
        }
        let index = message.get_metadata().index;
        let snapshot = snapshot::decode_message(message)
            .expect("a damaged snapshot was dropped when it was delivered");
        // Before the file is there: one that cannot be restored must not be what the next start finds.
        self.state_machine
            .restore(snapshot.state)
            .map_err(|reason| Error::Restore { index, reason })?;
        self.write_snapshot(index, message.get_data());
        self.members.send_replace(snapshot.members);
        self.applied = snapshot.position;
        tracing::info!(index, "installed a snapshot of the leader");
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        for entry in entries {
            debug_assert_eq!(
                entry.index,
                self.applied.index + 1,
                "entries follow each other"
            );
            self.applied = Position::from(&entry);
            self.pace.entry(entry.data.len());
            match entry.get_entry_type() {
                // A new leader begins its term with an empty entry, which is Raft's own.
                EntryType::EntryNormal if entry.data.is_empty() => self.apply_nothing(&entry),
                EntryType::EntryNormal => self.apply_command(&entry)?,
                EntryType::EntryConfChange => self.apply_change(&entry)?,
                EntryType::EntryConfChangeV2 => {
                    return Err(Error::MembershipEntry { index: entry.index });
                }
            }
        }
        Ok(())
    }

    /// An entry of Raft's own: also what it makes of a change while another one is under way.
    fn apply_nothing(&mut self, entry: &Entry) {
        if let Some(asker) = self.running.changes.remove(&Position::from(entry)) {
            let _ = asker.send(Err(Error::ChangeUnderWay));
        }
    }

    fn apply_change(&mut self, entry: &Entry) -> Result<(), Error> {
        let unreadable = |error: protobuf::ProtobufError| Error::Unreadable {
            index: entry.index,
            reason: error.to_string(),
        };
        let mut change = ConfChange::default();
        change.merge_from_bytes(&entry.data).map_err(unreadable)?;
        let conf = self.node.apply_conf_change(&change).map_err(Error::raft)?;
        let members = Membership::from(&conf);
        tracing::info!(?members, "the members have changed");
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !members.voters.contains(&self.settings.id) {
            // The change was another leader's. Raft would let this one lead without a vote.
            raft.msgs.clear();
            let term = raft.term;
            raft.become_follower(term, raft::INVALID_ID);
        }
        self.members.send_replace(members);
        // Whoever is added gets a snapshot first, which names the members.
        self.running.snapshot_wanted = true;
        if let Some(asker) = self.running.changes.remove(&Position::from(entry)) {
            self.running.changed.push((entry.index, asker));
        }
        Ok(())
    }

    fn apply_command(&mut self, entry: &Entry) -> Result<(), Error> {
        let applied = self.state_machine.apply(entry.index, &entry.data);
        let answer = applied.map_err(|reason| Error::Unreadable {
            index: entry.index,
            reason,
        })?;
        if let Some(asker) = self.running.proposals.take(Position::from(entry)) {
            self.running.answers.push((asker, answer));
        }
        Ok(())
    }

    /// Tells state machine, status and proposers what this step brought, so that nobody hears an answer before the status
    /// shows it.
    fn tell_outside(&mut self) {
        let term = self.node.raft.term;
        // The first entry of a leader's own term comes after all entries of earlier terms.
        let caught_up = self.term_led() == Some(term) && self.applied.term == term;
        self.tell_leadership(caught_up.then_some(term));
        let status = self.current_status();
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
        for (asker, answer) in self.running.answers.drain(..) {
            asker.answer(Ok(answer));
        }
        let heard = self.heard_index();
        let is_heard = |(index, _): &mut (u64, ChangeAsker)| *index <= heard;
        for (_, asker) in self.running.changed.extract_if(.., is_heard) {
            let _ = asker.send(Ok(()));
        }
        if self.term_led().is_none() {
            self.running.proposals.leadership_lost();
            let changes = std::mem::take(&mut self.running.changes).into_values();
            let changed = self.running.changed.drain(..).map(|(_, asker)| asker);
            for asker in changes.chain(changed) {
                let _ = asker.send(Err(Error::LeadershipLost));
            }
        }
    }

    /// The index up to which a majority of the voters know that entries are committed, as far as this leader has heard.
    ///
    /// Voters count by the members that they have applied. Whoever was told that a change is done may lose this leader
    /// at once, and the others must then not wait for a member that is no more.
    fn heard_index(&self) -> u64 {
        let raft = &self.node.raft;
        let known = |member: &u64| match *member == self.settings.id {
            true => raft.raft_log.committed,
            false => raft.prs().get(*member).map_or(0, |one| one.committed_index),
        };
        let members = self.members.borrow();
        let mut known: Vec<u64> = members.voters.iter().map(known).collect();
        known.sort_unstable();
        // A majority is at or above the middle, the lower one of two.
        let middle = known.len().saturating_sub(1) / 2;
        known.get(middle).copied().unwrap_or(0)
    }

    /// The term in which this member leads.
    ///
    /// A member cannot lose and regain leadership between two steps: it needs votes, which it asks for in a step.
    fn term_led(&self) -> Option<u64> {
        let raft = &self.node.raft;
        (raft.state == StateRole::Leader).then_some(raft.term)
    }

    fn tell_leadership(&mut self, term: Option<u64>) {
        let before = std::mem::replace(&mut self.running.leads_in_term, term);
        if before.is_some() && before != term {
            self.state_machine.leadership(None);
        }
        if term.is_some() && before != term {
            self.state_machine.leadership(term);
        }
    }

    fn current_status(&self) -> Status {
        Status {
            leader_id: self.leader_id(),
            is_leader: self.running.leads_in_term.is_some(),
            term: self.node.raft.term,
            commit_index: self.node.raft.raft_log.committed,
            applied_index: self.applied.index,
            snapshot_index: self.pace.snapshot_index,
        }
    }

    fn leader_id(&self) -> Option<u64> {
        let leader = self.node.raft.leader_id;
        (leader != raft::INVALID_ID).then_some(leader)
    }

    /// Writes the snapshot of a leader, and waits for it: the log refers to it.
    fn write_snapshot(&mut self, index: u64, image: &[u8]) {
        // One of this member's own would get its name after this one.
        drop(self.running.snapshot_being_written.take());
        let (settings, disk) = (&self.settings, &*self.disk);
        written("writing a snapshot", || {
            snapshot::write(disk, &settings.folder, index, image, settings.failpoint)
        });
        self.pace = Pace::new(index, image.len());
    }
}
