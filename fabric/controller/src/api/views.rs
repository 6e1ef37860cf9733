//! What clients see of the state, as JSON.

use std::cmp::Reverse;

use serde_json::{Value, json};
use weft_control::{
    ComponentRecord, EndedJob, Job, JobEvent, JobState, Outcome, SlowestTask, StageState,
};
use weft_core::job::{OutputSpec, Work};
use weft_core::{FunctionUsage, PinnedFunction, PriceSheet, Receipt};
use weft_protocol::{PublishedOutput, StageShape, TaskCommit};

use super::reply::problem_json;
use super::tasks::RESULTS;
use weft_runtime::clock::rfc3339;

/// A component.
pub(crate) fn component(record: &ComponentRecord) -> Value {
    json!({
        "name": record.name,
        "version": record.version,
        "digest": record.digest,
        "size_bytes": record.size_bytes,
        "created_at": rfc3339(record.created_ms),
        "functions": record.functions,
        "imports": record.imports,
    })
}

/// The word for how a job ended.
pub(crate) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
    }
}

/// True where the outcome stands.
pub(crate) fn has_ended(job: &Job) -> bool {
    matches!(job.state, JobState::Ending(_))
}

/// The words for where a job may stand.
pub(crate) const STATUSES: [&str; 6] = [
    "planning",
    "running",
    "publishing",
    "succeeded",
    "failed",
    "cancelled",
];

/// The word for where a job stands.
pub(crate) fn status(job: &Job) -> &'static str {
    match &job.state {
        JobState::Planning(_) => "planning",
        JobState::Running(_) => "running",
        JobState::Publishing(_) => "publishing",
        JobState::Ending(ending) => outcome(ending.outcome),
    }
}

/// When a job's planning ended, and when its outcome was decided, in Unix milliseconds.
fn times(job: &Job) -> (Option<u64>, Option<u64>) {
    match &job.state {
        JobState::Planning(_) => (None, None),
        JobState::Running(running) => (Some(running.started_ms), None),
        JobState::Publishing(publishing) => (Some(publishing.started_ms), None),
        JobState::Ending(ending) => (ending.started_ms, Some(ending.ended_ms)),
    }
}

/// A job that is still in the state, or was read back from its archive.
pub(crate) fn job(job: &Job) -> Value {
    let (started, ended) = times(job);
    let ending = match &job.state {
        JobState::Ending(ending) => Some(ending),
        JobState::Planning(_) | JobState::Running(_) | JobState::Publishing(_) => None,
    };
    let problem = ending.and_then(|ending| ending.problem.as_ref());
    let outputs = ending.map_or(&[][..], |ending| &ending.outputs);
    let outputs: Vec<Value> = outputs.iter().map(|one| output(job, one)).collect();
    json!({
        "id": job.id,
        "name": job.spec.name,
        "status": status(job),
        "submitted_at": rfc3339(job.submitted_ms),
        "started_at": started.map(rfc3339),
        "ended_at": ended.map(rfc3339),
        "tags": job.spec.tags,
        "input_bytes": job.plan().map_or(0, |plan| plan.input_bytes),
        "stages": stages(job),
        "problem": problem.map(problem_json),
        "outputs": outputs,
    })
}

/// A published output, with the format of its files.
fn output(job: &Job, published: &PublishedOutput) -> Value {
    let mut seen = json!(published);
    let mut specs = job.spec.outputs.iter();
    if let Some(spec) = specs.find(|spec| spec.name == published.name) {
        seen["format"] = spec.format.name().into();
    }
    seen
}

