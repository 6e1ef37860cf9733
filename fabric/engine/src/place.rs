//! Where in its input a function did not get on.

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use weft_core::Problem;

use crate::plan::FileSplit;

/// Columns of a key that an error shows.
const COLUMNS_MAX: usize = 4;
/// Characters of a value that an error shows.
const CHARS_MAX: usize = 64;

/// Says among which records of which file. Rows count those that were read of the split.
pub(crate) fn among_records(problem: Problem, first: u64, last: u64, split: &FileSplit) -> Problem {
    let place = split.place();
    of_function(problem, || format!("records {first} to {last} of {place}"))
}

/// Says among which groups of sorted rows with these key columns.
pub(crate) fn among_groups(problem: Problem, rows: &RecordBatch, keys: &[usize]) -> Problem {
    let Some(last) = rows.num_rows().checked_sub(1) else {
        return problem;
    };
    of_function(problem, || {
        match (key(rows, keys, 0), key(rows, keys, last)) {
            (first, last) if first == last => format!("the group of {first}"),
            (first, last) => format!("the groups from {first} to {last}"),
        }
    })
}

/// What is not a function's fault is not due to its input either.
fn of_function(problem: Problem, place: impl FnOnce() -> String) -> Problem {
    if problem.function.is_none() || problem.code.is_platform_fault() {
        return problem;
    }
    let detail = format!("{}: {}", place(), problem.detail);
    Problem { detail, ..problem }
}

/// A row's key, such as `day` = "2026-11-20".
fn key(rows: &RecordBatch, keys: &[usize], row: usize) -> String {
    let value = |column: &usize| {
        let name = rows.schema_ref().field(*column).name();
        let array = rows.column(*column);
        if array.is_null(row) {
            return format!("`{name}` = null");
        }
        let text = array_value_to_string(array, row).unwrap_or_default();
        let shown: String = text.chars().take(CHARS_MAX).collect();
        let more = if shown.len() < text.len() { ".." } else { "" };
        format!("`{name}` = \"{}{more}\"", shown.escape_debug())
    };
    let shown: Vec<String> = keys.iter().take(COLUMNS_MAX).map(value).collect();
    let more = if keys.len() > COLUMNS_MAX { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use weft_core::ErrorCode;

    use super::*;

    fn rows() -> RecordBatch {
        let long = "x".repeat(CHARS_MAX + 1);
        let names = StringArray::from(vec![Some("a\u{1b}b"), Some("c"), None, Some(long.as_str())]);
        let numbers = Int64Array::from(vec![1, 2, 2, 3]);
        RecordBatch::try_from_iter([
            ("name", Arc::new(names) as _),
            ("n", Arc::new(numbers) as _),
        ])
        .expect("of one length")
    }

    fn check(first: usize, n: usize, keys: &[usize], expected: &str) {
        let problem = Problem {
            function: Some("c@1.0.0/f".into()),
            ..Problem::new(ErrorCode::GuestError, "no")
        };
        let problem = among_groups(problem, &rows().slice(first, n), keys);
        assert_eq!(problem.detail, format!("{expected}no"));
    }

    #[test]
    fn groups_are_named_by_their_keys() {
        check(
            0,
            2,
            &[0],
            "the groups from `name` = \"a\\u{1b}b\" to `name` = \"c\": ",
        );
        check(1, 2, &[1], "the group of `n` = \"2\": ");
        check(2, 1, &[1, 0], "the group of `n` = \"2\", `name` = null: ");
        let long = "x".repeat(CHARS_MAX);
        check(3, 1, &[0], &format!("the group of `name` = \"{long}..\": "));
        check(0, 0, &[0], "");
    }

    #[test]
    fn faults_that_are_no_functions_have_no_place() {
        let problem = Problem::new(ErrorCode::Internal, "no");
        assert_eq!(among_groups(problem, &rows(), &[0]).detail, "no");
    }
}
