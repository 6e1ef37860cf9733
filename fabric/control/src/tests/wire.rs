//! Commands as they are replicated, and the state as it is kept in snapshots.

use serde_json::{Value, json};
use weft_core::{Epoch, ErrorCode, Meters, Problem};

use super::support::{
    Machine, commit, component, digest, envelope, failure, job_id, join, lease, report, spec,
    tenant_id, two_stages, usage,
};
use crate::{
    COMMAND_VERSION, CallOutcome, Command, Effect, Envelope, InlineOutput, JobState, State, Step,
    Unreadable,
};
use weft_core::job::{Destination, OutputSpec};
use weft_protocol::{IfTaken, PublishedOutput, TableChange, TableKind, TableStatement};

fn table(name: &str, if_taken: IfTaken) -> TableChange {
    TableChange::Put {
        name: name.into(),
        kind: TableKind::View,
        definition: "{}".into(),
        if_taken,
        extends: None,
    }
}

/// The output under another name and in another folder.
fn renamed(output: OutputSpec) -> OutputSpec {
    OutputSpec {
        name: "table".into(),
        to: Destination::Folder {
            path: "/out/table/".into(),
        },
        ..output
    }
}

/// One command of each kind.
fn commands() -> Vec<Command> {
    let (job, plan, epoch) = (job_id(1), two_stages(), Epoch(1));
    let output = PublishedOutput {
        name: "daily".into(),
        uri: Some("file:///out/daily/".into()),
        files: 1,
        rows: 2,
        bytes: 3,
    };
    vec![
        Command::RegisterComponent {
            component: component("0.1.0", 1),
        },
        join("node", 1),
        lease(tenant_id(), "node", 1),
        Command::GrantShards {
            executor: epoch,
            shards: vec![0, 7],
        },
        Command::BeginCall {
            key: "key".into(),
            request: "request".into(),
            by: "me".into(),
            ttl_s: Some(60),
        },
        Command::EndCall {
            key: "key".into(),
            by: "me".into(),
            outcome: Some(CallOutcome {
                label: "weblog@0.1.0/noop".into(),
                problem: None,
                output: None,
                output_bytes: 0,
                inline: InlineOutput::new(b"ok"),
                meters: Meters::default(),
            }),
        },
        Command::SubmitJob {
            job: job.clone(),
            spec: spec(),
            idempotency: Some(("key".into(), "request".into())),
        },
        Command::JobPlanned {
            lease: None,
            job: job.clone(),
            plan: plan.clone(),
            statement: Some(TableStatement {
                change: Some(table("daily", IfTaken::Replace)),
                outputs: spec().outputs.into_iter().take(1).map(renamed).collect(),
            }),
            usage: vec![usage("", 5)],
        },
        Command::ChangeTables {
            change: table("weekly", IfTaken::Refuse),
        },
        Command::CommitTasks {
            commits: vec![report(&job, 1, commit(&plan, 0, 0, epoch))],
        },
        Command::FailTask {
            job: job.clone(),
            failure: failure(ErrorCode::Internal, 0, 1, epoch),
        },
        Command::StepFailed {
            step: Step::Plan,
            lease: None,
            job: job.clone(),
            problem: Problem::new(ErrorCode::StoreUnavailable, "no answer"),
            usage: vec![usage("", 5)],
        },
        Command::JobPublished {
            lease: None,
            job: job.clone(),
            outputs: vec![output],
        },
        Command::ExecutorLost {
            epoch,
            failures: vec![(job.clone(), failure(ErrorCode::Internal, 0, 2, epoch))],
            steps: vec![(
                job.clone(),
                Step::Plan,
                Problem::new(ErrorCode::Internal, "lost"),
            )],
        },
        Command::RecordArtefact {
            digest: digest(1),
            compatibility: "engine".into(),
            artefact: digest(2),
        },
        Command::ExpireOrigins { before_ms: 5 },
        Command::NameGroup { group: "01".into() },
        Command::NameGroup { group: "02".into() },
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
    for (sequence, command) in (1..).zip(commands()) {
        let envelope = envelope(1_000 + sequence, sequence, command);
        let bytes = serde_json::to_vec(&envelope).expect("it is plain data");
        assert_eq!(Envelope::decode(&bytes), Ok(envelope.clone()));
        let answers = plain.apply(envelope.clone());
        assert_eq!(through_json.apply(round_trip(&envelope)), answers);
        through_json = round_trip(&through_json);
        assert_eq!(through_json, plain);
    }
    let ended = &plain.tenants[&tenant_id()].ended;
    assert!(ended.contains_key(&job_id(1)), "the job came to its end");
    assert_eq!(plain.group.as_deref(), Some("01"), "the first id stays");
    let shards = plain.tenants[&tenant_id()].shards.keys().copied();
    let shards: Vec<u32> = shards.collect();
    assert_eq!(shards, [0, 7], "shards that were granted are known");
}

/// A field that is passed over would let replicas differ.
#[test]
fn commands_with_unknown_fields_are_not_read() {
    for command in commands() {
        let value = serde_json::to_value(envelope(1_000, 1, command)).expect("plain data");
        let refused = |value: Value| {
            let read = Envelope::decode(value.to_string().as_bytes());
            assert!(matches!(read, Err(Unreadable::Damaged(_))), "{read:?}");
        };
        let mut outside = value.clone();
        extend(&mut outside);
        refused(outside);
        let mut inside = value;
        let command = inside["command"].as_object_mut().expect("an object");
        extend(command.values_mut().next().expect("its one variant"));
        refused(inside);
    }
}

#[test]
fn commands_of_other_versions_are_not_read_but_named() {
    for command in commands() {
        let mut value = serde_json::to_value(envelope(1_000, 1, command)).expect("plain data");
        let mut decode = |version: Option<u32>| {
            match version {
                Some(version) => value["version"] = json!(version),
                None => value["command"] = json!("what later versions may say"),
            }
            Envelope::decode(value.to_string().as_bytes())
        };
        let found = COMMAND_VERSION + 1;
        assert_eq!(decode(Some(found)), Err(Unreadable::Newer { found }));
        let text = Unreadable::Newer { found }.to_string();
        assert!(
            text.contains(&format!("version {found}")) && text.contains("upgrade"),
            "{text}"
        );
        // Whatever else is in it.
        assert_eq!(decode(None), Err(Unreadable::Newer { found }));
        assert_eq!(decode(Some(1)), Err(Unreadable::Older { found: 1 }));
        for readable in [2, 3, COMMAND_VERSION] {
            let damaged = decode(Some(readable));
            assert!(
                matches!(damaged, Err(Unreadable::Damaged(_))),
                "{damaged:?}"
            );
        }
        let damaged = decode(Some(COMMAND_VERSION));
        assert!(
            matches!(damaged, Err(Unreadable::Damaged(_))),
            "{damaged:?}"
        );
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
