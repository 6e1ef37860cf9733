//! Renewals of the leases under which executors serve shards.
//!
//! ```text
//! agent ──Renew(round)──▶ waiting ──Output::Confirm──▶ does this member lead still?
//!       ◀──────────────Renewed◀──────────Done::Confirmed──────────┘
//! ```
//!
//! Whoever was deposed and does not know it yet would answer for leases that its successor has given up. So a majority
//! is asked after the agent's question has come: the state here shows then what was granted before the question, and a
//! successor begins to lead after it, and waits [`LEASE_MS`](super::LEASE_MS) before it gives a silent node up.

use std::collections::BTreeMap;

use weft_core::{Epoch, Incarnation, NodeId};
use weft_protocol::AgentCommand;

use super::{Output, Scheduler, Turn};

/// Confirmations under way at a time. What comes meanwhile goes with the next one.
const MAX_CONFIRMING: usize = 8;

/// The newest question of each node: the life of its agent, and the round.
pub(super) type Rounds = BTreeMap<NodeId, (Incarnation, u64)>;

/// Questions of agents that are answered once this member knows that it leads still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirm {
    /// Term in which it led when they came.
    pub(crate) term: u64,
    rounds: Rounds,
}

/// Questions of agents that have no answer.
#[derive(Default)]
pub(super) struct Renewals {
    waiting: Rounds,
    confirming: usize,
}

impl Scheduler {
    /// The agent of a node asks which of its leases stand.
    pub(super) fn on_renew(&mut self, node: NodeId, incarnation: Incarnation, round: u64) {
        let view = self.nodes.get(&node);
        // Without an answer it asks again.
        if view.is_some_and(|view| view.takes_commands()) {
            self.renewals.waiting.insert(node, (incarnation, round));
        }
    }

    /// Asks whether this member leads still, if agents wait for it.
    pub(super) fn confirm_renewals(&mut self, turn: &mut Turn<'_>) {
        let Some(term) = self.phase.term() else {
            return;
        };
        let renewals = &mut self.renewals;
        if renewals.waiting.is_empty() || renewals.confirming >= MAX_CONFIRMING {
            return;
        }
        renewals.confirming += 1;
        let rounds = std::mem::take(&mut renewals.waiting);
        turn.out.push(Output::Confirm(Confirm { term, rounds }));
    }

    /// This member leads still, or does not.
    pub(super) fn on_confirmed(&mut self, turn: &mut Turn<'_>, confirm: Confirm, leads: bool) {
        if self.phase.term() != Some(confirm.term) {
            // Agents ask the next leader.
            return;
        }
        self.renewals.confirming = self.renewals.confirming.saturating_sub(1);
        if leads {
            for (node, (incarnation, round)) in confirm.rounds {
                self.renew(turn, &node, incarnation, round);
            }
        }
    }

    /// Says which leases of a node stand: none that is about to be revoked.
    fn renew(&self, turn: &mut Turn<'_>, node: &NodeId, incarnation: Incarnation, round: u64) {
        let view = self.nodes.get(node);
        let view = view.filter(|view| view.takes_commands());
        let Some(view) = view.filter(|view| view.incarnation == Some(incarnation)) else {
            return;
        };
        let stands = |epoch: &Epoch| {
            let lease = turn.state.leases.get(*epoch);
            let is_its =
                lease.is_some_and(|lease| lease.node == *node && lease.incarnation == incarnation);
            is_its && !self.losing.contains(epoch)
        };
        let executors = view.executors.keys().copied().filter(stands).collect();
        self.send(turn, node, AgentCommand::Renewed { round, executors });
    }
}
