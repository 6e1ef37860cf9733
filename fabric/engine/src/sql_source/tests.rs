//! Rows that a task of SQL counts as read, whether or not its plan pulled all of them.

use arrow::array::{AsArray, Int64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion_physical_expr::PhysicalSortExpr;
use datafusion_physical_expr::expressions::Column;
use futures::StreamExt;
use tempfile::TempDir;
use weft_core::job::{BadRecords, InputFormat, UnknownFields};
use weft_core::{JobId, Limits};
use weft_protocol::{EdgeInput, EdgeRead, EdgeRef, FINGERPRINT, Sums, TaskRange};
use weft_shuffle::ObjectWriter;
use weft_store::{Blobs, Grants, Remote};

use super::*;
use crate::folders::FolderColumns;
use crate::plan::{FileSplit, FilesLeaf, FilesPlan, Part, SqlPlan};

mod keyed;

/// Segments that each of the writing tasks writes.
const SEGMENTS: i64 = 3;
const EDGE: EdgeRef = EdgeRef { stage: 0, edge: 0 };

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

/// The object of a task that writes three segments, and its sums.
async fn object(blobs: &Blobs, folder: &std::path::Path, task: u32) -> (ObjectRef, Sums) {
    let mut writer = ObjectWriter::new(task, folder);
    for n in 0..SEGMENTS {
        let column = Arc::new(Int64Array::from(vec![n; 5]));
        let batch = RecordBatch::try_new(schema(), vec![column]).expect("one column");
        let added = writer.add(EDGE.edge, 0, &schema(), &[batch]);
        added.expect("it is encoded");
    }
    let finished = writer.finish(blobs, &format!("object-{task}"), 1).await;
    let (object, sums) = finished.expect("it is written");
    (object, sums[0])
}

/// Sources of task `task` of two that read an edge of two writers, and the sums of what was written.
async fn sources(mode: ReadMode, per_writer: bool, task: u32) -> (SqlSources, Sums, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let mut expected = Sums::default();
    let mut objects = Vec::new();
    for writer in 0..2 {
        let (object, sums) = object(&blobs, folder.path(), writer).await;
        expected.add(&sums);
        objects.push(Some(object));
    }
    let reader = ObjectReader::new(blobs);
    let sources = sources_of(reader, objects, (mode, 2), per_writer, task);
    (sources, expected, folder)
}

/// Sources of a task of those that read the edge that `objects` are of.
fn sources_of(
    reader: ObjectReader,
    objects: Vec<Option<ObjectRef>>,
    (mode, count): (ReadMode, u32),
    per_writer: bool,
    task: u32,
) -> SqlSources {
    let read = EdgeRead {
        mode,
        tasks: Some(TaskRange { first: 0, count }),
        ..EdgeRead::from(EDGE)
    };
    let leaf = Leaf::Edge(EdgeLeaf {
        read,
        from: "writer".into(),
        schema: schema(),
        columns: None,
        per_writer,
    });
    let plan = plan(leaf);
    let context = StageContext {
        job: JobId::new(1, 2),
        stage: 1,
        fingerprint: FINGERPRINT.into(),
        plan: "plan".into(),
        inputs: vec![EdgeInput {
            edge: EDGE,
            expected: Sums::default(),
            objects,
        }],
        adaptive: Vec::new(),
        artefacts: Default::default(),
    };
    SqlSources {
        plan: Arc::new(plan),
        task,
        context: Arc::new(context),
        reader,
        account: MemoryAccount::new(1 << 20),
        inputs: Inputs::default(),
        cancel: CancellationToken::new(),
        counts: Arc::default(),
        functions: Arc::default(),
        keyed: None,
        ahead: Ahead::default(),
    }
}

fn plan(leaf: Leaf) -> StagePlan {
    StagePlan {
        fingerprint: FINGERPRINT.into(),
        job: JobId::new(1, 2),
        stage: 1,
        name: "reader".into(),
        seed: 0,
        started_ms: 0,
        limits: Limits::default(),
        source: Source::Sql(SqlPlan {
            variants: Vec::new(),
            leaves: vec![leaf],
            schema: schema(),
            is_last: true,
            functions: Default::default(),
        }),
        nodes: Vec::new(),
        edges: Vec::new(),
        sinks: Vec::new(),
    }
}

/// Pulls some batches of a stream, or all.
async fn pull(sources: &SqlSources, stream: usize, n: usize) -> usize {
    let rows = sources.open(0, stream).expect("it opens").take(n);
    let batches: Vec<_> = rows.collect().await;
    let n_rows = |batch: &Result<RecordBatch, _>| batch.as_ref().expect("a batch").num_rows();
    batches.iter().map(n_rows).sum()
}

#[tokio::test]
async fn rows_that_nobody_pulled_count_as_read() {
    for n in [0, 1, 4, usize::MAX] {
        let (sources, written, _folder) = sources(ReadMode::Broadcast, false, 1).await;
        pull(&sources, 0, n).await;
        let read = sources.finish().await.expect("indexes are there");
        assert_eq!(read, [written], "{n} batches were pulled");
    }
}

#[tokio::test]
async fn a_plan_that_starts_over_counts_its_rows_once() {
    let (sources, written, _folder) = sources(ReadMode::Broadcast, false, 1).await;
    pull(&sources, 0, 2).await;
    sources.start_over();
    let n = pull(&sources, 0, usize::MAX).await;
    assert_eq!(sources.counted().rows, n as u64);
    let read = sources.finish().await.expect("indexes are there");
    assert_eq!(read, [written]);
}

/// Whoever reads twice, as a loop join does, has read once.
#[tokio::test]
async fn rows_that_are_read_again_count_once() {
    let (sources, written, _folder) = sources(ReadMode::Broadcast, false, 0).await;
    for _ in 0..2 {
        assert_eq!(pull(&sources, 0, usize::MAX).await, 30);
    }
    assert_eq!(
        sources.finish().await.expect("indexes are there"),
        [written]
    );
}

/// A stream that ends has given out all: what it passed over would be lost.
#[tokio::test]
async fn rows_that_a_stream_passed_over_do_not_count() {
    let (sources, written, _folder) = sources(ReadMode::Broadcast, false, 0).await;
    pull(&sources, 0, usize::MAX).await;
    assert!(lock(&sources.counts).read.remove(&(0, 1, 0, 2)));
    let read = sources.finish().await.expect("indexes are there");
    assert_eq!(read[0].segments, written.segments - 1);
}

#[tokio::test]
async fn writers_are_dealt_out_and_each_may_be_a_stream() {
    let mut dealt = Sums::default();
    for task in 0..2 {
        let (sources, written, _folder) = sources(ReadMode::Sliced, false, task).await;
        assert_eq!(pull(&sources, 0, usize::MAX).await, 15);
        dealt.add(&sources.finish().await.expect("indexes are there")[0]);
        if task == 1 {
            assert_eq!(dealt, written);
        }
    }
    let (sources, written, _folder) = sources(ReadMode::Broadcast, true, 0).await;
    assert_eq!(sources.streams(0), 2);
    for stream in 0..2 {
        assert_eq!(pull(&sources, stream, usize::MAX).await, 15);
    }
    assert_eq!(
        sources.finish().await.expect("indexes are there"),
        [written]
    );
}

/// Tasks of another branch of a union have no part of the edge.
#[tokio::test]
async fn a_leaf_of_other_tasks_has_nothing() {
    let (sources, _, _folder) = sources(ReadMode::Broadcast, false, 2).await;
    assert_eq!(
        sources.finish().await.expect("nothing is read"),
        [Sums::default()]
    );
}

/// Sources of a task that reads two files of JSON, in folders that give the column `year`; `n` comes second.
fn of_files(folder: &TempDir) -> SqlSources {
    let split = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it writes");
        FileSplit {
            path: path.display().to_string(),
            file_bytes: text.len() as u64,
            e_tag: None,
            part: Part::Whole,
        }
    };
    let splits = vec![
        split("a", "{\"n\": 1}\n{\"n\": true}\n{\"n\": 2, \"x\": 0}\n"),
        split("b", "{\"n\": 3}\n"),
    ];
    let column = |name: &str| Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, true)]));
    let (years, numbers) = (column("year"), column("n"));
    let fields = years.fields().iter().chain(numbers.fields()).cloned();
    let whole = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let year = |year: &str| vec![Some(year.to_owned())];
    let leaf = Leaf::Files(FilesLeaf {
        files: FilesPlan {
            input: "rows".into(),
            format: InputFormat::Json {
                columns: Vec::new(),
                unknown_fields: UnknownFields::default(),
            },
            schema: numbers,
            splits,
            bad_records: BadRecords::Skip,
            dead_letters: None,
        },
        is_kept: false,
        slices: vec![0, 2],
        tasks: TaskRange { first: 0, count: 1 },
        folders: Some(FolderColumns {
            schema: years,
            values: vec![year("2025"), year("2026")],
        }),
        columns: Some(vec![1, 0]),
        limit: None,
        schema: whole,
    });
    let blobs = Blobs::local(folder.path()).expect("a folder");
    SqlSources {
        plan: Arc::new(plan(leaf)),
        task: 0,
        context: Arc::new(StageContext {
            job: JobId::new(1, 2),
            stage: 1,
            fingerprint: FINGERPRINT.into(),
            plan: "plan".into(),
            inputs: Vec::new(),
            adaptive: Vec::new(),
            artefacts: Default::default(),
        }),
        reader: ObjectReader::new(blobs),
        account: MemoryAccount::new(1 << 20),
        inputs: Inputs::default(),
        cancel: CancellationToken::new(),
        counts: Arc::default(),
        functions: Arc::default(),
        keyed: None,
        ahead: Ahead::default(),
    }
}

