//! One suite for folders and buckets.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use weft_store::{Blobs, Grants, Remote};

use super::{batch, commit, open, read, tenant};
use crate::collect::MinAges;
use crate::store::Place;
use crate::{Batch, Error, Shard, ShardStore};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_keep_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    check(&Blobs::local(folder.path()).expect("a store")).await;
    let shards = folder.path().join("shards/default");
    assert!(shards.join("0/manifest").is_dir(), "that is where they lie");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_keep_the_contract() {
    for url in ["s3://bucket/some/prefix", "s3://bucket"] {
        let remote = Remote::in_memory(url).expect("it opens");
        let blobs = Blobs::of_remote(remote.clone(), Grants::default());
        check(&blobs).await;
        let objects: Vec<_> = remote.objects.list(None).try_collect().await.expect("all");
        let prefix = remote.path("shards/default");
        let is_below = |meta: &object_store::ObjectMeta| meta.location.prefix_matches(&prefix);
        assert!(objects.iter().all(is_below), "that is where they lie");
        assert!(!objects.is_empty());
    }
}

async fn check(blobs: &Blobs) {
    let store = ShardStore::new(blobs).expect("it can be used");
    entries_come_back(&store).await;
    ranges_are_read_in_order(&store).await;
    acknowledged_writes_outlive_the_process(&store).await;
    one_writer_has_a_shard(&store).await;
    a_late_opener_takes_nothing(&store).await;
    of_two_openers_one_wins(&store).await;
    for seed in 0..3 {
        a_model_agrees(&store, seed).await;
    }
    what_is_not_needed_is_collected(&store).await;
}

async fn entries_come_back(store: &ShardStore) {
    assert_eq!(store.writer_epoch(&tenant(), 0).await, Ok(0));
    let shard = open(store, 0).await.expect("it is created");
    assert_eq!(store.writer_epoch(&tenant(), 0).await, Ok(shard.epoch()));
    assert_eq!(read(&shard, "a").await, Ok(None));
    let written = shard.write(batch(&[("a", "1"), ("b", "2")])).await;
    let written = written.expect("it is accepted");
    let found = read(&shard, "a").await.expect("it is read");
    assert_eq!(found.as_deref(), Some("1"), "before it is durable");
    written.durable().await.expect("it is durable");
    shard.last_durable().await.expect("all of it");
    let mut changes = batch(&[("b", "3")]);
    changes.delete("a");
    assert_eq!((changes.len(), changes.bytes()), (2, 3));
    shard.write(changes).await.expect("it is accepted");
    shard.last_durable().await.expect("it is durable");
    assert_eq!(read(&shard, "a").await, Ok(None));
    assert_eq!(read(&shard, "b").await, Ok(Some("3".into())));
    let nothing = shard.write(Batch::default()).await;
    let nothing = nothing.expect("nothing is accepted");
    nothing.durable().await.expect("nothing is durable");
    assert_eq!(shard.failure(), None);
    shard.clone().close().await.expect("all is durable");
    let closed = read(&shard, "b").await.expect_err("it is closed");
    assert!(matches!(closed, Error::Closed { .. }), "{closed:?}");
    assert!(matches!(shard.closed().await, Error::Closed { .. }));
}

async fn ranges_are_read_in_order(store: &ShardStore) {
    let shard = open(store, 0).await.expect("it opens");
    let entries = [("r1", "a"), ("r2", "b"), ("r3", "c"), ("s", "d")];
    commit(&shard, &entries).await.expect("it is durable");
    let scan = async |from: Bound<&str>, to: Bound<&str>, limit: usize| {
        let bytes = |key: &str| key.as_bytes().to_vec();
        let range = (from.map(bytes), to.map(bytes));
        let found = shard.scan(range, limit).await.expect("it is read");
        let text =
            |(key, _): (bytes::Bytes, bytes::Bytes)| String::from_utf8(key.to_vec()).expect("text");
        found.into_iter().map(text).collect::<Vec<_>>().join(" ")
    };
    let (from, to) = (Bound::Included("r"), Bound::Excluded("s"));
    assert_eq!(scan(from, to, 9).await, "r1 r2 r3");
    assert_eq!(scan(from, to, 2).await, "r1 r2");
    assert_eq!(scan(from, to, 0).await, "");
    assert_eq!(
        scan(Bound::Excluded("r1"), Bound::Included("r3"), 9).await,
        "r2 r3"
    );
    assert_eq!(scan(Bound::Excluded("r3"), Bound::Unbounded, 9).await, "s");
    // Ranges without any key are no mistake of the caller's.
    assert_eq!(
        scan(Bound::Excluded("r1"), Bound::Excluded("r1"), 9).await,
        ""
    );
    assert_eq!(
        scan(Bound::Included("s"), Bound::Excluded("r"), 9).await,
        ""
    );
    shard.close().await.expect("all is durable");
}

async fn acknowledged_writes_outlive_the_process(store: &ShardStore) {
    let shard = open(store, 1).await.expect("it opens");
    for number in 0..20 {
        let entry = (format!("key-{number}"), number.to_string());
        let entry = [(entry.0.as_str(), entry.1.as_str())];
        commit(&shard, &entry).await.expect("it is durable");
    }
    shard.abandon().await;
    let shard = open(store, 1).await.expect("it opens");
    for number in 0..20 {
        let found = read(&shard, &format!("key-{number}")).await;
        assert_eq!(found, Ok(Some(number.to_string())));
    }
    shard.close().await.expect("all is durable");
}

