//! What an executor refuses before a task begins.

use std::collections::BTreeMap;

use weft_core::{Epoch, Incarnation, Limits, TaskId};
use weft_protocol::{EARLIER_FINGERPRINTS, FINGERPRINT};
use weft_sandbox::Role;

use super::*;
use crate::plan::{FunctionPlan, Node, NodeWork, Source, StagePlan, TaskPlan};

const PLAN: &str = "plan/0.json";

fn job() -> JobId {
    JobId::new(1, 2)
}

fn request() -> TaskRequest {
    TaskRequest {
        id: TaskId {
            job: job(),
            stage: 0,
            task: 3,
        },
        attempt: 2,
        epoch: Epoch(7),
        sequence: 11,
        agent: Incarnation::from_random([9; 16]),
    }
}

/// The plan of a set of tasks.
fn plan(fingerprint: &str) -> StagePlan {
    let function = FunctionPlan {
        stage: "tasks".into(),
        label: "component@1.0.0/task".into(),
        digest: Digest::from_sha256(&[1; 32]),
        function: "task".into(),
        params: Vec::new(),
        limits: Limits::default(),
        output: schema::empty(),
    };
    StagePlan {
        fingerprint: fingerprint.into(),
        job: job(),
        stage: 0,
        name: "tasks".into(),
        seed: 0,
        started_ms: 0,
        limits: Limits::default(),
        source: Source::Nothing,
        nodes: vec![Node {
            work: NodeWork::Task(TaskPlan {
                function,
                input: Vec::new(),
            }),
            children: Vec::new(),
            edges: Vec::new(),
            sinks: Vec::new(),
        }],
        edges: Vec::new(),
        sinks: Vec::new(),
    }
}

/// The problem of a task of a stage with this context's fingerprint, whose plan has the other one.
async fn refused(of_context: &str, of_plan: &str) -> Problem {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let text = serde_json::to_vec(&plan(of_plan)).expect("JSON");
    blobs.put(PLAN, text).await.expect("it writes");
    let engine = Engine::new(Role::Executor).expect("the engine starts");
    let files = FileCache::new(blobs, folder.path().join("cache"));
    let executor = Executor::new(engine, files, "0".into(), folder.path().to_owned());
    executor.open_stage(StageContext {
        job: job(),
        stage: 0,
        fingerprint: of_context.into(),
        plan: PLAN.into(),
        inputs: Vec::new(),
        adaptive: Vec::new(),
        artefacts: BTreeMap::new(),
    });
    let failure = executor.run(request()).await.result;
    let failure = failure.expect_err("it is refused");
    let (id, request) = (failure.attempt_id(), request());
    assert_eq!((id, failure.attempt), (request.attempt_id(), 2));
    assert_eq!((failure.stage, failure.task), (0, 3));
    assert_eq!(failure.problem.code, ErrorCode::Internal);
    failure.problem
}

#[tokio::test]
async fn stages_of_other_formats_are_refused() {
    let other = "other-hash · plan-json-9";
    for (of_context, of_plan) in [(other, FINGERPRINT), (FINGERPRINT, other)] {
        let problem = refused(of_context, of_plan).await;
        for part in [other, FINGERPRINT] {
            assert!(problem.detail.contains(part), "`{problem}` lacks `{part}`");
        }
    }
}

/// Artefacts come after the formats, so plans of earlier releases were taken if it is these that are missing.
#[tokio::test]
async fn components_without_an_artefact_are_refused() {
    let digest = Digest::from_sha256(&[1; 32]);
    for planned in EARLIER_FINGERPRINTS.into_iter().chain([FINGERPRINT]) {
        let problem = refused(planned, planned).await;
        assert!(problem.detail.contains(digest.as_str()), "{problem}");
    }
}

#[tokio::test]
async fn tasks_of_forgotten_jobs_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::local(folder.path()).expect("a folder");
    let engine = Engine::new(Role::Executor).expect("the engine starts");
    let files = FileCache::new(blobs, folder.path().join("cache"));
    let executor = Executor::new(engine, files, "0".into(), folder.path().to_owned());
    let failure = executor.run(request()).await.result;
    let failure = failure.expect_err("nobody knows the job");
    assert!(failure.cancelled && failure.problem.detail.contains("the job ended"));
}
