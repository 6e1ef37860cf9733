//! Taking over and giving up.
//!
//! ```text
//! Following ──leads──▶ Waiting ──every node has reported, or LEASE_MS have passed──▶ Leading
//!     ▲                   │                                                             │
//!     └──leads no more────┴─────────────────────────────────────────────────────────────┘
//! ```

use weft_core::NodeId;
use weft_protocol::{AgentCommand, ToAgent};

use super::nodes::NodeView;
use super::{Commits, LEASE_MS, Output, Queue, Renewals, Scheduler, Shards, Turn};

/// Questions to nodes of one term have numbers of so many bits.
const REQUESTS_OF_TERM_BITS: u32 = 32;

/// A new leader that has not heard of all nodes.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) term: u64,
    pub(super) until_ms: u64,
}

/// Part that this member plays.
#[derive(Debug)]
pub(super) enum Phase {
    Following,
    Waiting(Waiting),
    Leading { term: u64 },
}

impl Phase {
    /// The term in which this member commands nodes.
    pub(super) fn term(&self) -> Option<u64> {
        match self {
            Phase::Following => None,
            Phase::Waiting(Waiting { term, .. }) | Phase::Leading { term } => Some(*term),
        }
    }
}

impl Scheduler {
    pub(super) fn on_leadership(&mut self, turn: &mut Turn<'_>, term: Option<u64>) {
        self.forget_everything();
        let Some(term) = term else {
            self.phase = Phase::Following;
            return;
        };
        // Answers to questions of another leader must not pass for answers to ours.
        self.next_request = self.next_request.max(term << REQUESTS_OF_TERM_BITS);
        self.phase = Phase::Waiting(Waiting {
            term,
            until_ms: turn.now.monotonic_ms + LEASE_MS,
        });
        let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for node in nodes {
            self.sync(turn, &node);
        }
    }

    /// Drops all but the links. Agents keep results until they are acknowledged; clients that wait
    /// see their channels closed, and try again.
    fn forget_everything(&mut self) {
        for view in self.nodes.values_mut() {
            *view = NodeView {
                down_since_ms: view.down_since_ms,
                ..NodeView::default()
            };
        }
        self.pending.clear();
        self.recording.clear();
        self.queue = Queue::default();
        self.commits = Commits::default();
        self.busy.clear();
        self.suspects.clear();
        self.preparing.clear();
        self.prepared.clear();
        self.archiving.clear();
        self.archived.clear();
        self.given_up.clear();
        self.losing.clear();
        self.later.clear();
        self.deferred.clear();
        self.steps.clear();
        self.derive = false;
        self.wanted.clear();
        self.restarts.clear();
        self.shards = Shards::default();
        self.renewals = Renewals::default();
    }

    /// Begins to lead once every node that matters has reported, or has had its time to.
    pub(super) fn lead_if_due(&mut self, turn: &mut Turn<'_>) {
        self.expire_nodes(turn);
        let Phase::Waiting(waiting) = &self.phase else {
            return;
        };
        let nodes = &self.nodes;
        let has_reported = |node: &NodeId| nodes.get(node).is_some_and(|view| view.reported);
        let is_up = |view: &NodeView| view.down_since_ms.is_none();
        let mut up = nodes.iter().filter(|(_, view)| is_up(view));
        let mut leases = turn.state.leases.iter();
        let all = up.all(|(node, _)| has_reported(node))
            && leases.all(|(_, lease)| has_reported(&lease.node));
        if !all && turn.now.monotonic_ms < waiting.until_ms {
            return;
        }
        self.phase = Phase::Leading { term: waiting.term };
        // Leases of nodes that are silent lapse with it.
        self.derive = true;
    }

    /// Sends a command to a node, in this leader's term.
    ///
    /// A node that was asked for its status gets nothing else before it is there; what is sent to it
    /// is chosen after that.
    pub(super) fn send(&self, turn: &mut Turn<'_>, node: &NodeId, command: AgentCommand) {
        let view = self.nodes.get(node);
        debug_assert!(
            view.is_none_or(|view| view.takes_commands())
                || matches!(
                    command,
                    AgentCommand::Lead { .. } | AgentCommand::Acknowledge { .. }
                )
        );
        if let Some(term) = self.phase.term() {
            let life = view.and_then(|view| view.incarnation);
            let life = life.filter(|_| !matches!(command, AgentCommand::Lead { .. }));
            let message = ToAgent::new(term, life, command);
            turn.out.push(Output::Send(node.clone(), message));
        }
    }
}
