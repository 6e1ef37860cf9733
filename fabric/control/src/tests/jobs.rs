use weft_core::{Epoch, ErrorCode, JobId, Problem};

use super::support::{Machine, another, commit, failure, plan, report, two_stages};
use crate::{Command, CommitAnswer, Effect, Ending, JobState, MAX_ATTEMPTS, Outcome, Step};
use weft_protocol::{EdgeRef, Plan, PublishedOutput, TaskCommit};

fn run_stage(job: &JobId, stage: u32) -> Effect {
    Effect::RunStage {
        job: job.clone(),
        stage,
    }
}

fn publish(job: &JobId) -> Effect {
    Effect::PublishJob { job: job.clone() }
}

fn archive(job: &JobId) -> Effect {
    Effect::ArchiveJob { job: job.clone() }
}

fn published(job: &JobId) -> Command {
    Command::JobPublished {
        lease: None,
        job: job.clone(),
        outputs: vec![PublishedOutput {
            name: "daily".into(),
            uri: Some("file:///out/daily/".into()),
            files: 1,
            rows: 2,
            bytes: 3,
        }],
    }
}

fn step_failed(job: &JobId, step: Step, code: ErrorCode) -> Command {
    Command::StepFailed {
        step,
        lease: None,
        job: job.clone(),
        problem: Problem::new(code, "it failed"),
        usage: Vec::new(),
    }
}

#[track_caller]
fn ending<'a>(machine: &'a Machine, job: &JobId) -> &'a Ending {
    match &machine.job(job).state {
        JobState::Ending(ending) => ending,
        other => panic!("the job has not ended: {other:?}"),
    }
}

#[track_caller]
fn check_failed(machine: &Machine, job: &JobId, parts: &[&str]) {
    let ending = ending(machine, job);
    assert_eq!(ending.outcome, Outcome::Failed);
    let detail = &ending.problem.as_ref().expect("it failed").detail;
    for part in parts {
        assert!(detail.contains(part), "`{detail}` lacks `{part}`");
    }
}

/// Commits all tasks of a stage, and gives the effects of the last commit.
fn commit_stage(
    machine: &mut Machine,
    job: &JobId,
    plan: &Plan,
    stage: u32,
    epoch: Epoch,
) -> Vec<Effect> {
    let mut last = Vec::new();
    for task in 0..plan.stages[stage as usize].n_tasks {
        assert_eq!(last, [], "only the last commit has effects");
        let answer;
        (answer, last) = machine.commit(job, commit(plan, stage, task, epoch));
        assert_eq!(answer, CommitAnswer::Committed);
    }
    last
}

#[test]
fn a_job_goes_from_step_to_step() {
    let plan = plan(&[(3, None), (2, Some(0)), (1, None), (4, Some(0))]);
    let mut machine = Machine::new();
    let job = machine.submit(1);
    let epoch = machine.lease();
    assert_eq!(
        machine.planned(&job, &plan),
        [run_stage(&job, 0), run_stage(&job, 2)]
    );
    assert_eq!(
        commit_stage(&mut machine, &job, &plan, 0, epoch),
        [run_stage(&job, 1), run_stage(&job, 3)]
    );
    assert_eq!(commit_stage(&mut machine, &job, &plan, 1, epoch), []);
    assert_eq!(commit_stage(&mut machine, &job, &plan, 2, epoch), []);
    assert_eq!(
        commit_stage(&mut machine, &job, &plan, 3, epoch),
        [publish(&job)]
    );
    assert_eq!(machine.effects(published(&job)), [archive(&job)]);
    assert_eq!(ending(&machine, &job).outcome, Outcome::Succeeded);
    assert_eq!(ending(&machine, &job).outputs.len(), 1);
    machine.effects(Command::JobArchived {
        job: job.clone(),
        archive: "a".into(),
    });
    let line = &machine.tenant().ended[&job];
    assert_eq!((line.outcome, line.tasks_done), (Outcome::Succeeded, 10));
    assert_eq!(machine.state.pending_effects(), []);
}

