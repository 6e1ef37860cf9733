//! Plans for people: of a job that is only looked at, and of one that runs or has run.
//!
//! ```text
//!   sql --explain, run --explain ──▶ POST /v1/jobs/check     ──▶ stages and operators
//!   sql --analyze, job ID --plan ──▶ GET /v1/jobs/{id}/plan  ──▶ the same, with what each stage did
//! ```

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;
use weft_client::{Call, Client, Stage, path};

use crate::arguments::SqlArguments;
use crate::failure::Failure;
use crate::terminal::Output;
use crate::terminal::text::{bytes, count, counted, milliseconds};

/// The fate of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It runs, and its rows are shown.
    Run,
    /// It is planned, and its plan is shown.
    Explain,
    /// It runs, and its plan is shown as it ran.
    Analyze,
}

/// Decides the fate of a statement, and takes EXPLAIN or EXPLAIN ANALYZE off its front. Options win over words.
///
/// Blanks take the place of the words, so that errors name the right line and column.
pub(crate) fn mode(arguments: &SqlArguments, mut statement: String) -> (Mode, String) {
    let mut mode = Mode::Run;
    if let Some(explain) = word(&statement, 0, "explain") {
        let analyze = word(&statement, explain.end, "analyze");
        mode = match analyze {
            Some(_) => Mode::Analyze,
            None => Mode::Explain,
        };
        for word in [Some(explain), analyze].into_iter().flatten() {
            let blanks = " ".repeat(word.len());
            statement.replace_range(word, &blanks);
        }
    }
    if arguments.explain {
        mode = Mode::Explain;
    } else if arguments.analyze {
        mode = Mode::Analyze;
    }
    (mode, statement)
}

/// Finds `expected`, in any case, as the next word from `at` on.
fn word(statement: &str, at: usize, expected: &str) -> Option<Range<usize>> {
    let start = behind_blanks(statement, at);
    let end = start + expected.len();
    let found = statement.get(start..end)?;
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    let is_word = found.eq_ignore_ascii_case(expected) && !statement[end..].starts_with(goes_on);
    is_word.then_some(start..end)
}

/// Passes over blanks and comments from `at` on.
fn behind_blanks(statement: &str, mut at: usize) -> usize {
    loop {
        let rest = statement[at..].trim_start();
        at = statement.len() - rest.len();
        let comment = match rest.get(..2) {
            Some("--") => rest.find('\n').unwrap_or(rest.len()),
            Some("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
            _ => return at,
        };
        at += comment;
    }
}

/// The plan of a stage for people.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StageText {
    reads: Vec<String>,
    operators: Vec<String>,
    functions: Vec<String>,
    writes: Vec<String>,
    omitted_lines: u64,
}

/// The answer of the check of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Checked {
    input_bytes: u64,
    stages: Vec<CheckedStage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CheckedStage {
    name: String,
    tasks_total: u64,
    plan: Option<StageText>,
}

/// The plan of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Planned {
    items: Vec<PlannedStage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PlannedStage {
    stage: Stage,
    cpu_ms: u64,
    task_rows: Option<TaskRows>,
    adaptive: Option<Adaptive>,
    plan: Option<StageText>,
}

/// Tasks of a stage that ran in place of planned ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Adaptive {
    tasks_planned: u64,
    partitions_most: Option<u64>,
    split: Vec<Split>,
}

/// A partition that several tasks shared.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Split {
    partition: u64,
    tasks: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TaskRows {
    task: u64,
    rows_largest: u64,
    rows_median: u64,
}

/// Plans a job without running it, and shows its stages.
pub(crate) async fn explain(
    client: &Client,
    document: &Value,
    output: &mut Output,
) -> Result<(), Failure> {
    let call = Call::post_json(path(&["jobs", "check"]), document);
    let answer = client.send(&call).await?;
    let checked: Checked = answer.read()?;
    output.either(answer.text()?, || explained(&checked))
}

/// Shows the plan of a job, with what its stages have done so far.
pub(crate) async fn of_job(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let answer = client.send(&Call::get(path(&["jobs", id, "plan"]))).await?;
    let planned: Planned = answer.read()?;
    output.either(answer.text()?, || ran(&planned))
}

fn explained(checked: &Checked) -> String {
    let mut lines = vec![format!("reads {}", bytes(checked.input_bytes))];
    for stage in &checked.stages {
        let tasks = counted(stage.tasks_total, "task");
        lines.push(format!("{}: {tasks}", stage.name));
        add_text(&mut lines, stage.plan.as_ref());
    }
    lines.join("\n")
}

