//! `weft sql`: runs one statement as a job, and shows its rows.
//!
//! ```text
//!   statement ──▶ job of one stage ──▶ folder of rows ──Program::preview──▶ table
//! ```
//!
//! The rows come by way of a folder, so the nodes must share a file system with this machine. Without
//! `--output` the folder is a temporary one. Standard output gets the rows and nothing else.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use weft_client::{Client, Job};
use weft_core::job::MAX_SQL_BYTES;

use crate::arguments::{RowFormat, SqlArguments};
use crate::failure::Failure;
use crate::job_file::{self, Folder};
use crate::terminal::text::{count, counted};
use crate::terminal::{Interrupts, Output};
use crate::verbs::run::{self, Ending, Watch};
use crate::verbs::{show, tables};
use crate::{Preview, Program};

/// Name of the statement's stage.
const STAGE: &str = "query";
/// Name of the output.
const RESULT: &str = "result";
/// The name of a file that stands for standard input.
const STDIN: &str = "-";

/// How often a temporary folder is removed again if the server removes files in it at the same time.
const REMOVALS_MAX: usize = 25;
/// Time between two removals.
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// Runs `weft sql`.
///
/// Under `--json`, one document: that of `weft show`, or the job if it did not succeed.
///
/// Errors: `Usage` for a statement that is empty or too long, `JobEnded` if the job did not succeed,
/// `Interrupted` if Ctrl-C cancelled it.
pub(crate) async fn sql(
    program: &dyn Program,
    client: &Client,
    arguments: &SqlArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let statement = statement(arguments)?;
    if tables::is_command(&statement) {
        return command(client, arguments, &statement, output).await;
    }
    let folder = match &arguments.output {
        Some(folder) => folder.clone(),
        None => temporary_folder()?,
    };
    let here = std::env::current_dir()
        .map_err(|error| Failure::other(format!("the current folder is unknown: {error}")))?;
    let document = document(arguments, &statement, &here, &folder)?;
    if arguments.check {
        return run::check(client, &document, output).await;
    }
    if arguments.output.is_some() {
        let job = finish(client, &document, output).await?;
        return show_kept(program, &job, arguments.rows, output);
    }
    create(Path::new(&folder))?;
    let shown = match finish(client, &document, output).await {
        Ok(job) => first_rows(program, &job, arguments.rows).and_then(|rows| print(&rows, output)),
        Err(failure) => Err(failure),
    };
    remove(Path::new(&folder), output).await;
    shown
}

/// Runs a statement without rows, such as CREATE VIEW. Its folder is the current one.
async fn command(
    client: &Client,
    arguments: &SqlArguments,
    statement: &str,
    output: &mut Output,
) -> Result<(), Failure> {
    if arguments.output.is_some() {
        let what = "the statement has no rows for `--output`: COPY names its folder by TO";
        return Err(Failure::Usage(what.into()));
    }
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
    let job = finish(client, &document, output).await?;
    output.note(&run::outcome(&job));
    let outputs: Vec<&str> = job.outputs.iter().map(|one| one.uri.as_str()).collect();
    output.document(&json!({ "job": job.id, "outputs": outputs }).to_string())
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

/// The job of one statement, which writes its rows to `folder`. Paths begin in the folder `here`.
fn document(
    arguments: &SqlArguments,
    statement: &str,
    here: &Path,
    folder: &str,
) -> Result<Value, Failure> {
    let base = Folder::new(here)?;
    let mut stage = json!({ "name": STAGE, "sql": statement, "folder": here });
    if let Some(partitions) = arguments.partitions {
        stage["partitions"] = partitions.into();
    }
    let format = format_name(arguments);
    let document = json!({
        "name": "sql",
        "stage": [stage],
        "output": { RESULT: { "from": STAGE, "format": format, "uri": folder } },
    });
    // Params that nothing takes are an error, and so there is nothing to doubt.
    let (document, _) = job_file::complete(document, &arguments.param, base)?;
    Ok(document)
}

fn format_name(arguments: &SqlArguments) -> &'static str {
    // A temporary folder is read once, and Arrow keeps every type as it is.
    let default = match &arguments.output {
        Some(_) => RowFormat::Parquet,
        None => RowFormat::Arrow,
    };
    match arguments.format.unwrap_or(default) {
        RowFormat::Parquet => "parquet",
        RowFormat::Csv => "csv",
        RowFormat::Json => "json",
        RowFormat::Arrow => "arrow",
    }
}

/// Runs the job to its end.
async fn finish(client: &Client, document: &Value, output: &mut Output) -> Result<Job, Failure> {
    let job = submit(client, document).await?;
    let watch = Watch::new(client, &job.id, output)?.without_question();
    match watch.run().await? {
        Ending::Job { job, .. } if job.status == "succeeded" => {
            if let Some(told) = run::unknown_fields(&job) {
                output.note(told.trim_start());
            }
            Ok(*job)
        }
        Ending::Job { job, json } => {
            output.document(&json)?;
            output.note(&run::outcome(&job));
            Err(Failure::JobEnded)
        }
        Ending::Detached => Err(Failure::Interrupted),
    }
}

