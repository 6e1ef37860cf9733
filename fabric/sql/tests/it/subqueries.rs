//! Scalar subqueries in ORDER BY, GROUP BY, aggregates, windows and ON: as if a derived table had their values.

use weft_core::ErrorCode;
use weft_sql::{Options, Session};

use crate::data::{SMALL, block_on, plain_context};
use crate::runner::{at_all_widths, merging, options, plan, run, sorted, text};

/// Statements, and what they mean in statements that DataFusion runs by itself.
const PAIRS: [(&str, &str); 12] = [
    (
        "SELECT k + (SELECT min(id) FROM u) AS g, count(*) AS n FROM t GROUP BY k + (SELECT min(id) FROM u)",
        "SELECT g, count(*) AS n FROM (SELECT k + m AS g FROM t CROSS JOIN (SELECT min(id) AS m FROM u)) GROUP BY g",
    ),
    (
        "SELECT count(*) AS n, max(v) AS m FROM t GROUP BY (SELECT max(u.k) FROM u WHERE u.id = t.id)",
        "SELECT count(*) AS n, max(v) AS m FROM (SELECT t.v, x.k FROM t LEFT JOIN u x ON x.id = t.id) GROUP BY k",
    ),
    (
        "SELECT sum((SELECT max(v) FROM u) - v) AS n FROM t",
        "SELECT sum(m - v) AS n FROM t CROSS JOIN (SELECT max(v) AS m FROM u)",
    ),
    (
        "SELECT k, sum(v) FILTER (WHERE v < (SELECT max(v) FROM u)) AS n FROM t GROUP BY k",
        "SELECT k, sum(v) FILTER (WHERE v < m) AS n FROM t CROSS JOIN (SELECT max(v) AS m FROM u) GROUP BY k",
    ),
    (
        "SELECT id, sum(v) OVER (PARTITION BY id % (SELECT max(k) FROM u) ORDER BY id) AS n FROM t",
        "SELECT id, sum(v) OVER (PARTITION BY id % m ORDER BY id) AS n FROM t CROSS JOIN (SELECT max(k) AS m FROM u)",
    ),
    (
        "SELECT t.id, u.v FROM t LEFT JOIN u ON t.id = u.id AND t.v < (SELECT avg(v) FROM w)",
        "SELECT t.id, u.v FROM (SELECT * FROM t CROSS JOIN (SELECT avg(v) AS m FROM w)) t
             LEFT JOIN u ON t.id = u.id AND t.v < t.m",
    ),
    (
        "SELECT t.id, u.v FROM t LEFT JOIN u ON u.id = (SELECT max(id) FROM w)",
        "SELECT t.id, u.v FROM t LEFT JOIN (SELECT u.v FROM u JOIN (SELECT max(id) AS m FROM w) ON id = m) u ON true",
    ),
    (
        "SELECT t.id, u.id AS other FROM t FULL JOIN u ON t.id = u.id AND u.v < (SELECT avg(v) FROM w)",
        "SELECT t.id, u.id AS other FROM t
             FULL JOIN (SELECT * FROM u CROSS JOIN (SELECT avg(v) AS m FROM w)) u ON t.id = u.id AND u.v < u.m",
    ),
    (
        "SELECT t.id, u.id AS other FROM t LEFT JOIN u ON u.id = t.id AND (SELECT max(w.v) FROM w WHERE w.id = u.id) > 9",
        "SELECT t.id, u.id AS other FROM t
             LEFT JOIN (SELECT u.id FROM u JOIN w ON w.id = u.id WHERE w.v > 9) u ON u.id = t.id",
    ),
    (
        "SELECT x.a FROM (SELECT k AS a, count(*) AS n FROM t GROUP BY k ORDER BY n + (SELECT 1), a LIMIT 3) x",
        "SELECT x.a FROM (SELECT k AS a, count(*) AS n FROM t GROUP BY k ORDER BY n, a LIMIT 3) x",
    ),
    (
        "SELECT id, (SELECT sum(u.v + (SELECT min(v) FROM w)) FROM u WHERE u.id = t.id) AS n FROM t",
        "SELECT t.id, u.v + m AS n FROM t LEFT JOIN u ON u.id = t.id CROSS JOIN (SELECT min(v) AS m FROM w)",
    ),
    (
        "SELECT t.id FROM t JOIN u ON t.id = u.id AND (SELECT max(w.v) FROM w WHERE w.id = t.id) > u.v - 1",
        "SELECT t.id FROM t JOIN u ON t.id = u.id JOIN w ON w.id = t.id WHERE w.v > u.v - 1",
    ),
];

