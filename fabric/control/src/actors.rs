//! Shards of actors: granted to an executor's lease, and held by it for as long as the lease stands.
//!
//! ```text
//! unknown ──GrantShards──▶ held ──the holder's lease lapses──▶ known, and free ──GrantShards──▶ held
//! ```
//!
//! A shard never moves between leases that stand, so whoever holds one needs no word of its loss but the end of its
//! own lease. The last holder stays in the state: a shard that was ever granted may have alarms and messages that are
//! due, and the leader grants it again by itself.

use std::collections::BTreeMap;

use weft_core::{Epoch, ErrorCode, Problem, SHARDS, TenantId};

use crate::command::Answer;
use crate::state::{Applied, State, refuse};

impl State {
    /// The executor that serves a shard now: the lease that it was granted to, while that stands.
    pub fn shard_holder(&self, tenant: &TenantId, shard: u32) -> Option<Epoch> {
        let granted = *self.tenants.get(tenant)?.shards.get(&shard)?;
        self.leases.in_force(granted, tenant).then_some(granted)
    }

    /// Shards that an executor serves.
    pub fn shards_of(&self, executor: Epoch) -> Vec<u32> {
        let Some(lease) = self.leases.get(executor) else {
            return Vec::new();
        };
        let shards = self.tenants.get(&lease.tenant).map(|of| &of.shards);
        let granted = shards.into_iter().flatten();
        granted
            .filter(|(_, holder)| **holder == executor)
            .map(|(shard, _)| *shard)
            .collect()
    }

    /// Shards that were granted before and that nobody serves now, by tenant. Tenants without any are left out.
    pub fn free_shards(&self) -> BTreeMap<TenantId, Vec<u32>> {
        let free_of = |tenant: &TenantId, shards: &BTreeMap<u32, Epoch>| -> Vec<u32> {
            let free = shards.iter();
            free.filter(|(_, holder)| !self.leases.in_force(**holder, tenant))
                .map(|(shard, _)| *shard)
                .collect()
        };
        let tenants = self.tenants.iter();
        tenants
            .map(|(tenant, of)| (tenant.clone(), free_of(tenant, &of.shards)))
            .filter(|(_, free)| !free.is_empty())
            .collect()
    }

    /// Grants those of the shards that nobody serves, and says who serves each of them.
    pub(crate) fn grant_shards(
        &mut self,
        tenant: &TenantId,
        executor: Epoch,
        shards: &[u32],
    ) -> Applied {
        if let Err(problem) = self.check_grant(tenant, executor, shards) {
            return refuse(problem);
        }
        let held = |shard: u32| (shard, self.shard_holder(tenant, shard).unwrap_or(executor));
        let holders: BTreeMap<u32, Epoch> = shards.iter().copied().map(held).collect();
        let of = self.tenants.entry(tenant.clone()).or_default();
        of.shards.extend(&holders);
        (Answer::Shards { holders }, Vec::new())
    }

    fn check_grant(
        &self,
        tenant: &TenantId,
        executor: Epoch,
        shards: &[u32],
    ) -> Result<(), Problem> {
        let busy = |detail: String| Err(Problem::new(ErrorCode::Busy, detail));
        if let Some(shard) = shards.iter().find(|shard| **shard >= SHARDS) {
            return busy(format!(
                "there is no shard {shard}: a tenant has {SHARDS}, numbered from 0"
            ));
        }
        match self.leases.in_force(executor, tenant) {
            true => Ok(()),
            false => busy(format!(
                "the lease {executor} of the executor has lapsed: its shards go to another one"
            )),
        }
    }
}
