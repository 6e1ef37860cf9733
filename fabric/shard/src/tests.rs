//! The contract of shards, on a folder, on a bucket of object_store 0.13, and on a store that fails.

mod contract;
mod faults;
mod faulty;

pub(crate) use faulty::Faulty;

use crate::{Batch, Result, Shard, ShardStore};
use weft_core::TenantId;

fn tenant() -> TenantId {
    TenantId::default_tenant()
}

/// Opens a shard as its owner does.
async fn open(store: &ShardStore, shard: u32) -> Result<Shard> {
    let epoch = store.writer_epoch(&tenant(), shard).await?;
    store.open(&tenant(), shard, epoch).await
}

fn batch(entries: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in entries {
        batch.put(key.to_string(), value.to_string());
    }
    batch
}

/// Writes and waits until that is durable.
async fn commit(shard: &Shard, entries: &[(&str, &str)]) -> Result<()> {
    shard.write(batch(entries)).await?.durable().await
}

async fn read(shard: &Shard, key: &str) -> Result<Option<String>> {
    let found = shard.get(key.as_bytes()).await?;
    let text = |value: bytes::Bytes| String::from_utf8(value.to_vec()).expect("text");
    Ok(found.map(text))
}
