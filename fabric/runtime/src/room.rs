//! Room for bytes: a bound on what many hold at a time.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reports changes of how many bytes are taken, to a gauge say.
type Watch = Arc<dyn Fn(i64) + Send + Sync>;

/// Room for a number of bytes. Clones share it.
#[derive(Clone)]
pub struct Room {
    free: Arc<Semaphore>,
    watch: Watch,
}

/// Room that is taken, until this is dropped.
pub struct Taken {
    permit: OwnedSemaphorePermit,
    watch: Watch,
}

impl Room {
    /// Room for `bytes`; `watch` gets every change of how many of them are taken.
    pub fn new(bytes: usize, watch: impl Fn(i64) + Send + Sync + 'static) -> Self {
        Self {
            free: Arc::new(Semaphore::new(bytes)),
            watch: Arc::new(watch),
        }
    }

    /// Takes room now, if there is as much.
    pub fn try_take(&self, bytes: usize) -> Option<Taken> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(number(bytes));
        permit.ok().map(|permit| self.taken(permit))
    }

    /// Waits until there is as much. It must not be more than there is at all.
    pub async fn take(&self, bytes: usize) -> Taken {
        let permit = Arc::clone(&self.free).acquire_many_owned(number(bytes));
        self.taken(permit.await.expect("it is never closed"))
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Taken {
        (self.watch)(signed(permit.num_permits()));
        Taken {
            permit,
            watch: Arc::clone(&self.watch),
        }
    }
}

impl Taken {
    /// Takes this room and the other as one. Both are of the same room.
    pub fn merge(&mut self, mut more: Taken) {
        if let Some(permit) = more.permit.split(more.permit.num_permits()) {
            self.permit.merge(permit);
        }
    }

    /// These bytes, which hold as much room as they are long until all copies of them are dropped; the rest is free again.
    pub fn keep(mut self, bytes: Vec<u8>) -> Bytes {
        let rest = self.permit.num_permits().saturating_sub(bytes.len());
        drop(self.permit.split(rest));
        (self.watch)(-signed(rest));
        Bytes::from_owner(Kept { bytes, _room: self })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        (self.watch)(-signed(self.permit.num_permits()));
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

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[test]
    fn room_is_free_again_once_nobody_holds_it() {
        let held = Arc::new(AtomicI64::new(0));
        let watched = Arc::clone(&held);
        let room = Room::new(100, move |change| {
            watched.fetch_add(change, Ordering::Relaxed);
        });
        let held = || held.load(Ordering::Relaxed);
        let mut taken = room.try_take(60).expect("there is room");
        taken.merge(room.try_take(40).expect("there is room"));
        assert_eq!(held(), 100);
        assert!(room.try_take(1).is_none());
        let kept = taken.keep(vec![7; 10]);
        let copy = kept.slice(3..5);
        assert_eq!((held(), &copy[..]), (10, &[7, 7][..]));
        drop(kept);
        assert!(room.try_take(91).is_none());
        drop(copy);
        assert_eq!(held(), 0);
        assert!(room.try_take(100).is_some());
    }
}
