//! WITH RECURSIVE, against DataFusion in one process, and its bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use weft_core::ErrorCode;
use weft_sql::{Options, Relation, Relations, Session, View};

use crate::data::{SMALL, block_on, plain_context};
use crate::runner::{at_all_widths, merging, options, plan, run, run_within, sorted, text};

const STATEMENTS: [&str; 11] = [
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 50) SELECT n FROM r",
    "WITH RECURSIVE r(n, f) AS (SELECT 1, 1.0 UNION ALL SELECT n + 1, f * (n + 1) FROM r WHERE n < 9) SELECT f FROM r",
    // A graph with circles: each node goes to two others.
    "WITH RECURSIVE edges(a, b) AS (SELECT id, id * 2 % 11 FROM t WHERE id < 11 UNION ALL SELECT id, id * 3 % 11 FROM t),
         r AS (SELECT 1 AS node UNION SELECT edges.b FROM edges JOIN r ON edges.a = r.node)
         SELECT node FROM r",
    "WITH RECURSIVE r AS (SELECT id, k, 0 AS depth FROM t WHERE id = 59
         UNION ALL SELECT t.id, t.k, depth + 1 FROM t JOIN r ON t.id = r.id - r.k - 1 WHERE depth < 9)
         SELECT r.id, depth, u.v FROM r LEFT JOIN u ON u.id = r.id",
    // The last query reads one column of three.
    "WITH RECURSIVE r AS (SELECT 1 AS a, 2 AS b, 3 AS c UNION ALL SELECT b + 1, b + 1 AS x, 0 FROM r WHERE b < 9)
         SELECT a, b, c FROM r",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9)
         SELECT k, count(*) AS n FROM t JOIN r ON t.k = r.n GROUP BY k",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < (SELECT max(k) FROM t))
         SELECT n FROM r UNION ALL SELECT id FROM u",
    "SELECT id FROM t WHERE id IN (
         WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n * 2 FROM r WHERE n < 50) SELECT n FROM r)",
    // No recursion, in spite of the word.
    "WITH RECURSIVE r AS (SELECT k FROM t UNION ALL SELECT k FROM u) SELECT k, count(*) AS n FROM r GROUP BY k",
    "WITH RECURSIVE r AS (SELECT v FROM e UNION ALL SELECT v + 1 FROM r) SELECT v FROM r",
    "WITH RECURSIVE r AS (SELECT id FROM u UNION SELECT r.id - 1 FROM r WHERE NOT EXISTS (SELECT 1 FROM w WHERE w.id = r.id + 1)
         AND r.id > 45) SELECT id FROM r",
];

fn check(options: Options) {
    let (session, plain) = (Session::new(), plain_context(&SMALL));
    for sql in STATEMENTS {
        let expected = block_on(async { plain.sql(sql).await?.collect().await });
        let expected = expected.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows = run(&session, &SMALL, sql, &options);
        let rows = rows.unwrap_or_else(|problem| panic!("{sql}: {problem}"));
        assert_eq!(sorted(&rows), sorted(&expected), "{sql}");
    }
}

at_all_widths!();

#[test]
fn a_recursion_has_one_task_and_its_look_alike_more() {
    let n_tasks = |sql: &str| {
        let (_, stages) = plan(&Session::new(), &SMALL, sql, &options(3, true)).expect(sql);
        stages.iter().map(|stage| stage.n_tasks).max()
    };
    let sql = "WITH RECURSIVE r AS (SELECT id FROM t UNION SELECT id + 1 FROM r WHERE id < 9) SELECT id FROM r";
    assert_eq!(n_tasks(sql), Some(1));
    let sql = "WITH RECURSIVE r AS (SELECT id FROM t) SELECT id, count(*) AS n FROM r GROUP BY id";
    assert_eq!(n_tasks(sql), Some(3));
}

#[test]
fn a_recursion_of_a_view_has_one_task() {
    let session = Session::new();
    let parse = |sql: &str| session.parse(sql).expect("a query");
    let view = View {
        name: "numbers".to_owned(),
        statement: parse(
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9) SELECT n FROM r",
        ),
        reads: BTreeMap::new(),
    };
    let table = SMALL.iter().find(|data| data.name == "t").expect("a table");
    let relations = Relations {
        tables: vec![table.table()],
        views: vec![view],
        reads: BTreeMap::from([
            ("numbers".to_owned(), Relation::View(0)),
            ("t".to_owned(), Relation::Table(0)),
        ]),
    };
    let statement = parse("SELECT k, count(*) AS c FROM t JOIN numbers ON n = k GROUP BY k");
    let stages = block_on(session.plan(statement, relations, &options(3, true)));
    let stages = stages.expect("a plan");
    assert!(stages.iter().all(|stage| stage.n_tasks == 1), "{stages:?}");
}

#[test]
fn a_recursion_without_end_ends_at_its_bound_or_at_a_limit() {
    let session = Session::new();
    let endless = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r)";
    let sql = format!("{endless} SELECT n FROM r LIMIT 3");
    let rows = run(&session, &SMALL, &sql, &options(1, true)).expect("three rows");
    assert_eq!(text(&rows), [["1"], ["2"], ["3"]]);
    let sql = format!("{endless} SELECT max(n) AS n FROM r");
    let problem = run(&session, &SMALL, &sql, &options(1, true)).expect_err("it has no end");
    assert_eq!(problem.code, ErrorCode::LimitExceeded, "{problem}");
    assert!(problem.detail.contains("100000 steps"), "{problem}");
}

#[test]
fn rows_of_a_recursion_are_counted_as_memory() {
    let session = Session::new();
    let sql = "WITH RECURSIVE r AS (SELECT value AS n FROM generate_series(1, 200000)
                   UNION SELECT n + 1 FROM r WHERE n < 0) SELECT max(n) AS n FROM r";
    let small = || Arc::new(GreedyMemoryPool::new(64 << 10)) as Arc<dyn MemoryPool>;
    let problem = run_within(&session, &SMALL, sql, &options(1, true), &small);
    let problem = problem.expect_err("they do not fit");
    assert_eq!(problem.code, ErrorCode::LimitExceeded, "{problem}");
}
