//! Sums over the committed attempts of a stage: wall time, the slowest task, bytes.

use weft_core::{FunctionUsage, Meters};

use super::support::{Machine, another, commit, plan, usage};
use crate::{Job, SlowestTask, Span, StageState, State};
use weft_protocol::TaskCommit;

/// The commit with a line of the fabric's own work behind that of its function. Task 3 says no start,
/// task `n` started `n` seconds after the first.
fn took(commit: TaskCommit, wall_ns: u64) -> TaskCommit {
    let own = FunctionUsage {
        function: "-".into(),
        billed: Meters {
            wall_ns,
            rows_in: 7,
            bytes_read: 100,
            bytes_written: 20,
            shuffle_bytes_read: 3,
            shuffle_bytes_written: 5,
            spilled_bytes: 11,
            ..Meters::default()
        },
        ..usage("s0", 0)
    };
    TaskCommit {
        started_ms: match commit.task {
            3 => 0,
            task => 5_000 + u64::from(task) * 1_000,
        },
        usage: vec![usage("s0", 10), own].into(),
        ..commit
    }
}

fn slowest(task: u32, wall_ns: u64) -> Option<SlowestTask> {
    Some(SlowestTask { task, wall_ns })
}

/// The first stage after the commits of `times`, in their order: task and wall time of each.
fn stage_after(times: &[(u32, u64)]) -> (Machine, StageState) {
    let plan = plan(&[(4, None)]);
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    for (task, wall_ns) in times {
        machine.commit(&job, took(commit(&plan, 0, *task, epoch), *wall_ns));
    }
    let stage = machine.job(&job).stages()[0].clone();
    (machine, stage)
}

#[test]
fn stages_sum_the_meters_of_committed_attempts() {
    let (_, stage) = stage_after(&[(2, 40), (0, 10), (1, 90)]);
    assert_eq!((stage.own.wall_ns, stage.own.rows_in), (140, 21));
    assert_eq!((stage.own.bytes_read, stage.own.bytes_written), (300, 60));
    assert_eq!(stage.own.shuffle_bytes_read, 9);
    assert_eq!(stage.own.shuffle_bytes_written, 15);
    assert_eq!(stage.own.spilled_bytes, 33);
    assert_eq!(
        stage.own.guest_cpu_ns, 0,
        "functions have lines of their own"
    );
    assert_eq!(stage.slowest, slowest(1, 90));
}

#[test]
fn the_first_of_equally_slow_tasks_is_named_in_any_order() {
    for times in [
        [(1, 50), (3, 50), (0, 1)],
        [(3, 50), (0, 1), (1, 50)],
        [(0, 1), (1, 50), (3, 50)],
    ] {
        assert_eq!(stage_after(&times).1.slowest, slowest(1, 50), "{times:?}");
    }
    assert_eq!(stage_after(&[]).1.slowest, None);
}

#[test]
fn a_stage_lasts_from_its_first_start_to_its_last_end() {
    const SECOND_NS: u64 = 1_000_000_000;
    let times = [(2, SECOND_NS), (3, 99 * SECOND_NS), (1, 7 * SECOND_NS)];
    let expected = Span {
        started_ms: 6_000,
        ended_ms: 13_000,
    };
    assert_eq!(stage_after(&times).1.span, Some(expected));
    assert_eq!(stage_after(&times[1..2]).1.span, None, "no start is known");
}

#[test]
fn a_second_attempt_adds_no_time() {
    let plan = plan(&[(2, None)]);
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    let first = took(commit(&plan, 0, 0, epoch), 10);
    machine.commit(&job, first.clone());
    machine.commit(&job, took(another(first), 1_000));
    let stage = &machine.job(&job).stages()[0];
    assert_eq!((stage.own.wall_ns, stage.duplicates), (10, 1));
    assert_eq!(stage.slowest, slowest(0, 10));
}

/// Executors report the time; a sum that overflowed would stop the state machine.
#[test]
fn times_beyond_all_bounds_saturate() {
    let (_, stage) = stage_after(&[(0, u64::MAX), (1, 1)]);
    assert_eq!(stage.own.wall_ns, u64::MAX);
    assert_eq!(stage.slowest, slowest(0, u64::MAX));
}

#[test]
fn sums_come_back_with_a_snapshot() {
    let (machine, stage) = stage_after(&[(3, 50), (1, 50), (0, 7)]);
    let bytes = serde_json::to_vec(&machine.state).expect("it is plain data");
    let read: State = serde_json::from_slice(&bytes).expect("what was written is read");
    assert_eq!(read, machine.state);
    let text = String::from_utf8(bytes).expect("it is JSON");
    assert!(!text.contains("\"slowest\""), "{text}");
    let mut jobs = read.tenants.values().flat_map(|one| one.jobs.values());
    let job: &Job = jobs.next().expect("the job is there");
    assert_eq!(job.stages()[0].slowest, slowest(1, 50));
    assert_eq!(job.stages()[0].own, stage.own);
    assert!(stage.span.is_some() && job.stages()[0].span == stage.span);
}
