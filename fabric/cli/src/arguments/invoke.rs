//! Arguments of `weft invoke`.

use clap::{Args, ValueEnum};

use super::name_and_value;

/// Arguments of `weft invoke`.
#[derive(Debug, Args)]
pub(crate) struct InvokeArguments {
    /// COMPONENT/FUNCTION, or COMPONENT@VERSION/FUNCTION
    pub(crate) function: String,
    /// Input [default: standard input]
    #[arg(long, value_name = "TEXT")]
    pub(crate) input: Option<String>,
    /// Parameter of the function; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) param: Vec<(String, String)>,
    /// Deadline of the invocation in milliseconds, waiting included
    #[arg(long, value_name = "MS")]
    pub(crate) deadline_ms: Option<u64>,
    /// Idempotency key: repeats get the stored answer, for 24 hours or `--idempotency-ttl`
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Time for which the answer is stored, in seconds [default: 86400]
    #[arg(long, value_name = "SECONDS", requires = "idempotency_key")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) idempotency_ttl: Option<u32>,
    /// Format of the input of a map function [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) input_format: Option<StreamInput>,
    /// Format of the output of a map function [default: json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) output_format: Option<StreamOutput>,
}

/// Formats of a map function's input, as `weft invoke` sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamInput {
    /// Lines of text in a column `line` of type `utf8`
    Text,
    /// Lines of bytes in a column `line` of type `binary`
    Binary,
    /// CSV with a header; columns are inferred
    Csv,
    /// One JSON object on each line; columns are inferred
    Json,
    /// An Arrow IPC stream
    Arrow,
}

/// Formats of a map function's output, as `weft invoke` receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamOutput {
    /// One JSON object on each line
    Json,
    /// CSV with a header
    Csv,
    /// An Arrow IPC stream
    Arrow,
}
