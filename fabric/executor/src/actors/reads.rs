//! Reads of a shard for turns, which run on threads of their own.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use weft_core::{ErrorCode, Problem};
use weft_shard::Shard;
use weft_shard::keys::KeyRange;

/// Entries of one page of [`for_each`]: values may be large.
const PAGE: usize = 16;

/// Committed entries of a shard.
#[async_trait]
pub(super) trait Reads: Send + Sync {
    /// The value of a key.
    async fn get(&self, key: Vec<u8>) -> Result<Option<Bytes>, Problem>;

    /// Up to `limit` entries of a range, in the order of their keys.
    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Problem>;

    /// Waits until all that was read is durable.
    async fn durable(&self) -> Result<(), Problem>;
}

/// Reads that run where the database does. It starts work of its own as it reads, and a turn's thread would leave that
/// lying once the turn has ended.
pub(super) struct IoReads {
    pub(super) shard: Shard,
    pub(super) io: Handle,
}

impl IoReads {
    async fn run<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<T, weft_shard::Error>> + Send + 'static,
    ) -> Result<T, Problem> {
        let read = self.io.spawn(read).await;
        let read = read.map_err(|error| {
            let detail = format!("a read of an actor's state did not come to its end: {error}");
            Problem::new(ErrorCode::Internal, detail)
        })?;
        read.map_err(Problem::from)
    }
}

#[async_trait]
impl Reads for IoReads {
    async fn get(&self, key: Vec<u8>) -> Result<Option<Bytes>, Problem> {
        let shard = self.shard.clone();
        self.run(async move { shard.get(&key).await }).await
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, Problem> {
        let shard = self.shard.clone();
        self.run(async move { shard.scan(range, limit).await })
            .await
    }

    async fn durable(&self) -> Result<(), Problem> {
        let shard = self.shard.clone();
        self.run(async move { shard.last_durable().await }).await
    }
}

/// Calls `each` with every entry of a range.
pub(super) async fn for_each(
    shard: &Shard,
    mut range: KeyRange,
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), Problem> {
    loop {
        let page = shard.scan(range.clone(), PAGE).await?;
        page.iter().for_each(|(key, value)| each(key, value));
        match page.last() {
            Some((last, _)) if page.len() == PAGE => range.0 = Bound::Excluded(last.to_vec()),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
pub(super) mod fake {
    use std::collections::BTreeMap;

    use super::*;

    /// Entries in memory.
    #[derive(Default)]
    pub(in super::super) struct MapReads(pub(in super::super) BTreeMap<Vec<u8>, Vec<u8>>);

    #[async_trait]
    impl Reads for MapReads {
        async fn get(&self, key: Vec<u8>) -> Result<Option<Bytes>, Problem> {
            Ok(self.0.get(&key).map(|value| value.clone().into()))
        }

        async fn scan(
            &self,
            range: KeyRange,
            limit: usize,
        ) -> Result<Vec<(Bytes, Bytes)>, Problem> {
            let found = self.0.range(range).take(limit);
            Ok(found
                .map(|(key, value)| (key.clone().into(), value.clone().into()))
                .collect())
        }

        async fn durable(&self) -> Result<(), Problem> {
            Ok(())
        }
    }
}
