//! What a job published: compared byte by byte with another run, or read.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::ipc::reader::FileReader;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::folder;

const MANIFEST: &str = "_weft.manifest";

/// The files that readers see of all outputs under `root`, by path from there. Manifests come without the job's id.
///
/// What is hidden waits for the job to be archived, see [`folder::staged`].
pub(crate) fn published(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = folder::contents(root);
    files.retain(|path, _| !path.iter().any(is_hidden));
    for (path, bytes) in &mut files {
        if path.ends_with(MANIFEST) {
            let mut manifest: Value = serde_json::from_slice(bytes).expect("a manifest is JSON");
            let job = manifest.get_mut("job").expect("a manifest names its job");
            *job = Value::Null;
            *bytes = manifest.to_string().into_bytes();
        }
    }
    files
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Panics, with the names of the files that differ, unless both runs published the same.
pub(crate) fn assert_same(
    found: &BTreeMap<PathBuf, Vec<u8>>,
    expected: &BTreeMap<PathBuf, Vec<u8>>,
    context: &str,
) {
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{context}: other files");
    let differ = |path: &&PathBuf| found[*path] != expected[*path];
    let different: Vec<_> = expected.keys().filter(differ).collect();
    assert!(
        different.is_empty(),
        "{context}: other bytes in {different:?}"
    );
}

/// The rows of all Parquet files of an output, and what its manifest says of them.
fn batches(output: &Path) -> Vec<RecordBatch> {
    let text = std::fs::read(output.join(MANIFEST)).expect("an output has a manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("a manifest is JSON");
    let mut batches = Vec::new();
    for listed in manifest["files"].as_array().expect("it lists files") {
        let path = output.join(listed["name"].as_str().expect("files have names"));
        let file = File::open(&path).expect("what the manifest lists is there");
        let bytes = file.metadata().expect("a size").len();
        assert_eq!(listed["bytes"], bytes, "{}", path.display());
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("it is Parquet");
        let read: Vec<RecordBatch> = reader
            .build()
            .expect("a reader")
            .map(|batch| batch.expect("it reads"))
            .collect();
        let rows: usize = read.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(listed["rows"], rows, "{}", path.display());
        batches.extend(read);
    }
    batches
}

/// The rows of `daily`, by day.
pub(crate) fn daily(output: &Path) -> Vec<(String, i64)> {
    let mut rows = Vec::new();
    for batch in batches(output) {
        let (days, visitors) = (
            batch.column(0).as_string::<i32>(),
            batch.column(1).as_primitive::<Int64Type>(),
        );
        rows.extend(
            (0..batch.num_rows()).map(|row| (days.value(row).to_owned(), visitors.value(row))),
        );
    }
    rows.sort();
    rows
}

/// The rows of `top`, by day and rank.
pub(crate) fn top(output: &Path) -> Vec<(String, i32, String, i64)> {
    let mut rows = Vec::new();
    for batch in batches(output) {
        let (days, ranks) = (
            batch.column(0).as_string::<i32>(),
            batch.column(1).as_primitive::<Int32Type>(),
        );
        let (pages, hits) = (
            batch.column(2).as_string::<i32>(),
            batch.column(3).as_primitive::<Int64Type>(),
        );
        let row = |row| {
            let (day, page) = (days.value(row).to_owned(), pages.value(row).to_owned());
            (day, ranks.value(row), page, hits.value(row))
        };
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows.sort();
    rows
}

/// The values of the text columns of an output, row by row, in the order of its files.
pub(crate) fn texts(output: &Path) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in batches(output) {
        for row in 0..batch.num_rows() {
            let columns = batch.columns().iter();
            rows.push(
                columns
                    .map(|column| column.as_string::<i32>().value(row).to_owned())
                    .collect(),
            );
        }
    }
    rows
}

/// The rows of an output in any format, as text, in order of that text. Files say less of types than a table does: numbers
/// and times of JSON and CSV come as they are written.
pub(crate) fn rows(output: &Path) -> Vec<String> {
    let text = std::fs::read(output.join(MANIFEST)).expect("an output has a manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("a manifest is JSON");
    let mut rows = Vec::new();
    for listed in manifest["files"].as_array().expect("it lists files") {
        let path = output.join(listed["name"].as_str().expect("files have names"));
        let found = match manifest["format"].as_str() {
            Some("parquet") => printed(parquet(&path)),
            Some("arrow") => {
                let file = File::open(&path).expect("what the manifest lists is there");
                let reader = FileReader::try_new(file, None).expect("it is Arrow");
                printed(reader.map(|batch| batch.expect("it reads")).collect())
            }
            Some("csv") => {
                let text = std::fs::read_to_string(&path).expect("it is text");
                text.lines().skip(1).map(str::to_owned).collect()
            }
            _ => {
                let text = std::fs::read_to_string(&path).expect("it is text");
                text.lines().map(json_row).collect()
            }
        };
        assert_eq!(listed["rows"], found.len(), "{}", path.display());
        rows.extend(found);
    }
    rows.sort();
    rows
}

fn parquet(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).expect("what the manifest lists is there");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("it is Parquet");
    let reader = reader.build().expect("a reader");
    reader.map(|batch| batch.expect("it reads")).collect()
}

fn printed(batches: Vec<RecordBatch>) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        let options = FormatOptions::default();
        let columns = batch.columns().iter();
        let columns: Vec<_> = columns
            .map(|column| ArrayFormatter::try_new(column, &options).expect("it is printed"))
            .collect();
        let row = |row| {
            let values: Vec<String> = columns
                .iter()
                .map(|column| column.value(row).to_string())
                .collect();
            values.join("|")
        };
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows
}

fn json_row(line: &str) -> String {
    let row: Value = serde_json::from_str(line).expect("each line is JSON");
    let row = row.as_object().expect("an object");
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    row.values().map(text).collect::<Vec<_>>().join("|")
}
