//! Shards of actors: granted to executors that are ready, and told to them.
//!
//! ```text
//! wanted by a router, or served before and free ──▶ waiting ──GrantShards──▶ granting ──answer──▶ Work::Shards
//!                                                      ▲        refused: its lease has lapsed │
//!                                                      └─────────────────────────────────────┘
//! ```
//!
//! A shard that was ever granted is served for good: alarms and messages of its actors may be due. Whoever is granted
//! one is told when the grant is recorded, and again after each status of its node.

use std::collections::{BTreeMap, BTreeSet};

use weft_control::{Answer, Command, State};
use weft_core::{Epoch, NodeId, Problem, SHARDS, TenantId};
use weft_protocol::{AgentCommand, Work};

use super::io::Pending;
use super::{Scheduler, Turn};

/// Shards that nobody serves: [`SHARDS`] of each tenant at most.
#[derive(Default)]
pub(super) struct Shards {
    waiting: BTreeMap<TenantId, BTreeSet<u32>>,
    /// Those of them whose grant is being recorded, and to whom.
    granting: BTreeMap<(TenantId, u32), Epoch>,
}

impl Shards {
    fn want(&mut self, tenant: &TenantId, shard: u32) {
        match self.waiting.get_mut(tenant) {
            Some(shards) => drop(shards.insert(shard)),
            None => drop(self.waiting.insert(tenant.clone(), [shard].into())),
        }
    }

    /// Tenants with shards that wait: they need an executor.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.waiting.keys()
    }

    /// Shards that wait and are not being granted.
    fn open(&self, tenant: &TenantId) -> Vec<u32> {
        let waiting = self.waiting.get(tenant).into_iter().flatten().copied();
        waiting
            .filter(|shard| !self.granting.contains_key(&(tenant.clone(), *shard)))
            .collect()
    }

    /// Drops those that somebody serves by now.
    fn drop_served(&mut self, state: &State) {
        self.waiting.retain(|tenant, shards| {
            shards.retain(|shard| state.shard_holder(tenant, *shard).is_none());
            !shards.is_empty()
        });
    }

    /// Shards that an executor is being granted.
    fn n_granting(&self, executor: Epoch) -> usize {
        let executors = self.granting.values();
        executors.filter(|of| **of == executor).count()
    }

    /// Reasons why shards of a tenant are not served, for people.
    pub(super) fn reasons(&self, tenant: &TenantId) -> Vec<String> {
        let open = self.open(tenant);
        let waiting = self.waiting.get(tenant).into_iter().flatten().copied();
        let granting: Vec<u32> = waiting.filter(|shard| !open.contains(shard)).collect();
        let reason = |shards: Vec<u32>, what: &str| {
            let shards: Vec<String> = shards.iter().map(u32::to_string).collect();
            let list = shards.join(", ");
            (!shards.is_empty()).then(|| format!("actors of shards {list} wait: {what}"))
        };
        let reasons = [
            reason(open, "no executor is ready to serve them"),
            reason(granting, "an executor is being granted the shards"),
        ];
        reasons.into_iter().flatten().collect()
    }
}

impl Scheduler {
    /// Somebody asks for an actor of a shard.
    pub(super) fn want_shard(&mut self, turn: &Turn<'_>, tenant: &TenantId, shard: u32) {
        if shard < SHARDS && turn.state.shard_holder(tenant, shard).is_none() {
            self.shards.want(tenant, shard);
        }
    }

    /// Has shards served again whose executors are gone.
    pub(super) fn want_free_shards(&mut self, turn: &Turn<'_>) {
        for (tenant, shards) in turn.state.free_shards() {
            for shard in shards {
                self.shards.want(&tenant, shard);
            }
        }
    }

    /// Grants what waits to executors that are ready.
    pub(super) fn grant_shards(&mut self, turn: &mut Turn<'_>) {
        self.shards.drop_served(turn.state);
        let tenants: Vec<TenantId> = self.shards.tenants().cloned().collect();
        for tenant in tenants {
            for (executor, shards) in self.grants(turn, &tenant) {
                self.propose_grant(turn, &tenant, executor, shards);
            }
        }
    }

    /// Who is to be granted what: each shard goes to the executor that has the fewest.
    fn grants(&self, turn: &Turn<'_>, tenant: &TenantId) -> BTreeMap<Epoch, Vec<u32>> {
        let mut grants: BTreeMap<Epoch, Vec<u32>> = BTreeMap::new();
        let open = self.shards.open(tenant);
        if open.is_empty() {
            return grants;
        }
        let mut executors = self.executors_for_shards(turn, tenant);
        for shard in open {
            let fewest = executors.iter_mut().min_by_key(|(_, n)| **n);
            let Some((executor, n)) = fewest else {
                break;
            };
            *n += 1;
            grants.entry(*executor).or_default().push(shard);
        }
        grants
    }

