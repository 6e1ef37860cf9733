//! Rows with equal keys come out of a shuffle as one group of one partition, however their keys were written, and however
//! little memory there is.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int64Array, StringArray, StringViewArray,
};
use arrow::datatypes::{Int32Type, SchemaRef};
use arrow::ipc::reader::FileReader;
use arrow::util::display::array_value_to_string;
use tokio_util::sync::CancellationToken;
use weft_core::job::OutputFormat;
use weft_core::{Epoch, Incarnation, JobId, Limits, TaskId};
use weft_protocol::{FINGERPRINT, ObjectRef, Sums, TaskRequest};
use weft_sandbox::{MemoryAccount, TaskLog, monotonic_ns, unix_ns};
use weft_shuffle::ObjectReader;
use weft_sql::Session;
use weft_store::Blobs;

use super::*;
use crate::canonical::edge_schema;
use crate::exchange::EdgeOut;
use crate::expressions::NativeExpressions;
use crate::flow::Flow;
use crate::plan::{EdgeRows, Node, NodeWork, SinkPlan, Source, StagePlan};
use crate::sink::SinkWriter;
use crate::source::{PartitionRead, ShuffleSource};

const ROWS: u64 = 45_000;
const BATCH_ROWS: usize = 1000;
const PARTITIONS: u32 = 4;
const WORDS: [&str; 3] = ["one", "a word that is longer than a view", ""];
/// Pairs of a float and a word.
const GROUPS: usize = 15;
/// Enough for all rows.
const AMPLE_BYTES: u64 = 256 << 20;
/// Enough for some of them.
const SCARCE_BYTES: u64 = 2 << 20;

/// How keys are written.
#[derive(Debug, Clone, Copy)]
enum Written {
    Plain,
    Dictionaries,
    Views,
}

/// One of five values. `dirty`: zero has a sign in some rows, and NaNs differ in all.
fn float(row: u64, dirty: bool) -> Option<f64> {
    let noise = if dirty { row } else { 0 };
    let sign = (noise % 2) << 63;
    match row % 5 {
        0 => Some(f64::from_bits(sign)),
        1 => Some(f64::from_bits(0x7ff8_0000_0000_0000 | sign | noise)),
        2 => Some(1.5),
        3 => Some(-1.5),
        _ => None,
    }
}

fn word(row: u64) -> &'static str {
    WORDS[(row % 3) as usize]
}

fn words(written: Written) -> ArrayRef {
    let words = (0..ROWS).map(word);
    match written {
        Written::Plain => Arc::new(StringArray::from_iter_values(words)),
        Written::Dictionaries => Arc::new(words.collect::<DictionaryArray<Int32Type>>()),
        Written::Views => Arc::new(StringViewArray::from_iter_values(words)),
    }
}

/// All rows: a float and a word, which are the key, and the row's number.
fn rows(written: Written, dirty: bool) -> RecordBatch {
    let floats = Float64Array::from_iter((0..ROWS).map(|row| float(row, dirty)));
    let numbers = Int64Array::from_iter_values((0..ROWS).map(|row| row as i64));
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("float", Arc::new(floats), true),
        ("word", words(written), false),
        ("n", Arc::new(numbers), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).expect("of one length")
}

fn node(edges: Vec<usize>, sinks: Vec<usize>) -> Node {
    Node {
        work: NodeWork::Pass,
        children: Vec::new(),
        edges,
        sinks,
    }
}

fn environment(folder: &Path, task: u32, memory_bytes: u64, node: Node) -> TaskEnvironment {
    let limits = Limits {
        memory_bytes,
        ..Limits::default()
    };
    let plan = StagePlan {
        fingerprint: FINGERPRINT.into(),
        job: JobId::new(1, 2),
        stage: 0,
        name: "stage".into(),
        seed: 0,
        started_ms: 0,
        limits,
        source: Source::Nothing,
        nodes: vec![node],
        edges: Vec::new(),
        sinks: Vec::new(),
    };
    TaskEnvironment {
        plan: Arc::new(plan),
        task,
        components: HashMap::new(),
        account: MemoryAccount::new(memory_bytes),
        log: Arc::new(TaskLog::default()),
        cancel: CancellationToken::new(),
        spill_folder: folder.to_owned(),
        expressions: NativeExpressions::shared(&Session::new()),
        guest_cpu_ns: AtomicU64::new(0),
        usage: Mutex::default(),
        began_ns: (unix_ns(), monotonic_ns()),
        guests: Mutex::default(),
    }
}

