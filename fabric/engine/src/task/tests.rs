use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use weft_core::job::OutputFormat;
use weft_core::{Epoch, Incarnation, JobId, Limits, TaskId};
use weft_protocol::FINGERPRINT;

use super::*;
use crate::expressions::NativeExpressions;
use crate::plan::{EdgePlan, Node, SinkPlan};

const EDGE: EdgeRef = EdgeRef { stage: 0, edge: 1 };

fn request() -> TaskRequest {
    TaskRequest {
        id: TaskId {
            job: JobId::new(1, 2),
            stage: 1,
            task: 0,
        },
        attempt: 3,
        epoch: Epoch(7),
        sequence: 11,
        agent: Incarnation::from_random([9; 16]),
    }
}

/// A stage that hands on what it reads, to an edge and to an output.
fn plan(folder: &Path, source: Option<EdgeRef>) -> StagePlan {
    let schema = Schema::new(vec![Field::new("key", DataType::Int64, false)]);
    let schema = Arc::new(schema);
    let source = match source {
        Some(edge) => Source::Shuffle {
            edge,
            from: "writer".into(),
            keys: vec![0],
            combine: None,
            schema: Arc::clone(&schema),
        },
        None => Source::Nothing,
    };
    StagePlan {
        fingerprint: FINGERPRINT.into(),
        job: JobId::new(1, 2),
        stage: 1,
        name: "reader".into(),
        seed: 0,
        started_ms: 0,
        limits: Limits::default(),
        source,
        nodes: vec![Node {
            work: NodeWork::Pass,
            children: Vec::new(),
            edges: vec![0],
            sinks: vec![0],
        }],
        edges: vec![EdgePlan {
            partitions: 2,
            keys: vec![0],
            combine: None,
            rows: EdgeRows::Sorted,
            schema: Arc::clone(&schema),
        }],
        sinks: vec![SinkPlan {
            output: "out".into(),
            folder: folder.to_str().expect("a plain name").into(),
            max_kept_bytes: None,
            stage: "reader".into(),
            format: OutputFormat::Csv,
            partition_by: Vec::new(),
            schema,
        }],
    }
}

/// Runs an attempt of a task that reads `source`, and is told what these edges hold.
async fn run(source: Option<EdgeRef>, inputs: Vec<EdgeInput>) -> Result<TaskCommit, TaskFailure> {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let reader = ObjectReader::new(blobs.clone());
    run_in(folder.path(), source, inputs, &blobs, reader).await
}

async fn run_in(
    folder: &Path,
    source: Option<EdgeRef>,
    inputs: Vec<EdgeInput>,
    blobs: &Blobs,
    reader: ObjectReader,
) -> Result<TaskCommit, TaskFailure> {
    let context = StageContext {
        job: JobId::new(1, 2),
        stage: 1,
        fingerprint: FINGERPRINT.into(),
        plan: "plan".into(),
        inputs,
        adaptive: Vec::new(),
        artefacts: BTreeMap::new(),
    };
    let run = TaskRun {
        request: request(),
        plan: Arc::new(plan(&folder.join("out"), source)),
        context: Arc::new(context),
        components: HashMap::new(),
        blobs: blobs.metered(),
        reader,
        spill_folder: folder.to_owned(),
        cancel: CancellationToken::new(),
        expressions: NativeExpressions::shared(&Session::new()),
        session: Session::new(),
    };
    run.run().await.result
}

fn input(edge: EdgeRef, objects: Vec<Option<ObjectRef>>) -> EdgeInput {
    EdgeInput {
        edge,
        expected: Sums::default(),
        objects,
    }
}

#[tokio::test]
async fn names_hold_the_life_of_the_agent_and_the_attempt() {
    let commit = run(Some(EDGE), vec![input(EDGE, vec![None])]).await;
    let commit = commit.expect("it ends");
    assert_eq!(commit.attempt_id(), request().attempt_id());
    let object = commit.object.expect("it writes an edge");
    assert_eq!(object.key, request().key("shuffle"));
    let staged = format!("{}-7-11-0-part-reader-00000.csv", request().agent);
    let files: Vec<_> = commit.files.iter().map(|file| &file.staged).collect();
    assert_eq!(files, [&staged]);
}

#[tokio::test]
async fn sums_are_told_for_each_edge_that_is_read() {
    let nothing = run(None, Vec::new()).await.expect("it ends");
    assert_eq!((nothing.read, nothing.written.len()), (Vec::new(), 1));
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let schema = Schema::new(vec![Field::new("key", DataType::Int64, false)]);
    let numbers = arrow::array::Int64Array::from(vec![5, 5, 6]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers)]);
    let rows = rows.expect("of one length");
    let mut writer = ObjectWriter::new(0, folder.path());
    for edge in 0..2 {
        let added = writer.add(edge, 0, rows.schema_ref(), std::slice::from_ref(&rows));
        added.expect("it encodes");
    }
    let written = writer.finish(&blobs, "object", 2).await;
    let (object, written) = written.expect("it is written");
    let other = input(EdgeRef { stage: 0, edge: 0 }, vec![None]);
    let inputs = vec![other, input(EDGE, vec![Some(object)])];
    let reader = ObjectReader::new(blobs.clone());
    let commit = run_in(folder.path(), Some(EDGE), inputs, &blobs, reader).await;
    let commit = commit.expect("it ends");
    assert_eq!(commit.read, [written[1]]);
    assert_eq!(commit.written[0].rows, 3);
}

#[tokio::test]
async fn edges_that_nobody_told_of_are_internal_problems() {
    let others = vec![input(EdgeRef { stage: 0, edge: 0 }, vec![None])];
    let failure = run(Some(EDGE), others).await.expect_err("it is not told");
    assert_eq!(failure.attempt_id(), request().attempt_id());
    assert_eq!(failure.problem.code, ErrorCode::Internal);
    let detail = &failure.problem.detail;
    assert!(detail.contains("edge 1 of stage `writer`"), "{detail}");
}

#[tokio::test]
async fn an_object_that_the_store_lost_is_named() {
    let gone = ObjectRef {
        key: "gone".into(),
        bytes: 100,
        index_xxh3: 0,
    };
    let inputs = vec![input(EDGE, vec![None, Some(gone)])];
    let failure = run(Some(EDGE), inputs).await.expect_err("it is gone");
    let lost = LostObject {
        stage: EDGE.stage,
        task: 1,
        key: "gone".into(),
    };
    assert_eq!(failure.lost, Some(lost));
    assert!(failure.problem.code.is_platform_fault());
}