#[tokio::test]
async fn rows_of_files_have_the_columns_of_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = of_files(&folder);
    let rows = sources.open(0, 0).expect("it opens");
    let batches: Vec<_> = rows.collect().await;
    let mut found = Vec::new();
    for batch in &batches {
        let batch = batch.as_ref().expect("a batch");
        let numbers = |column: usize| {
            let column = batch.column(column).as_any().downcast_ref::<Int64Array>();
            column.expect("whole numbers").values()
        };
        let pairs = numbers(0).iter().zip(numbers(1));
        found.extend(pairs.map(|(year, n)| (*year, *n)));
    }
    assert_eq!(found, [(2025, 1), (2025, 2), (2026, 3)]);
    let read = sources.counted();
    let counted = (read.rows, read.bad_records, read.unknown_fields);
    assert_eq!(counted, (3, 1, 1));
}

/// Outputs that the cluster keeps are its own objects: leaves say that a table's are meant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cluster_keeps_in_a_bucket_is_read_by_leaves_of_tables_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let remote = Remote::in_memory("s3://cluster/weft").expect("it opens");
    let blobs = Blobs::of_remote(remote, Grants::default());
    let text = "{\"n\": 4}\n";
    let put = blobs.put("outputs/job-1/table/a", text).await;
    put.expect("it is written");
    for is_kept in [true, false] {
        let mut sources = of_files(&folder);
        let mut plan = StagePlan::clone(&sources.plan);
        let Source::Sql(sql) = &mut plan.source else {
            panic!("it is a statement");
        };
        let Leaf::Files(leaf) = &mut sql.leaves[0] else {
            panic!("it reads files");
        };
        leaf.is_kept = is_kept;
        leaf.slices = vec![0, 1];
        leaf.files.splits = vec![FileSplit {
            path: "s3://cluster/weft/outputs/job-1/table/a".into(),
            file_bytes: text.len() as u64,
            e_tag: None,
            part: Part::Whole,
        }];
        sources.plan = Arc::new(plan);
        sources.reader = ObjectReader::new(blobs.clone());
        let rows = sources.open(0, 0).expect("it opens");
        let batches: Vec<_> = rows.collect().await;
        let read = batches.iter().filter_map(|batch| batch.as_ref().ok());
        let n_rows: usize = read.map(RecordBatch::num_rows).sum();
        assert_eq!(n_rows, usize::from(is_kept));
        let is_refused = batches.iter().any(Result::is_err);
        assert_eq!(is_refused, !is_kept);
    }
}

