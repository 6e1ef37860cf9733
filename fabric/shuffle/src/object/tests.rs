use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field};
use weft_store::ErrorKind;

use super::index::first_keys;
use super::*;
use crate::ranges::Mark;

mod bucket;

fn batch(start: i64, rows: i64) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
    ]);
    let numbers = Int64Array::from_iter_values(start..start + rows);
    let texts = StringArray::from_iter(
        (start..start + rows).map(|n| (n % 3 != 0).then(|| format!("row {n}"))),
    );
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers), Arc::new(texts)])
        .expect("it is a batch")
}

/// Everything of a task's, an edge's partition.
async fn read_partition(
    reader: &ObjectReader,
    object: &ObjectRef,
    stage: &str,
    (task, edge, partition): (u32, u32, u32),
) -> Result<(Vec<RecordBatch>, Sums)> {
    let (mut batches, mut sums) = (Vec::new(), Sums::default());
    for segment in reader.segments(object, task, edge, partition).await? {
        let (more, of_segment) = reader.read(object, stage, &segment).await?;
        batches.extend(more);
        sums.add(&of_segment);
    }
    Ok((batches, sums))
}

async fn write(folder: &std::path::Path, key: &str, rows: i64) -> (Blobs, ObjectRef, Vec<Sums>) {
    let blobs = Blobs::local(folder).expect("a folder");
    let mut writer = ObjectWriter::new(3, folder);
    for part in 0..4 {
        for sequence in 0..2 {
            let batch = batch(i64::from(part * 100 + sequence * 10), rows);
            writer
                .add(part / 2, part % 2, &batch.schema(), &[batch])
                .expect("it encodes");
        }
    }
    let (object, sums) = writer.finish(&blobs, key, 2).await.expect("it is written");
    (blobs, object, sums)
}

#[tokio::test]
async fn what_was_written_is_read_with_its_sums() {
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, object, written) = write(folder.path(), "a", 7).await;
    let reader = ObjectReader::new(blobs);
    let mut read = Sums::default();
    for partition in 0..2 {
        let (batches, sums) = read_partition(&reader, &object, "s", (3, 1, partition))
            .await
            .expect("it reads");
        assert_eq!(
            batches,
            [
                batch(i64::from(partition) * 100 + 200, 7),
                batch(i64::from(partition) * 100 + 210, 7)
            ]
        );
        read.add(&sums);
    }
    assert_eq!(read, written[1]);
    assert_eq!(read.rows, 28);
}

#[tokio::test]
async fn large_attempts_wait_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let mut writer = ObjectWriter::new(0, folder.path());
    let rows = 700_000;
    for partition in 0..3 {
        let batch = batch(i64::from(partition), rows);
        writer
            .add(0, partition, &batch.schema(), &[batch])
            .expect("it encodes");
    }
    assert!(writer.spilled_bytes() > 0);
    let (object, _) = writer
        .finish(&blobs, "big", 1)
        .await
        .expect("it is written");
    let (batches, _) = read_partition(&ObjectReader::new(blobs), &object, "s", (0, 0, 2))
        .await
        .expect("it reads");
    assert_eq!(batches, [batch(2, rows)]);
}

/// Damages the object and returns the error of reading partition 0 of edge 0, by name.
async fn damage(change: impl FnOnce(&mut Vec<u8>, &[Entry])) -> Error {
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, object, _) = write(folder.path(), "a", 7).await;
    let reader = ObjectReader::new(blobs.clone());
    let (index, _) = reader.read_index(&object).await.expect("it reads");
    let path = blobs.local_path("a").expect("a folder");
    let mut bytes = std::fs::read(&path).expect("it is there");
    change(&mut bytes, &index);
    std::fs::write(&path, bytes).expect("it is written");
    read_partition(&reader, &object, "visits", (3, 0, 0))
        .await
        .expect_err("it is damaged")
}

#[tokio::test]
async fn every_flipped_byte_is_found() {
    for at in [0, 40, 200] {
        let error = damage(|bytes, _| bytes[at] ^= 1).await;
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(
            error
                .to_string()
                .contains("partition `0` of stage `visits`, task 3"),
            "{error}"
        );
    }
    let error =
        damage(|bytes, index| bytes[(index[7].offset + index[7].length) as usize + 5] ^= 1).await;
    assert!(error.to_string().contains("index"), "{error}");
}

