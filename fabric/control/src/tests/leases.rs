use weft_core::{Epoch, ErrorCode, TenantId};

use super::support::{Machine, commit, failure, join, lease, report, tenant_id, two_stages};
use crate::{Answer, Command, CommitAnswer, Effect, MAX_ATTEMPTS};

#[test]
fn epochs_only_grow() {
    let mut machine = Machine::new();
    let first = machine.lease();
    machine.effects(Command::ExecutorLost {
        epoch: first,
        failures: Vec::new(),
        steps: Vec::new(),
    });
    assert!(machine.lease() > first);
}

#[test]
fn what_was_done_under_a_lapsed_lease_never_counts() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let lost = machine.lease();
    machine.effects(Command::ExecutorLost {
        epoch: lost,
        failures: Vec::new(),
        steps: Vec::new(),
    });
    let restarted = machine.lease();
    machine.effects(join("node", 2));
    let other: TenantId = "other".parse().expect("it is a tenant id");
    let Answer::Lease { epoch: foreign } = machine.apply(lease(other, "node", 2)).0 else {
        panic!("it is a lease");
    };
    let mut before = machine.state.clone();
    for epoch in [lost, restarted, foreign, Epoch(0), Epoch(99)] {
        let answer = machine.commit(&job, commit(&plan, 0, 0, epoch));
        assert_eq!(answer, (CommitAnswer::Fenced, Vec::new()), "epoch {epoch}");
        for code in [ErrorCode::Internal, ErrorCode::GuestTrap] {
            let effects = machine.fail(&job, failure(code, 0, 0, epoch));
            assert_eq!(effects, [], "epoch {epoch}");
        }
    }
    before.origins = machine.state.origins.clone();
    assert_eq!(machine.state, before);
}

#[test]
fn a_restarted_node_loses_its_own_leases_only() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    machine.effects(join("another", 2));
    let (answer, _) = machine.commit(&job, commit(&plan, 0, 0, epoch));
    assert_eq!(answer, CommitAnswer::Committed);
}

#[test]
fn a_lost_executors_tasks_start_again_until_attempts_are_used_up() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    for attempt in 1..=MAX_ATTEMPTS {
        let epoch = machine.lease();
        let failures = vec![(job.clone(), failure(ErrorCode::Internal, 0, 1, epoch))];
        let effects = machine.effects(Command::ExecutorLost {
            epoch,
            failures,
            steps: Vec::new(),
        });
        let again = Effect::RunTask {
            job: job.clone(),
            stage: 0,
            task: 1,
        };
        let given_up = Effect::ArchiveJob { job: job.clone() };
        let expected = if attempt < MAX_ATTEMPTS {
            again
        } else {
            given_up
        };
        assert_eq!(effects, [expected], "attempt {attempt}");
    }
}

#[test]
fn an_executor_is_lost_once_and_by_its_own_tenant() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    let lost = || {
        let failures = vec![(job.clone(), failure(ErrorCode::Internal, 0, 1, epoch))];
        Command::ExecutorLost {
            epoch,
            failures,
            steps: Vec::new(),
        }
    };
    let mut foreign = super::support::envelope(machine.at_ms, 1_000, lost());
    foreign.tenant = "other".parse().expect("it is a tenant id");
    assert_eq!(machine.state.apply(foreign).1, []);
    assert!(machine.state.leases.in_force(epoch, &tenant_id()));
    assert_eq!(machine.effects(lost()).len(), 1);
    assert_eq!(machine.effects(lost()), []);
}

#[test]
fn an_earlier_life_of_an_agent_gets_no_lease() {
    let mut machine = Machine::new();
    machine.effects(join("node", 2));
    let refused = machine.refusal(lease(tenant_id(), "node", 1));
    assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
    let unknown = machine.refusal(lease(tenant_id(), "nowhere", 1));
    assert_eq!(unknown.code, ErrorCode::Busy, "{unknown}");
}

/// A leader is lost after its batch was applied; the next one gets the agent's report again.
#[test]
fn a_report_counts_once_whoever_proposes_it() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    let mut loser = commit(&plan, 0, 0, epoch);
    loser.sequence = 77;
    let first = report(&job, 501, commit(&plan, 0, 0, epoch));
    let second = report(&job, 502, loser);
    let commits = vec![first, second];
    let batch = || Command::CommitTasks {
        commits: commits.clone(),
    };
    let (answer, _) = machine.apply(batch());
    let expected = [
        CommitAnswer::Committed,
        CommitAnswer::Duplicate { same: true },
    ];
    assert_eq!(
        answer,
        Answer::Commits {
            answers: expected.to_vec()
        }
    );
    let mut before = machine.state.clone();
    machine.effects(join("node", 2));
    before.nodes = machine.state.nodes.clone();
    before.leases = machine.state.leases.clone();
    let (again, effects) = machine.apply(batch());
    assert_eq!(
        (again, effects),
        (answer, Vec::new()),
        "though its lease has lapsed"
    );
    before.origins = machine.state.origins.clone();
    assert_eq!(machine.state, before, "nothing counts twice");
}