#[tokio::test]
async fn records_that_are_left_out_are_told_by_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = of_files(&folder);
    assert!(sources.warnings().is_empty());
    assert_eq!(pull(&sources, 0, usize::MAX).await, 3);
    let warnings = sources.warnings();
    let file = format!("`{}`", folder.path().join("a").display());
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().all(|warning| warning.contains(&file)));
    assert!(warnings[0].starts_with("1 records"), "{warnings:?}");
    assert!(warnings[1].contains("`x`"), "{warnings:?}");
}

/// The order of the column, from large to small, nulls first.
fn descending() -> SortKeys {
    let options = SortOptions {
        descending: true,
        nulls_first: true,
    };
    let expr = Arc::new(Column::new("n", 0));
    let order = vec![PhysicalSortExpr::new(expr, options)];
    SortKeys::new(order, &nullable()).expect("numbers are compared as bytes")
}

fn nullable() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

/// The object of a task that writes sorted rows, some in each segment.
async fn sorted_object(
    blobs: &Blobs,
    folder: &std::path::Path,
    task: u32,
    rows: &[Option<i64>],
) -> (ObjectRef, Sums) {
    const SEGMENT_ROWS: usize = 4;
    let keys = descending();
    let mut writer = ObjectWriter::new(task, folder);
    for rows in rows.chunks(SEGMENT_ROWS) {
        let column = Arc::new(Int64Array::from(rows.to_vec()));
        let batch = RecordBatch::try_new(nullable(), vec![column]).expect("one column");
        let first = keys.key(&batch, 0).expect("a key");
        let added = writer.add_sorted(EDGE.edge, 0, &nullable(), &[batch], &first);
        added.expect("it is encoded");
    }
    let finished = writer.finish(blobs, &format!("sorted-{task}"), 1).await;
    let (object, sums) = finished.expect("it is written");
    (object, sums[0])
}

