//! Leases of slots: an executor works under an epoch, and what it did under a lapsed one can never commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::{Epoch, Incarnation, NodeId, TenantId};
use weft_protocol::SlotVector;

/// The slots of one executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose tasks it runs.
    pub tenant: TenantId,
    /// The node it is on.
    pub node: NodeId,
    /// Life of the node's agent.
    pub incarnation: Incarnation,
    /// Its slots.
    pub slots: Vec<SlotVector>,
    /// When the lease was granted, in Unix milliseconds.
    pub granted_ms: u64,
}

/// All leases in force. Epochs only grow, over the life of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Leases {
    next: Epoch,
    held: BTreeMap<Epoch, Lease>,
}

impl Leases {
    /// Grants a lease. A node has one for each tenant: an earlier one lapses.
    pub(crate) fn grant(&mut self, lease: Lease) -> Epoch {
        let same = |held: &Lease| held.node == lease.node && held.tenant == lease.tenant;
        self.held.retain(|_, held| !same(held));
        self.next.0 += 1;
        self.held.insert(self.next, lease);
        self.next
    }

    pub(crate) fn revoke(&mut self, epoch: Epoch) -> bool {
        self.held.remove(&epoch).is_some()
    }

    /// Revokes what earlier lives of the node's agent held.
    pub(crate) fn revoke_earlier(&mut self, node: &NodeId, incarnation: &Incarnation) {
        let stays = |lease: &Lease| lease.node != *node || lease.incarnation == *incarnation;
        self.held.retain(|_, lease| stays(lease));
    }

    /// True while `epoch` is in force for `tenant`.
    pub fn in_force(&self, epoch: Epoch, tenant: &TenantId) -> bool {
        self.held
            .get(&epoch)
            .is_some_and(|lease| lease.tenant == *tenant)
    }

    /// The lease, if it is in force.
    pub fn get(&self, epoch: Epoch) -> Option<&Lease> {
        self.held.get(&epoch)
    }

    /// The leases in force, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Epoch, &Lease)> {
        self.held.iter().map(|(epoch, lease)| (*epoch, lease))
    }
}
