//! Reads of edges: by some of a stage's tasks, by each of them, in slices; and how plans with them are written.

use serde_json::{Value, json};
use weft_core::JobId;

use super::support::{Machine, commit, envelope, job_id, plan, two_stages};
use crate::{Command, CommitAnswer, Envelope, JobState};
use weft_protocol::{
    EdgeKind, EdgeRead, EdgeRef, EdgeShape, Plan, ReadMode, Sums, TaskCommit, TaskRange,
};

fn range(first: u32, count: u32) -> Option<TaskRange> {
    Some(TaskRange { first, count })
}

/// A stage whose first two tasks read partitions of `s0` and whose last three read slices of `s1`; all of
/// them read `s2`, and ranges of `s3`.
fn union() -> Plan {
    let mut plan = plan(&[(2, None), (4, None), (1, None), (3, None), (5, None)]);
    for (stage, partitions) in plan.stages.iter_mut().zip([2, 1, 1, 1]) {
        stage.edges = vec![EdgeShape {
            kind: EdgeKind::Materialised,
            partitions,
        }];
    }
    let read = |stage, mode, tasks| EdgeRead {
        stage,
        edge: 0,
        mode,
        tasks,
    };
    plan.stages[4].reads = vec![
        read(0, ReadMode::Partitioned, range(0, 2)),
        read(1, ReadMode::Sliced, range(2, 3)),
        read(2, ReadMode::Broadcast, None),
        read(3, ReadMode::Ranged, range(0, 5)),
    ];
    plan
}

/// Runs all tasks of the union, after a `change` of what they tell.
fn run(change: impl Fn(&mut TaskCommit)) -> (Machine, JobId) {
    let plan = union();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    for (stage, shape) in (0..).zip(&plan.stages) {
        for task in 0..shape.n_tasks {
            let mut commit = commit(&plan, stage, task, epoch);
            change(&mut commit);
            let (answer, _) = machine.commit(&job, commit);
            assert_eq!(answer, CommitAnswer::Committed);
        }
    }
    (machine, job)
}

#[track_caller]
fn check_conserved(change: impl Fn(&mut TaskCommit)) {
    let (machine, job) = run(change);
    let state = &machine.job(&job).state;
    assert!(matches!(state, JobState::Publishing(_)), "{state:?}");
}

/// `change` is of what the last stage tells.
#[track_caller]
fn check_lost(change: impl Fn(&mut TaskCommit), part: &str) {
    let (machine, job) = run(|commit| {
        if commit.stage == 4 {
            change(commit);
        }
    });
    let JobState::Ending(ending) = &machine.job(&job).state else {
        panic!("the job has not ended");
    };
    let detail = &ending.problem.as_ref().expect("it failed").detail;
    assert!(
        detail.contains("stage `s4`") && detail.contains(part),
        "{detail}"
    );
}

#[test]
fn tasks_of_a_stage_read_edges_of_their_own() {
    check_conserved(|_| ());
    let doubled = |position: usize| {
        move |commit: &mut TaskCommit| {
            if commit.task == 4 {
                commit.read[position].segments += 1;
            }
        }
    };
    check_lost(doubled(0), "stage `s0`");
    check_lost(doubled(1), "stage `s1`");
    check_lost(doubled(2), "stage `s2`");
    check_lost(doubled(3), "stage `s3`");
}

#[test]
fn a_broadcast_is_read_by_each_task() {
    let once = |commit: &mut TaskCommit| {
        if commit.task > 0 {
            commit.read[2] = Sums::default();
        }
    };
    check_lost(once, "for each of 5 tasks");
    let never_by_one = |commit: &mut TaskCommit| {
        if commit.task == 3 {
            commit.read.truncate(2);
        }
    };
    check_lost(never_by_one, "for each of 5 tasks");
    // Sums wrap, and so do their multiples.
    check_conserved(|commit| match commit.stage {
        2 => commit.written[0].rows = u64::MAX,
        4 => commit.read[2].rows = u64::MAX,
        _ => {}
    });
}

#[test]
fn reads_that_do_not_fit_are_refused_by_name() {
    crate::plan::check(&union()).expect("it fits");
    let check = |change: &dyn Fn(&mut [EdgeRead]), part: &str| {
        let mut plan = union();
        change(&mut plan.stages[4].reads);
        let refused = crate::plan::check(&plan).expect_err("it does not fit");
        assert!(
            refused.contains("the plan's stage `s4`") && refused.contains(part),
            "{refused}"
        );
    };
    // Ranges that the stage does not have.
    check(
        &|reads| reads[0].tasks = range(4, 2),
        "2 from 4 on cannot read edge 0 of stage 0",
    );
    check(
        &|reads| reads[1].tasks = range(1, 0),
        "0 from 1 on cannot read edge 0 of stage 1",
    );
    check(
        &|reads| reads[2].tasks = range(u32::MAX, 2),
        "2 from 4294967295 on cannot read edge 0 of stage 2",
    );
    // Partitions that the edge does not have.
    let partitions = |n: u32| format!("with {n} partitions");
    check(&|reads| reads[0].tasks = range(0, 3), &partitions(3));
    check(&|reads| reads[0].tasks = None, &partitions(5));
    check(&|reads| reads[0].mode = ReadMode::Broadcast, &partitions(1));
    check(&|reads| reads[0].mode = ReadMode::Sliced, &partitions(1));
    check(&|reads| reads[0].mode = ReadMode::Ranged, &partitions(1));
    // Edges that no stage before it writes.
    check(&|reads| reads[1].edge = 1, "edge 1 of stage 1");
    check(&|reads| reads[2].stage = 4, "edge 0 of stage 4");
}

/// A command with a plan, as JSON.
fn planned(plan: Plan) -> Value {
    let command = Command::JobPlanned {
        lease: None,
        job: job_id(1),
        plan,
        statement: None,
        usage: Vec::new(),
    };
    serde_json::to_value(envelope(1_000, 1, command)).expect("plain data")
}

/// The plan of a command that was written as `value`.
fn decoded(value: &Value) -> Plan {
    let envelope = Envelope::decode(value.to_string().as_bytes()).expect("it is read");
    match envelope.command {
        Command::JobPlanned { plan, .. } => plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plans_of_earlier_versions_are_read_and_written_as_before() {
    let edge = EdgeRef { stage: 0, edge: 0 };
    assert_eq!(two_stages().stages[1].reads, [EdgeRead::from(edge)]);
    let mut value = planned(two_stages());
    let reads = &value["command"]["job_planned"]["plan"]["stages"][1]["reads"];
    assert_eq!(reads.to_string(), r#"[{"stage":0,"edge":0}]"#);
    for version in [2, 3] {
        value["version"] = json!(version);
        assert_eq!(decoded(&value), two_stages());
    }
}

#[test]
fn reads_of_whole_edges_and_by_some_tasks_survive_json() {
    let value = planned(union());
    let expected = json!([
        { "stage": 0, "edge": 0, "tasks": { "first": 0, "count": 2 } },
        { "stage": 1, "edge": 0, "mode": "sliced", "tasks": { "first": 2, "count": 3 } },
        { "stage": 2, "edge": 0, "mode": "broadcast" },
        { "stage": 3, "edge": 0, "mode": "ranged", "tasks": { "first": 0, "count": 5 } },
    ]);
    let reads = &value["command"]["job_planned"]["plan"]["stages"][4]["reads"];
    assert_eq!(*reads, expected);
    assert_eq!(decoded(&value), union());
}