    /// Executors that may be granted shards of the tenant, and how many each has.
    fn executors_for_shards(&self, turn: &Turn<'_>, tenant: &TenantId) -> BTreeMap<Epoch, usize> {
        let ready = self.ready_executors(turn.now, tenant);
        let stands = |epoch: &Epoch| {
            turn.state.leases.in_force(*epoch, tenant) && !self.losing.contains(epoch)
        };
        let n_shards =
            |epoch: Epoch| turn.state.shards_of(epoch).len() + self.shards.n_granting(epoch);
        ready
            .map(|(_, _, epoch, _)| epoch)
            .filter(stands)
            .map(|epoch| (epoch, n_shards(epoch)))
            .collect()
    }

    fn propose_grant(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: &TenantId,
        executor: Epoch,
        shards: Vec<u32>,
    ) {
        for shard in &shards {
            let key = (tenant.clone(), *shard);
            self.shards.granting.insert(key, executor);
        }
        let pending = Pending::Shards(executor, shards.clone());
        let grant = Command::GrantShards { executor, shards };
        self.propose(turn, tenant, None, grant, pending);
    }

    /// Shards were granted, or not.
    pub(super) fn on_granted(
        &mut self,
        turn: &mut Turn<'_>,
        tenant: TenantId,
        executor: Epoch,
        shards: Vec<u32>,
        answer: Result<Answer, Problem>,
    ) {
        if let Err(problem) = answer {
            tracing::debug!(%tenant, %problem, "a grant of shards is proposed again");
            let pending = Pending::Shards(executor, shards.clone());
            let grant = Command::GrantShards { executor, shards };
            return self.propose_again(turn, tenant, None, grant, pending);
        }
        // A refused one waits still, and goes to an executor whose lease stands.
        for shard in shards {
            self.shards.granting.remove(&(tenant.clone(), shard));
        }
        let lease = turn.state.leases.get(executor);
        if let Some(node) = lease.map(|lease| lease.node.clone()) {
            self.tell_shards(turn, &node, executor);
        }
    }

    /// Tells an executor which shards are its own, unless it was told. If its node takes no commands now, it is told
    /// after the next status.
    fn tell_shards(&mut self, turn: &mut Turn<'_>, node: &NodeId, epoch: Epoch) {
        let view = self
            .nodes
            .get_mut(node)
            .filter(|view| view.takes_commands());
        let Some(executor) = view.and_then(|view| view.executors.get_mut(&epoch)) else {
            return;
        };
        let shards = turn.state.shards_of(epoch);
        if !shards.is_empty() && executor.shards != shards {
            executor.shards.clone_from(&shards);
            let work = Work::Shards { shards };
            self.send(turn, node, AgentCommand::Work { epoch, work });
        }
    }

    /// Tells the executors of a node which shards are theirs: a grant may be one of the leader before, or the news of
    /// it lost with a link.
    pub(super) fn tell_shards_of_node(&mut self, turn: &mut Turn<'_>, node: &NodeId) {
        let executors = self.nodes.get(node).map(|view| &view.executors);
        let executors: Vec<Epoch> = executors
            .into_iter()
            .flat_map(BTreeMap::keys)
            .copied()
            .collect();
        for epoch in executors {
            self.tell_shards(turn, node, epoch);
        }
    }

    /// Looks after shards: those that nobody serves, and executors that were not told of theirs.
    pub(super) fn check_shards(&mut self, turn: &mut Turn<'_>) {
        self.want_free_shards(turn);
        let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for node in nodes {
            self.tell_shards_of_node(turn, &node);
        }
    }

    /// Returns whether an executor serves shards, or is about to.
    pub(super) fn serves_shards(&self, turn: &Turn<'_>, executor: Epoch) -> bool {
        self.shards.n_granting(executor) > 0 || !turn.state.shards_of(executor).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_wait_say_why() {
        let (mut shards, tenant) = (Shards::default(), TenantId::default_tenant());
        assert!(shards.reasons(&tenant).is_empty());
        for shard in [4, 1, 4, 7] {
            shards.want(&tenant, shard);
        }
        shards.granting.insert((tenant.clone(), 7), Epoch(2));
        assert_eq!(shards.open(&tenant), [1, 4]);
        assert_eq!(
            (shards.n_granting(Epoch(2)), shards.n_granting(Epoch(3))),
            (1, 0)
        );
        let reasons = shards.reasons(&tenant);
        assert!(
            reasons[0].contains("shards 1, 4 wait: no executor"),
            "{reasons:?}"
        );
        assert!(
            reasons[1].contains("shards 7 wait: an executor"),
            "{reasons:?}"
        );
        // The state says that nobody serves them.
        shards.drop_served(&State::default());
        assert_eq!(shards.tenants().collect::<Vec<_>>(), [&tenant]);
    }
}
