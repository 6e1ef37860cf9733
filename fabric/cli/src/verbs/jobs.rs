//! `weft jobs`, `weft job`, `weft logs` and `weft cancel`.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_client::{
    Call, Client, Error, Job, LogLine, Page, Pages, SlowestTask, Stage, Task, path, read_value,
};

use crate::arguments::JobArguments;
use crate::failure::Failure;
use crate::terminal::text::{bytes, count, counted, milliseconds};
use crate::terminal::{Output, Side, Table};
use crate::verbs::run::output_line;
use crate::verbs::{explain, receipt};

/// A task that took so many times the mean of its stage is named with the job.
const SLOW_TIMES_MEAN: u128 = 2;

/// Runs `weft jobs`.
pub(crate) async fn jobs(
    client: &Client,
    limit: usize,
    output: &mut Output,
) -> Result<(), Failure> {
    let (items, more) = Pages::new(client, path(&["jobs"])).take(limit).await?;
    let jobs: Vec<Job> = read_all(&items)?;
    output.either(&json!({"items": items}).to_string(), || jobs_table(&jobs))?;
    if more {
        output.note(&format!(
            "there are more than {limit}; `--limit` lists them"
        ));
    }
    Ok(())
}

/// The id that is meant: `last` is the newest job's.
pub(crate) async fn id_of(client: &Client, id: &str) -> Result<String, Failure> {
    if id != "last" {
        return Ok(id.to_owned());
    }
    let (items, _) = Pages::new(client, path(&["jobs"])).take(1).await?;
    let jobs: Vec<Job> = read_all(&items)?;
    let none = || Failure::other("there is no job yet; `weft run` starts one");
    jobs.into_iter().next().map(|job| job.id).ok_or_else(none)
}

/// Runs `weft job`.
pub(crate) async fn job(
    client: &Client,
    arguments: &JobArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let (id, view) = (&id_of(client, &arguments.id).await?, &arguments.view);
    if view.receipt {
        return receipt::receipt(client, id, output).await;
    }
    if view.stages {
        return stages(client, id, output).await;
    }
    if view.tasks {
        return tasks(client, id, output).await;
    }
    if view.plan {
        return explain::of_job(client, id, output).await;
    }
    let answer = client.send(&Call::get(path(&["jobs", id]))).await?;
    let job: Job = answer.read()?;
    output.either(answer.text()?, || job_text(&job))
}

async fn stages(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let items = Pages::new(client, path(&["jobs", id, "stages"]))
        .all()
        .await?;
    let stages: Vec<Stage> = read_all(&items)?;
    output.either(&json!({"items": items}).to_string(), || {
        stages_table(&stages)
    })
}

async fn tasks(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let items = Pages::new(client, path(&["jobs", id, "tasks"]))
        .all()
        .await?;
    let tasks: Vec<Task> = read_all(&items)?;
    output.either(&json!({"items": items}).to_string(), || tasks_table(&tasks))
}

/// Runs `weft logs`: a line of text, or of JSON, for each line of the log, as the pages come in.
pub(crate) async fn logs(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let id = id_of(client, id).await?;
    let mut pages = Pages::new(client, path(&["jobs", &id, "logs"]));
    let mut n_dropped = 0;
    while let Some(Page { items, dropped, .. }) = pages.next().await? {
        for item in &items {
            let line: LogLine = read_value(item.clone())?;
            output.either(&item.to_string(), || log_text(&line))?;
        }
        n_dropped = dropped.max(n_dropped);
    }
    if n_dropped > 0 {
        output.note(&format!(
            "{} dropped: there were too many",
            counted(n_dropped, "line")
        ));
    }
    Ok(())
}

/// Runs `weft cancel`.
pub(crate) async fn cancel(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let id = &id_of(client, id).await?;
    let answer = client
        .send(&Call::post(path(&["jobs", id, "cancel"])))
        .await?;
    let job: Job = answer.read()?;
    let told = if job.has_ended() {
        format!("has ended: {}", job.status)
    } else {
        "is being cancelled".into()
    };
    output.either(answer.text()?, || format!("{id} {told}"))
}

fn read_all<T: DeserializeOwned>(items: &[Value]) -> Result<Vec<T>, Error> {
    items.iter().cloned().map(read_value).collect()
}

