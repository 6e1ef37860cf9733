//! Numbers of tasks that follow from the bytes that were committed.

use weft_core::JobId;
use weft_protocol::{
    AdaptiveTasks, EdgeBytes, EdgeKind, EdgeRead, EdgeShape, Plan, ReadMode, StageShape,
    TASK_BYTES, TaskCommit, TaskRange,
};

use super::support::{Machine, another, commit, plan};
use crate::adaptive::share_of_room;
use crate::{CommitAnswer, Effect, JobState, State};

/// Tasks that share partitions as planned.
const PLANNED: u32 = 8;

/// Two stages write eight partitions and one, which a stage reads; another one merges ranges of what that wrote.
fn joined(split: &[u32]) -> Plan {
    let mut plan = plan(&[(2, None), (1, None), (PLANNED, Some(0)), (4, Some(2))]);
    let edge = |partitions: u32| {
        vec![EdgeShape {
            kind: EdgeKind::Materialised,
            partitions,
        }]
    };
    plan.stages[1].edges = edge(1);
    plan.stages[2].edges = edge(1);
    let adaptive = |stage: &mut StageShape, split: &[u32]| {
        let planned = TaskRange {
            first: 0,
            count: stage.n_tasks,
        };
        stage.reads[0].tasks = Some(planned);
        stage.adaptive = vec![AdaptiveTasks {
            planned,
            coalesce: true,
            split: split.to_vec(),
            settled: None,
        }];
    };
    adaptive(&mut plan.stages[2], split);
    plan.stages[2].reads.push(EdgeRead {
        stage: 1,
        edge: 0,
        mode: ReadMode::Broadcast,
        tasks: None,
    });
    adaptive(&mut plan.stages[3], &[]);
    plan.stages[3].reads[0].mode = ReadMode::Ranged;
    plan
}

fn shape(machine: &Machine, job: &JobId, stage: usize) -> StageShape {
    machine.job(job).plan().expect("it is planned").stages[stage].clone()
}

/// Commits the tasks of a stage as its plan now is, after a change. Returns the effects of the last one.
fn commit_stage(
    machine: &mut Machine,
    job: &JobId,
    stage: u32,
    change: impl Fn(&mut TaskCommit),
) -> Vec<Effect> {
    let epoch = machine.lease();
    let plan = machine.job(job).plan().expect("it is planned").clone();
    let mut effects = Vec::new();
    for task in 0..plan.stages[stage as usize].n_tasks {
        let mut commit = commit(&plan, stage, task, epoch);
        change(&mut commit);
        let answer;
        (answer, effects) = machine.commit(job, commit);
        assert_eq!(answer, CommitAnswer::Committed);
    }
    effects
}

fn of_bytes(all: u64, largest: u64) -> impl Fn(&mut TaskCommit) {
    move |commit: &mut TaskCommit| {
        commit.bytes = vec![EdgeBytes { all, largest }; commit.bytes.len()]
    }
}

/// A job whose first stages wrote so many bytes in each of two tasks.
fn after_writers(split: &[u32], all: u64, largest: u64) -> (Machine, JobId) {
    let mut machine = Machine::new();
    let job = machine.running(1, &joined(split));
    commit_stage(&mut machine, &job, 1, of_bytes(1 << 40, 1 << 40));
    assert_eq!(
        shape(&machine, &job, 2).n_tasks,
        PLANNED,
        "not before its inputs"
    );
    let effects = commit_stage(&mut machine, &job, 0, of_bytes(all, largest));
    let run = Effect::RunStage {
        job: job.clone(),
        stage: 2,
    };
    assert_eq!(effects, [run]);
    (machine, job)
}

#[track_caller]
fn check_n_tasks(split: &[u32], all: u64, largest: u64, expected: u32) {
    let (machine, job) = after_writers(split, all, largest);
    let shape = shape(&machine, &job, 2);
    let tasks = TaskRange {
        first: 0,
        count: expected,
    };
    assert_eq!(
        (shape.n_tasks, shape.reads[0].tasks),
        (expected, Some(tasks))
    );
    assert_eq!(shape.adaptive[0].settled, Some(expected));
}

#[test]
fn tasks_are_as_many_as_what_they_read_is_worth() {
    check_n_tasks(&[], 3 << 19, 1 << 19, 1);
    check_n_tasks(&[], TASK_BYTES + 1, TASK_BYTES, 3);
    check_n_tasks(&[], 100 * TASK_BYTES, 90 * TASK_BYTES, PLANNED);
    // Of 200, each of the planned tasks would have 25, and a partition has up to 50.
    check_n_tasks(&[0], 100 * TASK_BYTES, 25 * TASK_BYTES, PLANNED + 4);
    check_n_tasks(&[0], 100 * TASK_BYTES, 15 * TASK_BYTES, PLANNED);
}

