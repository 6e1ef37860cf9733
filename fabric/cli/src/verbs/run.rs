//! `weft run`: submits a job, follows it, and tells how it ended.

use serde::Deserialize;
use serde_json::Value;
use weft_client::{Call, Client, Follow, Job, JobOutput, Stage, Update, path};

use crate::arguments::RunArguments;
use crate::failure::Failure;
use crate::job_file;
use crate::terminal::text::{bytes, count, counted};
use crate::terminal::{Choice, Interrupts, Output, Progress};
use crate::verbs::{explain, receipt};

/// How following a job ended.
pub(crate) enum Ending {
    /// The job has ended; `json` is its last state.
    Job { job: Box<Job>, json: String },
    /// The user turned away.
    Detached,
}

/// Runs `weft run`.
///
/// Under `--json`, one document: the job, with its receipt under `receipt`; with `--detach`, the
/// job as it was accepted.
///
/// Errors: `JobEnded` where the job did not succeed, `Interrupted` where Ctrl-C cancelled it.
pub(crate) async fn run(
    client: &Client,
    arguments: &RunArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let (document, doubts) = job_file::read(&arguments.file, &arguments.param)?;
    doubts.iter().for_each(|doubt| output.note(doubt));
    if arguments.check {
        return check(client, &document, output).await;
    }
    if arguments.explain {
        return explain::explain(client, &document, output).await;
    }
    let (job, json) = submit(client, &document).await?;
    if arguments.detach {
        return output.either(&json, || job.id.clone());
    }
    match Watch::new(client, &job.id, output)?.run().await? {
        Ending::Job { job, json } => end(client, &job, &json, output).await,
        Ending::Detached => output.either(&json, || {
            format!("{id} goes on; `weft job {id}` shows it", id = job.id)
        }),
    }
}

