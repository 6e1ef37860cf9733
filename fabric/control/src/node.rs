//! Nodes that have joined.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::{ErrorCode, Incarnation, NodeId, Problem};

use crate::bounds::MAX_NODES;

/// A node, as its agent joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Life of its agent.
    pub incarnation: Incarnation,
    /// Tasks that run side by side.
    pub slots: u32,
    /// Name of the artefacts that its engine takes.
    pub compatibility: String,
    /// When it joined, in Unix milliseconds.
    pub joined_ms: u64,
}

/// Nodes by id.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Nodes {
    by_id: BTreeMap<NodeId, NodeRecord>,
}

impl Nodes {
    /// Records a node's agent in place of an earlier one. Errors: `busy` if there are too many.
    pub(crate) fn join(&mut self, node: NodeId, record: NodeRecord) -> Result<(), Problem> {
        if !self.by_id.contains_key(&node) && self.by_id.len() >= MAX_NODES {
            let detail = format!("{MAX_NODES} nodes have joined, which is the limit");
            return Err(Problem::new(ErrorCode::Busy, detail));
        }
        self.by_id.insert(node, record);
        Ok(())
    }

    /// The node, if it has joined.
    pub fn get(&self, node: &NodeId) -> Option<&NodeRecord> {
        self.by_id.get(node)
    }

    /// All nodes, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &NodeRecord)> {
        self.by_id.iter()
    }

    /// Returns whether some node's agent is in this life.
    pub(crate) fn any_lives(&self, incarnation: &Incarnation) -> bool {
        let mut records = self.by_id.values();
        records.any(|record| record.incarnation == *incarnation)
    }

    /// Returns whether this is the life in which the node's agent joined last.
    pub fn lives(&self, node: &NodeId, incarnation: &Incarnation) -> bool {
        let found = self.by_id.get(node);
        found.is_some_and(|found| found.incarnation == *incarnation)
    }
}
