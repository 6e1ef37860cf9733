//! `weft sql`: runs a statement as a job, and shows its rows; a file may hold [several](script).
//!
//! ```text
//!   statement ──▶ job of one stage ──▶ output ──API──▶ table, or rows as they are
//! ```
//!
//! The rows come by way of the API, so that nothing is shared with the nodes. Without `--output` the cluster keeps them
//! for a while. Standard output gets the rows and nothing else.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weft_client::{Client, Job, JobOutput};
use weft_core::job::{MAX_SQL_BYTES, is_sql_command, sql_statements};

use crate::arguments::{RowFormat, SqlArguments};
use crate::failure::Failure;
use crate::job_file::{self, Folder};
use crate::terminal::text::{count, counted};
use crate::terminal::{Interrupts, Output};
use crate::verbs::explain::{self, Mode};
use crate::verbs::run::{self, Ending, Watch};
use crate::verbs::{rows, script, show};
use crate::{Preview, Program};

/// Name of the statement's stage.
const STAGE: &str = "query";
/// Name of the output.
const RESULT: &str = "result";
/// The name of a file that stands for standard input.
const STDIN: &str = "-";
/// Rows that are shown, unless the arguments say otherwise.
const ROWS: u32 = 1_000;
/// The problem of a statement that lost against another one.
const CONFLICT: &str = "version_conflict";
/// Times that such a statement runs again.
const MAX_REPEATS: u32 = 5;
/// Pause before it runs again, times the repeat.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs `weft sql`.
///
/// Under `--json`, one document for each statement: that of `weft show`, the plan if it was asked for, the job's id and
/// folders for a statement without rows, or the job if it did not succeed.
///
/// Errors: `Usage` for a statement that is empty or too long, or a format that standard output does not take,
/// `JobEnded` if the job did not succeed, `Interrupted` if Ctrl-C cancelled it.
pub(crate) async fn sql(
    program: &dyn Program,
    client: &Client,
    arguments: &SqlArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let text = statement(arguments)?;
    if is_read(arguments) {
        let statements = sql_statements(&text);
        if statements.len() > 1 {
            return script::run(program, client, arguments, &statements, output).await;
        }
    }
    let (mode, statement) = explain::mode(arguments, text);
    if is_sql_command(&statement) && (arguments.output.is_some() || arguments.format.is_some()) {
        let what = "the statement has no rows for `--output` and `--format`: COPY names its folder by TO, and its \
                    format by STORED AS";
        return Err(Failure::Usage(what.into()));
    }
    one(program, client, arguments, (mode, statement), output).await
}

/// Runs one statement.
pub(super) async fn one(
    program: &dyn Program,
    client: &Client,
    arguments: &SqlArguments,
    (mode, statement): (Mode, String),
    output: &mut Output,
) -> Result<(), Failure> {
    if is_sql_command(&statement) {
        return command(client, arguments, (mode, &statement), output).await;
    }
    let streamed = streamed(arguments, output)?;
    let here = std::env::current_dir()
        .map_err(|error| Failure::other(format!("the current folder is unknown: {error}")))?;
    let document = document(arguments, &statement, &here)?;
    if arguments.check {
        return run::check(client, &document, output).await;
    }
    if mode == Mode::Explain {
        return explain::explain(client, &document, output).await;
    }
    let job = finish(client, &document, output).await?;
    if mode == Mode::Analyze {
        return explain::of_job(client, &job.id, output).await;
    }
    if let Some(format) = streamed {
        return rows::copy(client, (&job.id, RESULT), format, arguments.rows, output).await;
    }
    let shown = first_rows(program, client, &job, arguments.rows.unwrap_or(ROWS)).await;
    if arguments.output.is_none() {
        return print(&shown?, output);
    }
    show_written(&job, shown, output)
}

/// The format in which all rows go to standard output, if they do.
///
/// Errors: `Usage` for Parquet, and for one beside `--json`.
fn streamed(arguments: &SqlArguments, output: &Output) -> Result<Option<&'static str>, Failure> {
    let (None, Some(format)) = (&arguments.output, arguments.format) else {
        return Ok(None);
    };
    if format == RowFormat::Parquet {
        let what = "`--format parquet` needs a folder: name one by `--output`";
        return Err(Failure::Usage(what.into()));
    }
    if output.is_json() {
        let what = "`--json` prints one document, and `--format` rows: leave one of them out";
        return Err(Failure::Usage(what.into()));
    }
    Ok(Some(format_name(format)))
}

