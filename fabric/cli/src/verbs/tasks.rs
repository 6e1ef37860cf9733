//! `weft task`: a function as a set of tasks, and their results.
//!
//! ```text
//!   run ──▶ POST /v1/tasks ──▶ id
//!             └─ --wait ─▶ events of the job ─▶ results ──▶ standard output, a line for each
//! ```

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use weft_client::{ApiProblem, Call, Client, path};
use weft_core::job::{MAX_TASK_INPUT_BYTES, input_member};

use crate::arguments::{TaskCommand, TaskRunArguments};
use crate::failure::Failure;
use crate::terminal::Output;
use crate::terminal::text::{count, counted};
use crate::verbs::jobs::id_of;
use crate::verbs::rows;
use crate::verbs::run::{self, Ending, Watch};

/// Bytes of a line with a result: 1 MiB in hexadecimal digits, and what is around them.
const MAX_LINE_BYTES: usize = 4 << 20;

/// A set, as the server shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TaskSet {
    id: String,
    function: String,
    status: String,
    submitted_at: Option<String>,
    ended_at: Option<String>,
    tasks_total: u64,
    tasks_done: u64,
    retries: u64,
    problem: Option<ApiProblem>,
}

/// A result, as the server sends it.
#[derive(Debug, Deserialize)]
struct ResultRow {
    index: u32,
    /// In hexadecimal digits.
    result: String,
}

/// Runs `weft task`.
///
/// Under `--json`, `run` and `show` print one document: the set; results are a document a line.
///
/// Errors: `JobEnded` if a set that was waited for did not succeed, `Interrupted` if Ctrl-C cancelled it.
pub(crate) async fn task(
    client: &Client,
    command: &TaskCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        TaskCommand::Run(arguments) => run(client, arguments, output).await,
        TaskCommand::Show(of) => show(client, &id_of(client, &of.id).await?, output).await,
        TaskCommand::Results(of) => results(client, &id_of(client, &of.id).await?, output).await,
    }
}

async fn run(
    client: &Client,
    arguments: &TaskRunArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let document = document(arguments, &input(arguments)?);
    let call = Call::post_json(path(&["tasks"]), &document);
    let call = call.header("idempotency-key", run::new_key()?);
    let answer = client.send(&call).await?;
    let set: TaskSet = answer.read()?;
    if !arguments.wait {
        return output.either(answer.text()?, || set.id.clone());
    }
    match Watch::new(client, &set.id, output)?.run().await? {
        Ending::Job { job, .. } if job.status == "succeeded" => {
            results(client, &set.id, output).await
        }
        Ending::Job { job, json } => {
            output.document(&json)?;
            output.note(&run::outcome(&job));
            Err(Failure::JobEnded)
        }
        Ending::Detached => {
            output.note(&format!(
                "{id} goes on; `weft task show {id}` shows it",
                id = set.id
            ));
            Ok(())
        }
    }
}

/// The document of a set.
fn document(arguments: &TaskRunArguments, input: &[u8]) -> Value {
    let texts = |pairs: &[(String, String)]| -> Value {
        let pairs = pairs.iter();
        let texts = pairs.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        Value::Object(texts.collect::<Map<String, Value>>())
    };
    let mut document = json!({
        "function": arguments.function,
        "count": arguments.count,
        "params": texts(&arguments.param),
        "tags": texts(&arguments.tag),
    });
    if !input.is_empty() {
        let (key, value) = input_member(input);
        document[key] = value.into();
    }
    document
}

/// The input of each task. Errors: `Usage` if it is too large, `Other` if it cannot be read.
fn input(arguments: &TaskRunArguments) -> Result<Vec<u8>, Failure> {
    let input = match (&arguments.input, &arguments.input_file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => read(File::open(path), &format!("`{}`", path.display()))?,
        (None, None) if io::stdin().is_terminal() => Vec::new(),
        (None, None) => read(Ok(io::stdin()), "standard input")?,
    };
    if input.len() > MAX_TASK_INPUT_BYTES {
        let most = MAX_TASK_INPUT_BYTES >> 10;
        return Err(Failure::Usage(format!(
            "the input is larger than the {most} KiB that tasks of a set get: a job with `for_each` gives them rows of files"
        )));
    }
    Ok(input)
}

