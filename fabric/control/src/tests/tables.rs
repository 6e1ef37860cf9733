//! Tables and views: changed by jobs that succeed and by nothing else, within bounds, by tenant.

use weft_core::job::{Destination, JobSpec, decode};
use weft_core::{ErrorCode, JobId, Problem, TenantId};
use weft_protocol::{
    Extended, IfTaken, MAX_DEFINITION_BYTES, MAX_KEPT_PARTS, Plan, PublishedOutput, TableChange,
    TableKind, TableStatement,
};

use super::support::{Machine, commit, envelope, failure, job_id, origin, plan, spec};
use crate::bounds::{MAX_KEPT_TABLES_BYTES, MAX_TABLES, MAX_TABLES_BYTES};
use crate::{Answer, Command, Effect, JobState, Outcome, State};

fn put(name: &str, kind: TableKind, definition: &str, if_taken: IfTaken) -> TableChange {
    TableChange::Put {
        name: name.into(),
        kind,
        definition: definition.into(),
        if_taken,
        extends: None,
    }
}

fn view(name: &str, if_taken: IfTaken) -> TableChange {
    put(name, TableKind::View, "{}", if_taken)
}

fn drop_of(name: &str, kind: Option<TableKind>, if_exists: bool) -> TableChange {
    TableChange::Drop {
        name: name.into(),
        kind,
        if_exists,
    }
}

fn sql() -> JobSpec {
    let document = serde_json::json!({
        "name": "sql",
        "stage": [{ "name": "query", "sql": "CREATE VIEW daily AS SELECT 1 AS a" }],
    });
    decode(&document).expect("the statement is not parsed here")
}

/// A job that has been planned with a change of tables.
fn planned(machine: &mut Machine, number: u64, plan: Plan, change: TableChange) -> JobId {
    let job = job_id(number);
    machine.effects(Command::SubmitJob {
        job: job.clone(),
        spec: sql(),
        idempotency: None,
    });
    machine.effects(Command::JobPlanned {
        job: job.clone(),
        lease: None,
        plan,
        statement: Some(TableStatement {
            change: Some(change),
            outputs: Vec::new(),
        }),
        usage: Vec::new(),
    });
    job
}

fn outcome(machine: &Machine, job: &JobId) -> (Outcome, Option<Problem>) {
    match &machine.job(job).state {
        JobState::Ending(ending) => (ending.outcome, ending.problem.clone()),
        other => panic!("it has not ended: {other:?}"),
    }
}

fn names(machine: &Machine) -> Vec<&str> {
    let tables = machine.tenant().tables.iter();
    tables.map(|(name, _)| name.as_str()).collect()
}

fn change(machine: &mut Machine, change: TableChange) {
    machine.effects(Command::ChangeTables { change });
}

fn refused(machine: &mut Machine, change: TableChange, code: ErrorCode, words: &str) {
    let problem = machine.refusal(Command::ChangeTables { change });
    assert_eq!(problem.code, code, "{problem}");
    assert!(problem.detail.contains(words), "{problem}");
}

#[test]
fn a_job_without_stages_changes_tables_at_once() {
    let mut machine = Machine::new();
    let job = planned(&mut machine, 1, plan(&[]), view("daily", IfTaken::Refuse));
    assert_eq!(outcome(&machine, &job), (Outcome::Succeeded, None));
    assert_eq!(names(&machine), ["daily"]);
    let pending = machine.state.pending_effects();
    let effects: Vec<&Effect> = pending.iter().map(|(_, effect)| effect).collect();
    assert_eq!(effects, [&Effect::ArchiveJob { job }]);
    let record = machine.tenant().tables.get("daily").expect("it is there");
    assert_eq!(
        (record.kind, record.changed_ms),
        (TableKind::View, machine.at_ms)
    );
}

#[test]
fn a_change_that_cannot_be_made_fails_its_job() {
    let mut machine = Machine::new();
    planned(&mut machine, 1, plan(&[]), view("daily", IfTaken::Refuse));
    let again = planned(&mut machine, 2, plan(&[]), view("daily", IfTaken::Refuse));
    let (ended, problem) = outcome(&machine, &again);
    let problem = problem.expect("it says why");
    assert_eq!(
        (ended, problem.code),
        (Outcome::Failed, ErrorCode::InvalidJob)
    );
    assert!(problem.detail.contains("a view `daily`"), "{problem}");
    let gone = planned(&mut machine, 3, plan(&[]), drop_of("dayly", None, false));
    let (ended, problem) = outcome(&machine, &gone);
    let problem = problem.expect("it says why");
    assert_eq!(
        (ended, problem.code),
        (Outcome::Failed, ErrorCode::NotFound)
    );
    assert!(problem.detail.contains("did you mean `daily`"), "{problem}");
}

