//! The 22 queries of TPC-H at scale 0.01, with the values of its validation run.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use weft_core::Problem;
use weft_sql::{Options, Session};

use crate::data::{TPCH, block_on, plain_context};
use crate::joins::{OF_PARTITION, no_builds};
use crate::runner::{at_all_widths, merging, options, run, run_within, sorted};

/// Text of a query, from 1 to 22.
pub(crate) fn query(number: usize) -> String {
    let path = format!("../../bench/tpch/q{number:02}.sql");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) static EXPECTED: LazyLock<Vec<Vec<Vec<String>>>> = LazyLock::new(|| {
    let plain = plain_context(&TPCH);
    let rows = |number| {
        let rows = block_on(async { plain.sql(&query(number)).await?.collect().await });
        sorted(&rows.expect("DataFusion runs the query"))
    };
    (1..=22).map(rows).collect()
});

fn check(options: Options) {
    let session = Session::new();
    check_by(&options, &|sql| run(&session, &TPCH, sql, &options));
}

fn check_by(options: &Options, run: &dyn Fn(&str) -> Result<Vec<RecordBatch>, Problem>) {
    let mut faults = Vec::new();
    for (number, expected) in (1..).zip(EXPECTED.iter()) {
        match run(&query(number)) {
            Ok(rows) if sorted(&rows) == *expected => {}
            Ok(rows) => {
                let n: usize = rows.iter().map(|batch| batch.num_rows()).sum();
                faults.push(format!("q{number}: {n} rows for {}", expected.len()));
            }
            Err(problem) => faults.push(format!("q{number}: {problem}")),
        }
    }
    assert!(faults.is_empty(), "{options:?}\n{}", faults.join("\n"));
}

#[test]
fn tasks_that_start_over() {
    let session = Session::new();
    let options = options(3, false);
    let pool = || no_builds(OF_PARTITION);
    check_by(&options, &|sql| {
        let (rows, _) = run_within(&session, &TPCH, sql, &options, &pool)?;
        Ok(rows)
    });
}

#[test]
fn most_queries_have_rows() {
    let n_empty = EXPECTED.iter().filter(|rows| rows.is_empty()).count();
    assert!(n_empty <= 4, "{n_empty} queries without rows show little");
}

at_all_widths!();