/// Reads one byte more than an input may have.
fn read(from: io::Result<impl Read>, name: &str) -> Result<Vec<u8>, Failure> {
    let cannot = |error: io::Error| Failure::other(format!("cannot read {name}: {error}"));
    let mut bytes = Vec::new();
    let mut from = from.map_err(cannot)?.take(MAX_TASK_INPUT_BYTES as u64 + 1);
    from.read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

async fn show(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let answer = client.send(&Call::get(path(&["tasks", id]))).await?;
    let set: TaskSet = answer.read()?;
    output.either(answer.text()?, || told(&set))
}

fn told(set: &TaskSet) -> String {
    let mut lines = vec![
        format!("{}  {}  {}", set.id, set.function, set.status),
        format!(
            "tasks: {} of {}",
            count(set.tasks_done),
            count(set.tasks_total)
        ),
    ];
    let times = [("submitted", &set.submitted_at), ("ended", &set.ended_at)];
    for (what, time) in times {
        lines.extend(time.iter().map(|time| format!("{what} {time}")));
    }
    if set.retries > 0 {
        lines.push(format!("{} lost", counted(set.retries, "attempt")));
    }
    lines.extend(
        set.problem
            .iter()
            .map(|problem| format!("error: {problem}")),
    );
    lines.join("\n")
}

/// Writes the results as they come.
async fn results(client: &Client, id: &str, output: &mut Output) -> Result<(), Failure> {
    let call = Call::get(path(&["tasks", id, "results"])).query(&[("format", "json".to_owned())]);
    let answer = client.open_rows(&call).await?;
    let mut begun = Vec::new();
    rows::each_piece(answer, |piece| {
        begun.extend_from_slice(piece);
        for line in whole_lines(&mut begun)? {
            let (json, text) = result(&line)?;
            output.either(&json, || text)?;
        }
        Ok(())
    })
    .await
}

/// Takes the lines that are whole out of what came.
fn whole_lines(begun: &mut Vec<u8>) -> Result<Vec<Vec<u8>>, Failure> {
    let Some(last) = begun.iter().rposition(|byte| *byte == b'\n') else {
        return match begun.len() <= MAX_LINE_BYTES {
            true => Ok(Vec::new()),
            false => Err(Failure::other("the server sends a line without an end")),
        };
    };
    let rest = begun.split_off(last + 1);
    let whole = std::mem::replace(begun, rest);
    let lines = whole[..last].split(|byte| *byte == b'\n');
    Ok(lines.map(<[u8]>::to_vec).collect())
}

/// A result as JSON, and as a line for people: its index, a tab, and the text with its control characters escaped, or
/// digits behind `0x`.
fn result(line: &[u8]) -> Result<(String, String), Failure> {
    let strange = || Failure::other("the server's answer makes no sense: a result is damaged");
    let row: ResultRow = serde_json::from_slice(line).map_err(|_| strange())?;
    let bytes = from_hex(&row.result).ok_or_else(strange)?;
    let ResultRow { index, result } = row;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => {
            let json = json!({ "index": index, "result": text }).to_string();
            (json, format!("{index}\t{}", in_one_line(&text)))
        }
        Err(_) => {
            let json = json!({ "index": index, "result_hex": result }).to_string();
            (json, format!("{index}\t0x{result}"))
        }
    })
}

/// Text of a function in one line: it may say anything, to a terminal too.
fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() && character != '\t' {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
    };
    digits.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> TaskRunArguments {
        TaskRunArguments {
            function: "hello/echo".into(),
            count: 3,
            input: None,
            input_file: None,
            param: vec![("a".into(), "b=c".into())],
            tag: Vec::new(),
            wait: false,
        }
    }

    #[test]
    fn a_set_has_text_or_bytes() {
        let set = |input: &[u8]| document(&arguments(), input);
        let plain =
            json!({ "function": "hello/echo", "count": 3, "params": { "a": "b=c" }, "tags": {} });
        assert_eq!(set(b""), plain);
        assert_eq!(set(b"hi")["input"], "hi");
        let bytes = set(b"\xff\0");
        assert_eq!(
            (&bytes["input"], &bytes["input_base64"]),
            (&Value::Null, &json!("/wA="))
        );
    }

    #[test]
    fn an_input_comes_from_a_file_and_has_a_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut asked = arguments();
        let file = folder.path().join("input");
        asked.input_file = Some(file.clone());
        let failure = input(&asked).expect_err("nothing is there");
        assert!(failure.to_string().contains("cannot read"), "{failure}");
        std::fs::write(&file, vec![b'x'; MAX_TASK_INPUT_BYTES]).expect("it writes");
        assert_eq!(
            input(&asked).expect("it is read").len(),
            MAX_TASK_INPUT_BYTES
        );
        std::fs::write(&file, vec![b'x'; MAX_TASK_INPUT_BYTES + 1]).expect("it writes");
        let failure = input(&asked).expect_err("it is too large");
        assert_eq!(failure.exit_code(), 2, "{failure}");
    }

    #[test]
    fn results_are_text_or_digits_whatever_the_pieces() {
        let rows = b"{\"index\":0,\"result\":\"6869\"}\n{\"index\":1,\"result\":\"\"}\n{\"index\":2,\"result\":\"ff00\"}\n";
        for piece_bytes in 1..rows.len() {
            let (mut begun, mut found) = (Vec::new(), Vec::new());
            for piece in rows.chunks(piece_bytes) {
                begun.extend_from_slice(piece);
                let lines = whole_lines(&mut begun).expect("they are short");
                found.extend(lines.iter().map(|line| result(line).expect("a result").1));
            }
            assert_eq!(found, ["0\thi", "1\t", "2\t0xff00"]);
        }
        let (json, _) = result(b"{\"index\":2,\"result\":\"ff00\"}").expect("a result");
        assert_eq!(json, r#"{"index":2,"result_hex":"ff00"}"#);
        let (json, line) = result(b"{\"index\":3,\"result\":\"610a1b\"}").expect("a result");
        assert_eq!(line, "3\ta\\n\\u{1b}");
        assert_eq!(json, r#"{"index":3,"result":"a\n\u001b"}"#);
        for damaged in ["6", "6g", "é"] {
            assert_eq!(from_hex(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn a_set_is_told_in_lines() {
        let set = json!({
            "id": "job-1", "function": "hello@0.1.0/echo", "status": "failed", "tasks_total": 1000, "tasks_done": 3,
            "retries": 1, "problem": { "code": "guest_error", "detail": "no" },
        });
        let set: TaskSet = serde_json::from_value(set).expect("a set");
        assert_eq!(
            told(&set),
            "job-1  hello@0.1.0/echo  failed\ntasks: 3 of 1,000\n1 attempt lost\nerror: no [guest_error]"
        );
    }
}
