//! Group commit: one flush after the other, each of all that was accepted until it began.
//!
//! Objects of the WAL are written one at a time, so the latency of one sets the rate; a timer would only add to it.

use std::sync::Arc;
use std::time::Duration;

use slatedb::config::{CloseOptions, FlushOptions, FlushType};
use slatedb::{CloseReason, Db, DbStatus};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::commits::Commits;
use crate::error::Error;

/// Flushes of the WAL after which the memory becomes a table: opening a shard replays the rest, two requests an object.
const FLUSHES_PER_TABLE: u64 = 256;
/// Least time between two tables. On a disk that syncs within a millisecond tables come faster than they are compacted.
const TABLE_PAUSE: Duration = Duration::from_secs(2);
/// Makes a table of the memory.
const TABLE: FlushOptions = FlushOptions {
    flush_type: FlushType::MemTable,
};
/// Closes without a flush, which a database that has failed does not take.
pub(crate) const AT_ONCE: CloseOptions = CloseOptions { flush_type: None };

/// Makes a shard's writes durable, and notices its end.
pub(crate) struct Flusher {
    pub(crate) db: Db,
    /// `TENANT/NUMBER`, for errors.
    pub(crate) shard: Arc<str>,
    pub(crate) commits: Arc<Commits>,
    /// The error that ended the shard.
    pub(crate) ended: Arc<watch::Sender<Option<Error>>>,
}

impl Flusher {
    /// Runs until the database is closed or fails.
    pub(crate) async fn run(self) {
        let error = tokio::select! {
            error = self.flush_all() => error,
            error = self.closed() => error,
        };
        if !matches!(error, Error::Closed { .. }) {
            tracing::warn!(shard = %self.shard, %error, "a shard has failed");
        }
        end(&self.ended, error);
        // Its tasks would poll on. An error says that it is closed.
        let _ = Box::pin(self.db.close_with_options(AT_ONCE)).await;
    }

    /// Flushes whenever there is something, until that fails.
    async fn flush_all(&self) -> Error {
        let mut tables = Tables::new();
        loop {
            self.commits.asked().await;
            let flush = self.commits.begin_flush();
            weft_failpoint::hit("shard-flush");
            if let Err(error) = Box::pin(self.db.flush()).await {
                return self.cause(error).await;
            }
            weft_failpoint::hit("shard-flushed");
            self.commits.end_flush(&flush);
            tables.flushed(&self.db);
        }
    }

    /// Waits until the database is closed: by us, by a task of its own that failed, or as another writer has it.
    async fn closed(&self) -> Error {
        let mut status = self.db.subscribe();
        let is_closed = |status: &DbStatus| status.close_reason.is_some();
        let _ = status.wait_for(is_closed).await;
        let closed = slatedb::Error::closed("closed".to_owned(), CloseReason::Clean);
        self.cause(closed).await
    }

    /// The error that closed the database, in whose words it refuses; or the one that is known.
    async fn cause(&self, known: slatedb::Error) -> Error {
        let refused = Box::pin(self.db.flush()).await;
        Error::of(&self.shard, &refused.err().unwrap_or(known))
    }
}

/// Records the first end of a shard.
pub(crate) fn end(ended: &watch::Sender<Option<Error>>, error: Error) {
    ended.send_if_modified(|ended| {
        let is_first = ended.is_none();
        if is_first {
            *ended = Some(error);
        }
        is_first
    });
}

/// Makes tables of the memory now and then, beside the flushes of the WAL.
struct Tables {
    flushes: u64,
    last: Instant,
    /// At most one.
    under_way: JoinSet<()>,
}

impl Tables {
    fn new() -> Self {
        Self {
            flushes: 0,
            last: Instant::now(),
            under_way: JoinSet::new(),
        }
    }

    /// The WAL was flushed.
    fn flushed(&mut self, db: &Db) {
        self.flushes += 1;
        if self.flushes < FLUSHES_PER_TABLE || self.last.elapsed() < TABLE_PAUSE {
            return;
        }
        while self.under_way.try_join_next().is_some() {}
        if !self.under_way.is_empty() {
            return;
        }
        self.flushes = 0;
        self.last = Instant::now();
        let db = db.clone();
        self.under_way.spawn(async move {
            // A failure closes the database, which says so itself.
            let _ = Box::pin(db.flush_with_options(TABLE)).await;
        });
    }
}
