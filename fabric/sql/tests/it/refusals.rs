//! Statements that are refused, with the code and the words that say why.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use weft_core::{ErrorCode, Problem};
use weft_sql::{Session, Table};

use crate::data::{SMALL, block_on};
use crate::runner::{options, plan, run};

fn table(name: &str, columns: &[&str]) -> Table {
    let fields = columns
        .iter()
        .map(|name| Field::new(*name, DataType::Int64, true));
    Table {
        name: name.to_owned(),
        schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        rows: None,
        bytes: None,
        columns: Vec::new(),
    }
}

fn plan_over(sql: &str, tables: Vec<Table>) -> Result<(), Problem> {
    let session = Session::new();
    let statement = session.parse(sql)?;
    block_on(session.plan(statement, tables, &options(3, true))).map(drop)
}

/// Checks the code of a refusal, and words of its text.
fn refused(sql: &str, code: ErrorCode, words: &[&str]) {
    let tables = vec![table("orders", &["id", "amount"]), table("Users", &["id"])];
    let problem = plan_over(sql, tables).expect_err(sql);
    assert_eq!(problem.code, code, "{sql}: {problem}");
    for word in words {
        assert!(problem.detail.contains(word), "{sql}: {problem}");
    }
}

/// Runs `check` on a stack of the size that executors give to planning: threads of tests have 2 MiB.
fn with_stack(check: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(16 << 20);
        let thread = thread.spawn_scoped(scope, check).expect("a thread starts");
        thread.join().expect("the check holds");
    });
}

#[test]
fn only_queries_are_run() {
    for (sql, verb) in [
        ("CREATE TABLE x (a INT)", "`CREATE`"),
        ("CREATE VIEW x AS SELECT 1", "`CREATE`"),
        (
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
            "`CREATE`",
        ),
        ("DROP TABLE orders", "`DROP`"),
        ("INSERT INTO orders VALUES (1, 2)", "`INSERT`"),
        ("DELETE FROM orders", "`DELETE`"),
        ("UPDATE orders SET id = 1", "`UPDATE`"),
        ("COPY orders TO '/tmp/x.csv'", "`COPY`"),
        ("SET a = 1", "`SET`"),
        ("SHOW TABLES", "`SHOW`"),
        ("DESCRIBE orders", "`DESCRIBE`"),
        ("EXPLAIN SELECT 1", "`EXPLAIN`"),
    ] {
        refused(sql, ErrorCode::InvalidJob, &[verb, "a query"]);
    }
    refused(
        "SELECT * INTO x FROM orders",
        ErrorCode::InvalidJob,
        &["DDL"],
    );
}

#[test]
fn a_result_has_not_too_many_columns_nor_names_too_long() {
    let columns = |n: usize| {
        let columns: Vec<String> = (0..n).map(|n| format!("1 AS c{n}")).collect();
        format!("SELECT {}", columns.join(", "))
    };
    with_stack(|| {
        plan_over(&columns(2_000), Vec::new()).expect("a wide result");
        refused(
            &columns(4_097),
            ErrorCode::TooLarge,
            &["4097 columns", "4096"],
        );
    });
    let long = format!("SELECT '{}'", "x".repeat(5_000));
    refused(&long, ErrorCode::TooLarge, &["xxx..", "with AS"]);
    plan_over(&format!("{long} AS a"), Vec::new()).expect("a short name");
}

#[test]
fn one_statement_is_run() {
    refused(
        "SELECT 1; SELECT 2",
        ErrorCode::InvalidJob,
        &["2 statements"],
    );
    refused("  ", ErrorCode::InvalidJob, &["no statement"]);
    refused("SELEC 1", ErrorCode::InvalidJob, &["cannot be parsed"]);
    plan_over("SELECT 1;", vec![]).expect("a semicolon ends a statement");
}

#[test]
fn unknown_names_come_with_the_nearest() {
    let code = ErrorCode::InvalidJob;
    refused("SELECT * FROM ordrs", code, &["`ordrs`", "`orders`"]);
    refused("SELECT * FROM users", code, &["\"Users\"", "lower case"]);
    refused("SELECT * FROM zzzzzzzz", code, &["`Users`, `orders`"]);
    refused("SELECT * FROM a.orders", code, &["a.orders", "quote"]);
    refused("SELECT amout FROM orders", code, &["amout", "amount"]);
    refused("SELECT random() FROM orders", code, &["random"]);
    refused("SELECT uuid() FROM orders", code, &["uuid"]);
}

#[test]
fn names_of_the_result_differ() {
    let sql = "SELECT o.id, u.id FROM orders o JOIN \"Users\" u ON o.id = u.id";
    refused(sql, ErrorCode::InvalidJob, &["`id`", "AS"]);
    let sql = "SELECT o.id, u.id AS other FROM orders o JOIN \"Users\" u ON o.id = u.id";
    plan_over(sql, vec![table("orders", &["id"]), table("Users", &["id"])]).expect("two names");
}