/// Runs a statement without rows, such as CREATE VIEW. Its folder is the current one.
async fn command(
    client: &Client,
    arguments: &SqlArguments,
    (mode, statement): (Mode, &str),
    output: &mut Output,
) -> Result<(), Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::other(format!("the current folder is unknown: {error}")))?;
    let mut stage = json!({ "name": STAGE, "sql": statement, "folder": here });
    if let Some(partitions) = arguments.partitions {
        stage["partitions"] = partitions.into();
    }
    let document = json!({ "name": "sql", "stage": [stage] });
    let (document, _) = job_file::complete(document, &arguments.param, Folder::new(&here)?)?;
    if arguments.check {
        return run::check(client, &document, output).await;
    }
    if mode == Mode::Explain {
        return explain::explain(client, &document, output).await;
    }
    let job = finish(client, &document, output).await?;
    // A statement that writes no rows has no stages.
    if mode == Mode::Analyze && !job.stages.is_empty() {
        return explain::of_job(client, &job.id, output).await;
    }
    output.note(&run::outcome(&job));
    // Rows that the cluster keeps have no folder to name.
    let written = job.outputs.iter().filter(|one| !one.uri.is_empty());
    let outputs: Vec<&str> = written.clone().map(|one| one.uri.as_str()).collect();
    let written: Vec<Value> = written.map(written_json).collect();
    let document = json!({ "job": job.id, "outputs": outputs, "written": written });
    output.document(&document.to_string())
}

/// A folder that a statement has written, for `--json`.
fn written_json(written: &JobOutput) -> Value {
    json!({
        "uri": written.uri, "format": written.format, "files": written.files, "rows": written.rows,
        "bytes": written.bytes,
    })
}

/// Whether the text of the statement is read: from a file, or from standard input.
fn is_read(arguments: &SqlArguments) -> bool {
    arguments
        .statement
        .as_deref()
        .is_none_or(|text| text == STDIN)
}

/// The text of the statement, wherever it comes from.
///
/// Errors: `Usage` if it is empty, too long or not UTF-8, `Other` if it cannot be read.
fn statement(arguments: &SqlArguments) -> Result<String, Failure> {
    let bytes = match (&arguments.statement, &arguments.file) {
        (Some(text), _) if text != STDIN => text.clone().into_bytes(),
        (_, Some(path)) if path != Path::new(STDIN) => {
            let name = format!("`{}`", path.display());
            read(File::open(path), &name)?
        }
        _ => read(Ok(io::stdin()), "standard input")?,
    };
    if bytes.len() > MAX_SQL_BYTES {
        let most = MAX_SQL_BYTES >> 10;
        let what = format!("the statement is larger than {most} KiB");
        return Err(Failure::Usage(what));
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Failure::Usage("the statement is not UTF-8".into()))?;
    match text.trim().is_empty() {
        true => Err(Failure::Usage("the statement is empty".into())),
        false => Ok(text),
    }
}

/// Reads one byte more than a statement may have.
fn read(from: io::Result<impl Read>, name: &str) -> Result<Vec<u8>, Failure> {
    let cannot = |error: io::Error| Failure::other(format!("cannot read {name}: {error}"));
    let mut bytes = Vec::new();
    let mut from = from.map_err(cannot)?.take(MAX_SQL_BYTES as u64 + 1);
    from.read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// The job of one statement. Paths begin in the folder `here`.
fn document(arguments: &SqlArguments, statement: &str, here: &Path) -> Result<Value, Failure> {
    let base = Folder::new(here)?;
    let mut stage = json!({ "name": STAGE, "sql": statement, "folder": here });
    if let Some(partitions) = arguments.partitions {
        stage["partitions"] = partitions.into();
    }
    // Without a `uri` the cluster keeps the rows, as Arrow, which keeps every type as it is.
    let mut result = json!({ "from": STAGE });
    if let Some(folder) = &arguments.output {
        let format = arguments.format.unwrap_or(RowFormat::Parquet);
        result["format"] = format_name(format).into();
        result["uri"] = folder.as_str().into();
    }
    let document = json!({
        "name": "sql",
        "stage": [stage],
        "output": { RESULT: result },
    });
    // Params that nothing takes are an error, and so there is nothing to doubt.
    let (document, _) = job_file::complete(document, &arguments.param, base)?;
    Ok(document)
}

fn format_name(format: RowFormat) -> &'static str {
    match format {
        RowFormat::Parquet => "parquet",
        RowFormat::Csv => "csv",
        RowFormat::Json => "json",
        RowFormat::Arrow => "arrow",
    }
}

/// Runs the job to its end, again and again as long as another statement changes its table first: such a job has
/// changed nothing.
async fn finish(client: &Client, document: &Value, output: &mut Output) -> Result<Job, Failure> {
    for repeat in 1..=MAX_REPEATS {
        let (job, json) = ended(client, document, output).await?;
        if !has_lost(&job) {
            return finished(job, &json, output);
        }
        output.note(&format!(
            "{}: another statement changed the table first; running it again ({repeat} of {MAX_REPEATS})",
            job.id
        ));
        pause(repeat).await?;
    }
    let (job, json) = ended(client, document, output).await?;
    finished(job, &json, output)
}