/// Rows of a stream of a range.
async fn pull_range(sources: &SqlSources, stream: usize) -> Vec<Option<i64>> {
    let opened = sources.open_range(0, stream, &descending());
    let batches: Vec<_> = opened.expect("it opens").collect().await;
    let mut rows = Vec::new();
    for batch in batches {
        let batch = batch.expect("a batch");
        rows.extend(batch.column(0).as_primitive::<Int64Type>().iter());
    }
    rows
}

/// Nulls, a number that most rows have, and a task that wrote nothing; written by four tasks, and sorted.
fn written() -> Vec<Vec<Option<i64>>> {
    let numbers = |n: i64| vec![None; n as usize].into_iter().chain((0..n).map(Some));
    let mut written: Vec<Vec<Option<i64>>> = vec![
        numbers(9).collect(),
        Vec::new(),
        numbers(2).chain(vec![Some(5); 70]).collect(),
        numbers(30).chain(vec![Some(5); 11]).collect(),
    ];
    for rows in &mut written {
        rows.sort_by_key(|row| (row.is_some(), row.map(std::cmp::Reverse)));
    }
    written
}

#[tokio::test]
async fn tasks_read_ranges_whose_sums_are_what_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let written = written();
    let (mut objects, mut expected) = (Vec::new(), Sums::default());
    for (task, rows) in (0..).zip(&written) {
        let (object, sums) = sorted_object(&blobs, folder.path(), task, rows).await;
        objects.push(Some(object));
        expected.add(&sums);
    }
    // A merge of the range of each task, one after the other, is a merge of all.
    let mut merged = written.concat();
    merged.sort_by_key(|row| (row.is_some(), row.map(std::cmp::Reverse)));
    for n_tasks in 1..8 {
        let reader = ObjectReader::new(blobs.clone());
        let (mut read, mut sums, mut shares) = (Vec::new(), Sums::default(), Vec::new());
        for task in 0..n_tasks {
            let ranged = (ReadMode::Ranged, n_tasks);
            let sources = sources_of(reader.clone(), objects.clone(), ranged, true, task);
            let mut range = Vec::new();
            for stream in 0..sources.streams(0) {
                range.extend(pull_range(&sources, stream).await);
            }
            range.sort_by_key(|row| (row.is_some(), row.map(std::cmp::Reverse)));
            shares.push(range.len());
            read.extend(range);
            sums.add(&sources.finish().await.expect("indexes are there")[0]);
        }
        assert_eq!(read, merged, "{n_tasks} tasks");
        assert_eq!(sums, expected, "{n_tasks} tasks");
        // Half of the rows have one value, and no task gets them all.
        assert!(n_tasks < 3 || shares.iter().all(|n| *n < 70), "{shares:?}");
    }
}

/// Rows are counted by whoever keeps them: a row that no task kept, or that two did, shows in the sums.
#[tokio::test]
async fn rows_of_a_range_are_counted_as_they_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let rows: Vec<Option<i64>> = (0..40).rev().map(Some).collect();
    let (object, written) = sorted_object(&blobs, folder.path(), 0, &rows).await;
    let ranged = (ReadMode::Ranged, 1);
    let sources = || {
        let reader = ObjectReader::new(blobs.clone());
        sources_of(reader, vec![Some(object.clone())], ranged, true, 0)
    };
    let unread = sources().finish().await.expect("the index is there");
    assert_eq!(unread, [written], "what nobody pulled");
    let pulled = sources();
    assert_eq!(pull_range(&pulled, 0).await, rows);
    assert_eq!(
        pulled.finish().await.expect("the index is there"),
        [written]
    );
    lock(&pulled.counts).kept.insert((0, 0, 0, 2), 3);
    let read = pulled.finish().await.expect("the index is there");
    assert_eq!((read[0].rows, read[0].xxh3), (39, written.xxh3));
}

/// The order of a range is that of its plan, and no other read has one.
#[tokio::test]
async fn ranges_are_opened_with_their_order() {
    let (sources, _, _folder) = sources(ReadMode::Broadcast, true, 0).await;
    assert!(sources.open_range(0, 0, &descending()).is_err());
    let ranged = sources_of(sources.reader, vec![None], (ReadMode::Ranged, 1), true, 0);
    assert!(ranged.open(0, 0).is_err());
}
