//! Splits that filters leave, columns of folders, and estimates of rows.

use std::fs;
use std::path::Path;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion_common::ScalarValue;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;
use weft_core::ErrorCode;
use weft_core::job::{BadRecords, CsvFormat, Operator};
use weft_sql::Test;

use super::*;
use crate::scan::{Inputs, Reader};

/// Rows of a row group.
const GROUP_ROWS: i64 = 10;

fn parquet() -> InputFormat {
    InputFormat::Parquet {
        columns: Vec::new(),
        filter: Vec::new(),
    }
}

fn csv() -> InputFormat {
    InputFormat::Csv(CsvFormat {
        header: true,
        delimiter: b',',
        quote: None,
        columns: Vec::new(),
    })
}

/// Writes the column `n` with the numbers of `n_groups` row groups, from `first` on.
fn write(path: &Path, first: i64, n_groups: i64) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
    let numbers = Int64Array::from_iter_values(first..first + n_groups * GROUP_ROWS);
    let numbers: ArrayRef = Arc::new(numbers);
    let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("a column");
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(10))
        .build();
    let file = fs::File::create(path).expect("it is made");
    let writer = ArrowWriter::try_new(file, batch.schema(), Some(properties));
    let mut writer = writer.expect("a writer");
    writer.write(&batch).expect("it writes");
    writer.close().expect("it ends");
}

fn listed(folder: &TempDir, path: &str, format: InputFormat) -> Result<FileTable, Problem> {
    FileTable::of_path(
        &Inputs::default(),
        &InputSpec {
            name: path.to_owned(),
            format,
            uris: vec![format!("{}/{path}", folder.path().display())],
            bad_records: BadRecords::Fail,
        },
    )
}

fn filter(column: &str, operator: Operator, value: ScalarValue) -> ScanFilter {
    ScanFilter {
        column: column.to_owned(),
        any: vec![Test::Compare(operator, value)],
    }
}

fn of_n(operator: Operator, value: i64) -> ScanFilter {
    filter("n", operator, ScalarValue::Int64(Some(value)))
}

fn leaf(table: &FileTable, columns: Option<&[usize]>, filters: &[ScanFilter]) -> FilesLeaf {
    let tasks = TaskRange { first: 0, count: 2 };
    let leaf = table.leaf(columns, filters, None, tasks);
    leaf.expect("it is planned")
}

/// The parts that a leaf reads.
fn parts(leaf: &FilesLeaf) -> Vec<Part> {
    leaf.files.splits.iter().map(|split| split.part).collect()
}

/// The rows that a leaf reads, as text.
fn rows(leaf: &FilesLeaf) -> Vec<String> {
    let mut rows = Vec::new();
    for (position, split) in leaf.files.splits.iter().enumerate() {
        let mut reader = Reader::open(&Inputs::default(), &leaf.files, split).expect("it opens");
        while let Some(mut batch) = reader.next().expect("it reads") {
            if let Some(folders) = &leaf.folders {
                batch = folders.append(&batch, position).expect("it has values");
            }
            if let Some(columns) = &leaf.columns {
                batch = batch.project(columns).expect("its columns");
            }
            assert_eq!(*batch.schema(), *leaf.schema);
            let row = |row: usize| {
                let value = |column: &ArrayRef| ScalarValue::try_from_array(column, row);
                let values = batch.columns().iter().map(value);
                let values = values.map(|value| value.expect("a value").to_string());
                values.collect::<Vec<_>>().join(" ")
            };
            rows.extend((0..batch.num_rows()).map(row));
        }
    }
    rows
}

#[test]
fn row_groups_without_wanted_rows_are_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("a.parquet"), 0, 4);
    write(&folder.path().join("b.parquet"), 100, 2);
    let table = listed(&folder, "*.parquet", parquet()).expect("it is listed");
    let check = |filters: &[ScanFilter], expected: &[(usize, usize)]| {
        let leaf = leaf(&table, None, filters);
        let expected = expected.iter();
        let expected = expected.map(|(first, count)| Part::RowGroups {
            first: *first,
            count: *count,
        });
        assert_eq!(parts(&leaf), expected.collect::<Vec<_>>(), "{filters:?}");
        assert_eq!(leaf.slices.first(), Some(&0));
        assert_eq!(leaf.slices.last(), Some(&small(leaf.files.splits.len())));
        leaf
    };
    check(&[], &[(0, 4), (0, 2)]);
    let (least, most) = (of_n(Operator::Greater, 9), of_n(Operator::Less, 30));
    let read = check(&[least, most], &[(1, 2)]);
    assert_eq!(rows(&read).len(), 20);
    check(&[of_n(Operator::Equal, 105)], &[(0, 1)]);
    let mut apart = of_n(Operator::Equal, 5);
    apart
        .any
        .push(Test::Compare(Operator::Equal, ScalarValue::Int64(Some(25))));
    check(&[apart], &[(0, 1), (2, 1)]);
    let nothing = check(&[of_n(Operator::Equal, 60)], &[]);
    assert_eq!(nothing.slices, [0, 0, 0]);
}