fn ran(planned: &Planned) -> String {
    let mut lines = Vec::new();
    for item in &planned.items {
        let stage = &item.stage;
        let tasks = counted(stage.tasks_total, "task");
        lines.push(match stage.tasks_done == stage.tasks_total {
            true => format!("{}: {tasks}, {}", stage.name, stage.status),
            false => {
                let done = count(stage.tasks_done);
                format!("{}: {tasks}, {done} done, {}", stage.name, stage.status)
            }
        });
        let changes = item
            .adaptive
            .as_ref()
            .map(|of| changes(of, stage.tasks_total));
        let changes = changes.into_iter().flatten();
        lines.extend(changes.map(|line| format!("  | {line}")));
        if stage.tasks_done > 0 {
            lines.extend(counters(item).into_iter().map(|line| format!("  | {line}")));
        }
        add_text(&mut lines, item.plan.as_ref());
    }
    match lines.is_empty() {
        true => "the job has not been planned".to_owned(),
        false => lines.join("\n"),
    }
}

/// Differences between the tasks that run and those that were planned.
fn changes(of: &Adaptive, tasks_total: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if of.tasks_planned != tasks_total {
        lines.push(format!(
            "planned with {}",
            counted(of.tasks_planned, "task")
        ));
    }
    if let Some(most) = of.partitions_most.filter(|most| *most > 1) {
        lines.push(format!("up to {} in a task", counted(most, "partition")));
    }
    let split = of.split.iter();
    lines.extend(split.map(|Split { partition, tasks }| {
        format!("partition {partition} split among {tasks} tasks")
    }));
    lines
}