#[test]
fn stages_without_tasks_are_done_from_the_start() {
    let mut machine = Machine::new();
    let job = machine.submit(1);
    assert_eq!(machine.planned(&job, &plan(&[])), [publish(&job)]);
    let job = machine.submit(2);
    assert_eq!(machine.planned(&job, &plan(&[(0, None)])), [publish(&job)]);
    let job = machine.submit(3);
    let after_nothing = plan(&[(0, None), (2, Some(0))]);
    assert_eq!(machine.planned(&job, &after_nothing), [run_stage(&job, 1)]);
    let epoch = machine.lease();
    assert_eq!(
        commit_stage(&mut machine, &job, &after_nothing, 1, epoch),
        [publish(&job)]
    );
}

#[test]
fn a_plan_that_does_not_hold_together_is_a_failed_attempt() {
    let reading = |stage: u32, edge: u32| {
        let mut plan = two_stages();
        plan.stages[1].reads = vec![EdgeRef { stage, edge }.into()];
        plan
    };
    let mut uneven = two_stages();
    uneven.stages[1].n_tasks += 1;
    let endless = plan(&[(u32::MAX, None)]);
    let many_stages = plan(&[(1, None); 1_001]);
    let many_tasks = plan(&[(100_000, None); 11]);
    for wrong in [
        reading(1, 0),
        reading(2, 0),
        reading(0, 1),
        uneven,
        endless,
        many_stages,
        many_tasks,
    ] {
        let mut machine = Machine::new();
        let job = machine.submit(1);
        for _ in 1..MAX_ATTEMPTS {
            let again = Effect::PlanJob { job: job.clone() };
            assert_eq!(machine.planned(&job, &wrong), [again]);
        }
        assert_eq!(machine.planned(&job, &wrong), [archive(&job)]);
        check_failed(&machine, &job, &["the plan"]);
    }
}

#[test]
fn the_first_commit_of_a_task_wins() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let (old, new) = (machine.lease(), machine.lease_on("another"));
    let first = commit(&plan, 0, 0, old);
    assert_eq!(
        machine.commit(&job, first.clone()),
        (CommitAnswer::Committed, Vec::new())
    );
    let mut other = commit(&plan, 0, 0, new);
    other.attempt = 1;
    let same = CommitAnswer::Duplicate { same: true };
    assert_eq!(machine.commit(&job, other.clone()), (same, Vec::new()));
    other.written[0].xxh3 ^= 1;
    let different = CommitAnswer::Duplicate { same: false };
    assert_eq!(machine.commit(&job, other), (different, Vec::new()));
    let stage = &machine.job(&job).stages()[0];
    assert_eq!((stage.commits[&0].as_ref(), stage.duplicates), (&first, 2));
    // An attempt that failed after the task was committed is nobody's loss.
    let late = failure(ErrorCode::GuestTrap, 0, 0, new);
    assert_eq!(machine.fail(&job, late), []);
    assert!(machine.job(&job).stages()[0].failures.is_empty());
}

#[test]
fn attempts_of_a_nondeterministic_task_need_not_agree() {
    let mut plan = two_stages();
    plan.stages[0].deterministic = false;
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    machine.commit(&job, commit(&plan, 0, 0, epoch));
    let mut other = another(commit(&plan, 0, 0, epoch));
    other.written[0].xxh3 ^= 1;
    let (answer, _) = machine.commit(&job, other);
    assert_eq!(answer, CommitAnswer::Duplicate { same: true });
}

#[test]
fn reports_about_tasks_that_the_plan_lacks_are_ignored() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    for (stage, task) in [(0, 3), (1, 2), (2, 0), (u32::MAX, u32::MAX)] {
        let mut stray = commit(&plan, 0, 0, epoch);
        (stray.stage, stray.task) = (stage, task);
        let (answer, effects) = machine.commit(&job, stray);
        assert_eq!(
            (answer, effects),
            (CommitAnswer::Stale { billed: false }, Vec::new())
        );
        for code in [ErrorCode::Internal, ErrorCode::GuestTrap] {
            let effects = machine.fail(&job, failure(code, stage, task, epoch));
            assert_eq!(effects, [], "stage {stage}, task {task}");
        }
    }
    assert!(matches!(machine.job(&job).state, JobState::Running(_)));
}

