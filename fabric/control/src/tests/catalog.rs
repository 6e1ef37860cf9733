use serde_json::json;
use weft_core::job::decode;
use weft_core::{ErrorCode, FunctionKind, FunctionRecord, PinnedFunction, Problem};

use super::support::{Machine, component, digest, job_id, spec_of};
use crate::{Answer, Command, ComponentRecord};

fn register(component: ComponentRecord) -> Command {
    Command::RegisterComponent { component }
}

fn submit(number: u64, map: &str) -> Command {
    Command::SubmitJob {
        job: job_id(number),
        spec: spec_of(map),
        idempotency: None,
    }
}

fn answers_new(machine: &mut Machine, component: ComponentRecord) -> bool {
    match machine.apply(register(component)).0 {
        Answer::Component { new, .. } => new,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_version_is_registered_once() {
    let mut machine = Machine::new();
    assert!(!answers_new(&mut machine, component("0.1.0", 1)));
    assert!(answers_new(&mut machine, component("0.2.0", 2)));
    let problem = machine.refusal(register(component("0.1.0", 3)));
    assert_eq!(problem.code, ErrorCode::VersionConflict);
    for part in [
        "`weblog` 0.1.0",
        digest(1).as_str(),
        "raise the version",
        "-dev",
    ] {
        assert!(problem.detail.contains(part), "{}", problem.detail);
    }
}

#[test]
fn a_dev_version_is_replaced_and_running_jobs_keep_what_they_had() {
    let mut machine = Machine::new();
    assert!(answers_new(&mut machine, component("0.2.0-dev", 2)));
    machine.effects(submit(1, "weblog@0.2.0-dev/parse"));
    assert!(answers_new(&mut machine, component("0.2.0-dev", 3)));
    machine.effects(submit(2, "weblog@0.2.0-dev/parse"));
    let pinned = |number| machine.job(&job_id(number)).functions[0].digest.clone();
    assert_eq!((pinned(1), pinned(2)), (digest(2), digest(3)));
    let catalog = &machine.tenant().catalog;
    assert!(catalog.holds(&digest(3)) && !catalog.holds(&digest(2)));
}

#[test]
fn the_newest_version_is_found_by_its_meaning_not_by_its_letters() {
    let mut machine = Machine::new();
    for (version, byte) in [("0.10.0", 10), ("0.9.0", 9), ("0.10.0-dev", 11)] {
        machine.effects(register(component(version, byte)));
    }
    let found = |version| {
        let record = machine.tenant().catalog.find("weblog", version);
        record.map(|record| record.version.clone())
    };
    assert_eq!(found(None).as_deref(), Some("0.10.0"));
    assert_eq!(found(Some("0.9.0")).as_deref(), Some("0.9.0"));
    assert_eq!(found(Some("0.9.1")), None);
    let record = machine.tenant().catalog.find("weblog", None);
    assert_eq!(record.map(|record| &record.digest), Some(&digest(10)));
}

#[track_caller]
fn check_unknown(map: &str, parts: &[&str]) {
    let problem = Machine::new().refusal(submit(1, map));
    assert_eq!(problem.code, ErrorCode::UnknownFunction);
    assert_eq!(problem.function.as_deref(), Some(map));
    for part in parts {
        assert!(
            problem.detail.contains(part),
            "`{}` lacks `{part}`",
            problem.detail
        );
    }
}

#[test]
fn an_unknown_function_is_refused_with_what_there_is() {
    check_unknown("other/parse", &["no component `other`", "weft deploy"]);
    check_unknown(
        "webolg/parse",
        &["no component `webolg`", "did you mean `weblog`?"],
    );
    check_unknown(
        "weblog@0.2.0/parse",
        &["`weblog` has no version 0.2.0", "it has 0.1.0"],
    );
    check_unknown(
        "weblog/pares",
        &[
            "no function `pares`",
            "`parse`, `daily-partial`, `daily`, `noop`; did you mean `parse`?",
        ],
    );
    check_unknown("weblog/noop", &["a task function, where a map is needed"]);
}

/// A machine with the component `geo-utils`, which has a scalar function, and its answer to a job with this stage.
fn submit_stage(stage: serde_json::Value) -> Result<Vec<String>, Problem> {
    let mut machine = Machine::new();
    let function = FunctionRecord {
        name: "km".into(),
        kind: FunctionKind::Scalar,
        summary: String::new(),
        deterministic: true,
    };
    machine.effects(register(ComponentRecord {
        name: "geo-utils".into(),
        functions: vec![function],
        ..component("1.0.0", 4)
    }));
    let document = json!({
        "name": "job",
        "input": { "points": { "format": "text", "uri": "/data/points.log" } },
        "stage": [stage],
        "output": { "out": { "from": "stage", "format": "parquet", "uri": "/out/" } },
    });
    let spec = decode(&document).expect("the document is right");
    let pinned = machine.tenant().pin_functions(&spec)?;
    Ok(pinned.iter().map(PinnedFunction::label).collect())
}

#[test]
fn functions_of_statements_are_pinned() {
    let sql = |sql: &str| {
        submit_stage(json!({ "name": "stage", "from": ["points"], "sql": sql }))
            .map_err(|problem| problem.detail)
    };
    let labels = Ok(vec!["geo-utils@1.0.0/km".to_owned()]);
    assert_eq!(sql("SELECT geo_utils.km(1) FROM points"), labels);
    assert_eq!(sql("SELECT \"geo-utils@1.0.0\".KM(1) FROM points"), labels);
    assert_eq!(sql("SELECT 'geo_utils.km(1)' FROM points"), Ok(vec![]));
    for (statement, part) in [
        ("SELECT geo_utils.kn(1)", "did you mean `km`?"),
        ("SELECT geoutils.km(1)", "did you mean `geo-utils`?"),
        (
            "SELECT weblog.parse(1)",
            "`weblog/parse` is a map function, where a scalar is needed",
        ),
    ] {
        let detail = sql(statement).expect_err("it is not there");
        assert!(detail.contains(part), "`{detail}` lacks `{part}`");
    }
    let map = json!({ "name": "stage", "from": "points", "map": "geo-utils/km" });
    let problem = submit_stage(map).expect_err("it is no map");
    let part = "`geo-utils/km` is a scalar function, where a map is needed";
    assert!(problem.detail.contains(part), "{problem}");
}
