//! The 22 queries of TPC-H at scale 0.01: rows depend neither on the number of tasks, nor on nodes.
//! `bench/tpch.py` compares them with those of DuckDB.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tpchgen::generators as g;
use tpchgen_arrow as a;

use crate::cluster::Cluster;
use crate::fixture::Place;
use crate::http::Request;
use crate::server::{Server, Setup};
use crate::{job, outputs};

const SCALE: f64 = 0.01;

const TABLES: [&str; 8] = [
    "customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier",
];

/// How many rows each query has at this scale, as DuckDB finds.
const ROWS: [usize; 22] = [
    4, 4, 10, 5, 5, 1, 4, 2, 173, 20, 359, 2, 33, 1, 1, 296, 1, 2, 1, 1, 1, 7,
];

/// By how much of its value a float may differ: its last digits follow the order of additions.
const TOLERANCE: f64 = 1e-9;

/// Writes all tables, most of them in four files.
fn write_tables(folder: &Path) {
    fs::create_dir(folder).expect("it is made");
    macro_rules! table {
        ($name:literal, $arrow:ident, $rows:ident, $file_rows:literal) => {{
            let rows = a::$arrow::new(g::$rows::new(SCALE, 1, 1));
            write_table(folder, $name, rows.with_batch_size($file_rows));
        }};
    }
    table!("customer", CustomerArrow, CustomerGenerator, 400);
    table!("lineitem", LineItemArrow, LineItemGenerator, 16_000);
    table!("nation", NationArrow, NationGenerator, 25);
    table!("orders", OrderArrow, OrderGenerator, 4_000);
    table!("part", PartArrow, PartGenerator, 500);
    table!("partsupp", PartSuppArrow, PartSuppGenerator, 2_000);
    table!("region", RegionArrow, RegionGenerator, 5);
    table!("supplier", SupplierArrow, SupplierGenerator, 25);
}

/// Writes a table, each batch to a file.
fn write_table(
    folder: &Path,
    name: &str,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) {
    for (number, batch) in batches.enumerate() {
        let batch = batch.expect("generators do not fail");
        let path = folder.join(format!("{name}-{number}.parquet"));
        let file = File::create(path).expect("it is made");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("it writes");
        writer.close().expect("it ends");
    }
}

/// The folder of a query's output.
fn folder_of(number: usize) -> String {
    format!("q{number:02}")
}

/// A job of one query, from 1 to 22, that reads the tables that it names.
fn query(number: usize, tables: &Path, partitions: u32, out: &Path) -> Value {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/tpch");
    let file = texts.join(format!("q{number:02}.sql"));
    let sql = fs::read_to_string(file).expect("the query is there");
    let words: Vec<&str> = sql
        .split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
        .collect();
    let named = TABLES.into_iter().filter(|table| words.contains(table));
    let from: Vec<&str> = named.collect();
    let input = |table: &&str| {
        let uri = tables.join(format!("{table}-*.parquet"));
        (
            (*table).to_owned(),
            json!({ "format": "parquet", "uri": uri }),
        )
    };
    let inputs: Value = from.iter().map(input).collect();
    json!({
        "name": "tpch",
        "input": inputs,
        "stage": [{ "name": "query", "from": from, "sql": sql, "partitions": partitions }],
        "output": {
            "rows": { "from": "query", "format": "parquet", "uri": out.join(folder_of(number)) },
        },
    })
}

/// Runs all queries at the same time.
fn run_all(
    tables: &Path,
    partitions: u32,
    out: &Path,
    submit: impl Fn(&Value) -> String,
    wait: impl Fn(&str) -> Value,
) {
    let jobs = (1..=22).map(|number| submit(&query(number, tables, partitions, out)));
    let jobs: Vec<String> = jobs.collect();
    let mut faults = Vec::new();
    for (number, id) in (1..).zip(&jobs) {
        let ended = wait(id);
        if ended["status"] != "succeeded" {
            faults.push(format!("q{number}: {ended:#}"));
        }
    }
    let faults = faults.join("\n");
    assert!(faults.is_empty(), "{partitions} partitions: {faults}");
}