fn jobs_table(jobs: &[Job]) -> String {
    let mut table = Table::new(&[
        ("id", Side::Left),
        ("name", Side::Left),
        ("status", Side::Left),
        ("tasks done", Side::Right),
        ("submitted", Side::Left),
    ]);
    for job in jobs {
        let submitted_at = job.submitted_at.clone().unwrap_or_default();
        table.row([
            job.id.clone(),
            job.name.clone(),
            job.status.clone(),
            count(job.tasks_done),
            submitted_at,
        ]);
    }
    table.render()
}

fn job_text(job: &Job) -> String {
    let mut lines = vec![format!("{}  {}  {}", job.id, job.name, job.status)];
    lines.extend(times(job));
    if !job.tags.is_empty() {
        let tags: Vec<String> = job
            .tags
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.push(format!("tags: {}", tags.join(", ")));
    }
    lines.push(format!("input: {}", bytes(job.input_bytes)));
    if !job.stages.is_empty() {
        lines.push(stages_summary(&job.stages));
    }
    if !job.outputs.is_empty() {
        lines.push("outputs".into());
        lines.extend(job.outputs.iter().map(output_line));
    }
    lines.extend(
        job.problem
            .iter()
            .map(|problem| format!("error: {problem}")),
    );
    lines.join("\n")
}