#[test]
fn recursions_that_exchange_rows_within_a_step_are_refused() {
    let sql = "WITH RECURSIVE r AS (
                   SELECT 1 AS n UNION ALL (SELECT n + 1 FROM r WHERE n < 5 UNION ALL SELECT amount FROM orders)
               ) SELECT n FROM r";
    refused(sql, ErrorCode::InvalidJob, &["UNION within", "RECURSIVE"]);
    let sql = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT a.n + b.n FROM r a, r b) SELECT n FROM r";
    refused(
        sql,
        ErrorCode::InvalidJob,
        &["Multiple recursive references"],
    );
}

#[test]
fn clauses_around_the_union_of_a_recursion_are_refused() {
    let union = "SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 9";
    let words = ["UNION of `r`", "outer query"];
    for query in [
        format!("{union} ORDER BY n"),
        format!("{union} LIMIT 3"),
        format!("{union} OFFSET 3"),
        format!("{union} FETCH FIRST 3 ROWS ONLY"),
        format!("{union} |> WHERE n > 3"),
        format!("WITH orders AS (SELECT 7 AS id) {union} AND n IN (SELECT id FROM orders)"),
        // No recursion, in spite of the word.
        "SELECT id FROM orders UNION SELECT amount FROM orders LIMIT 3".to_owned(),
    ] {
        let sql = format!("WITH RECURSIVE r AS ({query}) SELECT n FROM r");
        refused(&sql, ErrorCode::InvalidJob, &words);
        let within = format!("SELECT id FROM orders WHERE id IN ({sql})");
        refused(&within, ErrorCode::InvalidJob, &words);
    }
    for sql in [
        "WITH RECURSIVE r AS (SELECT id FROM orders ORDER BY id LIMIT 3) SELECT id FROM r",
        "WITH RECURSIVE r AS ((SELECT id FROM orders LIMIT 3) UNION SELECT id + 1 FROM r WHERE id < 9) SELECT id FROM r LIMIT 3",
        "WITH r AS (SELECT id FROM orders UNION SELECT amount FROM orders LIMIT 3) SELECT id FROM r",
    ] {
        plan_over(sql, vec![table("orders", &["id", "amount"])]).expect(sql);
    }
}

#[test]
fn recursions_that_read_rows_of_a_step_elsewhere_are_refused() {
    let code = ErrorCode::InvalidJob;
    let alone = "WITH RECURSIVE r AS (
                     SELECT 1 AS n UNION ALL SELECT id FROM orders WHERE id IN (SELECT n + 1 FROM r)
                 ) SELECT n FROM r";
    refused(alone, code, &["reads itself in a subquery alone", "FROM"]);
    let inner = |first: &str, last: &str| {
        format!(
            "WITH RECURSIVE a AS (
                 SELECT 1 AS n UNION ALL SELECT d.m FROM (
                     WITH RECURSIVE b AS (SELECT {first} UNION ALL SELECT b.m + 1 FROM {last} WHERE b.m < 5) SELECT m FROM b
                 ) AS d WHERE d.m < 9
             ) SELECT n FROM a"
        )
    };
    let last = inner("1 AS m", "b JOIN a ON a.n = b.m");
    let first = inner("n + 1 AS m FROM a", "b");
    with_stack(|| {
        refused(&last, code, &["recursion `b`", "first query"]);
        plan_over(&first, Vec::new()).expect("the first query reads rows of a step");
    });
}

#[test]
fn aggregates_that_differ_in_subqueries_alone_are_refused_with_advice() {
    let max = |name: &str, rest: &str| format!("(SELECT max(id){name} FROM orders{rest})");
    let (one, other) = (max("", ""), max("", " WHERE id < 2"));
    let (named, other_named) = (max(" AS x", ""), max(" AS y", " WHERE id < 2"));
    let sums = |one: &str, other: &str, over: &str| {
        format!("SELECT sum(id + {one}){over} AS a, sum(id + {other}){over} AS b FROM orders")
    };
    for over in ["", " OVER ()"] {
        let sql = sums(&one, &other, over);
        refused(&sql, ErrorCode::InvalidJob, &["max(a) AS x"]);
        let sql = sums(&named, &other_named, over);
        plan_over(&sql, vec![table("orders", &["id"])]).expect("the advice");
    }
    let by = |one: &str, from: &str| {
        format!(
            "SELECT sum(id) OVER (ORDER BY id + {one}) AS a, sum(id) OVER (ORDER BY id + {other}) AS b FROM {from}"
        )
    };
    let sql = by(&one, "orders");
    refused(&sql, ErrorCode::InvalidJob, &["derived table"]);
    let sql = by("x", &format!("(SELECT id, {named} FROM orders) AS o"));
    plan_over(&sql, vec![table("orders", &["id"])]).expect("the advice");
}

#[test]
fn deep_and_long_statements_are_refused() {
    with_stack(check_deep_and_long);
}

