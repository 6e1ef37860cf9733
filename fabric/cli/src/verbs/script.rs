//! Scripts: files of several statements, which run one after the other, each as a job of its own.

use weft_client::Client;
use weft_core::job::SqlStatement;

use crate::Program;
use crate::arguments::SqlArguments;
use crate::failure::Failure;
use crate::terminal::Output;
use crate::verbs::{explain, sql};

/// Runs statements in their order, up to the first that fails, and says which one that was.
///
/// Errors: `Usage` for a folder of rows, and those of a statement.
pub(super) async fn run(
    program: &dyn Program,
    client: &Client,
    arguments: &SqlArguments,
    statements: &[SqlStatement<'_>],
    output: &mut Output,
) -> Result<(), Failure> {
    let n = statements.len();
    if arguments.output.is_some() {
        let what = format!(
            "`--output` takes the rows of one statement, and there are {n}: write them by COPY (..) TO"
        );
        return Err(Failure::Usage(what));
    }
    for (statement, number) in statements.iter().zip(1..) {
        let parsed = explain::mode(arguments, in_place(statement));
        let ended = Box::pin(sql::one(program, client, arguments, parsed, output)).await;
        if let Err(failure) = ended {
            if !matches!(failure, Failure::Closed) {
                output.note(&stopped(number, n, statement.line));
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// The statement behind blank lines, so that errors name lines of the file.
fn in_place(statement: &SqlStatement<'_>) -> String {
    let before = "\n".repeat(statement.line.saturating_sub(1));
    before + statement.text
}

/// Says which statement of a script failed.
fn stopped(number: usize, n: usize, line: usize) -> String {
    let rest = match n - number {
        0 => String::new(),
        1 => "; the one after it did not run".to_owned(),
        rest => format!("; the {rest} after it did not run"),
    };
    format!("stopped at statement {number} of {n}, on line {line}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_says_where_it_stopped() {
        let last = "stopped at statement 3 of 3, on line 7";
        assert_eq!(stopped(3, 3, 7), last);
        assert!(stopped(2, 3, 4).ends_with("on line 4; the one after it did not run"));
        assert!(stopped(1, 3, 1).ends_with("on line 1; the 2 after it did not run"));
    }

    #[test]
    fn errors_name_lines_of_the_file() {
        let statement = SqlStatement {
            text: "SELECT 1",
            line: 3,
        };
        assert_eq!(in_place(&statement), "\n\nSELECT 1");
    }
}
