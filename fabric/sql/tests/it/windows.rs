//! Window functions whose encoding needs more than DataFusion's, with their answers.

use weft_sql::{Options, Session};

use crate::data::SMALL;
use crate::runner::{at_all_widths, merging, options, run, text};

const ANSWERS: [(&str, &[&[&str]]); 3] = [
    (
        "SELECT x, row_number() OVER (ORDER BY x DESC) AS r, lag(x) OVER (ORDER BY x) AS l
         FROM (VALUES (1),(2),(3)) t(x) ORDER BY x",
        &[&["1", "3", "NULL"], &["2", "2", "1"], &["3", "1", "2"]],
    ),
    (
        "SELECT x, lag(a) IGNORE NULLS OVER (ORDER BY x) AS l
         FROM (VALUES (1,'a'),(2,NULL),(3,NULL)) t(x,a) ORDER BY x",
        &[&["1", "NULL"], &["2", "a"], &["3", "a"]],
    ),
    (
        "SELECT x, sum(x) FILTER (WHERE x > 1) OVER (ORDER BY x) AS s
         FROM (VALUES (1),(2),(3)) t(x) ORDER BY x",
        &[&["1", "NULL"], &["2", "2"], &["3", "5"]],
    ),
];

fn check(options: Options) {
    let session = Session::new();
    for (sql, expected) in ANSWERS {
        let rows = run(&session, &SMALL, sql, &options).expect(sql);
        assert_eq!(text(&rows), expected, "{options:?}: {sql}");
    }
}

at_all_widths!();