#[tokio::test]
async fn swapped_dropped_and_doubled_segments_are_found_even_where_the_index_agrees() {
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, object, written) = write(folder.path(), "a", 7).await;
    let rewrite = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes =
            std::fs::read(blobs.local_path("a").expect("a folder")).expect("it is there");
        let start = bytes.len() - 16 - 8 * WORDS * 8;
        let mut index = bytes.split_off(start);
        let footer = index.split_off(index.len() - 16);
        change(&mut index);
        let entries = (index.len() / (WORDS * 8)) as u64;
        let index_xxh3 = xxh3_64(&index);
        let bytes = [
            bytes,
            index,
            entries.to_le_bytes().to_vec(),
            footer[8..].to_vec(),
        ]
        .concat();
        std::fs::write(blobs.local_path(name).expect("a folder"), &bytes).expect("it is written");
        ObjectRef {
            key: name.into(),
            bytes: bytes.len() as u64,
            index_xxh3,
        }
    };
    let entry = WORDS * 8;
    let swapped = rewrite("swapped", &|index| {
        let (from, to) = (
            index[16..entry].to_vec(),
            index[2 * entry + 16..3 * entry].to_vec(),
        );
        index[16..entry].copy_from_slice(&to);
        index[2 * entry + 16..3 * entry].copy_from_slice(&from);
    });
    let reader = ObjectReader::new(blobs.clone());
    let error = read_partition(&reader, &swapped, "visits", (3, 0, 0))
        .await
        .expect_err("they are swapped");
    assert!(
        error.to_string().contains("stage `visits`")
            && error.to_string().contains("checksum differs"),
        "{error}"
    );

    // Dropped and doubled segments show in the sums, which the stage's end compares.
    let dropped = rewrite("dropped", &|index| drop(index.drain(..entry)));
    let doubled = rewrite("doubled", &|index| {
        let first = index[..entry].to_vec();
        index.splice(..0, first);
    });
    for object in [dropped, doubled, object] {
        let mut sums = Sums::default();
        for partition in 0..2 {
            sums.add(
                &read_partition(&reader, &object, "visits", (3, 0, partition))
                    .await
                    .expect("it reads")
                    .1,
            );
        }
        assert_eq!(sums == written[0], object.key == "a", "{}", object.key);
    }
}

#[tokio::test]
async fn a_segment_of_another_task_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, object, _) = write(folder.path(), "a", 7).await;
    let error = read_partition(&ObjectReader::new(blobs), &object, "visits", (4, 0, 0))
        .await
        .expect_err("task 3 wrote it");
    assert!(error.to_string().contains("task 4"), "{error}");
}

/// A task whose function emits nothing still has an object.
#[tokio::test]
async fn an_object_without_rows_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let writer = ObjectWriter::new(3, folder.path());
    let (object, sums) = writer.finish(&blobs, "a", 1).await.expect("it is written");
    assert_eq!(sums, [Sums::default()]);
    let reader = ObjectReader::new(blobs);
    let read = read_partition(&reader, &object, "s", (3, 0, 0)).await;
    assert_eq!(read.expect("it reads"), (Vec::new(), Sums::default()));
}

/// Writes an object whose edge 1 has sorted rows, in three segments with these first keys.
async fn write_sorted(folder: &std::path::Path, keys: [&[u8]; 3]) -> (ObjectReader, ObjectRef) {
    let blobs = Blobs::local(folder).expect("a folder");
    let mut writer = ObjectWriter::new(3, folder);
    let plain = batch(0, 5);
    let added = writer.add(0, 1, &plain.schema(), &[plain]);
    added.expect("it encodes");
    for (start, key) in (0..).zip(keys) {
        let batch = batch(start * 10, 7 + start);
        let added = writer.add_sorted(1, 0, &batch.schema(), &[batch], key);
        added.expect("it encodes");
    }
    let (object, _) = writer.finish(&blobs, "a", 2).await.expect("it is written");
    (ObjectReader::new(blobs), object)
}