/// The same, with rows in an order.
const ORDERED: [(&str, &str); 4] = [
    (
        "SELECT id, v FROM t ORDER BY abs(v - (SELECT max(v) FROM u)) DESC, id",
        "SELECT id, v FROM t CROSS JOIN (SELECT max(v) AS m FROM u) ORDER BY abs(v - m) DESC, id",
    ),
    (
        "SELECT id FROM t ORDER BY (SELECT max(u.v) FROM u WHERE u.id = t.id) DESC NULLS LAST, id LIMIT 15",
        "SELECT t.id FROM t LEFT JOIN u ON u.id = t.id ORDER BY u.v DESC NULLS LAST, t.id LIMIT 15",
    ),
    // The column of the outer query is not in the select list.
    (
        "SELECT v FROM t ORDER BY (SELECT max(u.v) FROM u WHERE u.id = t.id) NULLS FIRST, v",
        "SELECT t.v FROM t LEFT JOIN u ON u.id = t.id ORDER BY u.v NULLS FIRST, t.v",
    ),
    (
        "SELECT k, sum(v) AS n FROM t GROUP BY k ORDER BY (SELECT max(v) FROM u), k NULLS FIRST",
        "SELECT k, sum(v) AS n FROM t GROUP BY k ORDER BY k NULLS FIRST",
    ),
];

fn check(options: Options) {
    let (session, plain) = (Session::new(), plain_context(&SMALL));
    for (pairs, is_ordered) in [(&PAIRS[..], false), (&ORDERED[..], true)] {
        for (sql, meaning) in pairs {
            let expected = block_on(async { plain.sql(meaning).await?.collect().await });
            let expected = expected.unwrap_or_else(|error| panic!("{meaning}: {error}"));
            let rows = run(&session, &SMALL, sql, &options);
            let rows = rows.unwrap_or_else(|problem| panic!("{sql}: {problem}"));
            match is_ordered {
                true => assert_eq!(text(&rows), text(&expected), "{sql}"),
                false => assert_eq!(sorted(&rows), sorted(&expected), "{sql}"),
            }
        }
    }
}

at_all_widths!();

#[test]
fn a_column_that_no_projection_sees_is_refused() {
    let session = Session::new();
    for sql in [
        "SELECT k FROM t GROUP BY k ORDER BY (SELECT max(u.v) FROM u WHERE u.id = t.id)",
        "SELECT t.id FROM t LEFT JOIN u ON (SELECT max(w.v) FROM w WHERE w.id = t.id AND w.k = u.k) > 9",
    ] {
        let problem = plan(&session, &SMALL, sql, &options(3, true)).expect_err(sql);
        assert_eq!(problem.code, ErrorCode::InvalidJob, "{sql}: {problem}");
    }
}

#[test]
fn more_than_one_row_is_an_error_wherever_the_subquery_stands() {
    let session = Session::new();
    for sql in [
        "SELECT id FROM t ORDER BY (SELECT v FROM u), id",
        "SELECT count(*) AS n FROM t GROUP BY k + (SELECT v FROM u)",
        "SELECT t.id FROM t LEFT JOIN u ON t.id = u.id AND t.v < (SELECT v FROM w)",
    ] {
        let problem = run(&session, &SMALL, sql, &options(3, true)).expect_err(sql);
        assert_eq!(problem.code, ErrorCode::QueryError, "{sql}: {problem}");
    }
}