fn times(job: &Job) -> Option<String> {
    let times = [
        ("submitted", &job.submitted_at),
        ("started", &job.started_at),
        ("ended", &job.ended_at),
    ];
    let told: Vec<String> = times
        .iter()
        .filter_map(|(what, time)| Some(format!("{what} {}", time.as_ref()?)))
        .collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// The stages as a job's own view shows them.
fn stages_summary(stages: &[Stage]) -> String {
    let mut table = Table::new(&[
        ("stage", Side::Left),
        ("status", Side::Left),
        ("tasks", Side::Right),
        ("rows read", Side::Right),
        ("bad records", Side::Right),
        ("rows written", Side::Right),
        ("duration", Side::Right),
        ("slowest task", Side::Right),
        ("skew", Side::Right),
        ("duplicates", Side::Right),
        ("retries", Side::Right),
    ]);
    for stage in stages {
        table.row([
            format!("{} {}", stage.position, stage.name),
            stage.status.clone(),
            format!("{}/{}", stage.tasks_done, stage.tasks_total),
            count(stage.rows_read),
            some_count(stage.bad_records),
            count(stage.rows_written),
            or_none(stage.duration_ms.map(milliseconds)),
            or_none(slow_task(stage).map(slowest)),
            skew(stage),
            some_count(stage.duplicates),
            some_count(stage.retries),
        ]);
    }
    table.render_used()
}

fn stages_table(stages: &[Stage]) -> String {
    let mut table = Table::new(&[
        ("stage", Side::Left),
        ("status", Side::Left),
        ("tasks", Side::Right),
        ("started", Side::Left),
        ("duration", Side::Right),
        ("task time", Side::Right),
        ("mean task", Side::Right),
        ("slowest task", Side::Right),
        ("rows read", Side::Right),
        ("bad records", Side::Right),
        ("rows written", Side::Right),
        ("bytes read", Side::Right),
        ("bytes written", Side::Right),
        ("shuffle read", Side::Right),
        ("shuffle written", Side::Right),
        ("spilled", Side::Right),
        ("skew", Side::Right),
        ("duplicates", Side::Right),
        ("retries", Side::Right),
    ]);
    for stage in stages {
        let is_timed = stage.slowest_task.is_some();
        let time = |ms| or_none(is_timed.then(|| milliseconds(ms)));
        table.row([
            format!("{} {}", stage.position, stage.name),
            stage.status.clone(),
            format!("{}/{}", stage.tasks_done, stage.tasks_total),
            or_none(stage.started_at.clone()),
            or_none(stage.duration_ms.map(milliseconds)),
            time(stage.task_wall_ms),
            time(stage.task_mean_ms),
            or_none(stage.slowest_task.as_ref().map(slowest)),
            count(stage.rows_read),
            some_count(stage.bad_records),
            count(stage.rows_written),
            some_bytes(stage.bytes_read),
            some_bytes(stage.bytes_written),
            some_bytes(stage.shuffle_bytes_read),
            some_bytes(stage.shuffle_bytes_written),
            some_bytes(stage.spilled_bytes),
            skew(stage),
            some_count(stage.duplicates),
            some_count(stage.retries),
        ]);
    }
    table.render_used()
}

fn or_none(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn some_count(number: u64) -> String {
    or_none((number > 0).then(|| count(number)))
}

fn some_bytes(number: u64) -> String {
    or_none((number > 0).then(|| bytes(number)))
}

/// The slowest task, if it took at least twice the mean.
fn slow_task(stage: &Stage) -> Option<&SlowestTask> {
    let is_slow = |task: &&SlowestTask| {
        let over_mean = u128::from(task.wall_ms) * u128::from(stage.tasks_done);
        task.wall_ms > 0 && over_mean >= SLOW_TIMES_MEAN * u128::from(stage.task_wall_ms)
    };
    stage.slowest_task.as_ref().filter(is_slow)
}

fn slowest(task: &SlowestTask) -> String {
    format!("{} (task {})", milliseconds(task.wall_ms), task.task)
}

/// How many times the mean the largest task of a shuffle was given, and which one that is.
fn skew(stage: &Stage) -> String {
    match stage.skew.over_mean_milli {
        0 => "-".to_owned(),
        milli => {
            let (whole, tenths) = (milli / 1000, milli % 1000 / 100);
            format!("{whole}.{tenths}x (task {})", stage.skew.task)
        }
    }
}

fn tasks_table(tasks: &[Task]) -> String {
    let mut table = Table::new(&[
        ("stage", Side::Left),
        ("task", Side::Right),
        ("attempt", Side::Right),
        ("started", Side::Left),
        ("duration", Side::Right),
        ("cpu", Side::Right),
        ("rows read", Side::Right),
        ("rows written", Side::Right),
        ("bytes read", Side::Right),
        ("bytes written", Side::Right),
        ("shuffle read", Side::Right),
        ("shuffle written", Side::Right),
        ("spilled", Side::Right),
        ("files", Side::Right),
    ]);
    for task in tasks {
        table.row([
            task.stage.0.clone(),
            task.task.to_string(),
            task.attempt.to_string(),
            or_none(task.started_at.clone()),
            milliseconds(task.wall_ms),
            milliseconds(task.cpu_ms),
            count(task.rows_read),
            count(task.rows_written),
            some_bytes(task.bytes_read),
            some_bytes(task.bytes_written),
            some_bytes(task.shuffle_bytes_read),
            some_bytes(task.shuffle_bytes_written),
            some_bytes(task.spilled_bytes),
            some_count(task.files.len() as u64),
        ]);
    }
    table.render_used()
}

fn log_text(line: &LogLine) -> String {
    let LogLine {
        stage,
        task,
        attempt,
        level,
        function,
        message,
    } = line;
    format!(
        "{}/{task}#{attempt} {level:<5} {function}: {message}",
        stage.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Job {
        let job = json!({
            "id": "job-1", "name": "weblog", "status": "failed", "submitted_at": "2026-11-20T12:00:00Z", "started_at": null,
            "ended_at": "2026-11-20T12:01:00Z", "tags": {"team": "growth"}, "input_bytes": 2048,
            "stages": [{"position": 0, "name": "visits", "status": "done", "tasks_total": 24, "tasks_done": 24, "rows_read": 1000, "bad_records": 3,
                        "rows_written": 999, "duplicates": 1, "retries": 2, "skew": {"task": 17, "over_mean_milli": 2500},
                        "started_at": "2026-11-20T12:00:01Z", "duration_ms": 90_500, "task_wall_ms": 120_000, "task_mean_ms": 5_000,
                        "slowest_task": {"task": 17, "wall_ms": 12_500}}],
            "problem": {"code": "guest_trap", "detail": "it trapped", "function": "weblog/parse"}, "outputs": [],
        });
        read_value(job).expect("a job")
    }

    #[test]
    fn a_job_for_people() {
        let expected = "\
job-1  weblog  failed
submitted 2026-11-20T12:00:00Z, ended 2026-11-20T12:01:00Z
tags: team=growth
input: 2.0 KiB
stage     status  tasks  rows read  bad records  rows written    duration       slowest task            skew  duplicates  retries
0 visits  done    24/24      1,000            3           999  1 min 30 s  12.50 s (task 17)  2.5x (task 17)           1        2
error: it trapped [guest_trap]
  function: weblog/parse";
        assert_eq!(job_text(&example()), expected);
    }

    #[test]
    fn a_task_is_slow_from_twice_the_mean_on() {
        let of = |tasks_done, task_wall_ms, wall_ms| {
            let stage = Stage {
                tasks_done,
                task_wall_ms,
                slowest_task: Some(SlowestTask { task: 3, wall_ms }),
                ..Stage::default()
            };
            or_none(slow_task(&stage).map(slowest))
        };
        assert_eq!(of(4, 8_000, 4_000), "4.00 s (task 3)");
        assert_eq!(of(4, 8_000, 3_999), "-");
        assert_eq!(of(1, 8_000, 8_000), "-", "it is the mean");
        assert_eq!(of(1_000, 0, 0), "-");
        assert_eq!(
            of(u64::MAX, u64::MAX, u64::MAX),
            format!("{} (task 3)", milliseconds(u64::MAX))
        );
        assert_eq!(slow_task(&Stage::default()).map(slowest), None);
    }

    #[test]
    fn stages_for_people() {
        let stages = json!([
            {"position": 1, "name": "daily", "status": "running", "tasks_total": 2, "tasks_done": 1, "rows_read": 70,
             "rows_written": 7, "started_at": "2026-11-20T12:00:01Z", "duration_ms": 1_250, "task_wall_ms": 1_200,
             "task_mean_ms": 1_200, "slowest_task": {"task": 0, "wall_ms": 1_200}, "bytes_written": 1_024,
             "shuffle_bytes_read": 2_048, "spilled_bytes": 3 << 20},
            {"position": 2, "name": "top", "status": "waiting", "tasks_total": 1, "started_at": null, "slowest_task": null},
        ]);
        let stages: Vec<Stage> = read_value(stages).expect("stages");
        let expected = "\
stage    status   tasks  started               duration  task time  mean task     slowest task  rows read  rows written  bytes written  shuffle read  spilled
1 daily  running    1/2  2026-11-20T12:00:01Z    1.25 s     1.20 s     1.20 s  1.20 s (task 0)         70             7        1.0 KiB       2.0 KiB  3.0 MiB
2 top    waiting    0/1  -                            -          -          -                -          0             0              -             -        -";
        assert_eq!(stages_table(&stages), expected);
    }

    #[test]
    fn tasks_for_people() {
        let tasks = json!([
            {"stage": "visits", "task": 0, "attempt": 1, "started_at": "2026-11-20T12:00:01Z", "wall_ms": 350, "cpu_ms": 1_230,
             "rows_read": 10, "rows_written": 9, "bytes_read": 4_096, "shuffle_bytes_written": 512, "files": []},
            {"stage": "visits", "task": 1, "attempt": 2, "started_at": null, "wall_ms": null},
        ]);
        let tasks: Vec<Task> = read_value(tasks).expect("tasks");
        let expected = "\
stage   task  attempt  started               duration     cpu  rows read  rows written  bytes read  shuffle written
visits     0        1  2026-11-20T12:00:01Z    350 ms  1.23 s         10             9     4.0 KiB            512 B
visits     1        2  -                         0 ms    0 ms          0             0           -                -";
        assert_eq!(tasks_table(&tasks), expected);
    }

    #[test]
    fn jobs_for_people() {
        let expected = "\
id     name    status  tasks done  submitted
job-1  weblog  failed          24  2026-11-20T12:00:00Z";
        let job = Job {
            tasks_done: 24,
            ..example()
        };
        assert_eq!(jobs_table(&[job]), expected);
    }

    #[test]
    fn log_lines_name_stage_by_name_or_position() {
        let mut line = json!({"stage": 1, "task": 7, "attempt": 2, "level": "info", "function": "a/b", "message": "hello"});
        assert_eq!(
            log_text(&read_value(line.clone()).expect("a line")),
            "1/7#2 info  a/b: hello"
        );
        line["stage"] = "visits".into();
        assert_eq!(
            log_text(&read_value(line.clone()).expect("a line")),
            "visits/7#2 info  a/b: hello"
        );
    }
}