/// A shuffle of rows by float and word.
struct Shuffle {
    folder: tempfile::TempDir,
    blobs: Blobs,
    schema: SchemaRef,
    object: ObjectRef,
    written: Sums,
}

impl Shuffle {
    /// Writes rows, of which `budget_bytes` are collected before some go on.
    async fn write(rows: &RecordBatch, budget_bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a folder");
        let schema = edge_schema(rows.schema_ref(), &[0, 1]);
        let plan = EdgePlan {
            partitions: PARTITIONS,
            keys: vec![0, 1],
            combine: None,
            rows: EdgeRows::Sorted,
            schema: Arc::clone(&schema),
        };
        let segments = Arc::new(Mutex::new(ObjectWriter::new(0, folder.path())));
        let edge = EdgeWriter::new(plan, 0, budget_bytes, Arc::clone(&segments));
        let environment = environment(folder.path(), 0, AMPLE_BYTES, node(vec![0], Vec::new()));
        let edges = vec![EdgeOut::Sorted(Box::new(edge.expect("an edge")))];
        let mut flow = Flow::open(&environment, edges, Vec::new())
            .await
            .expect("it opens");
        for start in (0..rows.num_rows()).step_by(BATCH_ROWS) {
            let batch = rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start));
            let pushed = flow.push(&environment, batch).await;
            pushed.expect("there is room");
        }
        flow.finish(&environment).await.expect("it ends");
        let mut edge = flow.edges.pop().expect("there is one");
        edge.flush(&environment).await.expect("it is written");
        assert_eq!(edge.rows(), rows.num_rows() as u64);
        drop(edge);
        let segments = Arc::into_inner(segments).expect("the edge is gone");
        let segments = segments.into_inner().expect("nobody panicked");
        let finished = segments.finish(&blobs, "object", 1).await;
        let (object, sums) = finished.expect("it is written");
        Self {
            folder,
            blobs,
            schema,
            object,
            written: sums[0],
        }
    }

    /// Reads a partition in this much memory.
    async fn read(&self, partition: u32, memory_bytes: u64) -> (PartitionRead, RecordBatch) {
        let folder = self.folder.path();
        let environment = environment(folder, partition, memory_bytes, node(Vec::new(), vec![0]));
        let (plan, request) = (self.sink(), request(partition));
        let sink = SinkWriter::new(plan, request.clone(), &self.blobs, folder).expect("a sink");
        let mut flow = Flow::open(&environment, Vec::new(), vec![sink])
            .await
            .expect("it opens");
        let source = ShuffleSource {
            reader: &ObjectReader::new(self.blobs.clone()),
            objects: &[Some(self.object.clone())],
            from: "writer",
            edge: 0,
            keys: &[0, 1],
            combine: None,
            schema: &self.schema,
        };
        let read = source.run(&environment, &mut flow).await;
        let read = read.expect("it reads");
        flow.finish(&environment).await.expect("it ends");
        let sink = flow.sinks.pop().expect("there is one");
        let mut batches = Vec::new();
        for file in sink.finish().expect("it is written") {
            let job = &request.id.job;
            let path = folder.join(format!("out/.weft-{job}/{}", file.staged));
            let file = FileReader::try_new(File::open(path).expect("it is there"), None);
            batches.extend(file.expect("Arrow").map(|batch| batch.expect("Arrow")));
        }
        let rows = concat_batches(&self.schema, &batches).expect("of one schema");
        (read, rows)
    }

    fn sink(&self) -> SinkPlan {
        let folder = self.folder.path().join("out");
        SinkPlan {
            output: "out".into(),
            folder: folder.to_str().expect("a plain name").into(),
            max_kept_bytes: None,
            stage: "stage".into(),
            format: OutputFormat::Arrow,
            partition_by: Vec::new(),
            schema: Arc::clone(&self.schema),
        }
    }
}

