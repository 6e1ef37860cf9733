use weft_core::{ErrorCode, JobId};

use super::support::{Machine, envelope, job_id, join, spec, spec_of, tenant_id};
use crate::{
    Answer, Command, Effect, IDEMPOTENCY_MS, MAX_ENDED_JOBS, MAX_IDEMPOTENCY_KEYS,
    MAX_RUNNING_JOBS, Outcome, State,
};

fn submit(number: u64, key: Option<(&str, &str)>) -> Command {
    Command::SubmitJob {
        job: job_id(number),
        spec: spec(),
        idempotency: key.map(|(key, request)| (key.into(), request.into())),
    }
}

fn answer(job: JobId, new: bool) -> Answer {
    Answer::Job { job, new }
}

#[test]
fn a_key_gives_the_job_that_it_gave_before() {
    let mut machine = Machine::new();
    let plan = vec![Effect::PlanJob { job: job_id(1) }];
    let first = machine.apply(submit(1, Some(("key", "request"))));
    assert_eq!(first, (answer(job_id(1), true), plan));
    machine.at_ms += IDEMPOTENCY_MS - 1;
    let again = machine.apply(submit(2, Some(("key", "request"))));
    assert_eq!(again, (answer(job_id(1), false), Vec::new()));
    assert!(!machine.tenant().jobs.contains_key(&job_id(2)));
}

#[test]
fn a_key_with_another_request_is_a_conflict() {
    let mut machine = Machine::new();
    machine.effects(submit(1, Some(("key", "request"))));
    let problem = machine.refusal(submit(2, Some(("key", "another"))));
    assert_eq!(problem.code, ErrorCode::VersionConflict);
    assert!(problem.detail.contains("`key`"), "{}", problem.detail);
    machine.effects(submit(3, Some(("key-2", "another"))));
}

#[test]
fn a_key_expires() {
    let mut machine = Machine::new();
    machine.effects(submit(1, Some(("key", "request"))));
    machine.at_ms += IDEMPOTENCY_MS;
    let (given, _) = machine.apply(submit(2, Some(("key", "another"))));
    assert_eq!(given, answer(job_id(2), true));
}

#[test]
fn keys_have_a_bound_and_known_ones_still_answer() {
    let mut machine = Machine::new();
    for number in 0..MAX_IDEMPOTENCY_KEYS as u64 {
        let key = format!("key-{number}");
        machine.effects(submit(number, Some((&key, "request"))));
        machine.effects(Command::CancelJob {
            job: job_id(number),
        });
        let archive = "a".to_owned();
        machine.effects(Command::JobArchived {
            job: job_id(number),
            archive,
        });
    }
    let new = MAX_IDEMPOTENCY_KEYS as u64;
    let problem = machine.refusal(submit(new, Some(("one-more", "request"))));
    let day_s = IDEMPOTENCY_MS / 1_000;
    assert_eq!(
        (problem.code, problem.retry_after_s),
        (ErrorCode::Busy, Some(day_s))
    );
    // The index of expiry is not in a snapshot.
    let snapshot = serde_json::to_vec(&machine.state).expect("it is plain data");
    let restored: State = serde_json::from_slice(&snapshot).expect("it is read");
    assert_eq!(restored, machine.state);
    let (given, _) = machine.apply(submit(new, Some(("key-7", "request"))));
    assert_eq!(given, answer(job_id(7), false));
    machine.effects(submit(new, None));
    machine.at_ms += IDEMPOTENCY_MS;
    machine.effects(submit(new + 1, Some(("one-more", "request"))));
}

#[test]
fn a_key_of_a_refused_job_is_free() {
    let mut machine = Machine::new();
    let refused = Command::SubmitJob {
        job: job_id(1),
        spec: spec_of("weblog/none"),
        idempotency: Some(("key".into(), "request".into())),
    };
    machine.refusal(refused);
    let (given, _) = machine.apply(submit(2, Some(("key", "another"))));
    assert_eq!(given, answer(job_id(2), true));
}

#[test]
fn a_command_that_comes_twice_makes_one_job() {
    let mut machine = Machine::new();
    machine.effects(submit(1, None));
    machine.effects(Command::CancelJob { job: job_id(1) });
    let twice = (answer(job_id(1), false), Vec::new());
    assert_eq!(machine.apply(submit(1, None)), twice);
    machine.effects(Command::JobArchived {
        job: job_id(1),
        archive: "a".into(),
    });
    assert_eq!(machine.apply(submit(1, None)), twice);
    assert_eq!(
        machine.tenant().ended[&job_id(1)].outcome,
        Outcome::Cancelled
    );
}

#[test]
fn a_tenant_has_so_many_jobs_and_no_more() {
    let mut machine = Machine::new();
    for number in 0..MAX_RUNNING_JOBS as u64 {
        machine.submit(number);
    }
    let problem = machine.refusal(submit(5_000, None));
    assert_eq!(problem.code, ErrorCode::Busy);
    machine.effects(Command::CancelJob { job: job_id(0) });
    machine.effects(Command::JobArchived {
        job: job_id(0),
        archive: "a".into(),
    });
    machine.submit(5_000);
}

#[test]
fn the_oldest_lines_of_ended_jobs_go_first() {
    let mut machine = Machine::new();
    let n_jobs = MAX_ENDED_JOBS as u64 + 3;
    for number in 0..n_jobs {
        let job = machine.submit(number);
        machine.effects(Command::CancelJob { job: job.clone() });
        let archive = format!("archive/{number}");
        machine.effects(Command::JobArchived { job, archive });
    }
    let ended = &machine.tenant().ended;
    assert_eq!(ended.len(), MAX_ENDED_JOBS);
    assert!(!ended.contains_key(&job_id(2)) && ended.contains_key(&job_id(3)));
    let last = &ended[&job_id(n_jobs - 1)];
    assert_eq!(last.archive, format!("archive/{}", n_jobs - 1));
    assert_eq!(
        (last.name.as_str(), &last.tags),
        ("weblog-daily", &spec().tags)
    );
    assert!(machine.tenant().jobs.is_empty());
}

#[test]
fn tenants_do_not_see_each_other() {
    let mut machine = Machine::new();
    machine.submit(1);
    let mut foreign = envelope(machine.at_ms, 1_000, Command::CancelJob { job: job_id(1) });
    foreign.tenant = "other".parse().expect("it is a tenant id");
    let (answer, _) = machine.state.apply(foreign);
    assert!(matches!(answer, Answer::Refused { problem } if problem.code == ErrorCode::NotFound));
    let before = machine.job(&job_id(1)).clone();
    assert_eq!(
        machine.state.tenant(&tenant_id()).expect("ours").jobs[&job_id(1)],
        before
    );
}

#[test]
fn time_never_goes_back() {
    let mut state = State::default();
    for (sequence, (at_ms, now_ms)) in (1..).zip([(5, 5), (3, 5), (9, 9)]) {
        state.apply(envelope(at_ms, sequence, join("n", 1)));
        assert_eq!(state.now_ms, now_ms);
    }
}
