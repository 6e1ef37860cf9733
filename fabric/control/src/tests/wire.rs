//! Commands as they are replicated, and the state as it is kept in snapshots.

use serde_json::{Value, json};
use weft_core::{Epoch, ErrorCode, Problem};

use super::support::{
    Machine, commit, component, envelope, failure, job_id, lease, spec, tenant_id, two_stages,
    usage,
};
use crate::{Answer, COMMAND_VERSION, Command, Effect, Envelope, JobState, State};
use weft_protocol::PublishedOutput;

/// One command of each kind.
fn commands() -> Vec<Command> {
    let (job, plan, epoch) = (job_id(1), two_stages(), Epoch(1));
    let output = PublishedOutput {
        name: "daily".into(),
        uri: "file:///out/daily/".into(),
        files: 1,
        rows: 2,
        bytes: 3,
    };
    vec![
        Command::RegisterComponent {
            component: component("0.1.0", 1),
        },
        lease(tenant_id(), "node"),
        Command::SubmitJob {
            job: job.clone(),
            spec: spec(),
            idempotency: Some(("key".into(), "request".into())),
        },
        Command::JobPlanned {
            job: job.clone(),
            plan: plan.clone(),
            usage: vec![usage("", 5)],
        },
        Command::CommitTasks {
            commits: vec![(job.clone(), commit(&plan, 0, 0, epoch))],
        },
        Command::FailTask {
            job: job.clone(),
            failure: failure(ErrorCode::Internal, 0, 1, epoch),
        },
        Command::StepFailed {
            job: job.clone(),
            problem: Problem::new(ErrorCode::StoreUnavailable, "no answer"),
            usage: vec![usage("", 5)],
        },
        Command::JobPublished {
            job: job.clone(),
            outputs: vec![output],
        },
        Command::ExecutorLost {
            epoch,
            failures: vec![(job.clone(), failure(ErrorCode::Internal, 0, 2, epoch))],
        },
        Command::NodeStarted {
            node: "node".into(),
        },
        Command::EndJob {
            job: job.clone(),
            problem: Problem::new(ErrorCode::LimitExceeded, "its time is over"),
        },
        Command::CancelJob { job: job.clone() },
        Command::JobArchived {
            job,
            archive: "a".into(),
        },
    ]
}

fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let bytes = serde_json::to_vec(value).expect("it is plain data");
    serde_json::from_slice(&bytes).expect("what was written is read")
}

/// Adds a field that nobody knows to the object.
fn extend(value: &mut Value) {
    let object = value.as_object_mut().expect("it is an object");
    object.insert("of_a_later_version".into(), json!({ "a": [1, 2] }));
}

#[test]
fn commands_and_states_survive_json() {
    let (mut through_json, mut plain) = (State::default(), State::default());
    for (at_ms, command) in (1_000..).zip(commands()) {
        let envelope = envelope(at_ms, command);
        assert_eq!(round_trip(&envelope), envelope);
        let answers = plain.apply(envelope.clone());
        assert_eq!(through_json.apply(round_trip(&envelope)), answers);
        through_json = round_trip(&through_json);
        assert_eq!(through_json, plain);
    }
    let ended = &plain.tenants[&tenant_id()].ended;
    assert!(ended.contains_key(&job_id(1)), "the job came to its end");
}

#[test]
fn a_reader_ignores_fields_that_it_does_not_know() {
    for command in commands() {
        let envelope = envelope(1_000, command);
        let mut value = serde_json::to_value(&envelope).expect("it is plain data");
        extend(&mut value);
        let command = value["command"].as_object_mut().expect("an object");
        let body = command.values_mut().next().expect("its one variant");
        extend(body);
        for inner in ["component", "spec", "plan", "problem", "failure", "lease"] {
            if let Some(inner) = body.get_mut(inner) {
                extend(inner);
            }
        }
        assert_eq!(
            serde_json::from_value::<Envelope>(value).expect("it is read"),
            envelope
        );
    }
}

#[test]
fn a_command_of_a_newer_version_is_refused_and_changes_nothing() {
    for command in commands() {
        let mut state = State::default();
        let newer = Envelope {
            version: COMMAND_VERSION + 1,
            ..envelope(1_000, command)
        };
        let (answer, effects) = state.apply(newer);
        let Answer::Refused { problem } = answer else {
            panic!("{answer:?}")
        };
        assert!(problem.detail.contains("upgrade"), "{}", problem.detail);
        assert_eq!((state, effects), (State::default(), Vec::new()));
    }
}

#[test]
fn a_job_without_the_fields_of_later_versions_is_read() {
    let mut machine = Machine::new();
    let job = machine.running(1, &two_stages());
    machine.effects(Command::CancelJob { job: job.clone() });
    let mut value = serde_json::to_value(machine.job(&job)).expect("it is plain data");
    let ending = value["state"]["ending"].as_object_mut().expect("it ended");
    ending.remove("failed_logs").expect("it was there");
    let read: crate::Job = serde_json::from_value(value).expect("it is read");
    assert!(matches!(read.state, JobState::Ending(ending) if ending.failed_logs.is_empty()));
}

#[test]
fn an_effect_names_its_job() {
    let job = job_id(1);
    for effect in [
        Effect::PlanJob { job: job.clone() },
        Effect::RunStage {
            job: job.clone(),
            stage: 0,
        },
        Effect::RunTask {
            job: job.clone(),
            stage: 0,
            task: 0,
        },
        Effect::PublishJob { job: job.clone() },
        Effect::ArchiveJob { job: job.clone() },
    ] {
        assert_eq!(round_trip(&effect).job(), &job);
    }
}
