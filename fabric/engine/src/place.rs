//! Where in its input a function did not get on.

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use weft_core::Problem;

use crate::plan::FileSplit;
use crate::task_results::Place;

/// How places begin. What functions are said to have done begins with their names.
const RECORDS: &str = "records ";
const GROUP: &str = "the group of ";
const GROUPS: &str = "the groups from ";
const INPUT: &str = "the input at ";

/// Columns of a key that an error shows.
const COLUMNS_MAX: usize = 4;
/// Characters of a value that an error shows.
const CHARS_MAX: usize = 64;

/// Says among which records of which file: those that were left out count, too.
pub(crate) fn among_records(problem: Problem, first: u64, last: u64, split: &FileSplit) -> Problem {
    let place = split.place();
    of_function(problem, || format!("{RECORDS}{first} to {last} of {place}"))
}

/// Says among which groups of sorted rows: how many they are, and which columns are their keys.
pub(crate) fn among_groups(
    problem: Problem,
    rows: &RecordBatch,
    n_groups: usize,
    keys: &[usize],
) -> Problem {
    let Some(last) = rows.num_rows().checked_sub(1) else {
        return problem;
    };
    of_function(problem, || match n_groups {
        1 => format!("{GROUP}{}", key(rows, keys, 0)),
        _ => format!(
            "{GROUPS}{} to {}",
            key(rows, keys, 0),
            key(rows, keys, last)
        ),
    })
}

/// Says at which place the input of a task was.
pub(crate) fn at_place(problem: Problem, Place { partition, index }: Place) -> Problem {
    of_function(problem, || {
        format!("{INPUT}`partition` = {partition}, `index` = {index}")
    })
}

/// What is not a function's fault is not due to its input either. Of several places the innermost one is told: rows that a
/// combiner fails over are not those that the task was reading.
fn of_function(problem: Problem, place: impl FnOnce() -> String) -> Problem {
    let has_place = [RECORDS, GROUP, GROUPS, INPUT].map(|begin| problem.detail.starts_with(begin));
    if problem.function.is_none() || problem.code.is_platform_fault() || has_place.contains(&true) {
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
        let mut shown = String::new();
        for character in text.chars().take(CHARS_MAX) {
            match character.is_control() {
                true => shown.extend(character.escape_default()),
                false => shown.push(character),
            }
        }
        let more = if text.chars().nth(CHARS_MAX).is_some() {
            ".."
        } else {
            ""
        };
        format!("`{name}` = \"{shown}{more}\"")
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
        let rows = rows().slice(first, n);
        let mut ids: Vec<String> = (0..n).map(|row| key(&rows, keys, row)).collect();
        ids.dedup();
        let problem = among_groups(problem, &rows, ids.len(), keys);
        assert_eq!(problem.detail, format!("{expected}no"));
        let outer = among_groups(problem.clone(), &rows, 5, keys);
        assert!(n == 0 || outer == problem, "the inner place stays");
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
    fn inputs_of_tasks_are_named_by_their_places() {
        let problem = Problem {
            function: Some("c@1.0.0/f".into()),
            ..Problem::new(ErrorCode::GuestError, "no")
        };
        let place = Place {
            partition: 2,
            index: 7,
        };
        let problem = at_place(problem, place);
        assert_eq!(
            problem.detail,
            "the input at `partition` = 2, `index` = 7: no"
        );
        let outer = among_groups(problem.clone(), &rows(), 4, &[0]);
        assert!(outer == problem, "the inner place stays");
    }

    #[test]
    fn faults_that_are_no_functions_have_no_place() {
        let problem = Problem::new(ErrorCode::Internal, "no");
        assert_eq!(among_groups(problem, &rows(), 4, &[0]).detail, "no");
    }
}
