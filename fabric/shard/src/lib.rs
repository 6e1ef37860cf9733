//! A shard of actors' state: one database with one writer, on a folder or a bucket.
//!
//! ```text
//! executor ──ShardStore::open(tenant, shard, epoch)──▶ Shard ──▶ SlateDB: WAL, tables, manifest
//!                                                        │            │ object_store 0.14
//!    write: accepted, visible ──Flusher──▶ durable ◀─────┘            ▼
//!    get, scan: what was accepted            DeadlineStore: repeats, and gives up after 20 seconds
//!                                                                     │
//!                              folder: LocalFileSystem with fsync ◀───┴───▶ bucket: Adapter, object_store 0.13
//! ```
//!
//! A shard is a database below `shards/TENANT/NUMBER` of the cluster's store. Whoever opens it takes it from the writer
//! before: opening names the epoch that it takes over from, so that a late opener cannot take a shard from the right
//! one. Writes are accepted in order and become durable in groups. The writer that lost a shard learns of it with its
//! next flush, at the latest: until then it still reads and accepts. So the lease, not the database, says whether an
//! answer may be given.
//!
//! The crate knows nothing of actors but the layout of their [`keys`].

mod adapter;
mod batch;
mod cache;
mod collect;
mod commits;
mod deadline;
mod error;
mod flusher;
pub mod keys;
mod settings;
mod shard;
mod store;

#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use error::{Error, Result};
pub use shard::{Shard, Written};
pub use store::ShardStore;
