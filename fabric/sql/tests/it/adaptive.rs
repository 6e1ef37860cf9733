//! Tasks that are more or fewer than planned: which stages allow it, and rows that do not depend on it.

use weft_sql::{LeafPlan, Options, Session, SqlStage};

use crate::data::{SMALL, TPCH, block_on, plain_context};
use crate::joins::MERGED;
use crate::runner::{merging, options, plan, run_adapted, sorted};
use crate::tpch::{EXPECTED, query};

fn all_options() -> [Options; 4] {
    [
        options(8, false),
        options(8, true),
        options(3, false),
        merging(8),
    ]
}

#[test]
fn rows_of_joins_do_not_depend_on_tasks() {
    let plain = plain_context(&SMALL);
    let session = Session::new();
    for sql in MERGED {
        let rows = block_on(async { plain.sql(sql).await?.collect().await });
        let expected = sorted(&rows.expect("DataFusion runs the query"));
        for options in all_options() {
            for which in 0..2 {
                let rows = run_adapted(&session, &SMALL, sql, &options, which);
                let rows = sorted(&rows.expect(sql));
                assert_eq!(rows, expected, "{sql} by {options:?}");
            }
        }
    }
}

#[test]
fn rows_of_tpch_do_not_depend_on_tasks() {
    let session = Session::new();
    for (number, expected) in (1..).zip(EXPECTED.iter()) {
        for options in [options(8, false), merging(3)] {
            for which in 0..2 {
                let rows = run_adapted(&session, &TPCH, &query(number), &options, which);
                let rows = sorted(&rows.unwrap_or_else(|problem| panic!("q{number}: {problem}")));
                assert!(rows == *expected, "q{number} by {options:?}");
            }
        }
    }
}

/// Tables whose rows a stage exchanged by key; those that a leaf may share, and whether tasks may be fewer.
fn of_join(sql: &str, options: &Options) -> (Vec<String>, Option<Vec<String>>) {
    let (tables, stages) = plan(&Session::new(), &TPCH, sql, options).expect(sql);
    let table_of = |stage: &SqlStage| match &stage.leaves[..] {
        [LeafPlan::Scan { table, .. }] => Some(tables[*table].name.to_owned()),
        _ => None,
    };
    let name_of = |leaf: &LeafPlan| match leaf {
        LeafPlan::Exchange { stage, .. } => table_of(&stages[*stage]),
        LeafPlan::Scan { .. } => None,
    };
    let joins = |stage: &&SqlStage| stage.leaves.iter().filter_map(name_of).count() == 2;
    let stage = stages.iter().find(joins).expect("a stage that joins");
    let mut read: Vec<String> = stage.leaves.iter().filter_map(name_of).collect();
    read.sort();
    let split = stage.variants[0].adaptive.as_ref().map(|adaptive| {
        let split = adaptive.split.iter();
        let names = split.filter_map(|leaf| name_of(&stage.leaves[*leaf as usize]));
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    });
    (read, split)
}

#[track_caller]
fn check_by(options: &Options, sql: &str, expected: &[&str]) {
    let (read, split) = of_join(sql, options);
    assert_eq!(read, ["lineitem", "orders"], "{sql}");
    assert_eq!(split.expect("tasks may be fewer"), expected, "{sql}");
}

#[track_caller]
fn check(sql: &str, expected: &[&str]) {
    check_by(&options(8, false), sql, expected);
    check_by(&merging(8), sql, expected);
}

#[test]
fn sides_are_shared_by_tasks_where_the_join_allows_it() {
    let join = |kind: &str| {
        format!("SELECT l_tax, o_clerk FROM lineitem {kind} JOIN orders ON l_orderkey = o_orderkey")
    };
    check(&join("INNER"), &["lineitem", "orders"]);
    check(&join("LEFT"), &["lineitem"]);
    check(&join("RIGHT"), &["orders"]);
    check(&join("FULL"), &[]);
    let exists = |not: &str| {
        format!(
            "SELECT l_tax FROM lineitem WHERE {not} EXISTS (SELECT 1 FROM orders WHERE o_orderkey = l_orderkey \
             AND o_totalprice < l_tax)"
        )
    };
    check(&exists(""), &["lineitem"]);
    check(&exists("NOT"), &["lineitem"]);
}

#[test]
fn a_stage_that_needs_a_key_in_one_task_is_not_shared() {
    let of = |columns: &str, end: &str| {
        format!("SELECT {columns} FROM lineitem JOIN orders ON l_orderkey = o_orderkey {end}")
    };
    let both: &[&str] = &["lineitem", "orders"];
    // Groups by another column are exchanged again, by the key they end in the stage.
    check(&of("o_clerk, count(*)", "GROUP BY o_clerk"), both);
    let hashed = options(8, false);
    let by_key = of("l_orderkey, count(*)", "GROUP BY l_orderkey");
    check_by(&hashed, &by_key, &[]);
    let window = "sum(l_tax) OVER (PARTITION BY l_orderkey)";
    check_by(&hashed, &of(window, ""), &[]);
    check(&of("l_tax, o_clerk", "ORDER BY l_tax, o_clerk"), both);
    check(&of("l_tax, o_clerk", "LIMIT 5"), &[]);
    check(&of("l_tax, o_clerk", "ORDER BY l_tax LIMIT 5"), &[]);
}

/// Each task that shares a partition computes the other side whole, and floats add up to what their order says.
#[test]
fn a_side_that_may_differ_between_tasks_is_computed_by_one() {
    let of = |orders: &str| {
        format!(
            "SELECT l_tax, o.total FROM lineitem JOIN ({orders}) o ON l_orderkey = o.o_orderkey"
        )
    };
    let plain = "SELECT o_orderkey, o_totalprice AS total FROM orders";
    check(&of(plain), &["lineitem", "orders"]);
    let sum = "SELECT o_orderkey, sum(o_totalprice) AS total FROM orders GROUP BY o_orderkey";
    check_by(&options(8, false), &of(sum), &[]);
    let window =
        "SELECT o_orderkey, sum(o_totalprice) OVER (PARTITION BY o_orderkey) AS total FROM orders";
    check_by(&options(8, false), &of(window), &[]);
}

/// A stage that reads files has a task for each slice of them.
#[test]
fn tasks_that_read_tables_are_as_planned() {
    let sql = "SELECT l_returnflag, count(*) FROM lineitem GROUP BY 1 ORDER BY 2";
    let (_, stages) = plan(&Session::new(), &TPCH, sql, &options(8, false)).expect(sql);
    let adaptive = stages
        .iter()
        .map(|stage| stage.variants[0].adaptive.is_some());
    // A scan, groups by key, and a merge in ranges.
    assert_eq!(adaptive.collect::<Vec<_>>(), [false, true, true]);
}