/// A job as a set of tasks, if it is one of those that `/v1/tasks` makes.
pub(crate) fn task_set(job: &Job) -> Option<Value> {
    let [stage] = &job.spec.stages[..] else {
        return None;
    };
    let Work::Tasks {
        function, count, ..
    } = &stage.work
    else {
        return None;
    };
    let has_results = |output: &OutputSpec| output.name == RESULTS && output.from == stage.name;
    if !job.spec.outputs.iter().any(has_results) {
        return None;
    }
    let label = job.functions.first().map(PinnedFunction::label);
    let (started, ended) = times(job);
    let problem = match &job.state {
        JobState::Ending(ending) => ending.problem.as_ref(),
        JobState::Planning(_) | JobState::Running(_) | JobState::Publishing(_) => None,
    };
    // The tasks are those of the first stage; another one gathers their results.
    let tasks = job.stages().first();
    let retries = tasks.map_or(0, |tasks| tasks.failures.values().sum::<u32>());
    let results = format!("/v1/tasks/{}/results", job.id);
    Some(json!({
        "id": job.id,
        "name": job.spec.name,
        "function": label.as_ref().unwrap_or(function),
        "status": status(job),
        "submitted_at": rfc3339(job.submitted_ms),
        "started_at": started.map(rfc3339),
        "ended_at": ended.map(rfc3339),
        "tags": job.spec.tags,
        "tasks_total": count,
        "tasks_done": tasks.map_or(0, |tasks| tasks.commits.len()),
        "retries": retries,
        "problem": problem.map(problem_json),
        "results": (status(job) == "succeeded").then_some(results),
    }))
}

/// A job in a list, as it stands once it has been archived, too.
pub(crate) fn line(job: &Job) -> Value {
    let (started, ended) = times(job);
    let done = job.stages().iter().map(|stage| stage.commits.len());
    json!({
        "id": job.id,
        "name": job.spec.name,
        "status": status(job),
        "submitted_at": rfc3339(job.submitted_ms),
        "started_at": started.map(rfc3339),
        "ended_at": ended.map(rfc3339),
        "tasks_done": done.sum::<usize>(),
        "tags": job.spec.tags,
    })
}

/// Something that happened to a job.
pub(crate) fn event(event: &JobEvent) -> Value {
    json!({
        "at": rfc3339(event.at_ms),
        "kind": event.kind,
        "stage": event.stage,
        "task": event.task,
        "attempt": event.attempt,
        "detail": event.detail,
    })
}

/// The line of an archived job.
pub(crate) fn ended(job: &EndedJob) -> Value {
    json!({
        "id": job.id,
        "name": job.name,
        "status": outcome(job.outcome),
        "submitted_at": rfc3339(job.submitted_ms),
        "started_at": job.started_ms.map(rfc3339),
        "ended_at": rfc3339(job.ended_ms),
        "tasks_done": job.tasks_done,
        "tags": job.tags,
    })
}

/// The stages of a job.
pub(crate) fn stages(job: &Job) -> Vec<Value> {
    let Some(plan) = job.plan() else {
        return Vec::new();
    };
    let done =
        |stage: usize| job.stages()[stage].commits.len() == plan.stages[stage].n_tasks as usize;
    let one = |(position, progress): (usize, &StageState)| {
        let (shape, own) = (&plan.stages[position], &progress.own);
        let status = if done(position) {
            "done"
        } else if has_ended(job) {
            "stopped"
        } else if shape.reads.iter().all(|edge| done(edge.stage as usize)) {
            "running"
        } else {
            "waiting"
        };
        json!({
            "position": position,
            "skew": skew(shape, progress),
            "name": shape.name,
            "status": status,
            "tasks_total": shape.n_tasks,
            "tasks_done": progress.commits.len(),
            "started_at": progress.span.map(|span| rfc3339(span.started_ms)),
            "duration_ms": progress.span.map(|span| span.ended_ms - span.started_ms),
            "task_wall_ms": milliseconds(own.wall_ns),
            "task_mean_ms": milliseconds(task_mean_ns(progress)),
            "slowest_task": progress.slowest.map(slowest_task),
            "rows_read": own.rows_in,
            "bad_records": own.bad_records,
            "unknown_fields": own.unknown_fields,
            "rows_written": own.rows_out,
            "bytes_read": own.bytes_read,
            "bytes_written": own.bytes_written,
            "shuffle_bytes_read": own.shuffle_bytes_read,
            "shuffle_bytes_written": own.shuffle_bytes_written,
            "spilled_bytes": own.spilled_bytes,
            "duplicates": progress.duplicates,
            "retries": progress.failures.values().sum::<u32>(),
        })
    };
    job.stages().iter().enumerate().map(one).collect()
}

/// Whole milliseconds.
pub(super) fn milliseconds(ns: u64) -> u64 {
    ns / 1_000_000
}

/// Mean wall time of the committed attempts; 0 if there is none.
fn task_mean_ns(progress: &StageState) -> u64 {
    let n_tasks = progress.commits.len() as u64;
    progress.own.wall_ns.checked_div(n_tasks).unwrap_or(0)
}

