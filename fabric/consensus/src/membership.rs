//! The members of a group, and how they change.
//!
//! ```text
//!   add ──▶ learner: gets the log, no vote ──once it has caught up──▶ voter ──remove──▶ gone
//! ```
//!
//! A change is an entry of the log. A member that is added knows nothing of the group: what it gets first
//! must be a snapshot, which names the members. So whoever applies a change writes one, and forgets the
//! first entry.

use raft::eraftpb::{ConfChange, ConfChangeType, ConfState};

/// The members of a group, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Members that vote.
    pub voters: Vec<u64>,
    /// Members that get the log, and do not vote yet.
    pub learners: Vec<u64>,
}

impl Membership {
    /// Returns whether the member belongs to the group.
    pub fn contains(&self, member: u64) -> bool {
        self.voters.contains(&member) || self.learners.contains(&member)
    }
}

impl From<&ConfState> for Membership {
    fn from(state: &ConfState) -> Membership {
        let sorted = |members: &[u64]| {
            let mut members = members.to_vec();
            members.sort_unstable();
            members
        };
        Membership {
            voters: sorted(&state.voters),
            learners: sorted(&state.learners),
        }
    }
}

impl From<&Membership> for ConfState {
    fn from(membership: &Membership) -> ConfState {
        ConfState::from((membership.voters.clone(), membership.learners.clone()))
    }
}

/// A change of the members. One at a time is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Adds a member, without a vote.
    AddLearner(u64),
    /// Gives a learner its vote.
    AddVoter(u64),
    /// Removes a member.
    Remove(u64),
}

impl From<Change> for ConfChange {
    fn from(change: Change) -> ConfChange {
        let (kind, member) = match change {
            Change::AddLearner(member) => (ConfChangeType::AddLearnerNode, member),
            Change::AddVoter(member) => (ConfChangeType::AddNode, member),
            Change::Remove(member) => (ConfChangeType::RemoveNode, member),
        };
        ConfChange {
            change_type: kind,
            node_id: member,
            ..ConfChange::default()
        }
    }
}
