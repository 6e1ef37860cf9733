//! Leases of slots: an executor works under an epoch, and what it did under a lapsed one can never commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::{Epoch, TenantId};
use weft_protocol::SlotVector;

/// The slots of one executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose tasks it runs.
    pub tenant: TenantId,
    /// The node it is on.
    pub node: String,
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
    pub(crate) fn grant(&mut self, lease: Lease) -> Epoch {
        self.next.0 += 1;
        self.held.insert(self.next, lease);
        self.next
    }

    pub(crate) fn revoke(&mut self, epoch: Epoch) -> bool {
        self.held.remove(&epoch).is_some()
    }

    pub(crate) fn revoke_node(&mut self, node: &str) {
        self.held.retain(|_, lease| lease.node != node);
    }

    /// True while `epoch` is in force for `tenant`.
    pub fn in_force(&self, epoch: Epoch, tenant: &TenantId) -> bool {
        self.held
            .get(&epoch)
            .is_some_and(|lease| lease.tenant == *tenant)
    }

    /// The leases in force, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Epoch, &Lease)> {
        self.held.iter().map(|(epoch, lease)| (*epoch, lease))
    }
}