/// The answer of the check of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Check {
    input_bytes: u64,
    functions: Vec<String>,
    stages: Vec<Stage>,
    columns: Vec<Columns>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Columns {
    of: String,
    columns: Vec<Column>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Column {
    name: String,
    r#type: String,
}

/// Plans a job without running it, and shows its columns and tasks.
pub(crate) async fn check(
    client: &Client,
    document: &Value,
    output: &mut Output,
) -> Result<(), Failure> {
    let call = Call::post_json(path(&["jobs", "check"]), document);
    let answer = client.send(&call).await?;
    let check: Check = answer.read()?;
    output.either(answer.text()?, || checked(&check))
}

fn checked(check: &Check) -> String {
    let mut lines = vec![format!(
        "nothing is wrong with the job; it reads {}",
        bytes(check.input_bytes)
    )];
    for Columns { of, columns } in &check.columns {
        let columns: Vec<String> = columns
            .iter()
            .map(|column| format!("{} {}", column.name, column.r#type))
            .collect();
        lines.push(format!("  {of}: {}", columns.join(", ")));
    }
    let stages = check.stages.iter();
    lines.extend(stages.map(|stage| {
        format!(
            "  stage {}: {}",
            stage.name,
            counted(stage.tasks_total, "task")
        )
    }));
    if !check.functions.is_empty() {
        lines.push(format!("  with {}", check.functions.join(", ")));
    }
    lines.join("\n")
}

/// Submits a job, and returns it as it was accepted.
pub(crate) async fn submit(client: &Client, document: &Value) -> Result<(Job, String), Failure> {
    let call = Call::post_json(path(&["jobs"]), document).header("idempotency-key", new_key()?);
    let answer = client.send(&call).await?;
    Ok((answer.read()?, answer.text()?.to_owned()))
}

/// A key that makes a job sent twice one job.
pub(crate) fn new_key() -> Result<String, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::other(format!("no random bytes: {error}")))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A job that is being followed.
pub(crate) struct Watch<'a> {
    client: &'a Client,
    id: &'a str,
    output: &'a mut Output,
    interrupts: Interrupts,
    follow: Follow<'a>,
    progress: Progress,
    /// False if Ctrl-C cancels the job without a question.
    asks: bool,
    /// True once Ctrl-C has cancelled it.
    cancelled: bool,
}

impl<'a> Watch<'a> {
    /// Begins to follow the job `id`.
    pub(crate) fn new(
        client: &'a Client,
        id: &'a str,
        output: &'a mut Output,
    ) -> Result<Self, Failure> {
        Ok(Self {
            client,
            id,
            output,
            interrupts: Interrupts::new()?,
            follow: Follow::new(client, id),
            progress: Progress::default(),
            asks: true,
            cancelled: false,
        })
    }

    /// Has Ctrl-C cancel the job at once: nobody could use what it makes without this command.
    pub(crate) fn without_question(mut self) -> Self {
        self.asks = false;
        self
    }

    /// Follows the job to its end.
    ///
    /// Errors: `Interrupted` if Ctrl-C cancelled it.
    pub(crate) async fn run(mut self) -> Result<Ending, Failure> {
        loop {
            let ending = tokio::select! {
                biased;
                () = self.interrupts.next() => self.interrupted().await?,
                update = self.follow.next() => self.updated(update?)?,
            };
            if let Some(ending) = ending {
                return Ok(ending);
            }
        }
    }

    async fn interrupted(&mut self) -> Result<Option<Ending>, Failure> {
        if self.cancelled {
            // The second Ctrl-C does not wait until the job has stopped.
            return Err(Failure::Interrupted);
        }
        let choice = match self.asks {
            true => self.interrupts.choose(self.output).await,
            false => Choice::Cancel,
        };
        match choice {
            Choice::Stay => Ok(None),
            Choice::Detach => Ok(Some(Ending::Detached)),
            Choice::Cancel => {
                self.output.note(&format!("cancelling {}", self.id));
                self.client
                    .send(&Call::post(path(&["jobs", self.id, "cancel"])))
                    .await?;
                self.cancelled = true;
                Ok(None)
            }
        }
    }

    fn updated(&mut self, update: Update) -> Result<Option<Ending>, Failure> {
        let (job, json) = match update {
            Update::State { job, json } => (job, json),
            Update::Lost { reason } => {
                self.output
                    .note(&format!("lost the server ({reason}); connecting again"));
                return Ok(None);
            }
        };
        self.progress.show(&job, self.output);
        if !job.has_ended() {
            return Ok(None);
        }
        if self.cancelled {
            self.output.note(&format!("{} {}", job.id, job.status));
            self.output.document(&json)?;
            return Err(Failure::Interrupted);
        }
        Ok(Some(Ending::Job { job, json }))
    }
}

async fn end(client: &Client, job: &Job, json: &str, output: &mut Output) -> Result<(), Failure> {
    let receipt = match receipt::of_ended(client, &job.id).await {
        Ok(answer) => Some(answer),
        Err(failure) => {
            output.note(&format!("no receipt: {failure}"));
            None
        }
    };
    let receipt_json = receipt.as_ref().map(|answer| answer.text()).transpose()?;
    output.document(&with_receipt(json, receipt_json))?;
    let mut text = outcome(job);
    if let Some(answer) = receipt {
        text.push_str(&format!("\n{}", receipt::summary(&answer.read()?)));
    }
    if job.status == "succeeded" {
        return output.say(&text);
    }
    output.note(&text);
    Err(Failure::JobEnded)
}

/// The job's document with the receipt in it. Text is put together, not values: meters may be
/// larger than any JSON number that would survive being read.
fn with_receipt(job: &str, receipt: Option<&str>) -> String {
    let open = job.trim_end().strip_suffix('}');
    match (open, receipt) {
        (Some(open), Some(receipt)) => format!("{open},\"receipt\":{receipt}}}"),
        _ => job.to_owned(),
    }
}

/// How a job ended, for people.
pub(crate) fn outcome(job: &Job) -> String {
    let mut lines = vec![format!("{} {}", job.id, job.status)];
    lines.extend(job.outputs.iter().map(output_line));
    lines.extend(bad_records(job));
    lines.extend(unknown_fields(job));
    lines.extend(
        job.problem
            .iter()
            .map(|problem| format!("error: {problem}")),
    );
    lines.join("\n")
}

/// How many values a job has passed over because no column has their key, where it has.
pub(crate) fn unknown_fields(job: &Job) -> Option<String> {
    let values = job.stages.iter().map(|stage| stage.unknown_fields);
    let values = values.fold(0, u64::saturating_add);
    (values > 0).then(|| {
        format!(
            "  {} passed over, whose keys no column has; `weft logs {}` names the keys, `unknown_fields` says what to do",
            counted(values, "value"),
            job.id
        )
    })
}

/// How many records of its inputs a job has left out, where it has.
fn bad_records(job: &Job) -> Option<String> {
    let bad = job.stages.iter().map(|stage| stage.bad_records);
    let bad = bad.fold(0, u64::saturating_add);
    let of = job.stages.iter().filter(|stage| stage.bad_records > 0);
    let read = of
        .map(|stage| stage.rows_read)
        .fold(bad, u64::saturating_add);
    (bad > 0).then(|| {
        format!(
            "  {} of {} left out; `weft logs {}` says of which files",
            counted(bad, "bad record"),
            count(read),
            job.id
        )
    })
}

/// One output for people.
pub(crate) fn output_line(output: &JobOutput) -> String {
    let place = match output.uri.as_str() {
        "" => "kept by the cluster".to_owned(),
        uri => format!("in the folder {uri}"),
    };
    let file = format!("{} file", output.format);
    format!(
        "  {}: {}, {}, {} {place}",
        output.name,
        counted(output.rows, "row"),
        counted(output.files, file.trim_start()),
        bytes(output.bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receipt_goes_into_the_document_digit_by_digit() {
        let receipt = r#"{"memory_byte_ns":340282366920938463463374607431768211455}"#;
        let expected = r#"{"id":"job-1","receipt":{"memory_byte_ns":340282366920938463463374607431768211455}}"#;
        assert_eq!(
            with_receipt("{\"id\":\"job-1\"}\n", Some(receipt)),
            expected
        );
        assert_eq!(with_receipt("{}", None), "{}");
    }

    #[test]
    fn a_check_lists_functions_if_there_are_any() {
        let mut check = Check {
            input_bytes: 2048,
            stages: vec![Stage {
                name: "daily".into(),
                tasks_total: 8,
                ..Stage::default()
            }],
            ..Check::default()
        };
        let expected = "nothing is wrong with the job; it reads 2.0 KiB\n  stage daily: 8 tasks";
        assert_eq!(checked(&check), expected);
        check.functions = vec!["a@1.0.0/b".into(), "a@1.0.0/c".into()];
        let expected = format!("{expected}\n  with a@1.0.0/b, a@1.0.0/c");
        assert_eq!(checked(&check), expected);
    }

    #[test]
    fn keys_differ() {
        let (a, b) = (new_key().expect("random"), new_key().expect("random"));
        assert!(a.len() == 32 && a != b);
    }

    #[test]
    fn outcomes_tell_outputs_or_the_problem() {
        let job = serde_json::json!({
            "id": "job-1", "status": "succeeded",
            "stages": [{"name": "visits", "rows_read": 9997, "bad_records": 3, "unknown_fields": 2}, {"name": "daily", "rows_read": 70}],
            "outputs": [{"name": "daily", "uri": "/out/daily/", "format": "csv", "files": 8, "rows": 1234, "bytes": 2048}],
        });
        let job: Job = serde_json::from_value(job).expect("a job");
        assert_eq!(
            outcome(&job),
            "job-1 succeeded\n  daily: 1,234 rows, 8 csv files, 2.0 KiB in the folder /out/daily/\n  \
             3 bad records of 10,000 left out; `weft logs job-1` says of which files\n  \
             2 values passed over, whose keys no column has; `weft logs job-1` names the keys, `unknown_fields` says what to do"
        );
        let job = serde_json::json!({"id": "job-1", "status": "failed", "problem": {"code": "no_input", "detail": "no file"}});
        let job: Job = serde_json::from_value(job).expect("a job");
        assert_eq!(outcome(&job), "job-1 failed\nerror: no file [no_input]");
    }
}