/// Counters of the committed tasks of a stage, a line for each kind.
fn counters(item: &PlannedStage) -> Vec<String> {
    let stage = &item.stage;
    let rows = |n| counted(n, "row");
    let mut lines = vec![format!(
        "{} in, {} out",
        rows(stage.rows_read),
        rows(stage.rows_written)
    )];
    let of_bytes: Vec<String> = [
        (stage.bytes_read, "read from files"),
        (stage.shuffle_bytes_read, "read from shuffles"),
        (stage.shuffle_bytes_written, "written to shuffles"),
        (stage.bytes_written, "written to outputs"),
        (stage.spilled_bytes, "spilled"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{} {what}", bytes(n)))
    .collect();
    if !of_bytes.is_empty() {
        lines.push(of_bytes.join(", "));
    }
    lines.push(format!(
        "CPU {}, wall {}, of all tasks {}",
        milliseconds(item.cpu_ms),
        milliseconds(stage.duration_ms.unwrap_or_default()),
        milliseconds(stage.task_wall_ms)
    ));
    if let Some(of_task) = item.task_rows.as_ref().filter(|_| stage.tasks_done > 1) {
        lines.push(format!(
            "most rows in: {} (task {}), median {}",
            count(of_task.rows_largest),
            of_task.task,
            count(of_task.rows_median)
        ));
    }
    lines
}

fn add_text(lines: &mut Vec<String>, text: Option<&StageText>) {
    let Some(text) = text else {
        lines.push("  an earlier version of Weft planned it, and kept no text".to_owned());
        return;
    };
    lines.extend(text.reads.iter().map(|line| format!("  reads {line}")));
    lines.extend(text.operators.iter().map(|line| format!("    {line}")));
    lines.extend(text.functions.iter().map(|line| format!("  runs {line}")));
    lines.extend(text.writes.iter().map(|line| format!("  writes {line}")));
    if text.omitted_lines > 0 {
        let omitted = counted(text.omitted_lines, "more line");
        lines.push(format!("  {omitted}: the plan is larger than is shown"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_client::read_value;

    use super::*;

    fn text() -> Value {
        json!({
            "reads": ["query.1: partitioned; columns city, n"],
            "operators": ["AggregateExec: mode=FinalPartitioned", "  Read: query.1, by key"],
            "functions": [], "writes": ["to 1 partition, for query"], "omitted_lines": 0,
        })
    }

    #[test]
    fn a_plan_for_people() {
        let mut cut = text();
        cut["omitted_lines"] = json!(2);
        let stages = json!([
            {"name": "query.2", "tasks_total": 3, "plan": text()},
            {"name": "query", "tasks_total": 1, "plan": cut},
            {"name": "old", "tasks_total": 1, "plan": null},
        ]);
        let checked = json!({"input_bytes": 2048, "stages": stages});
        let checked: Checked = read_value(checked).expect("a check");
        let expected = "\
reads 2.0 KiB
query.2: 3 tasks
  reads query.1: partitioned; columns city, n
    AggregateExec: mode=FinalPartitioned
      Read: query.1, by key
  writes to 1 partition, for query
query: 1 task
  reads query.1: partitioned; columns city, n
    AggregateExec: mode=FinalPartitioned
      Read: query.1, by key
  writes to 1 partition, for query
  2 more lines: the plan is larger than is shown
old: 1 task
  an earlier version of Weft planned it, and kept no text";
        assert_eq!(explained(&checked), expected);
    }

    #[test]
    fn a_plan_as_it_ran() {
        let done = json!({
            "name": "query.2", "status": "done", "tasks_total": 3, "tasks_done": 3, "rows_read": 1200, "rows_written": 7,
            "shuffle_bytes_read": 2048, "shuffle_bytes_written": 512, "spilled_bytes": 1 << 20,
            "duration_ms": 250, "task_wall_ms": 600,
        });
        let waiting =
            json!({"name": "query", "status": "waiting", "tasks_total": 1, "tasks_done": 0});
        let rows = json!({"task": 2, "rows_largest": 1000, "rows_median": 100});
        let adaptive = json!({"tasks_planned": 16, "partitions_most": 9, "split": [{"partition": 4, "tasks": 2}]});
        let planned = json!({"items": [
            {"stage": done, "cpu_ms": 420, "task_rows": rows, "adaptive": adaptive, "plan": text()},
            {"stage": waiting, "cpu_ms": 0, "task_rows": null, "plan": text()},
        ]});
        let planned: Planned = read_value(planned).expect("a plan");
        let expected = "\
query.2: 3 tasks, done
  | planned with 16 tasks
  | up to 9 partitions in a task
  | partition 4 split among 2 tasks
  | 1,200 rows in, 7 rows out
  | 2.0 KiB read from shuffles, 512 B written to shuffles, 1.0 MiB spilled
  | CPU 420 ms, wall 250 ms, of all tasks 600 ms
  | most rows in: 1,000 (task 2), median 100
  reads query.1: partitioned; columns city, n
    AggregateExec: mode=FinalPartitioned
      Read: query.1, by key
  writes to 1 partition, for query
query: 1 task, 0 done, waiting
  reads query.1: partitioned; columns city, n
    AggregateExec: mode=FinalPartitioned
      Read: query.1, by key
  writes to 1 partition, for query";
        assert_eq!(ran(&planned), expected);
        assert_eq!(ran(&Planned::default()), "the job has not been planned");
    }

    #[track_caller]
    fn check(statement: &str, expected: Mode, rest: &str) {
        let arguments = SqlArguments::default();
        let found = mode(&arguments, statement.to_owned());
        assert_eq!(found, (expected, rest.to_owned()));
    }

    #[test]
    fn words_in_front_of_a_statement_are_taken_off() {
        check("SELECT 1", Mode::Run, "SELECT 1");
        check("explain SELECT 1", Mode::Explain, "        SELECT 1");
        check(
            "-- why?\n/* so */EXPLAIN/**/Analyze\nSELECT 1",
            Mode::Analyze,
            "-- why?\n/* so */       /**/       \nSELECT 1",
        );
        check("EXPLAIN", Mode::Explain, "       ");
        for other in [
            "explainer",
            "EXPLAIN_",
            "-- EXPLAIN",
            "/*/ EXPLAIN",
            "ø",
            "",
        ] {
            check(other, Mode::Run, other);
        }
        let statement = "EXPLAIN analyzed";
        check(statement, Mode::Explain, "        analyzed");
    }

    #[test]
    fn options_win_over_words() {
        let mut arguments = SqlArguments {
            explain: true,
            ..SqlArguments::default()
        };
        let of = |arguments: &SqlArguments, text: &str| mode(arguments, text.to_owned()).0;
        assert_eq!(of(&arguments, "EXPLAIN ANALYZE SELECT 1"), Mode::Explain);
        arguments.explain = false;
        arguments.analyze = true;
        assert_eq!(of(&arguments, "SELECT 1"), Mode::Analyze);
    }
}