fn slowest_task(slowest: SlowestTask) -> Value {
    json!({ "task": slowest.task, "wall_ms": milliseconds(slowest.wall_ns) })
}

/// The largest partition of a shuffle against the mean, in rows, once all tasks that read it are done;
/// nothing if the stage reads no partitions.
fn skew(shape: &StageShape, progress: &StageState) -> Option<Value> {
    if !shape.reads.iter().any(|edge| edge.mode.is_partitioned()) {
        return None;
    }
    let commits = progress.commits.values();
    let each = commits.map(|commit| (rows_of_partitions(shape, commit), Reverse(commit.task)));
    let (rows_largest, Reverse(largest)) = each.clone().max()?;
    let rows = each.fold(0, |sum: u64, (rows, _)| sum.saturating_add(rows));
    let partitions = progress.commits.len() as u64;
    // In thousandths: meters are integers.
    let over_mean = (u128::from(rows_largest) * u128::from(partitions) * 1000)
        .checked_div(u128::from(rows))
        .map_or(1000, |milli| u64::try_from(milli).unwrap_or(u64::MAX));
    Some(json!({
        "task": largest,
        "rows_largest": rows_largest,
        "rows_all": rows,
        "partitions": partitions,
        "over_mean_milli": over_mean,
    }))
}

/// Rows that a task read of partitions of its own, and not by a broadcast or in slices.
fn rows_of_partitions(shape: &StageShape, commit: &TaskCommit) -> u64 {
    let reads = shape.reads.iter().zip(&commit.read);
    let partitions = reads.filter(|(edge, _)| edge.mode.is_partitioned());
    // Executors report the rows; whatever they say is to be reckoned with.
    partitions.fold(0, |sum: u64, (_, sums)| sum.saturating_add(sums.rows))
}

/// The committed tasks of a job.
pub(crate) fn tasks(job: &Job) -> impl Iterator<Item = Value> {
    let names: Vec<&str> = job
        .plan()
        .map(|plan| {
            plan.stages
                .iter()
                .map(|stage| stage.name.as_str())
                .collect()
        })
        .unwrap_or_default();
    let commits = job
        .stages()
        .iter()
        .zip(names)
        .flat_map(|(stage, name)| stage.commits.values().map(move |commit| (name, commit)));
    commits.map(|(stage, commit)| {
        let usage = commit.usage.lines();
        // The fabric's own line comes last.
        let own = usage.last().map(|own| own.billed);
        json!({
            "stage": stage,
            "task": commit.task,
            "attempt": commit.attempt,
            "epoch": commit.epoch,
            "started_at": (commit.started_ms > 0).then(|| rfc3339(commit.started_ms)),
            "wall_ms": own.map(|own| milliseconds(own.wall_ns)),
            "cpu_ms": own.map(|_| milliseconds(cpu_ns(&usage))),
            "rows_read": own.map(|own| own.rows_in),
            "rows_written": own.map(|own| own.rows_out),
            "bytes_read": own.map(|own| own.bytes_read),
            "bytes_written": own.map(|own| own.bytes_written),
            "shuffle_bytes_read": own.map(|own| own.shuffle_bytes_read),
            "shuffle_bytes_written": own.map(|own| own.shuffle_bytes_written),
            "spilled_bytes": own.map(|own| own.spilled_bytes),
            "written": commit.written,
            "read": commit.read_total(),
            "files": commit.files,
            "usage": usage,
        })
    })
}

/// CPU time of an attempt: of its guests, and of the fabric beside them.
pub(super) fn cpu_ns(usage: &[FunctionUsage]) -> u64 {
    let billed = usage.iter().map(|one| &one.billed);
    let each = billed.map(|one| one.guest_cpu_ns.saturating_add(one.native_cpu_ns));
    each.fold(0, u64::saturating_add)
}

/// What a job used and costs so far. It is final once nothing of the job runs any more: one that was given up may still be stopping.
pub(crate) fn receipt(job: &Job, archived: bool) -> Receipt {
    let succeeded =
        matches!(&job.state, JobState::Ending(ending) if ending.outcome == Outcome::Succeeded);
    let provisional = !succeeded && !archived;
    Receipt::new(
        job.id.to_string(),
        &job.usage,
        PriceSheet::default(),
        provisional,
    )
}
