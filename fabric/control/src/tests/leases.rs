use weft_core::{Epoch, ErrorCode, TenantId};

use super::support::{Machine, commit, failure, lease, tenant_id, two_stages};
use crate::{ATTEMPTS_MAX, Answer, Command, CommitAnswer, Effect};

#[test]
fn epochs_only_grow() {
    let mut machine = Machine::new();
    let first = machine.lease();
    machine.effects(Command::ExecutorLost {
        epoch: first,
        failures: Vec::new(),
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
    });
    let restarted = machine.lease();
    let node = "node".into();
    machine.effects(Command::NodeStarted { node });
    let other: TenantId = "other".parse().expect("it is a tenant id");
    let Answer::Lease { epoch: foreign } = machine.apply(lease(other, "node")).0 else {
        panic!("it is a lease");
    };
    let before = machine.state.clone();
    for epoch in [lost, restarted, foreign, Epoch(0), Epoch(99)] {
        let answer = machine.commit(&job, commit(&plan, 0, 0, epoch));
        assert_eq!(answer, (CommitAnswer::Fenced, Vec::new()), "epoch {epoch}");
        for code in [ErrorCode::Internal, ErrorCode::GuestTrap] {
            let effects = machine.fail(&job, failure(code, 0, 0, epoch));
            assert_eq!(effects, [], "epoch {epoch}");
        }
    }
    assert_eq!(machine.state, before);
}

#[test]
fn a_restarted_node_loses_its_own_leases_only() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    let epoch = machine.lease();
    let node = "another".into();
    machine.effects(Command::NodeStarted { node });
    let (answer, _) = machine.commit(&job, commit(&plan, 0, 0, epoch));
    assert_eq!(answer, CommitAnswer::Committed);
}

#[test]
fn a_lost_executors_tasks_start_again_until_attempts_are_used_up() {
    let plan = two_stages();
    let mut machine = Machine::new();
    let job = machine.running(1, &plan);
    for attempt in 1..=ATTEMPTS_MAX {
        let epoch = machine.lease();
        let failures = vec![(job.clone(), failure(ErrorCode::Internal, 0, 1, epoch))];
        let effects = machine.effects(Command::ExecutorLost { epoch, failures });
        let again = Effect::RunTask {
            job: job.clone(),
            stage: 0,
            task: 1,
        };
        let given_up = Effect::ArchiveJob { job: job.clone() };
        let expected = if attempt < ATTEMPTS_MAX {
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
        Command::ExecutorLost { epoch, failures }
    };
    let mut foreign = super::support::envelope(machine.at_ms, lost());
    foreign.tenant = "other".parse().expect("it is a tenant id");
    assert_eq!(machine.state.apply(foreign).1, []);
    assert!(machine.state.leases.in_force(epoch, &tenant_id()));
    assert_eq!(machine.effects(lost()).len(), 1);
    assert_eq!(machine.effects(lost()), []);
}
