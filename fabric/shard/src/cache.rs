//! One cache of blocks for all shards of the process. Without one, SlateDB reads an index and a block for each lookup.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Mutex;

use async_trait::async_trait;
use slatedb::Error;
use slatedb::db_cache::{CachedEntry, CachedKey, DbCache};
use weft_core::lock;

/// Bytes of all blocks that are kept.
const MAX_CACHE_BYTES: usize = 8 << 20;

/// Blocks, indexes and filters of tables that were read lately.
pub(crate) struct BlockCache(Mutex<Recent<CachedKey, CachedEntry>>);

impl BlockCache {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Recent::new(MAX_CACHE_BYTES)))
    }

    fn find(&self, key: &CachedKey) -> Option<CachedEntry> {
        lock(&self.0).find(key)
    }
}

#[async_trait]
impl DbCache for BlockCache {
    async fn get_block(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.find(key))
    }

    async fn get_index(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.find(key))
    }

    async fn get_filter(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.find(key))
    }

    async fn get_stats(&self, key: &CachedKey) -> Result<Option<CachedEntry>, Error> {
        Ok(self.find(key))
    }

    async fn insert(&self, key: CachedKey, value: CachedEntry) {
        let bytes = value.size();
        lock(&self.0).insert(key, value, bytes);
    }

    async fn remove(&self, key: &CachedKey) {
        lock(&self.0).remove(key);
    }

    fn entry_count(&self) -> u64 {
        lock(&self.0).held.len() as u64
    }
}

struct Held<V> {
    value: V,
    bytes: usize,
    /// It was found since it was last considered for removal.
    was_used: bool,
}

/// Values up to a number of bytes. The oldest one that nobody found since goes first.
struct Recent<K, V> {
    held: HashMap<K, Held<V>>,
    /// Each key that is held, once.
    order: VecDeque<K>,
    bytes: usize,
    max_bytes: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    fn new(max_bytes: usize) -> Self {
        Self {
            held: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            max_bytes,
        }
    }

    fn find(&mut self, key: &K) -> Option<V> {
        let held = self.held.get_mut(key)?;
        held.was_used = true;
        Some(held.value.clone())
    }

    /// Keeps a value, if it is no larger than all values may be together.
    fn insert(&mut self, key: K, value: V, bytes: usize) {
        if bytes > self.max_bytes {
            return self.remove(&key);
        }
        let held = Held {
            value,
            bytes,
            was_used: false,
        };
        self.bytes += bytes;
        match self.held.insert(key.clone(), held) {
            Some(before) => self.bytes -= before.bytes,
            None => self.order.push_back(key),
        }
        while self.bytes > self.max_bytes && self.drop_one() {}
    }

    /// Looks at the oldest key: drops it, or puts it behind the others if it was used. Returns whether there was one.
    fn drop_one(&mut self) -> bool {
        let Some(key) = self.order.pop_front() else {
            return false;
        };
        match self.held.get_mut(&key) {
            Some(held) if held.was_used => {
                held.was_used = false;
                self.order.push_back(key);
            }
            _ => self.forget(&key),
        }
        true
    }

    fn remove(&mut self, key: &K) {
        if self.held.contains_key(key) {
            self.forget(key);
            self.order.retain(|other| other != key);
        }
    }

    fn forget(&mut self, key: &K) {
        if let Some(held) = self.held.remove(key) {
            self.bytes -= held.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_what_is_used_stays() {
        let mut recent = Recent::new(100);
        for number in 0..10 {
            recent.insert(number, number, 10);
        }
        assert_eq!(recent.find(&0), Some(0));
        recent.insert(10, 10, 10);
        assert_eq!(recent.bytes, 100);
        assert_eq!(recent.find(&0), Some(0), "it was used");
        assert_eq!(recent.find(&1), None, "the oldest that was not");
        recent.insert(11, 11, 200);
        assert_eq!(recent.find(&11), None, "it is too large");
        assert_eq!((recent.bytes, recent.order.len()), (100, 10));
    }

    #[test]
    fn what_is_replaced_or_removed_counts_no_more() {
        let mut recent = Recent::new(100);
        for _ in 0..1_000 {
            recent.insert("a", "text", 30);
            recent.insert("b", "text", 30);
            recent.remove(&"b");
        }
        assert_eq!((recent.bytes, recent.order.len()), (30, 1));
        recent.remove(&"a");
        recent.remove(&"a");
        assert_eq!((recent.bytes, recent.held.len()), (0, 0));
    }
}