async fn one_writer_has_a_shard(store: &ShardStore) {
    let old = open(store, 2).await.expect("it opens");
    commit(&old, &[("owner", "old")])
        .await
        .expect("it is durable");
    let (ended, old_epoch) = (old.closed(), old.epoch());
    let new = open(store, 2).await.expect("it takes over");
    assert!(new.epoch() > old_epoch);
    commit(&new, &[("owner", "new")])
        .await
        .expect("it is durable");
    // It does not know yet, and what it says is not durable.
    let late = commit(&old, &[("owner", "old again")]).await;
    let late = late.expect_err("it was fenced");
    assert!(matches!(late, Error::Fenced { .. }), "{late:?}");
    let ended = ended.await;
    assert!(matches!(ended, Error::Fenced { .. }), "{ended:?}");
    assert_eq!(old.failure(), Some(ended));
    let refused = read(&old, "owner").await.expect_err("it has ended");
    assert!(matches!(refused, Error::Fenced { .. }), "{refused:?}");
    let refused = old.last_durable().await;
    refused.expect_err("its last write is lost");
    assert_eq!(read(&new, "owner").await, Ok(Some("new".into())));
    new.close().await.expect("all is durable");
    let again = open(store, 2).await.expect("it opens");
    assert_eq!(read(&again, "owner").await, Ok(Some("new".into())));
    again.close().await.expect("all is durable");
}

async fn a_late_opener_takes_nothing(store: &ShardStore) {
    let late = store.writer_epoch(&tenant(), 3).await.expect("it is read");
    let right = open(store, 3).await.expect("it opens");
    let refused = store
        .open(&tenant(), 3, late)
        .await
        .expect_err("it is late");
    assert!(matches!(refused, Error::Fenced { .. }), "{refused:?}");
    commit(&right, &[("a", "1")])
        .await
        .expect("it is still its own");
    right.close().await.expect("all is durable");
    let refused = store
        .open(&tenant(), 3, late)
        .await
        .expect_err("it is late");
    assert!(matches!(refused, Error::Fenced { .. }), "{refused:?}");
}

async fn of_two_openers_one_wins(store: &ShardStore) {
    // The first round creates the shard.
    for _ in 0..5 {
        let epoch = store.writer_epoch(&tenant(), 4).await.expect("it is read");
        let both = (0..2).map(|_| async { store.open(&tenant(), 4, epoch).await });
        let mut winners = Vec::new();
        for opened in join_all(both).await {
            match opened {
                Ok(shard) => winners.push(shard),
                Err(error) => assert!(matches!(error, Error::Fenced { .. }), "{error:?}"),
            }
        }
        // A creator that found the other's manifest starts over.
        assert!(winners.len() == 1 || epoch == 0 && winners.is_empty());
        for winner in winners {
            commit(&winner, &[("a", "1")]).await.expect("it is its own");
            winner.close().await.expect("all is durable");
        }
    }
}

/// Random writes, closings and crashes: what was durable is there, and nothing else.
async fn a_model_agrees(store: &ShardStore, seed: u64) {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut shard = open(store, 5).await.expect("it opens");
    let mut model = entries(&shard).await;
    for round in 0..120 {
        let key = format!("key-{}", random.random_range(0..20));
        let mut changes = Batch::default();
        if random.random_ratio(1, 4) {
            changes.delete(&key);
            model.remove(&key);
        } else {
            changes.put(key.clone(), round.to_string());
            model.insert(key, round.to_string());
        }
        let written = shard.write(changes).await.expect("it is accepted");
        if random.random_ratio(1, 20) {
            written.durable().await.expect("it is durable");
            if random.random_ratio(1, 2) {
                shard.abandon().await;
            } else {
                shard.close().await.expect("all is durable");
            }
            shard = open(store, 5).await.expect("it opens");
        }
    }
    assert_eq!(entries(&shard).await, model, "seed {seed}");
    shard.close().await.expect("all is durable");
}

async fn entries(shard: &Shard) -> BTreeMap<String, String> {
    let range = (Bound::Unbounded, Bound::Unbounded);
    let found = shard.scan(range, usize::MAX).await.expect("it is read");
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    let found = found.into_iter();
    found.map(|(key, value)| (text(key), text(value))).collect()
}

async fn what_is_not_needed_is_collected(store: &ShardStore) {
    let path = Place::of(&tenant(), 6).path;
    let collector = store.collector(path.clone());
    // Fewer than are compacted.
    for round in 0..3 {
        let shard = open(store, 6).await.expect("it opens");
        commit(&shard, &[("a", &round.to_string())])
            .await
            .expect("it is durable");
        shard.close().await.expect("all is durable");
    }
    let shard = open(store, 6).await.expect("it opens");
    let wal = path.clone().join("wal");
    let sizes = async || {
        let listed = collector.objects.list(Some(&wal)).map_ok(|meta| meta.size);
        listed.try_collect::<Vec<u64>>().await.expect("it lists")
    };
    let before = sizes().await;
    let fences = |sizes: &[u64]| sizes.iter().filter(|size| **size == 0).count();
    collector.collect(MinAges::all(Duration::ZERO)).await;
    let after = sizes().await;
    assert!(after.len() < before.len(), "{before:?} {after:?}");
    assert_eq!(fences(&after), fences(&before), "fences stay");
    assert_eq!(read(&shard, "a").await, Ok(Some("2".into())));
    commit(&shard, &[("b", "1")])
        .await
        .expect("it is still open");
    shard.abandon().await;
    let shard = open(store, 6).await.expect("it opens");
    assert_eq!(read(&shard, "a").await, Ok(Some("2".into())));
    assert_eq!(read(&shard, "b").await, Ok(Some("1".into())));
    shard.close().await.expect("all is durable");
}