#[tokio::test]
async fn sorted_segments_are_read_with_their_first_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = [b'c'; FIRST_KEY_BYTES_MAX + 1];
    let (reader, object) = write_sorted(folder.path(), [b"a", b"bcd", &long]).await;
    let marks = reader.marks(&object, 1).await.expect("it has keys");
    let mark = |key: &[u8], sequence, rows| Mark {
        key: key.to_vec(),
        sequence,
        rows,
    };
    let expected = [mark(b"a", 0, 7), mark(b"bcd", 1, 8), mark(&long[1..], 2, 9)];
    assert_eq!(marks, expected);

    // Rows are read as they are without keys, whoever read the index first.
    for reader in [&reader, &ObjectReader::new(reader.blobs.clone())] {
        for (at, rows) in [((3, 0, 1), 5), ((3, 1, 0), 24)] {
            let (_, sums) = read_partition(reader, &object, "s", at)
                .await
                .expect("it reads");
            assert_eq!(sums.rows, rows);
        }
    }
}

#[tokio::test]
async fn keys_that_are_damaged_missing_or_not_in_order_are_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let (reader, object) = write_sorted(folder.path(), [b"a", b"c", b"b"]).await;
    let error = reader.marks(&object, 1).await.expect_err("b is behind c");
    assert!(error.to_string().contains("not in order"), "{error}");
    let none = reader.marks(&object, 0).await;
    assert!(none.expect("partition 0 has no rows").is_empty());

    let path = reader.blobs.local_path("a").expect("a folder");
    let mut bytes = std::fs::read(&path).expect("it is there");
    let last_key = bytes.len() - FOOTER_WITH_KEYS_BYTES as usize - 1;
    assert_eq!(bytes[last_key], b'b');
    bytes[last_key] = b'd';
    std::fs::write(&path, bytes).expect("it is written");
    let error = reader.marks(&object, 1).await.expect_err("it is damaged");
    assert!(
        error.to_string().contains("checksum of its index"),
        "{error}"
    );

    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, object, _) = write(folder.path(), "a", 7).await;
    let marks = ObjectReader::new(blobs).marks(&object, 0).await;
    let error = marks.expect_err("its rows are not sorted");
    assert!(error.to_string().contains("missing"), "{error}");
}

/// Whoever reads an object must not be led beyond it.
#[test]
fn lengths_of_keys_are_bounded() {
    let lengths = |lengths: &[u64]| -> Vec<u8> {
        let bytes = lengths.iter().flat_map(|length| length.to_le_bytes());
        bytes.chain(*b"abc").collect()
    };
    assert_eq!(first_keys(&lengths(&[3]), 1), Some(vec![b"abc".to_vec()]));
    for (length, n) in [(2, 1), (4, 1), (u64::MAX, 1), (3, 0), (3, 2)] {
        assert_eq!(first_keys(&lengths(&[length]), n), None, "{length}, {n}");
    }
    let long = [&200u64.to_le_bytes()[..], &[0; 200]].concat();
    assert_eq!(first_keys(&long, 1), None);
}

/// Objects without keys are those that earlier executors wrote and read.
#[tokio::test]
async fn objects_without_keys_end_as_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, object, _) = write(folder.path(), "a", 7).await;
    let bytes = std::fs::read(blobs.local_path("a").expect("a folder")).expect("it is there");
    let (index, footer) = bytes.split_at(bytes.len() - 16);
    assert_eq!(footer, [8u64.to_le_bytes(), *b"weftshf1"].concat());
    let index = &index[index.len() - 8 * WORDS * 8..];
    assert_eq!(xxh3_64(index), object.index_xxh3);
}

#[tokio::test]
async fn bytes_of_edges_are_those_of_their_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let mut writer = ObjectWriter::new(0, folder.path());
    for (edge, partition, rows) in [(0, 0, 10), (0, 3, 500), (0, 3, 500), (2, 1, 20)] {
        let batch = batch(0, rows);
        let added = writer.add(edge, partition, &batch.schema(), &[batch]);
        added.expect("it encodes");
    }
    let bytes = writer.bytes(3);
    let (object, _) = writer.finish(&blobs, "o", 3).await.expect("it is written");
    let reader = ObjectReader::new(blobs);
    let of_edge = reader
        .raw_bytes(&object, 0)
        .await
        .expect("the index is there");
    let of = |wanted: u32| {
        let same = of_edge.iter().filter(|(partition, _)| *partition == wanted);
        same.map(|(_, bytes)| bytes).sum::<u64>()
    };
    assert!(of(0) > 0 && of(0) < of(3));
    assert_eq!((bytes[0].all, bytes[0].largest), (of(0) + of(3), of(3)));
    assert_eq!((bytes[1].all, bytes[1].largest), (0, 0));
    assert!(bytes[2].all > 0 && bytes[2].all == bytes[2].largest);
}
