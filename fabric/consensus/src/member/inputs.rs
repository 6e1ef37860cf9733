//! What reaches a member between two steps: proposals, messages, ticks.

use std::sync::mpsc::RecvTimeoutError;

use raft::eraftpb::{ConfChange, Entry, Message, MessageType};
use raft::{SnapshotStatus, StateRole};

use crate::disk::Disk;
use crate::error::Error;
use crate::handle::{ChangeAsker, Input};
use crate::member::Member;
use crate::membership::Change;
use crate::position::Position;
use crate::proposals::Proposal;
use crate::reads::ReadAsker;
use crate::snapshot;
use crate::state_machine::StateMachine;
use crate::transport::Transport;

/// Inputs taken before the next step, so that a flood does not hold up ticks.
const MAX_BATCH_INPUTS: usize = 8_192;
/// Bytes of commands taken before the next step: what one write of the log may hold.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Election timeouts that a question for the read index may take before it counts as lost.
const READ_PATIENCE: usize = 2;

impl<S: StateMachine, T: Transport, D: Disk> Member<S, T, D> {
    /// Waits for an input or the next tick, and takes all that wait; returns false when nobody can send any more.
    pub(super) fn take_inputs(&mut self) -> bool {
        let first = match self.inputs.recv_timeout(self.running.ticker.wait()) {
            Ok(input) => input,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        self.take_batch(first);
        true
    }

    /// Takes all inputs that wait, without waiting for one.
    pub(crate) fn take_waiting(&mut self) {
        while let Ok(first) = self.inputs.try_recv() {
            self.take_batch(first);
        }
    }

    fn take_batch(&mut self, first: Input) {
        let mut bytes = self.take_input(first);
        for _ in 1..MAX_BATCH_INPUTS {
            if bytes > MAX_BATCH_BYTES {
                break;
            }
            let Ok(input) = self.inputs.try_recv() else {
                break;
            };
            bytes += self.take_input(input);
        }
    }

    /// Takes one input and returns about how many bytes it adds to the log.
    fn take_input(&mut self, input: Input) -> usize {
        match input {
            Input::Propose(proposal) => {
                let bytes = proposal.command.len();
                self.propose(proposal);
                bytes
            }
            Input::Deliver(message) => {
                let bytes = message.get_entries().iter().map(|e| e.data.len()).sum();
                self.step(*message);
                bytes
            }
            Input::Read(asker) => {
                self.read(asker);
                0
            }
            Input::Change(change, asker) => {
                self.change(change, asker);
                0
            }
            Input::Lag(member, asker) => {
                let _ = asker.send(self.lag(member));
                0
            }
            Input::Wake => 0,
        }
    }

    fn propose(&mut self, proposal: Proposal) {
        let Proposal { command, asker } = proposal;
        if asker.is_gone() {
            return;
        }
        if self.node.raft.state != StateRole::Leader {
            let leader = self.leader_id();
            return asker.answer(Err(Error::NotLeader { leader }));
        }
        match self.node.propose(Vec::new(), command) {
            Ok(()) => {
                let position = Position {
                    index: self.node.raft.raft_log.last_index(),
                    term: self.node.raft.term,
                };
                self.running.proposals.insert(position, asker);
            }
            Err(raft::Error::ProposalDropped) => asker.answer(Err(Error::Backlog)),
            Err(error) => asker.answer(Err(Error::raft(error))),
        }
    }

    fn check_append(&self, message: &Message) -> Result<(), String> {
        let knows_nobody = self.members.borrow().voters.is_empty();
        if knows_nobody && message.index == 0 && !message.entries.is_empty() {
            // The log does not say who began the group: only a snapshot does.
            return Err("this member joins a group, and waits for a snapshot".to_owned());
        }
        check_entries(message)
    }

    fn change(&mut self, change: Change, asker: ChangeAsker) {
        let began = self.check_change(change).and_then(|()| {
            let proposed = self
                .node
                .propose_conf_change(Vec::new(), ConfChange::from(change));
            proposed.map_err(|_| Error::Backlog)
        });
        if let Err(error) = began {
            let _ = asker.send(Err(error));
            return;
        }
        let position = Position {
            index: self.node.raft.raft_log.last_index(),
            term: self.node.raft.term,
        };
        self.running.changes.insert(position, asker);
    }

    /// Refuses a change that this member cannot make, or after which no majority would be alive.
    fn check_change(&self, change: Change) -> Result<(), Error> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            let leader = self.leader_id();
            return Err(Error::NotLeader { leader });
        }
        let members = self.members.borrow().clone();
        let wrong = |reason: String| Err(Error::WrongChange { reason });
        let mut voters = members.voters.clone();
        match change {
            Change::AddLearner(member) if members.contains(member) => {
                return wrong(format!("member {member} is there already"));
            }
            Change::AddLearner(_) => return Ok(()),
            Change::AddVoter(member) if !members.learners.contains(&member) => {
                return wrong(format!("member {member} is no learner"));
            }
            // Raft takes a new member for alive until it finds out.
            Change::AddVoter(member) if self.lag(member).is_none() => {
                return wrong(format!("member {member} has not been heard"));
            }
            Change::AddVoter(member) => voters.push(member),
            Change::Remove(member) if !members.contains(member) => {
                return wrong(format!("member {member} is none"));
            }
            Change::Remove(member) if member == self.settings.id => {
                return Err(Error::RemovesLeader { member });
            }
            Change::Remove(member) => voters.retain(|voter| *voter != member),
        }
        let is_alive = |voter: &&u64| {
            **voter == self.settings.id
                || raft.prs().get(**voter).is_some_and(|of| of.recent_active)
        };
        let alive = voters.iter().filter(is_alive).count();
        match alive > voters.len() / 2 {
            true => Ok(()),
            false => Err(Error::NoMajority {
                alive,
                voters: voters.len(),
            }),
        }
    }

    /// Entries that a member lacks. Nothing if it has not answered lately, or has none.
    fn lag(&self, member: u64) -> Option<u64> {
        let raft = &self.node.raft;
        let progress = raft.prs().get(member)?;
        let is_heard = progress.recent_active && progress.matched > 0;
        let leads = raft.state == StateRole::Leader;
        (leads && is_heard).then(|| raft.raft_log.last_index().saturating_sub(progress.matched))
    }

    fn read(&mut self, asker: ReadAsker) {
        let leads = self.node.raft.state == StateRole::Leader;
        if !leads && self.leader_id().is_none() {
            let _ = asker.send(Err(Error::NotLeader { leader: None }));
            return;
        }
        let patience = READ_PATIENCE * self.settings.election_ticks;
        if let Some(context) = self.running.reads.insert(asker, patience) {
            self.node.read_index(context);
        }
    }

    fn step(&mut self, message: Message) {
        if let Err(reason) = self.check(&message) {
            tracing::warn!(from = message.from, kind = ?message.get_msg_type(), reason, "message dropped");
            return;
        }
        if let Err(error) = self.node.step(message) {
            tracing::debug!(%error, "message refused");
        }
    }

    /// Refuses messages that Raft must not see.
    fn check(&self, message: &Message) -> Result<(), String> {
        if message.to != self.settings.id {
            return Err(format!("it is for member {}", message.to));
        }
        match message.get_msg_type() {
            // Nobody would hear the answer.
            MessageType::MsgPropose => Err("proposals are not forwarded".to_owned()),
            MessageType::MsgSnapshot => check_snapshot(message),
            MessageType::MsgAppend => self.check_append(message),
            _ => Ok(()),
        }
    }

    pub(super) fn tick_if_due(&mut self) {
        if self.running.ticker.take() {
            self.tick();
        }
    }

    pub(crate) fn tick(&mut self) {
        self.node.tick();
        self.running.reads.tick();
        let mut lost = Vec::new();
        for (member, ticks_left) in &mut self.running.snapshots_under_way {
            *ticks_left -= 1;
            if *ticks_left == 0 {
                lost.push(*member);
            }
        }
        for member in lost {
            self.running.snapshots_under_way.remove(&member);
            // Without this, Raft waits for ever for a member that never got its snapshot; if it did, nothing happens.
            self.node.report_snapshot(member, SnapshotStatus::Failure);
        }
    }
}

