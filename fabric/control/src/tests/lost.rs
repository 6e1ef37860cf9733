//! Objects that the store lost: whoever wrote one runs again, and those that read it wait.

use weft_core::{Epoch, ErrorCode, JobId};

use super::support::{Machine, another, commit, failure, two_stages};
use crate::bounds::{MAX_ATTEMPTS, MAX_MISSES, MAX_RERUNS};
use crate::{CommitAnswer, Effect, JobEventKind, JobState, Running, State};
use weft_protocol::{LostObject, ObjectRef, Plan, TaskCommit, TaskFailure};

fn key(commit: &TaskCommit) -> String {
    format!("{}-{}", commit.epoch, commit.sequence)
}

fn with_object(commit: TaskCommit) -> TaskCommit {
    let object = ObjectRef {
        key: key(&commit),
        bytes: 1,
        index_xxh3: 2,
    };
    TaskCommit {
        object: Some(object),
        ..commit
    }
}

/// A job of two stages whose first one is done.
struct Shuffled {
    machine: Machine,
    job: JobId,
    plan: Plan,
    epoch: Epoch,
}

impl Shuffled {
    fn of(plan: Plan) -> Self {
        let mut machine = Machine::new();
        let job = machine.running(1, &plan);
        let epoch = machine.lease();
        let mut shuffled = Self {
            machine,
            job,
            plan,
            epoch,
        };
        for task in 0..3 {
            let answer = shuffled.commit(with_object(shuffled.written(task)));
            assert_eq!(answer.0, CommitAnswer::Committed);
        }
        shuffled
    }

    fn written(&self, task: u32) -> TaskCommit {
        commit(&self.plan, 0, task, self.epoch)
    }

    fn commit(&mut self, commit: TaskCommit) -> (CommitAnswer, Vec<Effect>) {
        self.machine.commit(&self.job, commit)
    }

    /// A task of the second stage does not find what a commit of the first one names.
    fn miss(&mut self, reader: u32, missed: &TaskCommit) -> Vec<Effect> {
        let lost = LostObject {
            stage: 0,
            task: missed.task,
            key: key(missed),
        };
        let failure = TaskFailure {
            lost: Some(lost),
            ..failure(ErrorCode::Internal, 1, reader, self.epoch)
        };
        self.machine.fail(&self.job, failure)
    }

    fn run(&self, stage: u32, task: u32) -> Vec<Effect> {
        let job = self.job.clone();
        vec![Effect::RunTask { job, stage, task }]
    }

    fn run_stage(&self, stage: u32) -> Vec<Effect> {
        let job = self.job.clone();
        vec![Effect::RunStage { job, stage }]
    }

    fn running(&self) -> &Running {
        match &self.machine.job(&self.job).state {
            JobState::Running(running) => running,
            other => panic!("the job does not run: {other:?}"),
        }
    }

    #[track_caller]
    fn check_failed(&self, part: &str) {
        let JobState::Ending(ending) = &self.machine.job(&self.job).state else {
            panic!("the job has not ended");
        };
        let problem = ending.problem.as_ref().expect("it failed");
        assert!(problem.detail.contains(part), "{problem}");
    }
}

#[test]
fn the_writer_runs_again_and_then_its_readers() {
    let mut of = Shuffled::of(two_stages());
    let first = of.written(1);
    assert_eq!(of.miss(0, &first), of.run(0, 1));
    assert!(!of.running().stages[0].commits.contains_key(&1));
    let pending = of.machine.job(&of.job).pending_effects();
    assert_eq!(pending, of.run_stage(0), "readers wait");

    // Others that miss it, and whoever says so twice, change nothing.
    assert_eq!(of.miss(1, &first), Vec::new());
    assert_eq!(of.miss(0, &first), Vec::new());
    // Readers that fail otherwise meanwhile wait as well.
    let failed = failure(ErrorCode::Internal, 1, 1, of.epoch);
    assert_eq!(of.machine.fail(&of.job, failed), Vec::new());

    let second = with_object(another(first.clone()));
    let answer = of.commit(second.clone());
    assert_eq!(answer, (CommitAnswer::CommittedAgain, of.run_stage(1)));
    assert_eq!(of.running().n_rewritten(1), 1);
    assert_eq!(
        of.miss(0, &first),
        of.run(1, 0),
        "it had read the first one"
    );
    let stands = of.running().stages[0].commits[&1].object.clone();
    assert_eq!(stands, second.object);
    let failures = &of.running().stages[1].failures;
    assert_eq!(failures.get(&0), None, "it is not the reader's failure");

    for task in 0..2 {
        let read = commit(&of.plan, 1, task, of.epoch);
        assert_eq!(of.commit(read).0, CommitAnswer::Committed);
    }
    let job = of.machine.job(&of.job);
    assert!(
        matches!(job.state, JobState::Publishing(_)),
        "{:?}",
        job.state
    );
    let events = job.events.iter();
    let lost = events.filter(|event| event.kind == JobEventKind::ObjectLost);
    assert_eq!(lost.count(), 1);
    let usage = job.usage.iter().find(|one| one.stage == "s0");
    let usage = usage.expect("it was used");
    assert_eq!((usage.billed_attempts, usage.platform_attempts), (3, 1));
}

