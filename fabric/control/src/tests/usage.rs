use weft_core::{Amounts, ErrorCode, FunctionUsage, JobId, Meters, PriceSheet, Problem};

use super::support::{Machine, another, commit, failure, plan, two_stages, usage};
use crate::{Command, CommitAnswer, JobState, Outcome, Step, USAGE_MINUTES_MAX, UsageSums};
use weft_protocol::TaskFailure;

/// CPU time that is billed, and that the platform bears: of the job, and of its tenant, which must be the same.
fn sums(machine: &Machine, job: &JobId) -> (u64, u64) {
    let add = |(billed, platform): (u64, u64), one: &FunctionUsage| {
        (
            billed + one.billed.guest_cpu_ns,
            platform + one.platform.guest_cpu_ns,
        )
    };
    let usage = &machine.tenant().usage;
    let minutes = usage.minutes.values().chain([&usage.older]);
    let of_tenant = minutes.flat_map(|minute| minute.values()).fold((0, 0), add);
    let of_job = machine.job(job).usage.iter().fold((0, 0), add);
    assert_eq!(of_job, of_tenant);
    let sheet = PriceSheet::default();
    let lines = machine.job(job).usage.iter();
    let receipt = lines
        .map(|line| sheet.amounts(&line.billed))
        .fold(Amounts::default(), |sum, amounts| sum.add(&amounts));
    assert_eq!(receipt, costs(machine), "the receipt and the usage");
    of_job
}

/// Costs of all usage of the tenant.
fn costs(machine: &Machine) -> Amounts {
    let usage = &machine.tenant().usage;
    let kept = usage.costs.values().flat_map(|costs| costs.values());
    let kept = kept.map(|cost| &cost.amounts);
    let all = kept.chain(usage.older_costs.values());
    all.fold(Amounts::default(), |sum, amounts| sum.add(amounts))
}

#[test]
fn bills_add_up() {
    let sheet = PriceSheet::default();
    let mut sums = UsageSums::default();
    let mut machine = Machine::new();
    let job = machine.running(1, &two_stages());
    let mut job = machine.job(&job).clone();
    job.usage.clear();
    // Fractions of a second and of a micro-unit, over more minutes than are kept apart.
    let line = |n: u64| FunctionUsage {
        stage: "s".into(),
        function: "c@1.0.0/f".into(),
        billed: Meters {
            guest_cpu_ns: 1 + n * 7_919_999 % 1_300_000_000,
            memory_byte_ns: u128::from(n) * 1_234_567_891,
            ..Meters::default()
        },
        ..FunctionUsage::default()
    };
    let mut invoked = Amounts::default();
    for n in 0..2_000 {
        let at_ms = n * 60_000 * (USAGE_MINUTES_MAX as u64 / 1_000);
        let used = [line(n)];
        let growth = job.add_usage(&used);
        sums.add_of_job(at_ms, &used, &growth);
        sums.add_of_invocations(at_ms, &used);
        invoked = invoked.add(&sheet.amounts(&used[0].billed));
    }
    let kept = sums.costs.values().flat_map(|costs| costs.values());
    let kept = kept.map(|cost| &cost.amounts);
    let all = kept.chain(sums.older_costs.values());
    let all = all.fold(Amounts::default(), |sum, amounts| sum.add(amounts));
    let receipt = sheet.amounts(&job.usage[0].billed);
    assert_eq!(
        all,
        receipt.add(&invoked),
        "one invocation a minute is a line each"
    );
    assert!(sums.minutes.len() <= USAGE_MINUTES_MAX && sums.costs.len() <= USAGE_MINUTES_MAX);
}

#[test]
fn committed_attempts_are_billed_and_duplicates_are_free() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    machine.commit(&job, commit(&plan, 0, 0, epoch));
    assert_eq!(sums(&machine, &job), (10, 0));
    let second = another(commit(&plan, 0, 0, epoch));
    let (answer, _) = machine.commit(&job, second.clone());
    assert_eq!(answer, CommitAnswer::Duplicate { same: true });
    let (answer, _) = machine.commit(&job, commit(&plan, 0, 0, epoch));
    assert_eq!(answer, CommitAnswer::Repeated, "it is the one that stands");
    assert_eq!(sums(&machine, &job), (10, 10));
    let usage = &machine.job(&job).usage[0];
    assert_eq!((usage.billed_attempts, usage.platform_attempts), (1, 1));
}

