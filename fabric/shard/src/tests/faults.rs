//! Stores that fail: what was acknowledged stays, and what was not is told.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use weft_core::Problem;

use super::{Faulty, batch, commit, open, read, tenant};
use crate::collect::MinAges;
use crate::deadline::STORE_DEADLINE;
use crate::store::Place;
use crate::{Error, ShardStore};

/// Time for one request of a store that is away, in tests that wait for it.
const LIMIT: Duration = Duration::from_millis(300);

fn over(faulty: &Arc<Faulty>, limit: Duration) -> ShardStore {
    ShardStore::of(faulty.clone(), false, limit)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_share_flushes() {
    let faulty = Faulty::in_memory();
    let shard = open(&over(&faulty, STORE_DEADLINE), 0).await;
    let shard = shard.expect("it opens");
    faulty.hold_wal_puts();
    let before = faulty.wal_puts();
    let first = shard.write(batch(&[("first", "1")])).await;
    faulty.is_holding().await;
    // The first one is on its way: all others wait for one flush.
    let keys: Vec<String> = (0..64).map(|number| format!("key-{number}")).collect();
    let writes = keys.iter().map(|key| {
        let changes = batch(&[(key.as_str(), "1")]);
        shard.write(changes)
    });
    let written = join_all(writes).await;
    faulty.release();
    for written in written.into_iter().chain([first]) {
        let written = written.expect("it is accepted");
        written.durable().await.expect("it is durable");
    }
    shard.last_durable().await.expect("all is durable");
    let flushes = faulty.wal_puts() - before;
    assert!(flushes <= 3, "{flushes} flushes for 65 writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_fresh_writes_wait_for_their_flush() {
    let faulty = Faulty::in_memory();
    let shard = open(&over(&faulty, STORE_DEADLINE), 0).await;
    let shard = shard.expect("it opens");
    commit(&shard, &[("a", "1")]).await.expect("it is durable");
    shard.last_durable().await.expect("nothing is to be done");
    faulty.hold_wal_puts();
    shard.write(batch(&[("a", "2")])).await.expect("accepted");
    assert_eq!(read(&shard, "a").await, Ok(Some("2".into())));
    faulty.is_holding().await;
    let mut waiting = pin!(shard.last_durable());
    assert!(waiting.as_mut().now_or_never().is_none());
    faulty.release();
    waiting.await.expect("it is durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_failure_of_the_store_is_not_noticed() {
    let faulty = Faulty::in_memory();
    let shard = open(&over(&faulty, STORE_DEADLINE), 0).await;
    let shard = shard.expect("it opens");
    faulty.fail_next(2);
    commit(&shard, &[("a", "1")]).await.expect("it is durable");
    assert_eq!(shard.failure(), None);
    shard.close().await.expect("all is durable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stays_away_ends_the_shard_until_it_is_opened_anew() {
    let faulty = Faulty::in_memory();
    let store = over(&faulty, LIMIT);
    let shard = open(&store, 0).await.expect("it opens");
    commit(&shard, &[("a", "1")]).await.expect("it is durable");
    faulty.set_away(true);
    let lost = commit(&shard, &[("a", "2")]).await;
    let lost = lost.expect_err("the store is away");
    let ended = shard.closed().await;
    for error in [lost, ended] {
        assert!(error.is_passing(), "{error:?}");
        let problem = Problem::from(&error);
        assert!(problem.code.is_platform_fault(), "{problem:?}");
    }
    faulty.set_away(false);
    let refused = read(&shard, "a").await;
    refused.expect_err("what it holds may not be in the store");
    let shard = open(&store, 0).await.expect("it opens");
    assert_eq!(read(&shard, "a").await, Ok(Some("1".into())));
    commit(&shard, &[("a", "3")]).await.expect("it is durable");
    shard.close().await.expect("all is durable");
}

/// A write that was sent before another writer came must not succeed after it, even if the shard was collected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_lingers_is_fenced_for_ever() {
    let slow = Faulty::in_memory();
    let (old_store, store) = (
        over(&slow, STORE_DEADLINE),
        over(&slow.beside(), STORE_DEADLINE),
    );
    let old = open(&old_store, 0).await.expect("it opens");
    commit(&old, &[("a", "first")])
        .await
        .expect("it is durable");
    slow.hold_wal_puts();
    let lingering = old.write(batch(&[("a", "late")])).await;
    let lingering = lingering.expect("it is accepted");
    slow.is_holding().await;
    for round in 0..3 {
        let new = open(&store, 0).await.expect("it takes over");
        let value = format!("second-{round}");
        commit(&new, &[("a", &value)]).await.expect("it is durable");
        new.close().await.expect("all is durable");
    }
    let collector = store.collector(Place::of(&tenant(), 0).path);
    collector.collect(MinAges::all(Duration::ZERO)).await;
    slow.release();
    let late = lingering.durable().await.expect_err("it is fenced");
    assert!(matches!(late, Error::Fenced { .. }), "{late:?}");
    let new = open(&store, 0).await.expect("it opens");
    assert_eq!(read(&new, "a").await, Ok(Some("second-2".into())));
    new.close().await.expect("all is durable");
}

/// Waits until nothing holds the store but the test: tasks of a database would ask it for ever.
async fn nobody_asks(faulty: &Arc<Faulty>) {
    let nobody = async {
        while Arc::strong_count(faulty) > 1 {
            tokio::task::yield_now().await;
        }
    };
    let nobody = tokio::time::timeout(STORE_DEADLINE, nobody).await;
    nobody.expect("tasks of the database go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_that_is_given_up_goes_on() {
    let faulty = Faulty::in_memory();
    let store = over(&faulty, STORE_DEADLINE);
    let shard = open(&store, 0).await.expect("it opens");
    commit(&shard, &[("a", "1")]).await.expect("it is durable");
    shard.last_durable().await.expect("all is durable");
    faulty.hold_all();
    let mut closing = Box::pin(shard.close());
    assert!(closing.as_mut().now_or_never().is_none());
    // What was written becomes a table: the database is closed by half.
    faulty.is_holding().await;
    drop(closing);
    faulty.release();
    drop(store);
    nobody_asks(&faulty).await;
}

/// Turns of actors hold shards on threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_is_dropped_on_a_plain_thread_is_closed() {
    let faulty = Faulty::in_memory();
    let store = over(&faulty, STORE_DEADLINE);
    let shard = open(&store, 0).await.expect("it opens");
    let dropped = std::thread::spawn(move || drop(shard)).join();
    dropped.expect("it is dropped");
    drop(store);
    nobody_asks(&faulty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_nobody_holds_stops_asking() {
    let faulty = Faulty::in_memory();
    let store = over(&faulty, STORE_DEADLINE);
    let shard = open(&store, 0).await.expect("it opens");
    commit(&shard, &[("a", "1")]).await.expect("it is durable");
    let ended = shard.closed();
    drop(shard);
    let ended = ended.await;
    assert!(matches!(ended, Error::Closed { .. }), "{ended:?}");
    let shard = open(&store, 0).await.expect("it opens");
    assert_eq!(read(&shard, "a").await, Ok(Some("1".into())));
    shard.close().await.expect("all is durable");
}
