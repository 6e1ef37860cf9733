//! Which pieces of an object are fetched, and that its bytes come out.

use std::collections::BTreeMap;

use weft_core::Location;
use weft_store::{Blobs, Grants, Remote, RequestKind};

use super::*;

const MIB: u64 = 1 << 20;

#[test]
fn near_ranges_are_one_piece_and_large_ones_are_cut() {
    let check = |ranges: &[Range<u64>], expected: &[Range<u64>]| {
        let found = pieces(ranges.to_vec(), 10 * MIB, 2 * MIB);
        assert_eq!(found, expected, "{ranges:?}");
    };
    let one = std::slice::from_ref::<Range<u64>>;
    check(&[0..10, 20..30], one(&(0..30)));
    check(&[20..30, 0..25], one(&(0..30)));
    let apart = [0..10, 2 * MIB..2 * MIB + 5];
    check(&apart, &apart);
    check(one(&(MIB..4 * MIB)), &[MIB..3 * MIB, 3 * MIB..4 * MIB]);
    check(one(&(9 * MIB..12 * MIB)), one(&(9 * MIB..10 * MIB)));
    check(one(&(11 * MIB..12 * MIB)), &[]);
}

fn blobs(remote: &Remote) -> Blobs {
    Blobs::of_remote(remote.clone(), Grants::default())
}

/// An object of so many megabytes, whose bytes tell where they are.
async fn object(megabytes: u64) -> (Remote, Object, Vec<u8>) {
    let remote = Remote::in_memory("s3://lake/").expect("it opens");
    let bytes: Vec<u8> = (0..megabytes * MIB)
        .map(|at| (at / 7 % 251) as u8)
        .collect();
    let put = blobs(&remote).put("a", bytes.clone()).await;
    put.expect("it is written");
    let location = Location::parse("s3://lake/a").expect("it is right");
    let file = remote.file(&location, megabytes * MIB).expect("a file");
    (remote, Object::new(file), bytes)
}

/// Reads on a thread that drives nothing.
async fn reading<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(read).await.expect("it ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_order_come_in_large_pieces() {
    let (remote, object, bytes) = object(11).await;
    let read = reading(move || {
        object.expect_in_order(MIB..10 * MIB);
        let (mut read, mut at) = (Vec::new(), MIB);
        let mut buffer = vec![0; 300_000];
        while at < 10 * MIB {
            let n = object.read_at(&mut buffer, at).expect("it reads");
            read.extend_from_slice(&buffer[..n]);
            at += n as u64;
        }
        // Beyond what was expected, a little more is read.
        let n = object.read_at(&mut buffer[..10], at).expect("it reads");
        read.extend_from_slice(&buffer[..n]);
        assert_eq!(object.read_at(&mut buffer, 11 * MIB).expect("the end"), 0);
        read
    });
    assert_eq!(read.await, bytes[MIB as usize..10 * MIB as usize + 10]);
    assert_eq!(remote.requests().of(RequestKind::Get), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_side_by_side_are_fetched_once() {
    let (remote, object, bytes) = object(12).await;
    let found = reading(move || {
        object.expect_end();
        let end = object.slice(12 * MIB - 8, 8).expect("it reads");
        object.expect_side_by_side(vec![0..5 * MIB, 6 * MIB..11 * MIB]);
        let mut columns = BTreeMap::<u64, Vec<u8>>::new();
        for page in 0..50 {
            for column in [0, 6 * MIB] {
                let at = column + page * 100_000;
                let page = object.slice(at, 100_000).expect("it reads");
                columns.entry(column).or_default().extend(page);
            }
        }
        (end, columns)
    });
    let (end, columns) = found.await;
    assert_eq!(end, bytes[12 * MIB as usize - 8..]);
    for (column, read) in columns {
        assert_eq!(read, bytes[column as usize..column as usize + 5_000_000]);
    }
    // The end, and two pieces of each column.
    assert_eq!(remote.requests().of(RequestKind::Get), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_come_is_remembered() {
    let (remote, object, _) = object(1).await;
    let gone = blobs(&remote).delete("a").await;
    gone.expect("it is removed");
    let failure = reading(move || {
        assert!(object.failure().is_none());
        let read = object.slice(0, 10).expect_err("it is gone");
        assert_eq!(read.kind(), ErrorKind::NotFound);
        let beyond = object.slice(MIB, 1).expect_err("it ends");
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
        object.failure()
    });
    assert_eq!(
        failure.await.expect("it is known").kind(),
        ErrorKind::NotFound
    );
}
