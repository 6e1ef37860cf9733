//! An open shard.

use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use slatedb::{Db, WriteHandle};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::batch::Batch;
use crate::collect::Collector;
use crate::commits::Commits;
use crate::error::{Error, Result};
use crate::flusher::{AT_ONCE, Flusher, end};
use crate::keys::KeyRange;

/// An open shard, of which this process is the writer. Clones share it.
///
/// Close it: the last one that is dropped closes it in the background, and the next opening has more to replay.
#[derive(Clone)]
pub struct Shard(Arc<Opened>);

struct Opened {
    db: Db,
    /// `TENANT/NUMBER`, for errors.
    name: Arc<str>,
    commits: Arc<Commits>,
    /// The error that ended the shard.
    ended: Arc<watch::Sender<Option<Error>>>,
    /// Flusher and collector, which end with the shard.
    #[expect(dead_code, reason = "they are held")]
    tasks: Mutex<JoinSet<()>>,
    /// Runs the end of the database, on whatever thread the last clone is dropped.
    runtime: Handle,
}

/// A write that was accepted.
#[derive(Debug, Clone)]
pub struct Written {
    /// Nothing if nothing was written.
    handle: Option<WriteHandle>,
    shard: Arc<str>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shard").field(&self.0.name).finish()
    }
}

impl Shard {
    /// Takes over a database that was opened, and starts what a shard needs beside it.
    pub(crate) fn start(db: Db, name: Arc<str>, collector: Collector) -> Self {
        let (commits, ended) = (Arc::new(Commits::new()), Arc::new(watch::Sender::new(None)));
        let flusher = Flusher {
            db: db.clone(),
            shard: Arc::clone(&name),
            commits: Arc::clone(&commits),
            ended: Arc::clone(&ended),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(flusher.run());
        tasks.spawn(collector.run());
        Self(Arc::new(Opened {
            db,
            name,
            commits,
            ended,
            tasks: Mutex::new(tasks),
            runtime: Handle::current(),
        }))
    }

    /// Reads a value: the newest that was accepted, durable or not.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let found = Box::pin(self.0.db.get(key)).await;
        found.map_err(|error| self.0.error(&error))
    }

    /// Reads up to `limit` entries of a range, in the order of their keys. An empty range has none.
    pub async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        if limit == 0 || is_empty(&range) {
            return Ok(Vec::new());
        }
        Box::pin(self.entries(range, limit)).await
    }

    async fn entries(&self, range: KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let failed = |error: slatedb::Error| self.0.error(&error);
        let mut found = self.0.db.scan(range).await.map_err(failed)?;
        let mut entries = Vec::new();
        while entries.len() < limit
            && let Some(entry) = found.next().await.map_err(failed)?
        {
            entries.push((entry.key, entry.value));
        }
        Ok(entries)
    }

    /// Makes changes: they are accepted in the order of the calls that were answered, and visible at once. Waits if
    /// the store falls behind. An error says nothing about the outcome, unless the shard is opened anew and read.
    pub async fn write(&self, batch: Batch) -> Result<Written> {
        let shard = Arc::clone(&self.0.name);
        if batch.is_empty() {
            return Ok(Written {
                handle: None,
                shard,
            });
        }
        self.0.commits.begin();
        let written = Box::pin(self.0.db.write(batch.into_changes())).await;
        self.0.commits.accept();
        let handle = written.map_err(|error| self.0.error(&error))?;
        Ok(Written {
            handle: Some(handle),
            shard,
        })
    }

    /// Waits until all that was accepted so far is durable, as an answer must that tells what it has read. Returns at
    /// once if it is.
    pub async fn last_durable(&self) -> Result<()> {
        tokio::select! {
            biased;
            () = self.0.commits.all_durable() => Ok(()),
            error = self.closed() => Err(error),
        }
    }

    /// Returns the end of the shard: waits until it has failed, was taken by another writer, or is closed. The future
    /// does not keep the shard open.
    pub fn closed(&self) -> impl Future<Output = Error> + Send + use<> {
        let mut ended = self.0.ended.subscribe();
        let shard = Arc::clone(&self.0.name);
        async move {
            let error = ended.wait_for(Option::is_some).await;
            let error = error.ok().and_then(|error| error.clone());
            error.unwrap_or_else(|| Error::Closed {
                shard: shard.to_string(),
            })
        }
    }

    /// The end of the shard, if it has ended.
    pub fn failure(&self) -> Option<Error> {
        self.0.ended.borrow().clone()
    }

    /// The epoch of this writer.
    pub fn epoch(&self) -> u64 {
        self.0.db.manifest().writer_epoch()
    }

    /// Makes all durable, and closes the shard for all clones, so that the next opening has little to replay. The
    /// store's deadline bounds it. If the future is dropped, the shard is closed all the same.
    ///
    /// Errors: something that was accepted is not durable.
    pub async fn close(self) -> Result<()> {
        let durable = self.last_durable().await;
        let db = self.0.db.clone();
        // Beside this future: nobody ends the tasks of a database that is closed by half, as it counts as closed.
        let closing = self.0.runtime.spawn(async move {
            // An error says that it is closed or has failed, which was told.
            let _ = Box::pin(db.close()).await;
        });
        let _ = closing.await;
        let shard = self.0.name.to_string();
        end(&self.0.ended, Error::Closed { shard });
        durable
    }

    /// Closes the shard as a crash would, without making anything durable.
    #[cfg(test)]
    pub(crate) async fn abandon(self) {
        let _ = Box::pin(self.0.db.close_with_options(AT_ONCE)).await;
    }
}

impl Opened {
    fn error(&self, error: &slatedb::Error) -> Error {
        Error::of(&self.name, error)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // The database's own tasks hold it, and would poll for ever. Of one that has failed, the flusher that is about
        // to be aborted may not have ended all of them.
        let db = self.db.clone();
        self.runtime.spawn(async move {
            // An error says that it is closed.
            let _ = Box::pin(db.close_with_options(AT_ONCE)).await;
        });
    }
}

impl Written {
    /// Waits until the write outlives the machine.
    ///
    /// Errors: the shard has ended before, and the outcome is unknown.
    pub async fn durable(&self) -> Result<()> {
        let Some(handle) = &self.handle else {
            return Ok(());
        };
        let durable = handle.await_durable().await;
        durable.map_err(|error| Error::of(&self.shard, &error))
    }
}

/// Returns whether no key can be in a range. The database takes no such range.
fn is_empty((from, to): &KeyRange) -> bool {
    match (from, to) {
        (Bound::Unbounded, Bound::Excluded(to)) => to.is_empty(),
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
    }
}