/// Runs the job to its end, whatever that is. Returns its document, too.
async fn ended(
    client: &Client,
    document: &Value,
    output: &mut Output,
) -> Result<(Job, String), Failure> {
    let job = submit(client, document).await?;
    let watch = Watch::new(client, &job.id, output)?.without_question();
    match watch.run().await? {
        Ending::Job { job, json } => Ok((*job, json)),
        Ending::Detached => Err(Failure::Interrupted),
    }
}

/// Returns whether another statement changed the rows that this one, an INSERT, would have added to.
fn has_lost(job: &Job) -> bool {
    let problem = job.problem.as_ref();
    problem.is_some_and(|problem| problem.code == CONFLICT)
}

/// Waits before a statement runs again, for a time that no other client waits for. Ctrl-C ends this by an error.
async fn pause(repeat: u32) -> Result<(), Failure> {
    let mut random = [0_u8];
    // Without randomness the pause is as long as that of others, which is no harm but to the time that it takes.
    let _ = getrandom::fill(&mut random);
    let pause = PAUSE * repeat + Duration::from_millis(random[0].into());
    let mut interrupts = Interrupts::new()?;
    tokio::select! {
        biased;
        () = interrupts.next() => Err(Failure::Interrupted),
        () = tokio::time::sleep(pause) => Ok(()),
    }
}

/// The job if it succeeded. Otherwise says why not.
fn finished(job: Job, json: &str, output: &mut Output) -> Result<Job, Failure> {
    if job.status == "succeeded" {
        if let Some(told) = run::unknown_fields(&job) {
            output.note(told.trim_start());
        }
        return Ok(job);
    }
    output.document(json)?;
    output.note(&run::outcome(&job));
    Err(Failure::JobEnded)
}

/// Submits the job. Ctrl-C ends this by an error.
async fn submit(client: &Client, document: &Value) -> Result<Job, Failure> {
    let mut interrupts = Interrupts::new()?;
    tokio::select! {
        biased;
        () = interrupts.next() => Err(Failure::Interrupted),
        submitted = run::submit(client, document) => submitted.map(|(job, _)| job),
    }
}

/// Tells which folder the rows were written to, and shows the first of them.
fn show_written(
    job: &Job,
    shown: Result<Preview, Failure>,
    output: &mut Output,
) -> Result<(), Failure> {
    for written in &job.outputs {
        output.note(run::output_line(written).trim_start());
    }
    match shown {
        Ok(rows) => print(&rows, output),
        Err(Failure::Interrupted) => Err(Failure::Interrupted),
        // Programs wait for a document; people have their rows.
        Err(failure) if output.is_json() => Err(failure),
        Err(failure) => {
            output.note(&format!("the rows cannot be shown: {failure}"));
            Ok(())
        }
    }
}

/// Reads the first rows of the job's result.
async fn first_rows(
    program: &dyn Program,
    client: &Client,
    job: &Job,
    rows: u32,
) -> Result<Preview, Failure> {
    let result: Option<&JobOutput> = job.outputs.first();
    let result = result.ok_or_else(|| Failure::other("the job has no output"))?;
    rows::first(program, client, job, result, rows).await
}

/// Prints rows to standard output, and how many there are to standard error.
fn print(preview: &Preview, output: &mut Output) -> Result<(), Failure> {
    let json = show::document(preview).to_string();
    output.either(&json, || show::table(preview))?;
    output.note(&rows_line(preview.rows.len() as u64, preview.n_rows));
    Ok(())
}

