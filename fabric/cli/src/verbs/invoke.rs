//! `weft invoke`: calls a task or map function and writes what it answers with.

use std::io::{self, IsTerminal, Read};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use weft_client::{Answer, Call, Client, Component, Error, path};

use crate::arguments::{InvokeArguments, StreamInput, StreamOutput};
use crate::failure::Failure;
use crate::terminal::Output;

/// The one parameter of the query that the server takes; all others are a function's params.
const DEADLINE: &str = "deadline_ms";

/// Bytes of an input that is read: more than that the server refuses.
const INPUT_BYTES_MAX: u64 = 8 << 20;
const TASK: &str = "task";
/// The server's word for map functions.
const MAP: &str = "map-batches";

/// Runs `weft invoke`. Input and output of a map function are read and written as they come.
///
/// Under `--json`, one document: the function, its output (as text, or nothing where it is none),
/// and what it used. Of a map function, its rows, one a line.
pub(crate) async fn invoke(
    client: &Client,
    arguments: &InvokeArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let (component, function) = arguments.function.split_once('/').ok_or_else(|| {
        let given = &arguments.function;
        Failure::Usage(format!(
            "`{given}` is not COMPONENT/FUNCTION or COMPONENT@VERSION/FUNCTION"
        ))
    })?;
    if arguments.param.iter().any(|(name, _)| name == DEADLINE) {
        let what = format!("`{DEADLINE}` is no param of a function's: say --deadline-ms");
        return Err(Failure::Usage(what));
    }
    let mut query: Vec<(&str, String)> = arguments
        .param
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    if let Some(deadline) = arguments.deadline_ms {
        query.push((DEADLINE, deadline.to_string()));
    }
    let path = path(&["invoke", component, function]);
    let kind = kind(client, component, function).await?;
    if kind.as_deref() == Some(MAP) {
        if arguments.idempotency_key.is_some() {
            let what =
                "`--idempotency-key` is for task functions: answers of map functions are not kept";
            return Err(Failure::Usage(what.into()));
        }
        let format = arguments.output_format.unwrap_or(StreamOutput::Json);
        if output.is_json() && format != StreamOutput::Json {
            let what = "`--json` writes JSON lines: leave out `--output-format`";
            return Err(Failure::Usage(what.into()));
        }
        return stream(client, Call::post(path).query(&query), arguments, output).await;
    }
    let has_formats = arguments.input_format.is_some() || arguments.output_format.is_some();
    if kind.as_deref() == Some(TASK) && has_formats {
        let what = "`--input-format` and `--output-format` are for map functions: a task function reads and writes bytes";
        return Err(Failure::Usage(what.into()));
    }
    // What cannot be called need not wait for its input.
    let input = match kind.as_deref() {
        Some(TASK) => input(arguments)?,
        _ => Vec::new(),
    };
    let call = keyed(Call::post_octets(path, input), arguments);
    let answer = client.send(&call.query(&query)).await?;
    output.raw(&answered(&answer).to_string(), answer.bytes())
}

/// An answer of a function as a document: its output if that is text, and what it used.
pub(super) fn answered(answer: &Answer) -> Value {
    let number = |name| {
        answer
            .header(name)
            .and_then(|value| value.parse::<u64>().ok())
    };
    json!({
        "function": answer.header("x-weft-function"),
        "output": std::str::from_utf8(answer.bytes()).ok(),
        "output_bytes": answer.bytes().len(),
        "cpu_ns": number("x-weft-cpu-ns"),
        "guest_cpu_ns": number("x-weft-guest-cpu-ns"),
        "wall_ns": number("x-weft-wall-ns"),
        "memory_peak_bytes": number("x-weft-memory-peak-bytes"),
    })
}