/// Attempts that had read the object before it was lost.
#[test]
fn readers_that_end_before_the_writer_are_checked_once_it_has_written() {
    for more in [0, 1] {
        let mut of = Shuffled::of(two_stages());
        let first = of.written(1);
        of.miss(0, &first);
        for task in 0..2 {
            let mut read = commit(&of.plan, 1, task, of.epoch);
            read.read[0].rows += more;
            assert_eq!(of.commit(read).0, CommitAnswer::Committed);
        }
        of.running();
        let second = with_object(another(first));
        assert_eq!(of.commit(second).0, CommitAnswer::CommittedAgain);
        match more {
            0 => assert!(matches!(
                of.machine.job(&of.job).state,
                JobState::Publishing(_)
            )),
            _ => of.check_failed("rows were lost"),
        }
    }
}

#[test]
fn what_is_left_is_the_sum_of_the_commits_that_stand() {
    let mut of = Shuffled::of(two_stages());
    let before = of.running().stages[0].clone();
    let first = of.written(2);
    of.miss(0, &first);
    let through_json = |state: &State| -> State {
        let json = serde_json::to_vec(state).expect("plain data");
        serde_json::from_slice(&json).expect("it is read again")
    };
    assert_eq!(through_json(&of.machine.state), of.machine.state);
    assert_ne!(of.running().stages[0].written, before.written);
    of.commit(with_object(another(first)));
    let after = &of.running().stages[0];
    assert_eq!(
        (&after.written, &after.bytes),
        (&before.written, &before.bytes)
    );
    assert_eq!(through_json(&of.machine.state), of.machine.state);
}

#[test]
fn an_object_that_is_lost_again_and_again_fails_the_job() {
    let mut of = Shuffled::of(two_stages());
    let mut written = of.written(0);
    for _ in 0..MAX_RERUNS {
        assert_eq!(of.miss(0, &written), of.run(0, 0));
        written = another(written);
        of.commit(with_object(written.clone()));
    }
    of.miss(0, &written);
    of.check_failed("task 0 of stage `s0` wrote: it was written 3 times again");
}

#[test]
fn a_reader_that_misses_what_is_there_is_given_up() {
    let mut of = Shuffled::of(two_stages());
    let never = another(of.written(0));
    for _ in 0..MAX_MISSES {
        assert_eq!(of.miss(0, &never), of.run(1, 0));
    }
    for _ in 1..MAX_ATTEMPTS {
        assert_eq!(of.miss(0, &never), of.run(1, 0));
    }
    of.miss(0, &never);
    of.check_failed("given up after 4 attempts");
}

#[test]
fn what_others_have_read_is_not_written_again_otherwise() {
    let mut plan = two_stages();
    plan.stages[0].deterministic = false;
    let mut of = Shuffled::of(plan);
    let first = of.written(1);
    assert_eq!(of.miss(0, &first), of.run(0, 1), "nobody has read it");
    let second = another(first);
    of.commit(with_object(second.clone()));
    of.commit(commit(&of.plan, 1, 1, of.epoch));
    of.miss(0, &second);
    of.check_failed("not deterministic");
}

#[test]
fn only_readers_of_an_object_take_its_commit_back() {
    let mut of = Shuffled::of(two_stages());
    let first = of.written(0);
    let lost = LostObject {
        stage: 1,
        task: 0,
        key: key(&first),
    };
    let failure = TaskFailure {
        lost: Some(lost),
        ..failure(ErrorCode::Internal, 1, 0, of.epoch)
    };
    assert_eq!(of.machine.fail(&of.job, failure), of.run(1, 0));
    assert_eq!(of.running().stages[0].commits.len(), 3);
    assert_eq!(
        of.running().stages[1].failures[&0],
        1,
        "it failed by itself"
    );
}