#[test]
fn tasks_share_what_filters_leave() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in 0..8 {
        let path = folder.path().join(format!("{file}.parquet"));
        write(&path, file * 10, 1);
    }
    let table = listed(&folder, "*.parquet", parquet()).expect("it is listed");
    let leaf = leaf(&table, None, &[of_n(Operator::Less, 20)]);
    assert_eq!(leaf.slices, [0, 1, 2]);
}

#[test]
fn folders_give_columns() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, first) in [
        ("year=2025/city=Rome/a.parquet", 0),
        ("year=2025/city=__HIVE_DEFAULT_PARTITION__/a.parquet", 100),
        ("year=2026/city=S%C3%A3o%20Paulo/a.parquet", 200),
    ] {
        write(&folder.path().join(name), first, 1);
    }
    let table = listed(&folder, "year=*/city=*/*.parquet", parquet()).expect("it is listed");
    let fields = table.schema.fields().iter();
    let fields = fields.map(|field| (field.name().as_str(), field.data_type().clone()));
    let expected = [
        ("n", DataType::Int64),
        ("year", DataType::Int64),
        ("city", DataType::Utf8),
    ];
    assert_eq!(fields.collect::<Vec<_>>(), expected);

    let all = rows(&leaf(&table, None, &[]));
    assert_eq!(all.len(), 30);
    assert_eq!(all[0], "0 2025 Rome");
    assert_eq!(
        (&*all[10], &*all[29]),
        ("100 2025 NULL", "209 2026 São Paulo")
    );

    // The columns that are wanted, also if none is the files' own.
    let years = rows(&leaf(&table, Some(&[1]), &[]));
    assert_eq!((years.len(), &*years[0]), (30, "2025"));
    assert_eq!(rows(&leaf(&table, Some(&[2, 0]), &[]))[0], "Rome 0");
    assert_eq!(rows(&leaf(&table, Some(&[0]), &[]))[29], "209");
}

#[test]
fn filters_on_folders_leave_files_out() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [
        ("day=2026-01-01/x.csv", "a\n1\n"),
        ("day=2026-01-02/x.csv", "a\n2\n"),
        ("day=__HIVE_DEFAULT_PARTITION__/x.csv", "a\n3\n"),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
        fs::write(path, text).expect("it writes");
    }
    let table = listed(&folder, "day=*/*.csv", csv()).expect("it is listed");
    let read = |filter: ScanFilter| rows(&leaf(&table, None, &[filter]));
    // 2026-01-01 is day 20454.
    let day = |operator, day| filter("day", operator, ScalarValue::Date32(Some(day)));
    assert_eq!(read(day(Operator::Equal, 20_454)), ["1 2026-01-01"]);
    assert_eq!(read(day(Operator::Greater, 20_454)), ["2 2026-01-02"]);
    assert_eq!(read(day(Operator::Equal, 0)), [""; 0]);
    let null = |test| ScanFilter {
        column: "day".into(),
        any: vec![test],
    };
    assert_eq!(read(null(Test::IsNull)), ["3 NULL"]);
    assert_eq!(read(null(Test::IsNotNull)).len(), 2);
    // Of CSV, nothing is known of the files' own columns.
    assert_eq!(read(of_a()).len(), 3);
}

fn of_a() -> ScanFilter {
    filter("a", Operator::Equal, ScalarValue::Int64(Some(100)))
}

#[test]
fn columns_are_not_both_in_files_and_in_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("n=1/n=2/a.parquet"), 0, 1);
    let refused = |path: &str| {
        let problem = listed(&folder, path, parquet()).err();
        problem.expect("it is refused")
    };
    let problem = refused("n=*/*/*.parquet");
    assert_eq!(problem.code, ErrorCode::SchemaMismatch);
    assert!(problem.detail.contains("`n`"), "{problem}");
    let table = listed(&folder, "**/*.parquet", parquet()).expect("it is listed");
    assert_eq!(table.schema.fields().len(), 1);
    write(&folder.path().join("m=1/m=2/a.parquet"), 0, 1);
    let problem = refused("m=*/m=*/*.parquet");
    assert!(problem.detail.contains("two of its folders"), "{problem}");
}

#[test]
fn tables_have_rows_and_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("year=1/a.parquet"), 0, 4);
    write(&folder.path().join("year=2/b.parquet"), 20, 4);
    let files = listed(&folder, "year=*/*.parquet", parquet()).expect("it is listed");
    let table = files.table("t".into());
    assert_eq!((table.rows, table.bytes), (Some(80), Some(80 * 16)));
    let distinct: Vec<_> = table.columns.iter().map(|column| column.distinct).collect();
    assert_eq!(distinct, [Some(60), Some(2)]);
    assert!(table.columns.iter().all(|column| column.prunes));

    let lines: String = (1_000..2_000).map(|n| format!("{n},x\n")).collect();
    fs::write(folder.path().join("x.csv"), format!("n,t\n{lines}")).expect("it writes");
    let files = listed(&folder, "x.csv", csv()).expect("it is listed");
    let table = files.table("t".into());
    let rows = table.rows.expect("an estimate");
    assert!((1_000..1_010).contains(&rows), "{rows}");
    assert!(table.columns.iter().all(|column| !column.prunes));
}
