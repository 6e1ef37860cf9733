//! Plans of jobs that shuffle without functions.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UnionFields, UnionMode};
use arrow::ipc::writer::StreamWriter;
use serde_json::json;
use weft_core::JobId;
use weft_core::job::{MAX_KEPT_BYTES, decode};
use weft_protocol::{EdgeRead, EdgeRef};

use super::*;
use crate::plan::StagePlan;

/// A job's plan, and the plans of its stages.
type Planned = (Plan, Vec<StagePlan>);

/// Plans a job that shuffles the rows of an Arrow stream by its first column, `key`.
async fn planned(data_type: DataType) -> Result<Planned, Problem> {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("rows.arrows");
    let fields = vec![
        Field::new("key", data_type, true),
        Field::new("n", DataType::Int64, false),
    ];
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, &Schema::new(fields))
        .and_then(|mut writer| writer.finish())
        .expect("a stream without rows");
    std::fs::write(&input, bytes).expect("it writes");
    let spec = json!({
        "name": "sorted",
        "input": { "rows": { "format": "arrow", "uri": input } },
        "stage": [{ "name": "sorted", "from": "rows", "shuffle": { "keys": ["key"], "partitions": 3 } }],
        "output": { "sorted": { "from": "sorted", "format": "arrow", "uri": folder.path().join("out") } },
    });
    let request = PlanRequest {
        job: JobId::new(1, 2),
        spec: decode(&spec).expect("it is right"),
        functions: Vec::new(),
        artefacts: BTreeMap::new(),
        started_ms: 0,
        check: false,
        tables: BTreeMap::new(),
        max_kept_bytes: MAX_KEPT_BYTES,
    };
    let blobs = Blobs::local(&folder.path().join("store")).expect("a folder");
    let (session, cancel) = (Session::new(), CancellationToken::new());
    let mut planner = Planner::new(&request, &blobs, HashMap::new(), &session, cancel);
    let plan = planner.plan().await?;
    let mut stages = Vec::new();
    for shape in &plan.stages {
        let bytes = blobs.get(&shape.plan).await.expect("it was written");
        stages.push(serde_json::from_slice(&bytes).expect("a plan"));
    }
    Ok((plan, stages))
}

fn source(stage: &StagePlan) -> &SchemaRef {
    match &stage.source {
        Source::Shuffle { schema, .. } => schema,
        Source::Files(_) | Source::Sql(_) | Source::Nothing => panic!("it reads no edge"),
    }
}

#[tokio::test]
async fn stages_list_the_edges_that_they_read() {
    let (plan, stages) = planned(DataType::Utf8).await.expect("it is planned");
    let reads: Vec<_> = plan.stages.iter().map(|stage| &stage.reads).collect();
    let read = EdgeRead::from(EdgeRef { stage: 0, edge: 0 });
    assert_eq!(reads, [&Vec::new(), &vec![read]]);
    let prints = stages.iter().map(|stage| stage.fingerprint.as_str());
    for fingerprint in prints.chain([plan.fingerprint.as_str()]) {
        assert_eq!(fingerprint, FINGERPRINT);
    }
}

#[tokio::test]
async fn a_stage_that_only_reads_an_input_has_its_name() {
    let (plan, stages) = planned(DataType::Utf8).await.expect("it is planned");
    let names: Vec<_> = plan.stages.iter().map(|stage| &stage.name).collect();
    assert_eq!(names, ["rows", "sorted"]);
    let Source::Shuffle { from, .. } = &stages[1].source else {
        panic!("it reads no edge")
    };
    assert_eq!(from, "rows");
}

#[tokio::test]
async fn keys_are_plain_on_edges() {
    let item = |data_type| Arc::new(Field::new("item", data_type, true));
    let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let pairs = DataType::FixedSizeList(item(words), 2);
    let (_, stages) = planned(pairs).await.expect("it is planned");
    let plain = DataType::List(item(DataType::Utf8));
    let written = &stages[0].edges[0].schema;
    assert_eq!(*written.field(0).data_type(), plain);
    assert_eq!(
        (source(&stages[1]), &stages[1].sinks[0].schema),
        (written, written)
    );
}

#[tokio::test]
async fn keys_without_one_form_are_refused() {
    let fields = UnionFields::from_fields(vec![Field::new("x", DataType::Float64, true)]);
    let refused = planned(DataType::Union(fields, UnionMode::Sparse)).await;
    let refused = refused.map(drop).expect_err("unions are no keys");
    assert_eq!(refused.code, ErrorCode::SchemaMismatch);
    assert!(refused.detail.contains("shuffles by `key`"), "{refused}");
}