#[test]
fn a_job_with_rows_changes_tables_when_it_succeeds() {
    let mut machine = Machine::new();
    let one_task = plan(&[(1, None)]);
    let made = put("t", TableKind::Table, "{}", IfTaken::Refuse);
    let epoch = machine.lease();

    let failed = planned(&mut machine, 1, one_task.clone(), made.clone());
    machine.fail(&failed, failure(ErrorCode::QueryError, 0, 0, epoch));
    assert_eq!(outcome(&machine, &failed).0, Outcome::Failed);
    assert_eq!(names(&machine), [] as [&str; 0]);

    let job = planned(&mut machine, 2, one_task.clone(), made.clone());
    machine.commit(&job, commit(&one_task, 0, 0, epoch));
    assert_eq!(
        names(&machine),
        [] as [&str; 0],
        "its files are not published"
    );
    publish(&mut machine, &job);
    assert_eq!(outcome(&machine, &job), (Outcome::Succeeded, None));
    assert_eq!(names(&machine), ["t"]);
    // A second report of the same changes nothing, even if the table has gone meanwhile.
    change(&mut machine, drop_of("t", None, false));
    publish(&mut machine, &job);
    assert_eq!(names(&machine), [] as [&str; 0]);
}

#[test]
fn a_name_that_was_taken_meanwhile_fails_the_job_and_its_files_are_withdrawn() {
    let mut machine = Machine::new();
    let one_task = plan(&[(1, None)]);
    let epoch = machine.lease();
    let made = put("t", TableKind::Table, "{}", IfTaken::Refuse);
    let job = planned(&mut machine, 1, one_task.clone(), made);
    change(&mut machine, view("t", IfTaken::Refuse));
    machine.commit(&job, commit(&one_task, 0, 0, epoch));
    publish(&mut machine, &job);
    let (ended, problem) = outcome(&machine, &job);
    assert_eq!(ended, Outcome::Failed);
    assert!(problem.expect("it says why").detail.contains("`t`"));
    let JobState::Ending(ending) = &machine.job(&job).state else {
        unreachable!("it has ended")
    };
    assert_eq!(ending.outputs, []);
    let kept = machine.tenant().tables.get("t").map(|record| record.kind);
    assert_eq!(kept, Some(TableKind::View));
}

fn publish(machine: &mut Machine, job: &JobId) {
    let output = PublishedOutput {
        name: "table".into(),
        uri: Some("/out/t".into()),
        files: 1,
        rows: 1,
        bytes: 1,
    };
    machine.effects(Command::JobPublished {
        job: job.clone(),
        lease: None,
        outputs: vec![output],
    });
}

#[test]
fn outputs_of_the_statement_belong_to_the_job() {
    let mut machine = Machine::new();
    let submit = |machine: &mut Machine, number: u64, outputs| {
        let job = job_id(number);
        machine.effects(Command::SubmitJob {
            job: job.clone(),
            spec: sql(),
            idempotency: None,
        });
        machine.effects(Command::JobPlanned {
            job: job.clone(),
            lease: None,
            plan: plan(&[(1, None)]),
            statement: Some(TableStatement {
                change: None,
                outputs,
            }),
            usage: Vec::new(),
        });
        job
    };
    let outputs = spec().outputs;
    let job = submit(&mut machine, 1, outputs.clone());
    assert_eq!(machine.job(&job).spec.outputs, outputs);
    // Executors are not trusted: such a plan is one that failed.
    let twice = [outputs.clone(), outputs.clone()].concat();
    let mut kept = outputs;
    kept[0].to = Destination::Kept {
        max_kept_bytes: MAX_KEPT_TABLES_BYTES + 1,
    };
    for (number, wrong) in [(2, twice), (3, kept)] {
        let job = submit(&mut machine, number, wrong);
        assert!(matches!(machine.job(&job).state, JobState::Planning(_)));
    }
}