#[test]
fn the_platforms_faults_are_tried_again_so_many_times() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    for _ in 1..MAX_ATTEMPTS {
        let effects = machine.fail(&job, failure(ErrorCode::StoreUnavailable, 0, 2, epoch));
        let again = Effect::RunTask {
            job: job.clone(),
            stage: 0,
            task: 2,
        };
        assert_eq!(effects, [again]);
    }
    // Another task has attempts of its own.
    let other = machine.fail(&job, failure(ErrorCode::StoreUnavailable, 0, 1, epoch));
    assert!(matches!(other[..], [Effect::RunTask { .. }]));
    let effects = machine.fail(&job, failure(ErrorCode::StoreUnavailable, 0, 2, epoch));
    assert_eq!(effects, [archive(&job)]);
    check_failed(
        &machine,
        &job,
        &["stage `s0`, task 2", "given up after 4 attempts"],
    );
}

/// The lines of a task that was cancelled are what one looks for.
#[test]
fn logs_of_attempts_that_end_after_their_job_are_kept_once() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    machine.effects(Command::CancelJob { job: job.clone() });
    let log = weft_protocol::LogRef {
        key: Some("log".into()),
        lines: 1,
        dropped: 0,
    };
    let mut failed = failure(ErrorCode::Internal, 0, 1, epoch);
    (failed.cancelled, failed.log) = (true, Some(log.clone()));
    let mut late = commit(&plan, 0, 2, epoch);
    late.log = log;
    for _ in 0..2 {
        machine.fail(&job, failed.clone());
        machine.commit(&job, late.clone());
    }
    let kept = ending(&machine, &job).failed_logs.iter();
    let kept: Vec<_> = kept.map(|log| (log.stage.as_str(), log.task)).collect();
    assert_eq!(kept, [("s0", 1), ("s0", 2)]);
}

#[test]
fn a_users_fault_ends_the_job_at_once() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    let mut failure = failure(ErrorCode::GuestTrap, 0, 1, epoch);
    failure.log = Some(weft_protocol::LogRef {
        key: Some("log".into()),
        lines: 1,
        dropped: 0,
    });
    assert_eq!(machine.fail(&job, failure), [archive(&job)]);
    check_failed(&machine, &job, &["stage `s0`, task 1: it failed"]);
    let ending = ending(&machine, &job);
    let failed = ending.failed_logs.iter();
    let failed: Vec<_> = failed.map(|log| (log.stage.as_str(), log.task)).collect();
    assert_eq!(failed, [("s0", 1)]);
    assert_eq!(
        ending.problem.as_ref().map(|problem| problem.code),
        Some(ErrorCode::GuestTrap)
    );
}

#[test]
fn planning_and_publishing_have_attempts_too() {
    for publishing in [false, true] {
        let mut machine = Machine::new();
        let job = machine.submit(1);
        let (step, other, again) = if publishing {
            let again = machine.planned(&job, &plan(&[]));
            (Step::Publish, Step::Plan, again)
        } else {
            let again = vec![Effect::PlanJob { job: job.clone() }];
            (Step::Plan, Step::Publish, again)
        };
        let failed = |step| step_failed(&job, step, ErrorCode::StoreUnavailable);
        // The report of a step that the job is not at costs it nothing.
        assert_eq!(machine.effects(failed(other)), []);
        for _ in 1..MAX_ATTEMPTS {
            assert_eq!(machine.effects(failed(step)), again);
        }
        let effects = machine.effects(failed(step));
        assert_eq!(effects, [archive(&job)]);
        check_failed(&machine, &job, &["it failed"]);
    }
}