#[test]
fn the_platforms_faults_are_free_and_the_users_are_billed() {
    let plan = two_stages();
    for (code, expected) in [
        (ErrorCode::StoreUnavailable, (0, 10)),
        (ErrorCode::Busy, (0, 10)),
        (ErrorCode::Internal, (0, 10)),
        (ErrorCode::GuestTrap, (10, 0)),
        (ErrorCode::GuestError, (10, 0)),
        (ErrorCode::QueryError, (10, 0)),
        (ErrorCode::LimitExceeded, (10, 0)),
        (ErrorCode::SchemaMismatch, (10, 0)),
    ] {
        let mut machine = Machine::new();
        let job = machine.running(1, &plan);
        let epoch = machine.lease();
        machine.fail(&job, failure(code, 0, 0, epoch));
        assert_eq!(sums(&machine, &job), expected, "{code:?}");
    }
}

#[test]
fn a_fault_that_is_reported_twice_is_billed_once() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    for _ in 0..2 {
        machine.fail(&job, failure(ErrorCode::GuestTrap, 0, 0, epoch));
    }
    assert_eq!(sums(&machine, &job), (10, 10));
}

#[test]
fn what_ran_when_its_job_was_cancelled_is_billed_once() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    machine.effects(Command::CancelJob { job: job.clone() });
    for (billed, platform) in [(10, 0), (10, 10)] {
        let (answer, _) = machine.commit(&job, commit(&plan, 0, 0, epoch));
        let first = platform == 0;
        assert_eq!(answer, CommitAnswer::Stale { billed: first });
        assert_eq!(sums(&machine, &job), (billed, platform));
    }
    machine.fail(&job, failure(ErrorCode::GuestTrap, 0, 1, epoch));
    assert_eq!(sums(&machine, &job), (20, 10));
    let stopped = TaskFailure {
        cancelled: true,
        ..failure(ErrorCode::Internal, 0, 2, epoch)
    };
    for (billed, platform) in [(30, 10), (30, 20)] {
        machine.fail(&job, stopped.clone());
        assert_eq!(sums(&machine, &job), (billed, platform));
    }
    machine.effects(Command::JobPlanned {
        lease: None,
        job: job.clone(),
        plan,
        statement: None,
        usage: vec![usage("", 5)],
    });
    assert_eq!(sums(&machine, &job), (35, 20));
}

#[test]
fn what_comes_after_a_job_that_succeeded_is_free() {
    let plan = plan(&[(1, None)]);
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    machine.commit(&job, commit(&plan, 0, 0, epoch));
    machine.effects(Command::JobPublished {
        lease: None,
        job: job.clone(),
        outputs: Vec::new(),
    });
    machine.commit(&job, another(commit(&plan, 0, 0, epoch)));
    assert_eq!(sums(&machine, &job), (10, 10));
}

#[test]
fn planning_is_billed_unless_the_platform_failed() {
    let mut machine = Machine::new();
    let job = machine.submit(1);
    let failed = |code| Command::StepFailed {
        step: Step::Plan,
        lease: None,
        job: job.clone(),
        problem: Problem::new(code, "planning failed"),
        usage: vec![usage("", 5)],
    };
    machine.effects(failed(ErrorCode::StoreUnavailable));
    assert_eq!(sums(&machine, &job), (0, 5));
    machine.effects(failed(ErrorCode::GuestError));
    assert_eq!(sums(&machine, &job), (5, 5));
    let JobState::Ending(ending) = &machine.job(&job).state else {
        panic!("a user's fault ends the job")
    };
    assert_eq!(ending.outcome, Outcome::Failed);
}

#[test]
fn minutes_beyond_the_bound_are_folded_into_one_sum() {
    let plan = plan(&[(2, None)]);
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    let n_minutes = USAGE_MINUTES_MAX as u64 + 5;
    for _ in 0..n_minutes {
        machine.at_ms += 60_000;
        let mut one = commit(&plan, 0, 0, epoch);
        one.sequence = machine.at_ms;
        machine.commit(&job, one);
    }
    assert_eq!(sums(&machine, &job), (10, 10 * (n_minutes - 1)));
    let usage = &machine.tenant().usage;
    assert_eq!(usage.minutes.len(), USAGE_MINUTES_MAX);
    assert_eq!(usage.older.len(), 1);
}