/// Entries follow the place that their message names. raft 0.7 can add entries of an earlier place to an
/// empty message that waits (`try_batching`): a follower would acknowledge as many entries behind the wrong
/// place, which it does not have. Dropped, the message counts as lost, and is sent again.
fn check_entries(message: &Message) -> Result<(), String> {
    let mut entries = message.get_entries().iter().zip(1..);
    let is_wrong = |entry: &Entry, nth| message.index.checked_add(nth) != Some(entry.index);
    match entries.find(|(entry, nth)| is_wrong(entry, *nth)) {
        Some((entry, nth)) => Err(format!(
            "entry {} comes as number {nth} behind {}",
            entry.index, message.index
        )),
        None => Ok(()),
    }
}

fn check_snapshot(message: &Message) -> Result<(), String> {
    snapshot::decode_message(message.get_snapshot()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_do_not_follow_their_message_are_refused() {
        let message = |index: u64, entries: &[u64]| {
            let entry = |index: &u64| Entry {
                index: *index,
                ..Entry::default()
            };
            Message {
                index,
                entries: entries.iter().map(entry).collect::<Vec<_>>().into(),
                ..Message::default()
            }
        };
        assert_eq!(check_entries(&message(116, &[117, 118])), Ok(()));
        assert_eq!(check_entries(&message(116, &[])), Ok(()));
        assert!(check_entries(&message(116, &[106, 107])).is_err());
        assert!(check_entries(&message(116, &[117, 119])).is_err());
        assert!(check_entries(&message(u64::MAX, &[0])).is_err());
    }
}
