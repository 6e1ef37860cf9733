//! What a task of SQL has read, whether or not its plan pulled all rows.

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use tempfile::TempDir;
use weft_core::job::{BadRecords, InputFormat, UnknownFields};
use weft_core::{JobId, Limits};
use weft_protocol::{EdgeInput, EdgeRead, EdgeRef, FINGERPRINT, TaskRange};
use weft_shuffle::ObjectWriter;
use weft_store::Blobs;

use super::*;
use crate::folders::FolderColumns;
use crate::plan::{FileSplit, FilesPlan, Part, SqlPlan};

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
    let read = EdgeRead {
        mode,
        tasks: Some(TaskRange { first: 0, count: 2 }),
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
            expected,
            objects,
        }],
        artefacts: Default::default(),
    };
    let sources = SqlSources {
        plan: Arc::new(plan),
        task,
        context: Arc::new(context),
        reader: ObjectReader::new(blobs),
        account: MemoryAccount::new(1 << 20),
        cancel: CancellationToken::new(),
        counts: Arc::default(),
        functions: Arc::default(),
    };
    (sources, expected, folder)
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
    assert!(lock(&sources.counts).read.remove(&(0, 1, 2)));
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
            artefacts: Default::default(),
        }),
        reader: ObjectReader::new(blobs),
        account: MemoryAccount::new(1 << 20),
        cancel: CancellationToken::new(),
        counts: Arc::default(),
        functions: Arc::default(),
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
