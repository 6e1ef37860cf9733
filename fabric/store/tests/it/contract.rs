//! The contract of stores: one suite for all of them.

use bytes::Bytes;
use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use weft_store::{Blobs, Grants, Remote, RequestKind};

use crate::azurite::{self, ACCOUNT, Azurite};

/// Creators of one key at the same time.
const RACERS: u8 = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let remote = Remote::in_memory("s3://bucket/prefix").expect("it opens");
    check(&Blobs::of_remote(remote, Grants::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_keep_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    check(&Blobs::local(folder.path()).expect("a folder")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_keeps_the_contract() {
    let server = crate::server();
    for name in ["contract", "contract-whole"] {
        crate::make(&server.endpoint(), name).await;
    }
    check(&crate::bucket(&server.endpoint(), "s3://contract/prefix")).await;
    // Another prefix is another store, and the bucket as a whole one, too.
    check(&crate::bucket(
        &server.endpoint(),
        "s3://contract/other/prefix",
    ))
    .await;
    check(&crate::bucket(&server.endpoint(), "s3://contract-whole")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_keeps_the_contract() {
    let server = Azurite::start();
    for container in ["contract", "contract-whole"] {
        server.make(container).await;
    }
    for url in [
        "az://contract/prefix",
        "az://contract/other/prefix",
        "az://contract-whole",
    ] {
        let settings = azurite::settings(&server.endpoint(), url, ACCOUNT.1);
        check(&azurite::open(settings)).await;
    }
}

async fn check(blobs: &Blobs) {
    objects_come_back(blobs).await;
    the_first_creator_wins(blobs).await;
    streamed_objects_appear_whole(blobs).await;
    files_go_in_and_out(blobs).await;
    prefixes_are_listed_and_removed(blobs).await;
    requests_are_counted(blobs).await;
}

async fn objects_come_back(blobs: &Blobs) {
    let key = "objects/a b+c%d#e/ü=1.json";
    assert!(!blobs.exists(key).await.expect("it looks"));
    let error = blobs.get(key).await.expect_err("it is not there");
    assert!(error.is_not_found(), "{error}");
    blobs.delete(key).await.expect("it is removed already");
    for text in ["first", "second, which is longer"] {
        blobs.put(key, text).await.expect("it is written");
        assert_eq!(blobs.get(key).await.expect("it is there"), text);
    }
    assert!(blobs.exists(key).await.expect("it looks"));
    let range = blobs.get_range(key, 8..13).await.expect("it is there");
    assert_eq!(range, "which");
    let none = blobs.get_range(key, 4..4).await.expect("nothing is asked");
    assert!(none.is_empty());
    let durable = blobs.put_durable(key, Bytes::from_static(b"third"));
    durable.await.expect("it is written");
    blobs.put("objects/empty", "").await.expect("it is written");
    assert!(blobs.get("objects/empty").await.expect("it is").is_empty());
    blobs.delete(key).await.expect("it is removed");
    assert!(!blobs.exists(key).await.expect("it looks"));
}

async fn the_first_creator_wins(blobs: &Blobs) {
    let create = |number: u8| blobs.create_durable("created/a", vec![number; 3].into());
    let created = join_all((0..RACERS).map(create)).await;
    let created: Vec<bool> = created
        .into_iter()
        .map(|one| one.expect("it answers"))
        .collect();
    let winners: Vec<usize> = (0..created.len()).filter(|at| created[*at]).collect();
    let found = blobs.get("created/a").await.expect("one of them");
    assert_eq!(winners, [usize::from(found[0])], "{created:?}");
    assert!(!create(RACERS).await.expect("it answers"));
    assert_eq!(blobs.get("created/a").await.expect("it is there"), found);
}

async fn streamed_objects_appear_whole(blobs: &Blobs) {
    let piece: Vec<u8> = (0..1_000_003_u32).map(|at| (at % 251) as u8).collect();
    let mut writer = blobs.writer("streamed/large");
    for _ in 0..20 {
        writer.write_all(&piece).await.expect("it is written");
    }
    assert!(!blobs.exists("streamed/large").await.expect("it looks"));
    writer.shutdown().await.expect("it ends");
    let whole = blobs.get("streamed/large").await.expect("it is there");
    assert_eq!(whole, piece.repeat(20));
    let middle = blobs.get_range("streamed/large", 9_000_000..17_000_000);
    let middle = middle.await;
    assert_eq!(
        middle.expect("it is there"),
        whole.slice(9_000_000..17_000_000)
    );
    let mut given_up = blobs.writer("streamed/none");
    given_up.write_all(&piece).await.expect("it is buffered");
    drop(given_up);
    assert!(!blobs.exists("streamed/none").await.expect("it looks"));
}

async fn files_go_in_and_out(blobs: &Blobs) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    // In the file system of the store, if that is a folder.
    let from = blobs.folder().map_or(path("in"), |root| root.join("in"));
    let bytes = vec![7; 9_000_001];
    std::fs::write(&from, &bytes).expect("it writes");
    let taken = blobs.take_file(&from, "files/a b%c").await;
    taken.expect("it is taken");
    assert!(!from.exists());
    let copied = blobs.download("files/a b%c", &path("out")).await;
    copied.expect("it is fetched");
    assert_eq!(std::fs::read(path("out")).expect("a file"), bytes);
    let again = blobs.download("files/a b%c", &path("out")).await;
    again.expect_err("the file is there");
    let none = blobs.download("files/none", &path("none")).await;
    assert!(none.expect_err("no object").is_not_found());
}

async fn prefixes_are_listed_and_removed(blobs: &Blobs) {
    assert!(blobs.entries("swept").await.expect("nothing").is_empty());
    for key in [
        "swept/a/1",
        "swept/a/b/2",
        "swept/ab/3",
        "swept/c.json",
        "d e%f/1",
    ] {
        blobs.put(key, key).await.expect("it is written");
    }
    blobs.delete_prefix("d e%f").await.expect("it is removed");
    assert!(!blobs.exists("d e%f/1").await.expect("it looks"));
    let mut entries = blobs.entries("swept").await.expect("it lists");
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<(&str, bool)> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.is_folder))
        .collect();
    assert_eq!(names, [("a", true), ("ab", true), ("c.json", false)]);
    assert!(entries[2].modified_ms.is_some());
    for _ in 0..2 {
        let removed = blobs.delete_prefix("swept/a").await;
        removed.expect("it can be repeated");
    }
    for (key, is_there) in [("a/1", false), ("a/b/2", false), ("ab/3", true)] {
        let found = blobs.exists(&format!("swept/{key}")).await;
        assert_eq!(found.expect("it looks"), is_there, "{key}");
    }
    for entry in &entries {
        let removed = blobs.remove("swept", entry).await;
        removed.expect("gone or not");
    }
    assert!(!blobs.exists("swept/c.json").await.expect("it looks"));
    assert!(!blobs.exists("swept/ab/3").await.expect("it looks"));
}

async fn requests_are_counted(blobs: &Blobs) {
    let blobs = blobs.metered();
    blobs.put("counted", "a").await.expect("it is written");
    blobs.get("counted").await.expect("it is there");
    blobs.get_range("counted", 0..1).await.expect("it is there");
    blobs.exists("counted").await.expect("it looks");
    blobs.delete("counted").await.expect("it is removed");
    let kinds = [
        (RequestKind::Put, 1),
        (RequestKind::Get, 2),
        (RequestKind::Head, 1),
        (RequestKind::Delete, 1),
        (RequestKind::List, 0),
    ];
    for (kind, expected) in kinds {
        // Files cost no requests.
        let expected = if blobs.remote().is_some() {
            expected
        } else {
            0
        };
        assert_eq!(blobs.requests_of(kind), expected, "{kind:?}");
    }
}
