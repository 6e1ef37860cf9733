//! Statements that ask for too much end in an answer or an error with a name, and their neighbours do not notice.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::job;
use crate::sql::{Desk, numbers, text};

/// Says that the executor is the one of before, and answers.
struct Neighbour<'a> {
    desk: &'a Desk,
    executors: Vec<Pid>,
}

impl<'a> Neighbour<'a> {
    fn of(desk: &'a Desk) -> Self {
        assert_eq!(desk.rows("SELECT 1 AS a", 1), [json!([1])]);
        let executors = desk.server.children("executor");
        Self { desk, executors }
    }

    #[track_caller]
    fn is_well(&self) {
        assert_eq!(self.desk.rows("SELECT 2 AS a", 1), [json!([2])]);
        assert_eq!(self.desk.server.children("executor"), self.executors);
    }
}

/// A job of one statement and one output.
fn job_of(desk: &Desk, sql: &str, limits: &Value) -> Value {
    json!({
        "name": "guarded",
        "limits": limits,
        "stage": [{ "name": "query", "sql": sql, "folder": desk.here(""), "partitions": 1 }],
        "output": { "rows": { "from": "query", "format": "csv", "uri": desk.here("out/rows") } },
    })
}

#[test]
fn a_cartesian_product_ends_with_the_jobs_time() {
    let desk = Desk::new();
    let neighbour = Neighbour::of(&desk);
    let sql = "SELECT count(a.value + b.value) AS n \
               FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b";
    let id = job::submit(&desk.server, &job_of(&desk, sql, &json!({ "wall": "3s" })));
    neighbour.is_well();
    let ended = job::wait(&desk.server, &id);
    assert_eq!(ended["problem"]["code"], "limit_exceeded", "{ended:#}");
    assert_eq!(ended["problem"]["limit"], "wall", "{ended:#}");
    neighbour.is_well();
}

#[test]
fn what_does_not_fit_in_memory_is_an_error() {
    let desk = Desk::new();
    let neighbour = Neighbour::of(&desk);
    let sql = "SELECT array_length(array_agg(repeat('x', 30) || CAST(value AS TEXT))) AS n \
               FROM generate_series(1, 5000000)";
    let job = job_of(&desk, sql, &json!({ "memory": "64MiB" }));
    let id = job::submit(&desk.server, &job);
    let ended = job::wait(&desk.server, &id);
    assert_eq!(ended["problem"]["code"], "limit_exceeded", "{ended:#}");
    assert_eq!(ended["problem"]["limit"], "memory", "{ended:#}");
    neighbour.is_well();
}

#[test]
fn types_that_change_between_files_are_told_with_the_file() {
    let desk = Desk::new();
    desk.write_parquet("p-1.parquet", vec![("a", numbers([1, 2]))]);
    let words: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    desk.write_parquet("p-2.parquet", vec![("a", words)]);
    desk.refuses(
        "SELECT a FROM 'p-*.parquet'",
        &["p-2.parquet", "`a`", "[schema_mismatch]"],
    );
    // Wider numbers are no other type.
    desk.write("j-1.json", "{\"a\": 1}\n");
    desk.write("j-2.json", "{\"a\": 1.5}\n");
    assert_eq!(
        desk.rows("SELECT sum(a) AS a FROM 'j-*.json'", 2),
        [json!([2.5])]
    );
}

#[test]
fn keys_that_are_mostly_null_join_nothing_and_group_once() {
    let desk = Desk::new();
    let keys = |n: i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter(
            (0..n).map(|n| (n % 100 == 0).then_some(n)),
        ))
    };
    desk.write_parquet("a.parquet", vec![("k", keys(200_000))]);
    desk.write_parquet("b.parquet", vec![("k", keys(100_000))]);
    let joined = "SELECT count(*) AS n FROM 'a.parquet' a JOIN 'b.parquet' b ON a.k = b.k";
    assert_eq!(desk.rows(joined, 3), [json!([1_000])]);
    let left = "SELECT count(*) AS n, count(b.k) AS m FROM 'a.parquet' a LEFT JOIN 'b.parquet' b ON a.k = b.k";
    assert_eq!(desk.rows(left, 3), [json!([200_000, 1_000])]);
    let grouped = "SELECT count(*) AS n, max(c) AS most FROM (SELECT k, count(*) AS c FROM 'a.parquet' GROUP BY k)";
    assert_eq!(desk.rows(grouped, 3), [json!([2_001, 198_000])]);
}

#[test]
fn ten_thousand_tiny_files_are_a_table() {
    let desk = Desk::new();
    fs::create_dir(desk.here("many")).expect("it is made");
    for file in 0..10_000 {
        fs::write(
            desk.here(&format!("many/{file}.csv")),
            format!("n\n{file}\n"),
        )
        .expect("it writes");
    }
    let sql = "SELECT count(*) AS files, sum(n) AS sum FROM 'many/*.csv'";
    assert_eq!(desk.rows(sql, 4), [json!([10_000, 49_995_000])]);
}

#[test]
fn long_and_deep_statements_are_bounded() {
    let desk = Desk::new();
    let neighbour = Neighbour::of(&desk);
    let mut or = String::from("SELECT 1 AS a WHERE 1 = 0");
    for n in 0..20_000 {
        write!(or, " OR 1 = {n}").expect("it is text");
    }
    desk.write("or.sql", or);
    let refused = desk.sql(&["-f", "or.sql"]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("[too_large]"),
        "{}",
        text(&refused.stderr)
    );
    neighbour.is_well();

    let list: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let list = format!(
        "SELECT count(*) AS n FROM generate_series(1, 30000) WHERE value IN ({})",
        list.join(", ")
    );
    desk.write("in.sql", list);
    assert_eq!(desk.shows(&["-f", "in.sql"]).0, "n\n19999\n");

    desk.refuses(
        &format!("SELECT {}1{} AS a", "(".repeat(5_000), ")".repeat(5_000)),
        &["[too_large]"],
    );
    neighbour.is_well();
}

#[test]
fn statements_that_planning_would_multiply_are_bounded() {
    let desk = Desk::new();
    let neighbour = Neighbour::of(&desk);
    let coalesce = format!("{}value{}", "coalesce(".repeat(24), ", 1)".repeat(24));
    let between = format!(
        "{}value BETWEEN 1 AND 2{}",
        "(".repeat(20),
        ") BETWEEN false AND true".repeat(20)
    );
    for expression in [coalesce, between] {
        let sql = format!("SELECT {expression} AS a FROM generate_series(1, 2)");
        desk.refuses(&sql, &["[too_large]"]);
        // Neither do statements that keep a query.
        desk.refuses(&format!("CREATE VIEW v AS {sql}"), &["[too_large]"]);
        neighbour.is_well();
    }
}

#[test]
fn regular_expressions_take_no_time_that_grows_without_bound() {
    let desk = Desk::new();
    let neighbour = Neighbour::of(&desk);
    let bomb = "SELECT regexp_like(repeat('a', 100000) || 'b', '(a+)+$') AS matches";
    assert_eq!(desk.rows(bomb, 1), [json!([false])]);
    desk.refuses(
        "SELECT regexp_like('a', '((a{1000}){1000}){1000}') AS matches",
        &["[query_error]"],
    );
    neighbour.is_well();
}
