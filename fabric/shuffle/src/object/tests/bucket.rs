//! Objects in a bucket: the tier of the node, requests, and what the store does not have any more.

use weft_store::{Grants, Remote, RequestKind, Tier};

use super::*;

/// The bucket as one node sees it, with a folder of its own.
struct Node {
    blobs: Blobs,
    folder: tempfile::TempDir,
}

const BUCKET: &str = "s3://bucket/weft";
const KEY: &str = "jobs/job-1/0/3-a.shuffle";

fn bucket() -> Blobs {
    let remote = Remote::in_memory(BUCKET).expect("it opens");
    Blobs::of_remote(remote, Grants::default())
}

impl Node {
    fn of(bucket: &Blobs) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tier = Tier::new(folder.path().join("tier"), 64 << 20);
        Self {
            blobs: bucket.metered().with_tier(tier),
            folder,
        }
    }

    fn without_tier(bucket: &Blobs) -> Self {
        Self {
            blobs: bucket.metered(),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn gets(&self) -> u64 {
        self.blobs.requests_of(RequestKind::Get)
    }

    fn reader(&self) -> ObjectReader {
        ObjectReader::new(self.blobs.clone())
    }

    /// Writes an object with `rows` in each of 8 partitions.
    async fn write(&self, rows: i64) -> ObjectRef {
        let mut writer = ObjectWriter::new(3, self.folder.path());
        for partition in 0..8 {
            let batch = batch(i64::from(partition) * 100, rows);
            let added = writer.add(0, partition, &batch.schema(), &[batch]);
            added.expect("it encodes");
        }
        let written = writer.finish(&self.blobs, KEY, 1).await;
        written.expect("it is written").0
    }
}

async fn read_all(reader: &ObjectReader, object: &ObjectRef) -> Result<u64> {
    let mut rows = 0;
    for partition in 0..8 {
        let read = read_partition(reader, object, "s", (3, 0, partition)).await?;
        rows += read.1.rows;
    }
    Ok(rows)
}

#[tokio::test]
async fn what_a_node_wrote_it_reads_without_requests() {
    let node = Node::of(&bucket());
    let object = node.write(7).await;
    let rows = read_all(&node.reader(), &object).await.expect("it reads");
    assert_eq!((rows, node.gets()), (56, 0));
}

#[tokio::test]
async fn a_small_object_costs_another_node_one_request() {
    let bucket = bucket();
    let object = Node::of(&bucket).write(7).await;
    let other = Node::of(&bucket);
    for reader in [other.reader(), other.reader()] {
        read_all(&reader, &object).await.expect("it reads");
    }
    assert_eq!(other.gets(), 1, "whoever reads it on that node");
}

#[tokio::test]
async fn an_index_is_read_once_by_all_that_come_at_a_time() {
    let bucket = bucket();
    let object = Node::without_tier(&bucket).write(7).await;
    let node = Node::without_tier(&bucket);
    let reader = node.reader();
    let (one, two) = tokio::join!(reader.prepare(&object), reader.prepare(&object));
    one.and(two).expect("it reads");
    assert_eq!(node.gets(), 1);
}

#[tokio::test]
async fn a_damaged_copy_is_read_again_from_the_store() {
    let node = Node::of(&bucket());
    let object = node.write(7).await;
    for at in [5, usize::MAX] {
        let copy = node.folder.path().join("tier/job-1/0-3-a.shuffle");
        if let Ok(mut bytes) = std::fs::read(&copy) {
            let at = at.min(bytes.len() - 20);
            bytes[at] ^= 1;
            std::fs::write(&copy, bytes).expect("it is written");
        }
        let reader = node.reader();
        let rows = read_all(&reader, &object).await.expect("it reads");
        assert_eq!((rows, reader.lost()), (56, None));
        assert!(
            node.blobs
                .copy_to_tier(KEY, object.bytes)
                .await
                .expect("a copy")
        );
    }
}

#[tokio::test]
async fn segments_that_lie_close_are_fetched_at_once_and_ahead() {
    let bucket = bucket();
    let object = Node::without_tier(&bucket).write(7).await;
    let node = Node::without_tier(&bucket);
    let reader = node.reader();
    let room = FetchRoom::new(1 << 20);
    let mut segments = Vec::new();
    for partition in [1, 3, 4, 7] {
        let more = reader.segments(&object, 3, 0, partition).await;
        segments.extend(more.expect("it has an index"));
    }
    let before = node.gets();
    let mut of = ObjectSegments::new(&reader, 3, object.clone(), segments.clone());
    assert!(!of.fetch_ahead(&reader, &room), "there is room for all");
    let mut rows = Vec::new();
    while let Some((segment, batches)) = reader.read_next("s", &mut of).await.expect("it reads") {
        assert_eq!(batches, [batch(i64::from(segment.partition()) * 100, 7)]);
        rows.push(segment.partition());
    }
    assert_eq!((rows, node.gets() - before), (vec![1, 3, 4, 7], 1));

    // Without room each is read when it is needed.
    let mut of = ObjectSegments::new(&reader, 3, object, segments);
    assert!(of.fetch_ahead(&reader, &FetchRoom::new(1)));
    let before = node.gets();
    while let Some((_, batches)) = reader.read_next("s", &mut of).await.expect("it reads") {
        assert_eq!(batches.len(), 1);
    }
    assert_eq!(node.gets() - before, 4);
}

#[tokio::test]
async fn room_is_given_back_when_segments_are_read() {
    let bucket = bucket();
    let object = Node::without_tier(&bucket).write(7).await;
    let reader = Node::without_tier(&bucket).reader();
    let room = FetchRoom::new(16 << 10);
    for _ in 0..20 {
        let segments = reader.segments(&object, 3, 0, 2).await.expect("an index");
        let mut of = ObjectSegments::new(&reader, 3, object.clone(), segments);
        assert!(!of.fetch_ahead(&reader, &room), "there is room again");
        let read = reader.read_next("s", &mut of).await.expect("it reads");
        assert_eq!(read.expect("a segment").1, [batch(200, 7)]);
    }
}

/// Changes the object in the store: whoever reads it there says that it is lost.
async fn check_lost(bucket: &Blobs, object: &ObjectRef, bytes: Vec<u8>) {
    bucket.put(KEY, bytes).await.expect("it is written");
    for node in [Node::of(bucket), Node::without_tier(bucket)] {
        let reader = node.reader();
        let error = read_all(&reader, object).await;
        let error = error.expect_err("it is damaged");
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert_eq!(reader.lost().as_deref(), Some(KEY));
        // Losses are each task's own.
        assert_eq!(reader.with_blobs(&node.blobs).lost(), None);
    }
}

#[tokio::test]
async fn objects_that_the_store_lost_are_named() {
    let bucket = bucket();
    let object = Node::without_tier(&bucket).write(7).await;
    let whole = bucket.get(KEY).await.expect("it is there").to_vec();
    for at in [5, whole.len() - 20] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        check_lost(&bucket, &object, bytes).await;
    }
    check_lost(&bucket, &object, whole[..300].to_vec()).await;
    bucket.delete(KEY).await.expect("it is removed");
    let node = Node::of(&bucket);
    let reader = node.reader();
    let error = read_all(&reader, &object).await.expect_err("it is gone");
    assert!(error.to_string().contains("does not have it"), "{error}");
    assert_eq!(reader.lost().as_deref(), Some(KEY));
}