/// Runs two stages whose last reading task tells `change`d sums, and gives the outcome.
fn conserved(change: impl Fn(&mut TaskCommit, &mut TaskCommit)) -> (Machine, JobId) {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    let mut writer = commit(&plan, 0, 2, epoch);
    let mut reader = commit(&plan, 1, 1, epoch);
    change(&mut writer, &mut reader);
    for commit in [
        commit(&plan, 0, 0, epoch),
        commit(&plan, 0, 1, epoch),
        writer,
        commit(&plan, 1, 0, epoch),
        reader,
    ] {
        let (answer, _) = machine.commit(&job, commit);
        assert_eq!(answer, CommitAnswer::Committed);
    }
    (machine, job)
}

#[test]
fn what_is_read_must_be_what_was_written() {
    let (machine, job) = conserved(|_, _| ());
    assert!(matches!(machine.job(&job).state, JobState::Publishing(_)));

    let stages = ["stage `s1`", "stage `s0`"];
    let check = |change: &dyn Fn(&mut TaskCommit, &mut TaskCommit)| {
        let (machine, job) = conserved(change);
        check_failed(&machine, &job, &stages);
        let problem = ending(&machine, &job).problem.clone().expect("it failed");
        assert_eq!(problem.code, ErrorCode::Internal);
    };
    // A segment that was dropped, and one that was doubled.
    check(&|_, reader| {
        reader.read[0].rows -= 1;
        reader.read[0].segments -= 1;
    });
    check(&|_, reader| {
        reader.read[0].rows += 1;
        reader.read[0].segments += 1;
    });
    // Rows that were lost inside a segment, a flipped byte, and two segments that changed places.
    check(&|_, reader| reader.read[0].rows -= 1);
    check(&|_, reader| reader.read[0].xxh3 ^= 1 << 40);
    check(&|writer, _| writer.written[0].xxh3 = writer.written[0].xxh3.rotate_left(1));
    // A writer that says nothing of its edge, and one whose sums overflow.
    check(&|writer, _| writer.written.clear());
    check(&|writer, _| writer.written[0].rows = u64::MAX);
}

#[test]
fn checksums_that_differ_are_told_apart_from_counts_that_do() {
    let (machine, job) = conserved(|_, reader| reader.read[0].xxh3 ^= 1);
    check_failed(&machine, &job, &["the checksums differ"]);
    let (machine, job) = conserved(|_, reader| reader.read[0].segments += 1);
    check_failed(&machine, &job, &["the checksums agree", "in 7 segments"]);
}

fn given_up(job: &JobId) -> [Command; 2] {
    let problem = Problem::new(ErrorCode::LimitExceeded, "its time is over");
    let job = job.clone();
    [
        Command::CancelJob { job: job.clone() },
        Command::EndJob { job, problem },
    ]
}

#[test]
fn a_job_can_be_given_up_until_all_is_committed() {
    let plan = two_stages();
    for (turn, outcome) in [(0, Outcome::Cancelled), (1, Outcome::Failed)] {
        let mut machine = Machine::new();
        let (planning, running) = (machine.submit(1), machine.running(2, &plan));
        for job in [planning, running] {
            assert_eq!(
                machine.effects(given_up(&job)[turn].clone()),
                [archive(&job)]
            );
            assert_eq!(ending(&machine, &job).outcome, outcome);
        }
        let publishing = machine.submit(3);
        machine.planned(
            &publishing,
            &Plan {
                stages: Vec::new(),
                ..plan.clone()
            },
        );
        assert_eq!(machine.effects(given_up(&publishing)[turn].clone()), []);
        assert_eq!(
            machine.effects(published(&publishing)),
            [archive(&publishing)]
        );
        assert_eq!(ending(&machine, &publishing).outcome, Outcome::Succeeded);
    }
}