fn request(task: u32) -> TaskRequest {
    TaskRequest {
        id: TaskId {
            job: JobId::new(1, 2),
            stage: 1,
            task,
        },
        attempt: 0,
        epoch: Epoch(1),
        sequence: 1,
        agent: Incarnation::from_random([3; 16]),
    }
}

/// Checks that the groups of a partition are whole, and that their rows are in the order in which they were written. Returns
/// their keys.
fn check_groups(rows: &RecordBatch) -> Vec<String> {
    let text = |column: usize, row| match rows.column(column).is_null(row) {
        true => "null".to_owned(),
        false => array_value_to_string(rows.column(column), row).expect("text"),
    };
    let mut groups: BTreeMap<String, (usize, Vec<i64>)> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let key = format!("{}={}", text(0, row), text(1, row));
        let group = groups.entry(key).or_insert((row, Vec::new()));
        assert_eq!(
            group.0 + group.1.len(),
            row,
            "rows of a group lie side by side"
        );
        group.1.push(text(2, row).parse().expect("a number"));
    }
    for (key, (_, numbers)) in &groups {
        assert_eq!(numbers.len() as u64, ROWS / GROUPS as u64, "{key}");
        assert!(numbers.is_sorted(), "{key}");
    }
    groups.into_keys().collect()
}

/// Reads all partitions, and checks that each group is in one of them.
async fn read_all(shuffle: &Shuffle, memory_bytes: u64) -> Vec<RecordBatch> {
    let (mut keys, mut all, mut sums, mut spilled_runs) =
        (Vec::new(), Vec::new(), Sums::default(), 0);
    for partition in 0..PARTITIONS {
        let (read, rows) = shuffle.read(partition, memory_bytes).await;
        keys.extend(check_groups(&rows));
        sums.add(&read.sums);
        spilled_runs += read.spilled_runs;
        assert_eq!(read.spilled_bytes > 0, read.spilled_runs > 0);
        all.push(rows);
    }
    assert_eq!(
        spilled_runs > 0,
        memory_bytes == SCARCE_BYTES,
        "{spilled_runs}"
    );
    assert_eq!(sums, shuffle.written, "all that was written was read");
    keys.sort_unstable();
    let n = keys.len();
    keys.dedup();
    assert_eq!((n, keys.len()), (GROUPS, GROUPS), "{keys:?}");
    all
}

#[tokio::test]
async fn equal_keys_are_one_group_of_one_partition() {
    let plain = Shuffle::write(&rows(Written::Plain, false), AMPLE_BYTES).await;
    let expected = read_all(&plain, AMPLE_BYTES).await;
    for written in [Written::Plain, Written::Dictionaries, Written::Views] {
        for dirty in [false, true] {
            let rows = rows(written, dirty);
            let shuffle = Shuffle::write(&rows, AMPLE_BYTES).await;
            let what = format!("{written:?}, {dirty}");
            assert_eq!(shuffle.written, plain.written, "{what}");
            assert_eq!(read_all(&shuffle, AMPLE_BYTES).await, expected, "{what}");
        }
    }
}

#[tokio::test]
async fn groups_are_the_same_where_runs_are_spilled() {
    let plain = Shuffle::write(&rows(Written::Plain, false), AMPLE_BYTES).await;
    let expected = read_all(&plain, AMPLE_BYTES).await;
    for written in [Written::Plain, Written::Dictionaries, Written::Views] {
        // Many small segments, as of many tasks.
        let shuffle = Shuffle::write(&rows(written, true), 128 << 10).await;
        assert!(shuffle.written.segments > plain.written.segments);
        for memory_bytes in [AMPLE_BYTES, SCARCE_BYTES] {
            let found = read_all(&shuffle, memory_bytes).await;
            assert_eq!(found, expected, "{written:?}, {memory_bytes}");
        }
    }
}
