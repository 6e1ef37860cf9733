//! Scalar subqueries: a value of one row, null of none, and an error of more.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use weft_core::ErrorCode;
use weft_sql::{Options, Relation, Relations, Session, SqlStage, View};

use crate::data::{SMALL, block_on, plain_context};
use crate::runner::{merging, options, plan, run, sorted};

const AGGREGATE: &str = "weft_single_value";

fn widths() -> [Options; 4] {
    [
        options(1, true),
        options(3, true),
        options(3, false),
        merging(3),
    ]
}

fn names(batches: &[RecordBatch]) -> Option<Vec<String>> {
    let schema = batches.first()?.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    Some(names.collect())
}

fn operators(stages: &[SqlStage]) -> String {
    let operators = stages.iter().map(|stage| format!("{:?}", stage.operators));
    operators.collect()
}

#[test]
fn more_than_one_row_is_an_error() {
    let session = Session::new();
    for sql in [
        "SELECT (SELECT x FROM (VALUES (1), (2)) v(x)) AS y",
        "SELECT y FROM (VALUES (1), (5)) w(y) WHERE y > (SELECT x FROM (VALUES (1), (2), (3)) v(x))",
        "SELECT (SELECT 1 UNION ALL SELECT 2) AS y",
        "SELECT (SELECT id FROM t) AS y",
        "SELECT (SELECT id FROM t LIMIT 2) AS y",
        "SELECT (SELECT k FROM t WHERE k IS NULL) AS y",
        "SELECT (SELECT count(*) FROM t GROUP BY k) AS y",
        "SELECT id FROM u WHERE v > (SELECT v FROM t)",
        "SELECT k, count(*) FROM t GROUP BY k HAVING count(*) > (SELECT v FROM u)",
        "WITH c AS (SELECT (SELECT id FROM u) AS y) SELECT y FROM c",
        "SELECT id FROM u WHERE v > (SELECT max(v) FROM t WHERE id < (SELECT id FROM u))",
        "SELECT id FROM u WHERE id IN (SELECT id FROM t WHERE v > (SELECT v FROM u))",
    ] {
        for options in widths() {
            let problem = run(&session, &SMALL, sql, &options).expect_err(sql);
            assert_eq!(problem.code, ErrorCode::QueryError, "{sql}: {problem}");
            let is_told = problem.detail.contains("more than one row");
            assert!(is_told, "{sql}: {problem}");
        }
    }
}

#[test]
fn one_row_is_a_value_and_none_is_null() {
    let session = Session::new();
    let plain = plain_context(&SMALL);
    for sql in [
        "SELECT (SELECT x FROM (VALUES (1), (7)) v(x) WHERE x > 5)",
        "SELECT (SELECT id FROM t WHERE id = 7) AS y",
        "SELECT (SELECT k FROM e) AS y",
        "SELECT (SELECT s FROM t WHERE id = 7) = 's3' AS y",
        "SELECT id, (SELECT s FROM t WHERE id = 7) FROM u",
        "SELECT id, (SELECT k FROM t WHERE id = 3) FROM u",
        "SELECT id, (SELECT f FROM t WHERE id = 3) + 1 FROM u",
        "SELECT id FROM u WHERE v > (SELECT v FROM t WHERE id = 7)",
        "SELECT id FROM u WHERE v > (SELECT k FROM e)",
        "SELECT id FROM u WHERE v >= (SELECT v FROM t ORDER BY v DESC LIMIT 1)",
        "SELECT k, count(*) AS n FROM t GROUP BY k HAVING count(*) > (SELECT id - 37 FROM u WHERE id = 45)",
        "WITH c AS (SELECT v, (SELECT id FROM t WHERE id = 7) AS y FROM u) SELECT sum(v + y) AS n FROM c",
        "SELECT (SELECT v FROM t WHERE id = (SELECT id FROM u WHERE id = 44)) AS y",
    ] {
        let expected = block_on(async { plain.sql(sql).await?.collect().await });
        let expected = expected.expect("DataFusion runs the statement");
        for options in widths() {
            let rows = run(&session, &SMALL, sql, &options);
            let rows = rows.unwrap_or_else(|problem| panic!("{sql}: {problem}"));
            assert_eq!(sorted(&rows), sorted(&expected), "{sql}");
            if let (Some(got), Some(expected)) = (names(&rows), names(&expected)) {
                assert_eq!(got, expected, "{sql}");
            }
        }
    }
}

/// DataFusion fails here: it takes the value for one that cannot be null, as the column cannot.
#[test]
fn no_row_of_a_column_without_nulls_is_null() {
    let sql = "SELECT (SELECT id FROM e) AS y";
    for options in widths() {
        let rows = run(&Session::new(), &SMALL, sql, &options).expect(sql);
        assert_eq!(crate::runner::text(&rows), [["NULL"]]);
    }
}

#[test]
fn subqueries_of_one_row_are_planned_as_they_are() {
    for sql in [
        "SELECT id FROM t WHERE v > (SELECT avg(v) FROM u)",
        "SELECT id FROM t WHERE v > (SELECT v FROM u LIMIT 1)",
        "SELECT id, (SELECT 1) AS one FROM t",
    ] {
        let (_, stages) = plan(&Session::new(), &SMALL, sql, &options(3, true)).expect(sql);
        let operators = operators(&stages);
        assert!(!operators.contains(AGGREGATE), "{sql}: {operators}");
    }
}

#[test]
fn correlated_subqueries_without_an_aggregate_are_refused() {
    let sql = "SELECT id, (SELECT t.v FROM t WHERE t.k = u.k) AS y FROM u";
    let problem = plan(&Session::new(), &SMALL, sql, &options(3, true)).expect_err(sql);
    assert_eq!(problem.code, ErrorCode::InvalidJob, "{problem}");
}

#[test]
fn subqueries_of_views_are_checked() {
    let session = Session::new();
    let parse = |sql: &str| session.parse(sql).expect("a query");
    let view = View {
        name: "many".to_owned(),
        statement: parse("SELECT id, (SELECT v FROM t) AS y FROM t"),
        reads: BTreeMap::from([("t".to_owned(), Relation::Table(0))]),
    };
    let table = SMALL.iter().find(|data| data.name == "t").expect("a table");
    let relations = Relations {
        tables: vec![table.table()],
        views: vec![view],
        reads: BTreeMap::from([("many".to_owned(), Relation::View(0))]),
    };
    let statement = parse("SELECT sum(y) AS n FROM many");
    let stages = block_on(session.plan(statement, relations, &options(3, true)));
    let operators = operators(&stages.expect("a plan"));
    assert!(operators.contains(AGGREGATE), "{operators}");
}

#[test]
fn columns_with_names_of_functions_are_columns() {
    let session = Session::new();
    for (sql, expected) in [
        ("SELECT t.user AS a FROM (VALUES ('x')) t(\"user\")", "x"),
        (
            "SELECT t.current_date AS a FROM (VALUES ('y')) t(\"current_date\")",
            "y",
        ),
    ] {
        let rows = run(&session, &SMALL, sql, &options(1, true));
        let rows = rows.unwrap_or_else(|problem| panic!("{sql}: {problem}"));
        assert_eq!(sorted(&rows), [[expected]], "{sql}");
    }
}