#[test]
fn a_job_goes_on_with_the_tasks_that_are_settled() {
    let (mut machine, job) = after_writers(&[0], 1, 1);
    // Each task reads the broadcast once, and there is one task.
    commit_stage(&mut machine, &job, 2, of_bytes(3 * TASK_BYTES, 1));
    assert_eq!(shape(&machine, &job, 3).n_tasks, 3, "ranges of a sort");
    commit_stage(&mut machine, &job, 3, |_| ());
    let state = &machine.job(&job).state;
    assert!(matches!(state, JobState::Publishing(_)), "{state:?}");
}

#[test]
fn what_is_settled_stays_whoever_leads_and_whatever_comes_twice() {
    let (mut machine, job) = after_writers(&[], 1, 1);
    let settled = shape(&machine, &job, 2);
    let epoch = machine.lease();
    let late = another(commit(&joined(&[]), 0, 1, epoch));
    let late = TaskCommit {
        bytes: vec![EdgeBytes {
            all: 1 << 40,
            largest: 1 << 40,
        }],
        ..late
    };
    let (answer, effects) = machine.commit(&job, late);
    assert!(matches!(answer, CommitAnswer::Duplicate { .. }) && effects.is_empty());
    assert_eq!(shape(&machine, &job, 2), settled);
    // Tasks that do not run any more are not committed.
    let planned = commit(&joined(&[]), 2, 1, epoch);
    let (answer, _) = machine.commit(&job, planned);
    assert_eq!(answer, CommitAnswer::Stale { billed: false });
    // A member that starts from a snapshot derives the same.
    let bytes = serde_json::to_vec(&machine.state).expect("plain data");
    let restored: State = serde_json::from_slice(&bytes).expect("it is read");
    assert_eq!(restored, machine.state);
    assert_eq!(restored.pending_effects(), machine.state.pending_effects());
}

/// Near the bound of a plan, each stage has its share of the tasks that are left.
#[test]
fn room_for_more_tasks_does_not_depend_on_what_is_settled() {
    let mut stages: Vec<(u32, Option<u32>)> = vec![(100_000, None); 9];
    stages.extend([(30_000, Some(0)), (50_000, Some(0)), (10_000, Some(0))]);
    let mut stages = plan(&stages).stages;
    let adaptive = |count: u32, split: &[u32]| AdaptiveTasks {
        planned: TaskRange { first: 0, count },
        coalesce: true,
        split: split.to_vec(),
        settled: None,
    };
    stages[9].adaptive = vec![adaptive(30_000, &[0])];
    stages[10].adaptive = vec![adaptive(50_000, &[0])];
    stages[11].adaptive = vec![adaptive(10_000, &[])];
    let rooms = |stages: &[StageShape]| {
        (9..12)
            .map(|stage| share_of_room(stages, stage))
            .collect::<Vec<_>>()
    };
    // Of a million, 990,000 are planned.
    let expected = [3_750, 6_250, 0];
    assert_eq!(rooms(&stages), expected);
    for (stage, settled) in [(11, 1), (9, 33_750), (10, 56_250)] {
        let shape = &mut stages[stage];
        shape.adaptive[0].settled = Some(settled);
        shape.n_tasks = settled;
        assert_eq!(rooms(&stages), expected);
    }
}

#[test]
fn commits_that_do_not_tell_their_bytes_leave_tasks_as_planned() {
    let mut machine = Machine::new();
    let job = machine.running(1, &joined(&[0]));
    commit_stage(&mut machine, &job, 1, |commit| commit.bytes.clear());
    commit_stage(&mut machine, &job, 0, |commit| {
        if commit.task == 1 {
            commit.bytes.clear();
        }
    });
    let shape = shape(&machine, &job, 2);
    assert_eq!((shape.n_tasks, shape.adaptive[0].settled), (PLANNED, None));
}

#[test]
fn adaptive_tasks_that_do_not_fit_are_refused_by_name() {
    crate::plan::check(&joined(&[0])).expect("it fits");
    let check = |change: &dyn Fn(&mut StageShape)| {
        let mut plan = joined(&[0]);
        change(&mut plan.stages[2]);
        let refused = crate::plan::check(&plan).expect_err("it does not fit");
        assert!(refused.contains("stage `s2`"), "{refused}");
    };
    check(&|shape| shape.adaptive[0].planned.count = 0);
    check(&|shape| shape.adaptive[0].planned.first = u32::MAX);
    check(&|shape| shape.adaptive[0].settled = Some(1));
    // A broadcast is no part of a task's own, and the stage reads two edges.
    check(&|shape| shape.adaptive[0].split = vec![1]);
    check(&|shape| shape.adaptive[0].split = vec![2]);
    check(&|shape| shape.adaptive.push(shape.adaptive[0].clone()));
}