/// Submits the job. Ctrl-C ends this by an error, so that a temporary folder is removed then, too.
async fn submit(client: &Client, document: &Value) -> Result<Job, Failure> {
    let mut interrupts = Interrupts::new()?;
    tokio::select! {
        biased;
        () = interrupts.next() => Err(Failure::Interrupted),
        submitted = run::submit(client, document) => submitted.map(|(job, _)| job),
    }
}

/// Shows the first rows of a folder that stays, if this machine can read it.
fn show_kept(
    program: &dyn Program,
    job: &Job,
    rows: u32,
    output: &mut Output,
) -> Result<(), Failure> {
    for kept in &job.outputs {
        output.note(run::output_line(kept).trim_start());
    }
    match first_rows(program, job, rows) {
        Ok(rows) => print(&rows, output),
        // Programs wait for a document; people have their rows.
        Err(failure) if output.is_json() => Err(failure),
        Err(failure) => {
            output.note(&failure.to_string());
            Ok(())
        }
    }
}

/// Reads the first rows of the job's result.
///
/// Errors: `Other` if its folder cannot be read.
fn first_rows(program: &dyn Program, job: &Job, rows: u32) -> Result<Preview, Failure> {
    let Some(result) = job.outputs.first() else {
        return Err(Failure::other("the job has no output"));
    };
    let preview = program.preview(Path::new(&result.uri), rows as usize);
    preview.map_err(|error| {
        Failure::other(format!(
            "the rows cannot be shown: {error:#}; they are read from a folder that the nodes share with this machine"
        ))
    })
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

/// A path in the system's folder of temporary files that nobody uses.
fn temporary_folder() -> Result<String, Failure> {
    let name = format!("weft-sql-{}", run::random_hex::<8>()?);
    let path = std::env::temp_dir().join(name).into_os_string();
    path.into_string()
        .map_err(|path| Failure::other(format!("the path `{}` is not UTF-8", path.display())))
}

/// Creates the folder, which must be new, for this user alone.
fn create(folder: &Path) -> Result<(), Failure> {
    let created = DirBuilder::new().mode(0o700).create(folder);
    created
        .map_err(|error| Failure::other(format!("cannot create `{}`: {error}", folder.display())))
}

/// Removes the folder and what lies in it. A name may appear there meanwhile: the server renames its own
/// files before it removes them.
async fn remove(folder: &Path, output: &mut Output) {
    let mut removed = fs::remove_dir_all(folder);
    for _ in 0..REMOVALS_MAX {
        match &removed {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            _ => break,
        }
        tokio::time::sleep(REMOVAL_PAUSE).await;
        removed = fs::remove_dir_all(folder);
    }
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            output.note(&format!("cannot remove `{}`: {error}", folder.display()));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn arguments(statement: &str) -> SqlArguments {
        SqlArguments {
            statement: Some(statement.into()),
            file: None,
            output: None,
            format: None,
            rows: 1_000,
            partitions: None,
            param: Vec::new(),
            check: false,
        }
    }

    #[track_caller]
    fn check(arguments: &SqlArguments, expected: &Value) {
        let here = Path::new("/home/[a]/jobs");
        let folder = arguments.output.as_deref().unwrap_or("/tmp/weft-sql-0");
        let made = document(arguments, "SELECT 1 AS a", here, folder).expect("a job");
        assert_eq!(made, *expected);
        let spec = weft_core::job::decode(&made);
        spec.unwrap_or_else(|problem| panic!("{problem}: {made:#}"));
    }

    #[test]
    fn a_statement_is_a_job_of_one_stage() {
        let stage = json!({ "name": "query", "sql": "SELECT 1 AS a", "folder": "/home/[a]/jobs" });
        let output = json!({ "from": "query", "format": "arrow", "uri": "/tmp/weft-sql-0" });
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
        let refused = document(&asked, "SELECT 1 AS a", Path::new("/"), "/tmp/a");
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
    fn a_folder_is_private_and_goes_with_all_that_lies_in_it() {
        use std::os::unix::fs::PermissionsExt as _;

        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("weft-sql-0");
        create(&folder).expect("it is new");
        let mode = fs::metadata(&folder).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        create(&folder).expect_err("it is not new");
        fs::create_dir(folder.join(".weft-job-1")).expect("it is made");
        fs::write(folder.join("part-query-00000.arrow"), "x").expect("written");
        let (mut output, _, stderr) = crate::terminal::captured::output(false);
        for _ in 0..2 {
            crate::run_async(async {
                remove(&folder, &mut output).await;
                Ok(())
            })
            .expect("it runs");
            assert!(!folder.exists());
        }
        assert_eq!(stderr.text(), "");
    }
}
