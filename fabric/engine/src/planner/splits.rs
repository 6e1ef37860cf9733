//! However an Arrow file is cut, each of its rows is in one split.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, DictionaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int32Type;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use weft_core::job::{BadRecords, InputFormat, InputSpec};

use super::inputs::list;
use crate::plan::{FileSplit, FilesPlan, Part};
use crate::scan::{Inputs, Reader};

const BATCHES: i64 = 20;

/// Rows with numbers of their own, and a word from a dictionary that differs from batch to batch where `words` says so.
fn batch(number: i64, words: bool) -> RecordBatch {
    let rows = 10 + number % 7;
    let ids = Int64Array::from_iter_values((0..rows).map(|row| 100 * number + row));
    let word = |row: i64| format!("word-{}-{}", if words { number } else { 0 }, row % 3);
    let texts: Vec<String> = (0..rows).map(word).collect();
    let texts: DictionaryArray<Int32Type> = texts.iter().map(String::as_str).collect();
    let columns: [(&str, Arc<dyn Array>); 2] = [("id", Arc::new(ids)), ("word", Arc::new(texts))];
    RecordBatch::try_from_iter(columns).expect("equally long")
}

fn stream() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch(0, true).schema()).expect("it opens");
    for number in 0..BATCHES {
        writer.write(&batch(number, true)).expect("it writes");
    }
    writer.finish().expect("it ends");
    bytes
}

/// Files have one dictionary for all batches.
fn file() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &batch(0, false).schema()).expect("it opens");
    for number in 0..BATCHES {
        writer.write(&batch(number, false)).expect("it writes");
    }
    writer.finish().expect("it ends");
    bytes
}

/// The rows of one split, as text.
fn rows(plan: &FilesPlan, split: &FileSplit) -> Vec<String> {
    let mut reader = Reader::open(&Inputs::default(), plan, split).expect("it opens");
    let mut rows = Vec::new();
    while let Some(batch) = reader.next().expect("it reads") {
        let ids = batch.column(0).as_any().downcast_ref::<Int64Array>();
        let words = batch.column(1).as_any().downcast_ref::<StringArray>();
        let pairs = ids.expect("ids").iter().zip(words.expect("words"));
        rows.extend(pairs.map(|(id, word)| format!("{id:?} {word:?}")));
    }
    rows
}

fn check(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("it writes");
    let input = InputSpec {
        name: "cut".into(),
        format: InputFormat::Arrow {
            columns: Vec::new(),
        },
        uris: vec![path.display().to_string()],
        bad_records: BadRecords::Fail,
    };
    let listed = list(&Inputs::default(), &input).expect("it is listed");
    let plan = FilesPlan {
        input: input.name,
        format: input.format,
        schema: listed.schema,
        splits: listed.splits,
        bad_records: input.bad_records,
        dead_letters: None,
    };
    let file_bytes = bytes.len() as u64;
    let split = |start, end| FileSplit {
        path: path.display().to_string(),
        file_bytes,
        e_tag: None,
        part: Part::Bytes { start, end },
    };
    let whole = rows(&plan, &split(0, file_bytes));
    assert!(whole.len() as i64 > 10 * BATCHES);
    for cut in 1..file_bytes {
        let halves = [split(0, cut), split(cut, file_bytes)];
        let found: Vec<String> = halves.iter().flat_map(|half| rows(&plan, half)).collect();
        assert_eq!(found, whole, "cut at {cut}");
    }
    let edges: Vec<u64> = (0..=7).map(|part| file_bytes * part / 7).collect();
    let parts = edges.windows(2).map(|edge| split(edge[0], edge[1]));
    let parts: Vec<Vec<String>> = parts.map(|part| rows(&plan, &part)).collect();
    assert!(parts.iter().filter(|part| !part.is_empty()).count() > 3);
    assert_eq!(parts.concat(), whole);
}

#[test]
fn rows_of_arrow_are_in_one_split() {
    let folder = tempfile::tempdir().expect("a folder");
    check(&folder.path().join("cut.arrows"), &stream());
    check(&folder.path().join("cut.arrow"), &file());
}
