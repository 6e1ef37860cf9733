//! The 22 queries of TPC-H at scale 0.01, with the values of its validation run.

use std::sync::LazyLock;

use tpchgen::q_and_a::queries;
use weft_sql::{Options, Session};

use crate::data::{TPCH, block_on, plain_context};
use crate::runner::{options, run, sorted};

/// Values for `:1`, `:2` and so on of each query.
const VALUES: [&[&str]; 22] = [
    &["90"],
    &["15", "BRASS", "EUROPE"],
    &["BUILDING", "1995-03-15"],
    &["1993-07-01"],
    &["ASIA", "1994-01-01"],
    &["1994-01-01", "0.06", "24"],
    &["FRANCE", "GERMANY"],
    &["BRAZIL", "AMERICA", "ECONOMY ANODIZED STEEL"],
    &["green"],
    &["1993-10-01"],
    &["GERMANY", "0.0001"],
    &["MAIL", "SHIP", "1994-01-01"],
    &["special", "requests"],
    &["1995-09-01"],
    &["1996-01-01"],
    &[
        "Brand#45",
        "MEDIUM POLISHED",
        "49",
        "14",
        "23",
        "45",
        "19",
        "3",
        "36",
        "9",
    ],
    &["Brand#23", "MED BOX"],
    &["300"],
    &["Brand#12", "Brand#23", "Brand#34", "1", "10", "20"],
    &["forest", "1994-01-01", "CANADA"],
    &["SAUDI ARABIA"],
    &["13", "31", "23", "29", "30", "18", "17"],
];

/// Text of a query, from 1 to 22.
fn query(number: usize) -> String {
    let text = queries::query(number as i32).expect("there are 22 queries");
    let mut text = text.replace("day (3)", "day");
    // From the last: `:1` begins `:10`.
    for (position, value) in VALUES[number - 1].iter().enumerate().rev() {
        text = text.replace(&format!(":{}", position + 1), value);
    }
    if number == 15 {
        text = with_instead_of_view(&text);
    }
    text.trim().trim_end_matches(';').to_owned()
}

/// Query 15 makes a view, selects from it and drops it.
fn with_instead_of_view(text: &str) -> String {
    let text = text.replace("revenue:s", "revenue0");
    let mut statements = text.split(';').map(str::trim);
    let view = statements.next().expect("the view comes first");
    let select = statements.next().expect("the query follows");
    let (head, body) = view.split_once(" as\n").expect("create view .. as");
    let head = head.trim_start_matches("create view ");
    format!("with {head} as (\n{body}\n) {select}")
}

static EXPECTED: LazyLock<Vec<Vec<Vec<String>>>> = LazyLock::new(|| {
    let plain = plain_context(&TPCH);
    let rows = |number| {
        let rows = block_on(async { plain.sql(&query(number)).await?.collect().await });
        sorted(&rows.expect("DataFusion runs the query"))
    };
    (1..=22).map(rows).collect()
});

fn check(options: Options) {
    let session = Session::new();
    let mut faults = Vec::new();
    for (number, expected) in (1..).zip(EXPECTED.iter()) {
        match run(&session, &TPCH, &query(number), &options) {
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
fn most_queries_have_rows() {
    let n_empty = EXPECTED.iter().filter(|rows| rows.is_empty()).count();
    assert!(n_empty <= 4, "{n_empty} queries without rows show little");
}

#[test]
fn one_task() {
    check(options(1, true));
    check(options(1, false));
}

#[test]
fn three_tasks_with_broadcast() {
    check(options(3, true));
}

#[test]
fn three_tasks_without_broadcast() {
    check(options(3, false));
}

#[test]
fn eight_tasks_with_broadcast() {
    check(options(8, true));
}

#[test]
fn eight_tasks_without_broadcast() {
    check(options(8, false));
}
