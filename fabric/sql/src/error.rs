//! Errors of DataFusion as problems, and problems on their way through DataFusion.

use std::error::Error;
use std::io;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use weft_core::{ErrorCode, LimitKind, Problem};

/// Wraps a problem for its way through DataFusion. [`problem`] finds it again, however deep it lies.
pub fn carried(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(problem))
}

/// Converts an error of a plan that runs: evaluation is the user's, the rest is ours. Some functions find out only then
/// that they do not take their arguments.
pub fn problem(error: DataFusionError) -> Problem {
    let unknown = |text| Problem::new(ErrorCode::Internal, text);
    convert(&error, evaluation, unknown)
}

/// Converts an error of planning, where a statement that makes no sense is the user's, as is one that confuses the
/// planner: the same text would do so again.
pub(crate) fn planning(error: DataFusionError) -> Problem {
    let wrong = |text: String| {
        let is_twice = text.contains("same name") || text.contains("duplicate");
        let hint = match (is_twice, text.contains("<subquery>")) {
            (true, true) => {
                "; expressions that differ only in their subqueries have one name: name the columns of the subqueries, \
                 as in (SELECT max(a) AS x ..), or give one of them a column in a derived table"
            }
            // The name of a subquery is that of its column.
            (true, false) if text.contains("Schema contains duplicate") => {
                "; if it is the name of a column of a subquery, give that another, as in (SELECT max(a) AS x ..)"
            }
            _ => "",
        };
        let detail = format!("the statement cannot be planned: {text}{hint}");
        Problem::new(ErrorCode::InvalidJob, detail)
    };
    convert(&error, wrong, wrong)
}

/// Converts an error. `wrong` makes the problem of a plan that is wrong or not supported, `unknown` that of all else.
fn convert(
    error: &DataFusionError,
    wrong: impl FnOnce(String) -> Problem,
    unknown: impl FnOnce(String) -> Problem,
) -> Problem {
    if let Some(problem) = within(error) {
        return problem;
    }
    let text = text(error);
    match error.find_root() {
        DataFusionError::SQL(parser, _) => unparsed(parser),
        DataFusionError::Plan(_)
        | DataFusionError::SchemaError(_, _)
        | DataFusionError::Configuration(_)
        | DataFusionError::NotImplemented(_) => wrong(text),
        DataFusionError::Execution(_) => evaluation(text),
        DataFusionError::ArrowError(error, _) => kernel(error, text),
        DataFusionError::ResourcesExhausted(_) => exhausted(&text),
        DataFusionError::IoError(error) => spilling(error),
        _ => unknown(text),
    }
}

/// Returns whether an operator did not get the memory that it asked for.
pub(crate) fn is_out_of_memory(error: &DataFusionError) -> bool {
    let is_refused = matches!(error.find_root(), DataFusionError::ResourcesExhausted(_));
    is_refused && !is_about_disk(&text(error))
}

/// The problem that an error carries.
fn within(error: &DataFusionError) -> Option<Problem> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(problem) = error.downcast_ref::<Problem>() {
            return Some(problem.clone());
        }
        next = error.source();
    }
    None
}

/// Text of the error at the root, or of each where there are several.
fn text(error: &DataFusionError) -> String {
    // Nobody can set this here.
    const SETTING: &str =
        " or disable the datafusion.sql_parser.enable_ident_normalization configuration";
    // Whoever reads this has no plan to send there.
    const ADVICE: &str = "\nThis issue was likely caused by a bug in DataFusion's code.";
    let own = |error: &DataFusionError| {
        let message = error.find_root().message().replace(SETTING, "");
        let end = message.find(ADVICE).unwrap_or(message.len());
        message[..end].to_owned()
    };
    let mut texts: Vec<String> = error.iter().map(own).collect();
    texts.dedup();
    texts.join("; ")
}

/// Converts an error of the parser.
pub(crate) fn unparsed(error: &ParserError) -> Problem {
    match error {
        ParserError::RecursionLimitExceeded => too_deep(),
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => Problem::new(
            ErrorCode::InvalidJob,
            format!("the statement cannot be parsed: {text}"),
        ),
    }
}

/// The problem of a statement with too many levels.
pub(crate) fn too_deep() -> Problem {
    Problem::new(
        ErrorCode::TooLarge,
        "the statement nests too deeply: split it into several stages, or write long chains of conditions as IN lists",
    )
}

/// The problem of values that cannot be computed, such as a division by zero.
fn evaluation(text: String) -> Problem {
    Problem::new(ErrorCode::QueryError, text)
}

fn kernel(error: &ArrowError, text: String) -> Problem {
    match error {
        ArrowError::DivideByZero
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::InvalidArgumentError(_)
        | ArrowError::OffsetOverflowError(_)
        | ArrowError::DictionaryKeyOverflowError => evaluation(text),
        ArrowError::IoError(_, source) => spilling(source),
        _ => Problem::new(ErrorCode::Internal, text),
    }
}

/// Disk for spilling and memory are exhausted by errors of one kind.
fn is_about_disk(text: &str) -> bool {
    text.contains("disk space")
}

fn exhausted(text: &str) -> Problem {
    if is_about_disk(text) {
        let detail = format!(
            "the task spilled more than it may: {text}; raise `partitions`, so that each task has less to do"
        );
        return Problem::new(ErrorCode::LimitExceeded, detail);
    }
    let detail = format!(
        "the statement needs more memory than the task has: {text}; raise `limits.memory`, or `partitions`"
    );
    let mut problem = Problem::new(ErrorCode::LimitExceeded, detail);
    problem.limit = Some(LimitKind::Memory.to_string());
    problem
}

/// Spilled runs are the only files that plans read and write themselves.
fn spilling(error: &io::Error) -> Problem {
    let detail = match error.kind() {
        io::ErrorKind::StorageFull => {
            format!("the disk is full: {error}; free some space and run the job again")
        }
        _ => format!("rows cannot be spilled: {error}"),
    };
    Problem::new(ErrorCode::StoreUnavailable, detail)
}
