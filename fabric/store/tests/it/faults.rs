//! A network that fails between us and a real store: callers see whole objects, one winner, or a named error.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use weft_core::Location;
use weft_store::{Blobs, ErrorKind};

use crate::proxy::{Fault, Proxy};

/// A store behind a proxy, and the same store without one.
fn behind_proxy(prefix: &str) -> (Proxy, Blobs, Blobs, impl Sized) {
    let server = crate::server();
    let proxy = Proxy::start(&server.address());
    let url = format!("s3://faults/{prefix}");
    let through = crate::bucket(&proxy.endpoint(), &url);
    let straight = crate::bucket(&server.endpoint(), &url);
    (proxy, through, straight, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_repeated_where_stores_ask_for_it() {
    let (proxy, blobs, straight, _server) = behind_proxy("repeated");
    let faults = [
        Fault::Refused(503),
        Fault::Refused(429),
        Fault::Refused(500),
    ];
    proxy.arm("PUT", &faults);
    blobs.put("a", "text").await.expect("the fourth try");
    proxy.assert_happened(&faults);
    assert_eq!(straight.get("a").await.expect("it is there"), "text");
    proxy.arm("GET", &faults);
    assert_eq!(blobs.get("a").await.expect("the fourth try"), "text");
    proxy.assert_happened(&faults);
    proxy.arm("PUT", &[Fault::DoneThenReset, Fault::DoneThen(503)]);
    blobs
        .put("a", "other")
        .await
        .expect("the same is written again");
    proxy.assert_happened(&[Fault::DoneThenReset, Fault::DoneThen(503)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_cut_are_read_on() {
    let (proxy, blobs, straight, _server) = behind_proxy("cut");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 3 % 251) as u8).collect();
    straight
        .put("a", bytes.clone())
        .await
        .expect("it is written");
    let faults = [Fault::CutInBody, Fault::Slow, Fault::CutInBody];
    for fault in faults {
        proxy.arm("GET", &[fault]);
        let read = blobs.get("a").await.expect("the rest is asked for");
        assert_eq!(read, bytes, "{fault:?}");
        let range = blobs.get_range("a", 1_000_000..2_000_000).await;
        assert_eq!(range.expect("it is there"), bytes[1_000_000..2_000_000]);
        proxy.assert_happened(&[fault]);
    }
    // As tasks read inputs.
    let remote = blobs.remote().expect("it is no folder").clone();
    let location = Location::parse("s3://faults/cut/a").expect("it is right");
    let file = remote.file(&location, 3_000_000).expect("a file");
    proxy.arm("GET", &[Fault::CutInBody]);
    let reading = move || file.fetch(0..3_000_000).wait();
    let read = tokio::task::spawn_blocking(reading).await;
    assert_eq!(read.expect("it ends").expect("it reads"), bytes);
    proxy.assert_happened(&[Fault::CutInBody]);
}

/// One's own success must not come back as another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creators_know_their_own_success() {
    let (proxy, blobs, straight, _server) = behind_proxy("created");
    let faults = [
        Fault::Refused(503),
        Fault::DoneThen(503),
        Fault::DoneThenClosed,
        Fault::DoneThenReset,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let key = format!("{number}");
        proxy.arm("PUT", &[fault]);
        let created = blobs
            .create_durable(&key, Bytes::from_static(b"mine"))
            .await;
        assert!(created.expect("it knows"), "{fault:?}");
        proxy.assert_happened(&[fault]);
        proxy.arm("PUT", &[fault]);
        let other = blobs
            .create_durable(&key, Bytes::from_static(b"other"))
            .await;
        assert!(!other.expect("it knows"), "{fault:?}");
        proxy.assert_happened(&[fault]);
        assert_eq!(straight.get(&key).await.expect("it is there"), "mine");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_parts_outlive_faults() {
    let (proxy, blobs, straight, _server) = behind_proxy("parts");
    let bytes = vec![5; 30 << 20];
    let mut writer = blobs.writer("a");
    proxy.arm(
        "PUT",
        &[
            Fault::Refused(503),
            Fault::DoneThenReset,
            Fault::DoneThen(500),
        ],
    );
    proxy.arm("POST", &[Fault::Refused(503), Fault::DoneThen(503)]);
    writer.write_all(&bytes).await.expect("it is written");
    writer.shutdown().await.expect("it ends");
    assert_eq!(straight.get("a").await.expect("it is there"), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_of_all_requests_may_fail() {
    let (proxy, blobs, straight, _server) = behind_proxy("fifth");
    proxy.fail(20, 5);
    for number in 0..30_u8 {
        let (key, other) = (format!("{number}"), format!("created-{number}"));
        let bytes = vec![number; 50_000];
        let put = blobs.put(&key, bytes.clone()).await;
        put.expect("it is tried again");
        let read = blobs.get(&key).await;
        assert_eq!(read.expect("it is tried again"), bytes);
        let created = blobs.create_durable(&other, Bytes::from_static(b"mine"));
        assert!(created.await.expect("it knows"), "{other} is ours");
    }
    assert!(proxy.take_happened().len() >= 10, "faults happened");
    let last = straight.get("created-29").await;
    assert_eq!(last.expect("it is there"), "mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_stay_overloaded_are_named() {
    let (proxy, blobs, _, _server) = behind_proxy("overloaded");
    proxy.arm("GET", &[Fault::Refused(503); 50]);
    let error = blobs.get("a").await.expect_err("it never answers");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("try again later"), "{text}");
    assert!(text.contains("s3://faults/overloaded/a"), "{text}");
}

/// AWS refuses to say that an object is not there, if credentials may not list the whole bucket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_objects_are_told_from_forbidden_ones() {
    let (proxy, blobs, straight, _server) = behind_proxy("absent");
    straight.put("ab", "text").await.expect("it is written");
    let forbidden = [Fault::Refused(403)];
    proxy.arm("GET", &forbidden);
    let error = blobs.get("a").await.expect_err("it is not there");
    assert!(error.is_not_found(), "{error}");
    proxy.assert_happened(&forbidden);
    proxy.arm("HEAD", &forbidden);
    assert!(!blobs.exists("a").await.expect("it is known"));
    proxy.assert_happened(&forbidden);
    // The list that tells may fail as well.
    let twice = [Fault::Refused(403), Fault::Refused(503)];
    proxy.arm("GET", &twice);
    let error = blobs.get("a").await.expect_err("it is not there");
    assert!(error.is_not_found(), "{error}");
    proxy.assert_happened(&twice);
    proxy.arm("GET", &forbidden);
    let error = blobs.get("ab").await.expect_err("it is forbidden");
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    proxy.assert_happened(&forbidden);
}

/// Uploads that a list misses stay for ever: nobody looks again when their job has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_uploads_are_asked_for_again() {
    let (proxy, blobs, straight, _server) = behind_proxy("uploads");
    straight.put("b", "text").await.expect("it is written");
    let remote = blobs.remote().expect("it is no folder");
    let path = remote.path("a");
    let started = remote.uploads.create_multipart(&path).await;
    let id = started.expect("it starts");
    let faults = [
        Fault::Refused(503),
        Fault::DoneThenClosed,
        Fault::CutInBody,
        Fault::Refused(429),
    ];
    proxy.arm("GET", &faults);
    let lists = remote.pending.as_ref().expect("S3 lists them");
    let listed = lists.uploads_of("uploads/").await;
    let listed = listed.expect("the fifth try");
    proxy.assert_happened(&faults);
    assert!(listed.iter().any(|(key, _)| *key == path), "{listed:?}");
    let aborted = remote.uploads.abort_multipart(&path, &id).await;
    aborted.expect("it ends");
    // What is refused for good is told at once.
    proxy.arm("GET", &[Fault::Refused(403)]);
    let refused = lists.uploads_of("uploads/").await;
    refused.expect_err("it is not allowed");
    proxy.assert_happened(&[Fault::Refused(403)]);
}
