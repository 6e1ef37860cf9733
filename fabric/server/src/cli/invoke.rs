//! `weft invoke`: calls a task function and writes what it answers with.

use std::io::{IsTerminal, Read};

use serde_json::json;

use crate::cli::arguments::InvokeArguments;
use crate::cli::client::{Call, Client};
use crate::cli::endpoint::path;
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// What the server takes out of the query; all else there are a function's params.
const DEADLINE: &str = "deadline_ms";

/// Bytes of an input that is read; the server takes less.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Runs `weft invoke`.
///
/// Under `--json`, one document: the function, its output (as text, or nothing where it is none), and what it used.
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
    let call = Call::post_octets(path(&["invoke", component, function]), input(arguments)?);
    let answer = client.send(&call.query(&query)).await?;
    let number = |name| {
        answer
            .header(name)
            .and_then(|value| value.parse::<u64>().ok())
    };
    let document = json!({
        "function": answer.header("x-weft-function"),
        "output": std::str::from_utf8(answer.bytes()).ok(),
        "output_bytes": answer.bytes().len(),
        "cpu_ns": number("x-weft-cpu-ns"),
        "guest_cpu_ns": number("x-weft-guest-cpu-ns"),
        "wall_ns": number("x-weft-wall-ns"),
        "memory_peak_bytes": number("x-weft-memory-peak-bytes"),
    });
    output.raw(&document.to_string(), answer.bytes())
}

fn input(arguments: &InvokeArguments) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &arguments.input {
        return Ok(text.clone().into_bytes());
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(Vec::new());
    }
    let mut input = Vec::new();
    let read = stdin
        .by_ref()
        .take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut input);
    read.map_err(|error| Failure::other(format!("cannot read standard input: {error}")))?;
    if input.len() as u64 > INPUT_BYTES_MAX {
        let most = INPUT_BYTES_MAX >> 20;
        return Err(Failure::other(format!(
            "the input is larger than {most} MiB"
        )));
    }
    Ok(input)
}