/// `3 rows`, or `3 rows of 1,000` if there are more than were shown.
fn rows_line(shown: u64, all: u64) -> String {
    let line = counted(shown, "row");
    match shown < all {
        true => format!("{line} of {}", count(all)),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn arguments(statement: &str) -> SqlArguments {
        SqlArguments {
            statement: Some(statement.into()),
            file: None,
            output: None,
            format: None,
            rows: None,
            partitions: None,
            ..SqlArguments::default()
        }
    }

    #[track_caller]
    fn check(arguments: &SqlArguments, expected: &Value) {
        let here = Path::new("/home/[a]/jobs");
        let made = document(arguments, "SELECT 1 AS a", here).expect("a job");
        assert_eq!(made, *expected);
        let spec = weft_core::job::decode(&made);
        spec.unwrap_or_else(|problem| panic!("{problem}: {made:#}"));
    }

    #[test]
    fn a_statement_is_a_job_of_one_stage() {
        let stage = json!({ "name": "query", "sql": "SELECT 1 AS a", "folder": "/home/[a]/jobs" });
        let output = json!({ "from": "query" });
        let expected =
            json!({ "name": "sql", "stage": [stage.clone()], "output": { "result": output } });
        check(&arguments(""), &expected);

        let mut stage = stage;
        stage["partitions"] = json!(3);
        let of = |format: &str, uri: &str| {
            let output = json!({ "from": "query", "format": format, "uri": uri });
            json!({ "name": "sql", "stage": [stage.clone()], "output": { "result": output } })
        };
        let mut asked = arguments("");
        asked.partitions = Some(3);
        asked.output = Some("out/".into());
        check(&asked, &of("parquet", "/home/[a]/jobs/out/"));
        asked.format = Some(RowFormat::Csv);
        asked.output = Some("../b".into());
        check(&asked, &of("csv", "/home/[a]/b"));

        asked.output = Some("out/day=${day}".into());
        asked.param = vec![("day".into(), "2026-11-30".into())];
        let mut expected = of("csv", "/home/[a]/jobs/out/day=2026-11-30");
        expected["params"] = json!({ "day": "2026-11-30" });
        check(&asked, &expected);
    }

    #[test]
    fn a_param_that_nothing_takes_is_an_error() {
        let mut asked = arguments("");
        asked.param = vec![("day".into(), "1".into())];
        let refused = document(&asked, "SELECT 1 AS a", Path::new("/"));
        let failure = refused.expect_err("nothing takes it");
        assert!(failure.to_string().contains("--param day"), "{failure}");
        assert_eq!(failure.exit_code(), 2);
    }

    #[track_caller]
    fn check_statement(bytes: &[u8], expected: Result<&str, &str>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("query.sql");
        fs::write(&path, bytes).expect("written");
        let mut from_file = arguments("");
        from_file.statement = None;
        from_file.file = Some(path);
        let mut found = vec![statement(&from_file)];
        if let Ok(text) = std::str::from_utf8(bytes) {
            found.push(statement(&arguments(text)));
        }
        for found in found {
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(failure), Err(expected)) => {
                    assert!(failure.to_string().contains(expected), "{failure}");
                    assert_eq!(failure.exit_code(), 2);
                }
                (found, expected) => panic!("{found:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn statements_have_bounds() {
        check_statement(b"SELECT 1 AS a;\n", Ok("SELECT 1 AS a;\n"));
        check_statement("SELECT 'ø'".as_bytes(), Ok("SELECT 'ø'"));
        check_statement(b"", Err("is empty"));
        check_statement(b" \n\t", Err("is empty"));
        check_statement(b"SELECT '\xff'", Err("not UTF-8"));
        let longest = " ".repeat(MAX_SQL_BYTES - 8) + "SELECT 1";
        check_statement(longest.as_bytes(), Ok(&longest));
        let longer = format!("{longest}ø");
        check_statement(longer.as_bytes(), Err("larger than 256 KiB"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut asked = arguments("");
        asked.statement = None;
        asked.file = Some(PathBuf::from("/nowhere/query.sql"));
        let failure = statement(&asked).expect_err("nothing is there");
        assert!(
            failure.to_string().contains("/nowhere/query.sql"),
            "{failure}"
        );
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn rows_are_counted() {
        assert_eq!(rows_line(0, 0), "0 rows");
        assert_eq!(rows_line(1, 1), "1 row");
        assert_eq!(rows_line(1_000, 12_345), "1,000 rows of 12,345");
    }

    #[test]
    fn rows_go_to_standard_output_in_formats_that_stream() {
        use crate::terminal::captured;

        let check = |json: bool, output: Option<&str>, format, expected: Option<&str>| {
            let mut asked = arguments("SELECT 1 AS a");
            asked.output = output.map(str::to_owned);
            asked.format = format;
            let (to, ..) = captured::output(json);
            let found = streamed(&asked, &to).expect("it is offered");
            assert_eq!(found, expected);
        };
        check(false, None, None, None);
        check(false, None, Some(RowFormat::Csv), Some("csv"));
        check(false, None, Some(RowFormat::Arrow), Some("arrow"));
        check(true, Some("out"), Some(RowFormat::Parquet), None);
        for (json, format) in [(false, RowFormat::Parquet), (true, RowFormat::Json)] {
            let mut asked = arguments("SELECT 1 AS a");
            asked.format = Some(format);
            let (to, ..) = captured::output(json);
            let failure = streamed(&asked, &to).expect_err("it is not offered");
            assert_eq!(failure.exit_code(), 2, "{failure}");
        }
    }
}
