//! Room for bytes that many hold at a time, within a bound on all of them.

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for a number of bytes. Clones share it.
#[derive(Clone)]
pub(crate) struct Room {
    free: Arc<Semaphore>,
    taken: Gauge,
}

/// Room that is taken, until this is dropped.
pub(crate) struct Taken {
    permit: OwnedSemaphorePermit,
    taken: Gauge,
}

impl Room {
    /// `taken` tells how much of it is.
    pub(crate) fn new(bytes: usize, taken: Gauge) -> Self {
        Self {
            free: Arc::new(Semaphore::new(bytes)),
            taken,
        }
    }

    /// Takes room now, if there is as much.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Taken> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(number(bytes));
        permit.ok().map(|permit| self.taken(permit))
    }

    /// Waits until there is as much. It must not be more than there is at all.
    pub(crate) async fn take(&self, bytes: usize) -> Taken {
        let permit = Arc::clone(&self.free).acquire_many_owned(number(bytes));
        self.taken(permit.await.expect("it is never closed"))
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Taken {
        self.taken.inc_by(gauge(permit.num_permits()));
        Taken {
            permit,
            taken: self.taken.clone(),
        }
    }
}

impl Taken {
    /// Takes this room and the other as one. Both are of the same room.
    pub(crate) fn merge(&mut self, mut more: Taken) {
        if let Some(permit) = more.permit.split(more.permit.num_permits()) {
            self.permit.merge(permit);
        }
    }

    /// These bytes, which hold as much room as they are long until all copies of them are dropped; the rest is free again.
    pub(crate) fn keep(mut self, bytes: Vec<u8>) -> Bytes {
        let rest = self.permit.num_permits().saturating_sub(bytes.len());
        drop(self.permit.split(rest));
        self.taken.dec_by(gauge(rest));
        Bytes::from_owner(Kept { bytes, _room: self })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.taken.dec_by(gauge(self.permit.num_permits()));
    }
}

struct Kept {
    bytes: Vec<u8>,
    _room: Taken,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_free_again_once_nobody_holds_it() {
        let held = Gauge::default();
        let room = Room::new(100, held.clone());
        let mut taken = room.try_take(60).expect("there is room");
        taken.merge(room.try_take(40).expect("there is room"));
        assert_eq!(held.get(), 100);
        assert!(room.try_take(1).is_none());
        let kept = taken.keep(vec![7; 10]);
        let copy = kept.slice(3..5);
        assert_eq!((held.get(), &copy[..]), (10, &[7, 7][..]));
        drop(kept);
        assert!(room.try_take(91).is_none());
        drop(copy);
        assert_eq!(held.get(), 0);
        assert!(room.try_take(100).is_some());
    }
}
