//! Instances of actors that are idle. A turn takes its actor's instance out, and puts it back when it has ended well.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use weft_core::{ActorRef, Digest, lock};

use super::bounds::{MAX_RESIDENT_BYTES, MAX_RESIDENTS};
use super::guests::Instance;
use super::stored::Record;

/// An instance, awake.
pub(super) struct Resident {
    pub(super) guest: Box<dyn Instance>,
    /// The component.
    pub(super) digest: Digest,
    /// The actor's record, as of its last turn.
    pub(super) record: Record,
    /// Answers need not wait for writes.
    pub(super) is_early: bool,
    /// The opened shard whose state it has seen.
    pub(super) serial: u64,
}

struct Idle {
    resident: Resident,
    bytes: u64,
    used: Instant,
    /// Number of the use, for the order.
    use_number: u64,
}

#[derive(Default)]
struct State {
    idle: HashMap<ActorRef, Idle>,
    bytes: u64,
    uses: u64,
}

/// Idle instances, by actor.
#[derive(Default)]
pub(super) struct Residents(Mutex<State>);

impl State {
    fn remove(&mut self, actor: &ActorRef) -> Option<Resident> {
        let idle = self.idle.remove(actor)?;
        self.bytes -= idle.bytes;
        Some(idle.resident)
    }

    fn remove_all(&mut self, is_to_go: impl Fn(&Idle) -> bool) -> Vec<Resident> {
        let to_go = self.idle.iter().filter(|(_, idle)| is_to_go(idle));
        let to_go: Vec<ActorRef> = to_go.map(|(actor, _)| actor.clone()).collect();
        to_go
            .iter()
            .filter_map(|actor| self.remove(actor))
            .collect()
    }

    /// Removes the one that was used least recently, if there are too many or they are too large.
    fn remove_beyond_bounds(&mut self) -> Option<Resident> {
        if self.idle.len() <= MAX_RESIDENTS && self.bytes <= MAX_RESIDENT_BYTES {
            return None;
        }
        let oldest = self.idle.iter().min_by_key(|(_, idle)| idle.use_number);
        let oldest = oldest.map(|(actor, _)| actor.clone())?;
        self.remove(&oldest)
    }
}

impl Residents {
    /// Takes an actor's instance of a component, if it has seen all that this opened shard holds. Another one goes.
    pub(super) fn take(&self, actor: &ActorRef, serial: u64, digest: &Digest) -> Option<Resident> {
        let resident = lock(&self.0).remove(actor)?;
        // Dropped here, where nothing is locked, if it is another one.
        (resident.serial == serial && resident.digest == *digest).then_some(resident)
    }

    /// Puts an instance back. Others go if there are too many.
    pub(super) fn put(&self, actor: ActorRef, resident: Resident) {
        let bytes = resident.guest.held_bytes();
        let mut gone = Vec::new();
        let mut state = lock(&self.0);
        gone.extend(state.remove(&actor));
        state.uses += 1;
        let idle = Idle {
            resident,
            bytes,
            used: Instant::now(),
            use_number: state.uses,
        };
        state.bytes += bytes;
        state.idle.insert(actor, idle);
        gone.extend(std::iter::from_fn(|| state.remove_beyond_bounds()));
        drop(state);
        drop(gone);
    }

    /// Returns whether an actor's instance is here.
    pub(super) fn has(&self, actor: &ActorRef) -> bool {
        lock(&self.0).idle.contains_key(actor)
    }

    /// Drops an actor's instance.
    pub(super) fn forget(&self, actor: &ActorRef) {
        let gone = lock(&self.0).remove(actor);
        drop(gone);
    }

    /// Drops the instances of an opened shard.
    pub(super) fn forget_shard(&self, serial: u64) {
        let gone = lock(&self.0).remove_all(|idle| idle.resident.serial == serial);
        drop(gone);
    }

    /// Drops instances that were idle for as long.
    pub(super) fn forget_idle(&self, idle_for: Duration) {
        let gone = lock(&self.0).remove_all(|idle| idle.used.elapsed() >= idle_for);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::super::guests::fake::FakeGuest;
    use super::*;

    fn actor(number: usize) -> ActorRef {
        ActorRef::new("bank", "account", number.to_string()).expect("a valid key")
    }

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256(&[byte; 32])
    }

    fn resident(serial: u64, bytes: u64) -> Resident {
        Resident {
            guest: Box::new(FakeGuest::of_bytes(bytes)),
            digest: digest(1),
            record: Record::default(),
            is_early: false,
            serial,
        }
    }

    #[test]
    fn only_the_same_version_in_the_same_opened_shard_is_taken() {
        for (serial, byte, is_taken) in [(1, 1, true), (2, 1, false), (1, 2, false)] {
            let residents = Residents::default();
            residents.put(actor(0), resident(1, 0));
            let taken = residents.take(&actor(0), serial, &digest(byte));
            assert_eq!(taken.is_some(), is_taken);
            assert!(!residents.has(&actor(0)), "another one goes");
        }
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let residents = Residents::default();
        for number in 0..MAX_RESIDENTS {
            residents.put(actor(number), resident(1, 0));
        }
        let first = residents
            .take(&actor(0), 1, &digest(1))
            .expect("it is here");
        residents.put(actor(0), first);
        residents.put(actor(MAX_RESIDENTS), resident(1, 0));
        assert!(residents.has(&actor(0)) && !residents.has(&actor(1)));
    }

    #[test]
    fn memory_is_bounded() {
        let residents = Residents::default();
        residents.put(actor(0), resident(1, MAX_RESIDENT_BYTES / 2));
        residents.put(actor(1), resident(1, MAX_RESIDENT_BYTES / 2));
        assert!(residents.has(&actor(0)));
        residents.put(actor(2), resident(1, 1));
        assert!(!residents.has(&actor(0)) && residents.has(&actor(1)));
        residents.forget_shard(1);
        assert_eq!(lock(&residents.0).bytes, 0);
    }
}