#[test]
fn an_outcome_never_changes() {
    let plan = two_stages();
    type End = fn(&JobId) -> Command;
    let ends: [(End, Outcome); 4] = [
        (|job| given_up(job)[0].clone(), Outcome::Cancelled),
        (|job| given_up(job)[1].clone(), Outcome::Failed),
        (
            |job| step_failed(job, Step::Plan, ErrorCode::GuestError),
            Outcome::Failed,
        ),
        (published, Outcome::Succeeded),
    ];
    for (end, outcome) in ends {
        let mut machine = Machine::new();
        let job = machine.submit(1);
        let epoch = machine.lease();
        if outcome == Outcome::Succeeded {
            machine.planned(
                &job,
                &Plan {
                    stages: Vec::new(),
                    ..plan.clone()
                },
            );
        }
        assert_eq!(machine.effects(end(&job)), [archive(&job)]);
        assert_eq!(ending(&machine, &job).outcome, outcome);
        let decided = machine.job(&job).state.clone();
        machine.at_ms += 1;
        let [cancelled, ended] = given_up(&job);
        for later in [
            cancelled,
            ended,
            published(&job),
            step_failed(&job, Step::Plan, ErrorCode::Internal),
            Command::JobPlanned {
                lease: None,
                job: job.clone(),
                plan: plan.clone(),
                statement: None,
                usage: Vec::new(),
            },
            Command::CommitTasks {
                commits: vec![report(&job, 900, commit(&plan, 0, 0, epoch))],
            },
            Command::FailTask {
                job: job.clone(),
                failure: failure(ErrorCode::GuestTrap, 0, 0, epoch),
            },
        ] {
            assert_eq!(machine.effects(later.clone()), [], "{later:?}");
            assert_eq!(machine.job(&job).state, decided, "{later:?}");
        }
    }
}

#[test]
fn a_job_that_still_works_is_not_archived() {
    let mut machine = Machine::new();
    let job = machine.running(1, &two_stages());
    let archived = Command::JobArchived {
        job: job.clone(),
        archive: "a".into(),
    };
    let mut before = machine.state.clone();
    assert_eq!(machine.effects(archived), []);
    before.origins = machine.state.origins.clone();
    assert_eq!(machine.state, before);
}

#[test]
fn a_new_leader_derives_what_is_left_to_do() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let epoch = machine.lease();
    let pending = |machine: &Machine| -> Vec<Effect> {
        let effects = machine.state.pending_effects();
        effects.into_iter().map(|(_, effect)| effect).collect()
    };
    let job = machine.submit(1);
    assert_eq!(pending(&machine), [Effect::PlanJob { job: job.clone() }]);
    machine.planned(&job, &plan);
    assert_eq!(pending(&machine), [run_stage(&job, 0)]);
    machine.commit(&job, commit(&plan, 0, 1, epoch));
    assert_eq!(pending(&machine), [run_stage(&job, 0)]);
    for task in [0, 2] {
        machine.commit(&job, commit(&plan, 0, task, epoch));
    }
    assert_eq!(pending(&machine), [run_stage(&job, 1)]);
    commit_stage(&mut machine, &job, &plan, 1, epoch);
    assert_eq!(pending(&machine), [publish(&job)]);
    machine.effects(published(&job));
    assert_eq!(pending(&machine), [archive(&job)]);
    let second = machine.submit(2);
    assert_eq!(
        pending(&machine),
        [archive(&job), Effect::PlanJob { job: second }]
    );
}

/// A node that was given up goes on, and reports when its lease has lapsed.
#[test]
fn steps_under_a_lapsed_lease_change_nothing_and_are_free() {
    let mut machine = Machine::new();
    let job = machine.submit(1);
    let lapsed = machine.lease();
    machine.lease();
    let usage = || vec![super::support::usage("", 5)];
    for command in [
        Command::StepFailed {
            job: job.clone(),
            step: Step::Plan,
            lease: Some(lapsed),
            problem: Problem::new(ErrorCode::InvalidJob, "the user's fault"),
            usage: usage(),
        },
        Command::JobPlanned {
            job: job.clone(),
            lease: Some(lapsed),
            plan: two_stages(),
            statement: None,
            usage: usage(),
        },
    ] {
        assert_eq!(machine.effects(command), []);
        assert!(matches!(machine.job(&job).state, JobState::Planning(_)));
    }
    let usage = &machine.job(&job).usage[0];
    assert_eq!(
        (usage.billed.guest_cpu_ns, usage.platform.guest_cpu_ns),
        (0, 10)
    );
}
