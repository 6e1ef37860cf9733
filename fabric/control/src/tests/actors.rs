//! Shards of actors: who is granted them, and when they are free.

use std::collections::BTreeMap;

use weft_core::{Epoch, ErrorCode, SHARDS, TenantId};

use super::support::{Machine, join, lease, tenant_id};
use crate::{Answer, Command, State};

impl Machine {
    fn grant(&mut self, executor: Epoch, shards: &[u32]) -> BTreeMap<u32, Epoch> {
        let shards = shards.to_vec();
        match self.apply(Command::GrantShards { executor, shards }).0 {
            Answer::Shards { holders } => holders,
            other => panic!("shards were answered with {other:?}"),
        }
    }

    fn lose(&mut self, epoch: Epoch) {
        self.effects(Command::ExecutorLost {
            epoch,
            failures: Vec::new(),
            steps: Vec::new(),
        });
    }

    fn free(&self) -> Vec<u32> {
        let free = self.state.free_shards().remove(&tenant_id());
        free.unwrap_or_default()
    }
}

#[test]
fn a_shard_stays_with_a_lease_that_stands() {
    let mut machine = Machine::new();
    let (first, second) = (machine.lease(), machine.lease_on("another"));
    assert_eq!(
        machine.grant(first, &[0, 3]),
        BTreeMap::from([(0, first), (3, first)])
    );
    // Whoever asks for another one is told who has it.
    assert_eq!(
        machine.grant(second, &[3, 4]),
        BTreeMap::from([(3, first), (4, second)])
    );
    assert_eq!(machine.state.shards_of(first), [0, 3]);
    assert_eq!(machine.state.shards_of(second), [4]);
    assert!(machine.free().is_empty());
}

#[test]
fn shards_of_a_lapsed_lease_are_known_and_free() {
    let mut machine = Machine::new();
    let (first, second) = (machine.lease(), machine.lease_on("another"));
    machine.grant(first, &[1, 2]);
    machine.grant(second, &[5]);
    machine.lose(first);
    assert_eq!(machine.state.shard_holder(&tenant_id(), 1), None);
    assert!(machine.state.shards_of(first).is_empty());
    assert_eq!(machine.free(), [1, 2]);
    assert_eq!(machine.grant(second, &[2]), BTreeMap::from([(2, second)]));
    assert_eq!(machine.free(), [1]);
    // Leases end in other ways as well: the agent starts again, and the executor's successor takes its place.
    machine.effects(join("another", 2));
    assert_eq!(machine.free(), [1, 2, 5]);
    let third = machine.lease();
    machine.grant(third, &[1, 2, 5]);
    let fourth = machine.lease();
    assert_eq!(machine.free(), [1, 2, 5]);
    assert_eq!(machine.grant(fourth, &[1]), BTreeMap::from([(1, fourth)]));
}

#[test]
fn only_a_lease_of_the_tenant_that_stands_is_granted_shards() {
    let mut machine = Machine::new();
    let lapsed = machine.lease();
    machine.lose(lapsed);
    let other: TenantId = "other".parse().expect("it is a tenant id");
    let Answer::Lease { epoch: foreign } = machine.apply(lease(other, "node", 1)).0 else {
        panic!("it is a lease");
    };
    for executor in [lapsed, foreign, Epoch(0), Epoch(99)] {
        let shards = vec![0];
        let refused = machine.refusal(Command::GrantShards { executor, shards });
        assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
    }
    let executor = machine.lease();
    let shards = vec![0, SHARDS];
    let refused = machine.refusal(Command::GrantShards { executor, shards });
    assert!(refused.to_string().contains("no shard 8"), "{refused}");
}

/// States of earlier versions have no shards.
#[test]
fn a_tenant_without_shards_is_as_it_was_before_there_were_any() {
    let mut machine = Machine::new();
    let executor = machine.lease();
    let json = |state: &State| serde_json::to_value(state).expect("it is plain data");
    let before = json(&machine.state);
    let tenant = &before["tenants"][tenant_id().as_str()];
    assert!(tenant.get("shards").is_none(), "{tenant}");
    let read: State = serde_json::from_value(before).expect("it is read");
    assert_eq!(read, machine.state);
    machine.grant(executor, &[7]);
    let read: State = serde_json::from_value(json(&machine.state)).expect("it is read");
    assert_eq!(read, machine.state);
}