#[test]
fn names_are_taken_replaced_kept_and_dropped() {
    let mut machine = Machine::new();
    change(&mut machine, view("v", IfTaken::Refuse));
    refused(
        &mut machine,
        view("v", IfTaken::Refuse),
        ErrorCode::InvalidJob,
        "OR REPLACE",
    );
    let other = |if_taken| put("v", TableKind::View, "{\"a\":1}", if_taken);
    let definition = |machine: &Machine| {
        let record = machine.tenant().tables.get("v").expect("it is there");
        record.definition.clone()
    };
    change(&mut machine, other(IfTaken::Keep));
    assert_eq!(definition(&machine), "{}");
    change(&mut machine, other(IfTaken::Replace));
    assert_eq!(definition(&machine), "{\"a\":1}");
    let table = put("v", TableKind::Table, "{}", IfTaken::Replace);
    refused(&mut machine, table, ErrorCode::InvalidJob, "is a view");
    let table = Some(TableKind::Table);
    refused(
        &mut machine,
        drop_of("v", table, true),
        ErrorCode::InvalidJob,
        "DROP VIEW",
    );
    change(&mut machine, drop_of("v", Some(TableKind::View), false));
    refused(
        &mut machine,
        drop_of("v", None, false),
        ErrorCode::NotFound,
        "`v`",
    );
    change(&mut machine, drop_of("v", None, true));
    for name in ["", "a/b", "a\nb", "n".repeat(129).as_str()] {
        refused(
            &mut machine,
            view(name, IfTaken::Refuse),
            ErrorCode::InvalidJob,
            "not a name",
        );
    }
}

#[test]
fn number_and_bytes_are_bounded() {
    let mut machine = Machine::new();
    let large = "x".repeat(MAX_DEFINITION_BYTES);
    let of =
        |name: &str, definition: &str| put(name, TableKind::View, definition, IfTaken::Replace);
    refused(
        &mut machine,
        of("v", &format!("{large}x")),
        ErrorCode::TooLarge,
        "definition of `v`",
    );
    let most = MAX_TABLES_BYTES / MAX_DEFINITION_BYTES;
    for number in 1..most {
        change(&mut machine, of(&format!("v{number}"), &large));
    }
    refused(
        &mut machine,
        of("more", &large),
        ErrorCode::TooLarge,
        "all tables and views",
    );
    // What is replaced does not count.
    change(&mut machine, of("v1", &large));
    for number in 1..most {
        change(&mut machine, drop_of(&format!("v{number}"), None, false));
    }
    for number in 0..MAX_TABLES {
        change(&mut machine, of(&format!("v{number}"), "{}"));
    }
    refused(
        &mut machine,
        of("more", "{}"),
        ErrorCode::TooLarge,
        "drop some",
    );
    change(&mut machine, of("v1", "{}"));
}

#[test]
fn tenants_have_names_of_their_own() {
    let mut machine = Machine::new();
    change(&mut machine, view("daily", IfTaken::Refuse));
    let mut other = envelope(
        machine.at_ms,
        1_000,
        Command::ChangeTables {
            change: view("daily", IfTaken::Refuse),
        },
    );
    other.origin = origin(7, 1);
    other.tenant = "other".parse::<TenantId>().expect("a tenant's id");
    let tenant = other.tenant.clone();
    assert_eq!(machine.state.apply(other).0, Answer::Done);
    change(&mut machine, drop_of("daily", None, false));
    let tables = &machine
        .state
        .tenant(&tenant)
        .expect("it did something")
        .tables;
    assert!(tables.get("daily").is_some());
    assert_eq!(names(&machine), [] as [&str; 0]);
}

#[test]
fn states_from_before_there_were_tables_are_read() {
    let machine = Machine::new();
    let mut value = serde_json::to_value(&machine.state).expect("plain data");
    for tenant in value["tenants"]
        .as_object_mut()
        .expect("by id")
        .values_mut()
    {
        let removed = tenant.as_object_mut().expect("an object").remove("tables");
        assert!(removed.is_some());
    }
    let read: State = serde_json::from_value(value).expect("it is read");
    assert_eq!(read, machine.state);
}

#[test]
fn plans_of_sql_are_sent_all_definitions() {
    let mut machine = Machine::new();
    change(&mut machine, view("daily", IfTaken::Refuse));
    let tables = &machine.tenant().tables;
    let sent = tables.definitions(&sql());
    assert_eq!(
        sent.into_iter().collect::<Vec<_>>(),
        [("daily".to_owned(), "{}".to_owned())]
    );
    assert!(tables.definitions(&spec()).is_empty());
}

/// Runs a job whose statement makes a table of so many bytes, which the cluster keeps.
fn keep(machine: &mut Machine, number: u64, name: &str, bytes: u64) -> JobId {
    let made = put(name, TableKind::Table, "{}", IfTaken::Replace);
    let job = planned(machine, number, plan(&[(1, None)]), made);
    keep_rows(machine, &job, bytes);
    job
}

/// Runs a job of one task that has been planned, whose rows the cluster keeps.
fn keep_rows(machine: &mut Machine, job: &JobId, bytes: u64) {
    let epoch = machine.lease();
    machine.commit(job, commit(&plan(&[(1, None)]), 0, 0, epoch));
    let output = PublishedOutput {
        name: "table".into(),
        uri: None,
        files: 1,
        rows: 1,
        bytes,
    };
    machine.effects(Command::JobPublished {
        job: job.clone(),
        lease: None,
        outputs: vec![output],
    });
}