fn check_deep_and_long() {
    let code = ErrorCode::TooLarge;
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    refused(&deep, code, &["nests too deeply"]);
    let chain = format!(
        "SELECT id FROM orders WHERE id = 1{}",
        " OR id = 2".repeat(20_000)
    );
    refused(&chain, code, &["words", "IN lists"]);
    let unions = format!("SELECT 1 AS a{}", " UNION ALL SELECT 1".repeat(300));
    refused(&unions, code, &["tables and selects"]);
    let sums = format!("SELECT {}", "1 + ".repeat(1_500) + "id FROM orders");
    refused(&sums, code, &["nests too deeply"]);
    let list = vec!["1"; 20_000].join(", ");
    let list = format!("SELECT id FROM orders WHERE id IN ({list})");
    plan_over(&list, vec![table("orders", &["id"])]).expect("a long list is flat");
}

#[test]
fn statements_that_planning_would_multiply_are_refused_as_they_are_parsed() {
    with_stack(check_multiplied);
}

fn check_multiplied() {
    let nested = |levels: usize, before: &str, inner: &str, after: &str| {
        let inner = format!("{}{inner}{}", before.repeat(levels), after.repeat(levels));
        format!("SELECT {inner} AS x FROM orders")
    };
    let parse = |sql: &str| Session::new().parse(sql).map(drop);
    let boolean = "CASE WHEN id = 1 THEN true ELSE false END";
    let multiplied = [
        nested(20, "coalesce(", "id", ", 7)"),
        nested(20, "NVL(", "id", ", 7)"),
        nested(20, "ifnull(", "id", ", 7)"),
        nested(20, "(", "id BETWEEN 1 AND 2", ") BETWEEN false AND true"),
        nested(
            10,
            "coalesce((",
            "id BETWEEN 1 AND 2",
            ") NOT BETWEEN false AND true, false)",
        ),
        nested(20, "CASE WHEN ", boolean, " THEN true ELSE false END"),
        format!(
            "SELECT CASE {} END AS x FROM orders",
            "WHEN id = 1 THEN false ".repeat(1_000)
        ),
    ];
    for sql in multiplied {
        let problem = parse(&sql).expect_err(&sql);
        assert_eq!(problem.code, ErrorCode::TooLarge, "{sql}: {problem}");
        assert!(problem.detail.contains("planning repeats"), "{problem}");
    }
    for sql in [
        nested(6, "coalesce(", "id", ", 7)"),
        nested(6, "(", "id BETWEEN 1 AND 2", ") BETWEEN false AND true"),
        // Parts that are not tested are not repeated.
        nested(30, "coalesce(id, ", "7", ")"),
        nested(30, "CASE WHEN id = 1 THEN 1 ELSE ", "id", " END"),
        nested(20, "nullif(", "id", ", 7)"),
        format!(
            "SELECT {} 1 AS x FROM orders",
            "coalesce(id, amount, 0), ".repeat(3_000)
        ),
    ] {
        parse(&sql).unwrap_or_else(|problem| panic!("{sql}: {problem}"));
    }
}

#[test]
fn plans_too_deep_for_their_encoding_are_refused() {
    let session = Session::new();
    let planned = |n: usize, tasks: u32| {
        let joins = (1..n).map(|n| format!(" JOIN orders o{n} ON o{n}.id = o{}.id + 1", n - 1));
        let sql = format!("SELECT o0.id FROM orders o0{}", joins.collect::<String>());
        let statement = session.parse(&sql).expect("a query");
        let tables = vec![table("orders", &["id", "amount"])];
        block_on(session.plan(statement, tables, &options(tasks, true))).map(drop)
    };
    with_stack(|| {
        let problem = planned(60, 1).expect_err("60 joins in one stage");
        assert_eq!(problem.code, ErrorCode::TooLarge, "{problem}");
        planned(10, 1).expect("10 joins in one stage");
        planned(60, 3).expect("stages of one join each");
    });
}

#[test]
fn values_that_cannot_be_computed_are_the_users() {
    let session = Session::new();
    for sql in [
        "SELECT 1 / (id - id) FROM t",
        "SELECT CAST(s AS INT) FROM t",
    ] {
        let problem = run(&session, &SMALL, sql, &options(3, true)).expect_err(sql);
        assert_eq!(problem.code, ErrorCode::QueryError, "{sql}: {problem}");
    }
}

#[test]
fn names_are_those_that_are_read() {
    let session = Session::new();
    let tables = |sql: &str| session.parse(sql).expect("a query").tables();
    let sql = "WITH c AS (SELECT * FROM T), d AS (SELECT * FROM c) SELECT * FROM d JOIN \"My-Table\" USING (id)";
    assert_eq!(tables(sql), ["My-Table", "t"]);
    let sql = "SELECT * FROM 'data/taxi/*.parquet' x JOIN generate_series(1, 3) ON true";
    assert_eq!(tables(sql), ["data/taxi/*.parquet"]);
    assert_eq!(tables("SELECT 1"), [""; 0]);
}

#[test]
fn statements_have_one_clock() {
    let session = Session::new();
    let (_, stages) = plan(
        &session,
        &SMALL,
        "SELECT now() AS started",
        &options(1, true),
    )
    .expect("a plan");
    let (_, again) = plan(
        &session,
        &SMALL,
        "SELECT now() AS started",
        &options(1, true),
    )
    .expect("a plan");
    assert_eq!(stages[0].variants, again[0].variants);
    let operators = format!("{:?}", stages[0].operators);
    assert!(operators.contains("1700000000000"), "{operators}");
}