/// Adds the idempotency key, and the time for which the answer is stored.
fn keyed(mut call: Call, arguments: &InvokeArguments) -> Call {
    if let Some(key) = &arguments.idempotency_key {
        call = call.header("idempotency-key", key);
    }
    if let Some(seconds) = arguments.idempotency_ttl {
        call = call.header("idempotency-key-ttl", seconds.to_string());
    }
    call
}

/// Bytes of a piece of the input of a call that streams.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces of it that are read ahead.
const PIECES_MAX: usize = 4;

/// The kind of a function. Nothing where the server knows of none; the call will be told why.
async fn kind(client: &Client, component: &str, function: &str) -> Result<Option<String>, Failure> {
    let segments: Vec<&str> = ["components"]
        .into_iter()
        .chain(component.splitn(2, '@'))
        .collect();
    let component: Component = match client.send(&Call::get(path(&segments))).await {
        Ok(answer) => answer.read()?,
        Err(Error::Problem(problem)) if problem.code == "not_found" => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut functions = component.functions.into_iter();
    let found = functions.find(|one| one.name == function);
    Ok(found.map(|found| found.kind))
}

/// Sends the input as it comes, and writes the output as it goes.
async fn stream(
    client: &Client,
    call: Call,
    arguments: &InvokeArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let (content_type, accept) = types(arguments);
    let call = call.header("accept", accept);
    let mut answer = client
        .stream(&call, content_type, pieces(arguments))
        .await?;
    loop {
        match answer.next().await {
            Ok(Some(piece)) => output.piece(&piece)?,
            Ok(None) => return Ok(()),
            Err(Error::Problem(problem)) if output.is_json() => {
                // Standard output has rows, of which this is none.
                output.note(&problem.raw.to_string());
                return Err(Failure::JobEnded);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The content type of the input, and of the output.
fn types(arguments: &InvokeArguments) -> (&'static str, &'static str) {
    let input = match arguments.input_format.unwrap_or(StreamInput::Text) {
        StreamInput::Text => "text/plain",
        StreamInput::Binary => "application/octet-stream",
        StreamInput::Csv => "text/csv",
        StreamInput::Json => "application/x-ndjson",
        StreamInput::Arrow => "application/vnd.apache.arrow.stream",
    };
    let output = match arguments.output_format.unwrap_or(StreamOutput::Json) {
        StreamOutput::Json => "application/x-ndjson",
        StreamOutput::Csv => "text/csv",
        StreamOutput::Arrow => "application/vnd.apache.arrow.stream",
    };
    (input, output)
}

/// The input, piece by piece. It is read by a thread that ends with the process: nothing else stops
/// a read that waits.
fn pieces(arguments: &InvokeArguments) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let text = arguments.input.clone();
    std::thread::spawn(move || {
        if let Some(text) = text {
            let _ = sender.blocking_send(Ok(text.into()));
            return;
        }
        let mut stdin = io::stdin();
        if stdin.is_terminal() {
            return;
        }
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let piece = match stdin.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    Ok(piece.into())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

fn input(arguments: &InvokeArguments) -> Result<Vec<u8>, Failure> {
    let input = read_input(arguments.input.as_deref(), INPUT_BYTES_MAX)?;
    input.ok_or_else(|| {
        let most = INPUT_BYTES_MAX >> 20;
        Failure::other(format!(
            "the input is larger than the {most} MiB that a call of a task function takes; map functions take rows of any number"
        ))
    })
}

/// The input: `text`, or else standard input unless that is a terminal. Nothing if that is larger than `most` bytes.
pub(super) fn read_input(text: Option<&str>, most: u64) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(text) = text {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    let mut stdin = io::stdin();
    if stdin.is_terminal() {
        return Ok(Some(Vec::new()));
    }
    let mut input = Vec::new();
    let read = stdin.by_ref().take(most + 1).read_to_end(&mut input);
    read.map_err(|error| Failure::other(format!("cannot read standard input: {error}")))?;
    let fits = input.len() as u64 <= most;
    Ok(fits.then_some(input))
}