#[test]
fn rows_of_a_table_are_kept_as_long_as_it_is_there_and_within_a_bound() {
    let mut machine = Machine::new();
    let kept = |machine: &Machine| -> Vec<JobId> {
        let jobs = machine.tenant().tables.kept_jobs();
        jobs.cloned().collect()
    };
    let first = keep(&mut machine, 1, "t", MAX_KEPT_TABLES_BYTES);
    assert_eq!(kept(&machine), std::slice::from_ref(&first));
    let refused = keep(&mut machine, 2, "u", 1);
    let (ended, problem) = outcome(&machine, &refused);
    let problem = problem.expect("it says why");
    assert_eq!(
        (ended, problem.code),
        (Outcome::Failed, ErrorCode::TooLarge)
    );
    assert!(problem.detail.contains("LOCATION"), "{problem}");
    assert_eq!(kept(&machine), [first]);
    // What it replaces does not count.
    let second = keep(&mut machine, 3, "t", 10);
    assert_eq!(kept(&machine), [second]);
    change(&mut machine, drop_of("t", None, false));
    assert_eq!(kept(&machine), [] as [JobId; 0]);
}

/// A statement that adds rows to those that the cluster keeps for `t`.
fn add(last: &JobId, stay: bool) -> TableChange {
    TableChange::Put {
        name: "t".into(),
        kind: TableKind::Table,
        definition: "{}".into(),
        if_taken: IfTaken::Replace,
        extends: Some(Extended {
            last: last.clone(),
            stay,
        }),
    }
}

/// The jobs of the rows that are kept for `t`, first to last, and their bytes.
fn kept(machine: &Machine) -> (Vec<JobId>, u64) {
    let tables = &machine.tenant().tables;
    let record = tables.get("t").expect("it is there");
    let bytes = record.kept.as_ref().map(|kept| kept.bytes);
    let jobs = tables.kept_jobs().cloned().collect();
    (jobs, bytes.expect("its rows are kept"))
}

#[test]
fn rows_are_added_to_those_of_a_table_as_they_were_found() {
    let mut machine = Machine::new();
    let one_task = plan(&[(1, None)]);
    let first = keep(&mut machine, 1, "t", 10);
    let second = planned(&mut machine, 2, one_task.clone(), add(&first, true));
    let late = planned(&mut machine, 3, one_task.clone(), add(&first, true));
    keep_rows(&mut machine, &second, 5);
    let both = (vec![first, second.clone()], 15);
    assert_eq!(kept(&machine), both);
    // It would take the place of rows that it has not seen.
    keep_rows(&mut machine, &late, 5);
    let (ended, problem) = outcome(&machine, &late);
    let problem = problem.expect("it says why");
    assert_eq!(
        (ended, problem.code),
        (Outcome::Failed, ErrorCode::VersionConflict)
    );
    assert!(problem.detail.contains("run it again"), "{problem}");
    assert_eq!(kept(&machine), both);

    let anew = planned(&mut machine, 4, one_task.clone(), add(&second, false));
    keep_rows(&mut machine, &anew, 20);
    assert_eq!(kept(&machine), (vec![anew.clone()], 20));
    let of_none = planned(&mut machine, 5, one_task, add(&anew, true));
    change(&mut machine, drop_of("t", None, false));
    keep_rows(&mut machine, &of_none, 5);
    assert_eq!(outcome(&machine, &of_none).0, Outcome::Failed);
    assert_eq!(names(&machine), [] as [&str; 0]);
}

#[test]
fn what_is_added_to_a_table_is_bounded() {
    let mut machine = Machine::new();
    let one_task = plan(&[(1, None)]);
    let mut last = keep(&mut machine, 1, "t", 10);
    let refused = planned(&mut machine, 2, one_task.clone(), add(&last, true));
    keep_rows(&mut machine, &refused, MAX_KEPT_TABLES_BYTES);
    let (_, problem) = outcome(&machine, &refused);
    let code = problem.map(|problem| problem.code);
    assert_eq!(code, Some(ErrorCode::TooLarge), "all rows count");
    for number in 0..MAX_KEPT_PARTS as u64 - 1 {
        let job = planned(
            &mut machine,
            10 + number,
            one_task.clone(),
            add(&last, true),
        );
        keep_rows(&mut machine, &job, 1);
        last = job;
    }
    assert_eq!(kept(&machine).0.len(), MAX_KEPT_PARTS);
    let refused = planned(&mut machine, 100, one_task, add(&last, true));
    let (_, problem) = outcome(&machine, &refused);
    let problem = problem.expect("it says why");
    assert_eq!(problem.code, ErrorCode::TooLarge);
    assert!(problem.detail.contains("write them anew"), "{problem}");
}