/// A row. Nulls are text.
#[derive(Debug, Default)]
struct Row {
    exact: Vec<String>,
    floats: Vec<f64>,
}

impl Row {
    fn order(&self, other: &Row) -> Ordering {
        let floats = self.floats.iter().zip(&other.floats);
        let floats = floats.map(|(one, other)| one.total_cmp(other));
        let exact = self.exact.cmp(&other.exact);
        floats.fold(exact, Ordering::then)
    }

    fn is_close(&self, other: &Row) -> bool {
        let mut floats = self.floats.iter().zip(&other.floats);
        self.exact == other.exact
            && self.floats.len() == other.floats.len()
            && floats.all(|(one, other)| (one - other).abs() <= TOLERANCE * one.abs())
    }
}

/// The rows of a query's output, in an order of their own.
fn rows(output: &Path) -> Vec<Row> {
    let manifest = fs::read(output.join("_weft.manifest")).expect("an output has a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest is JSON");
    let mut rows = Vec::new();
    for listed in manifest["files"].as_array().expect("it lists files") {
        let path = output.join(listed["name"].as_str().expect("files have names"));
        let file = File::open(path).expect("what the manifest lists is there");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("it is Parquet");
        for batch in reader.build().expect("a reader") {
            rows.extend(rows_of(&batch.expect("it reads")));
        }
    }
    rows.sort_by(Row::order);
    rows
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|column| {
        let text = ArrayFormatter::try_new(column, &options).expect("it is printed");
        (column.as_primitive_opt::<Float64Type>(), text)
    });
    let columns: Vec<_> = columns.collect();
    let row = |at: usize| {
        let mut row = Row::default();
        for (floats, text) in &columns {
            match floats {
                Some(floats) if floats.is_valid(at) => row.floats.push(floats.value(at)),
                _ => row.exact.push(text.value(at).to_string()),
            }
        }
        row
    };
    (0..batch.num_rows()).map(row).collect()
}

/// How the rows of a query differ in two folders of outputs.
fn difference(number: usize, one: &Path, other: &Path) -> Option<String> {
    let one = rows(&one.join(folder_of(number)));
    let other = rows(&other.join(folder_of(number)));
    if one.len() != ROWS[number - 1] || other.len() != one.len() {
        return Some(format!("q{number}: {} and {} rows", one.len(), other.len()));
    }
    let mut pairs = one.iter().zip(&other);
    let (one, other) = pairs.find(|(one, other)| !one.is_close(other))?;
    Some(format!("q{number}: {one:?} and {other:?}"))
}

#[test]
fn rows_depend_neither_on_tasks_nor_on_nodes() {
    let place = Place::new();
    let tables = place.path("tables");
    write_tables(&tables);
    let server = Server::start(&place.data(), &Setup::default());
    let (one, three, shared) = (place.path("one"), place.path("three"), place.path("shared"));
    for (partitions, out) in [(1, &one), (3, &three)] {
        let submit = |query: &Value| job::submit(&server, query);
        run_all(&tables, partitions, out, submit, |id| {
            job::wait(&server, id)
        });
    }
    let faults = (1..=22).filter_map(|number| difference(number, &one, &three));
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));

    // With as many tasks, nodes give the same bytes.
    let cluster = Cluster::start(1, 2);
    let submit = |query: &Value| {
        let accepted = cluster.ask_any(&Request::json("/v1/jobs", query));
        job::id_of(&accepted.ok())
    };
    run_all(&tables, 3, &shared, submit, |id| cluster.wait(id));
    let (found, expected) = (outputs::published(&shared), outputs::published(&three));
    outputs::assert_same(&found, &expected, "on two nodes");
}
