//! Functions of components in statements, with native ones in the place of guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use weft_core::{ErrorCode, Problem};
use weft_sql::{Binder, Bound, Function, Functions, Options, Session};

use crate::data::SMALL;
use crate::runner::{options, plan, run, run_with, sorted, text};

/// References by position, and whether the function is deterministic. All take and return int64.
const FUNCTIONS: [(&str, usize, bool); 4] = [
    ("math/twice", 1, true),
    ("math/inverse", 1, true),
    ("math/count", 0, false),
    ("my-math/half-of", 1, true),
];

#[derive(Debug, Default)]
struct Native {
    counted: AtomicI64,
    /// Rows that `twice` was evaluated on.
    doubled: AtomicI64,
}

fn failed(detail: &str) -> Problem {
    Problem::new(ErrorCode::GuestError, detail)
}

impl Binder for Native {
    fn bind(&self, function: u32, arguments: &[FieldRef]) -> Result<Bound, Problem> {
        let (reference, n, _) = FUNCTIONS[function as usize];
        for (position, argument) in arguments.iter().enumerate() {
            assert_eq!(argument.name(), &format!("arg{position}"));
        }
        if arguments.len() != n {
            let detail = format!("`{reference}` takes {n} arguments, not {}", arguments.len());
            return Err(failed(&detail));
        }
        let is_nullable = arguments.iter().any(|argument| argument.is_nullable());
        Ok(Bound {
            arguments: vec![DataType::Int64; n],
            returns: Arc::new(Field::new("returns", DataType::Int64, is_nullable)),
        })
    }
}

impl Functions for Native {
    fn evaluate(
        &self,
        function: u32,
        arguments: RecordBatch,
        returns: &FieldRef,
    ) -> Result<ArrayRef, Problem> {
        assert_eq!(returns.data_type(), &DataType::Int64);
        let n_rows = arguments.num_rows();
        if function == 2 {
            let next = || self.counted.fetch_add(1, Ordering::Relaxed);
            let values = (0..n_rows).map(|_| next());
            return Ok(Arc::new(Int64Array::from_iter_values(values)));
        }
        let values = arguments.column(0).as_primitive::<Int64Type>();
        let values = values.iter().map(|value| match (function, value) {
            (0, value) => Ok(value.map(|value| value * 2)),
            (1, Some(0)) => Err(failed("0 has no inverse")),
            (1, value) => Ok(value.map(|value| 1_000 / value)),
            (_, value) => Ok(value.map(|value| value / 2)),
        });
        let values: Int64Array = values.collect::<Result<_, _>>()?;
        if function == 0 {
            self.doubled.fetch_add(n_rows as i64, Ordering::Relaxed);
        }
        Ok(Arc::new(values))
    }
}

struct Desk {
    native: Arc<Native>,
    session: Session,
}

impl Desk {
    fn new() -> Desk {
        let native = Arc::new(Native::default());
        let functions = FUNCTIONS.map(|(reference, _, is_deterministic)| Function {
            reference: reference.to_owned(),
            is_deterministic,
        });
        let binder = Arc::clone(&native) as Arc<dyn Binder>;
        let session = Session::new().with_functions(&functions, binder);
        Desk {
            native,
            session: session.expect("names differ"),
        }
    }

    fn run(&self, sql: &str, options: &Options) -> Result<Vec<RecordBatch>, Problem> {
        let functions = Arc::clone(&self.native) as Arc<dyn Functions>;
        run_with(&self.session, &SMALL, sql, options, functions)
    }

    #[track_caller]
    fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        text(&self.run(sql, &options(1, true)).expect(sql))
    }

    #[track_caller]
    fn refuses(&self, sql: &str, code: ErrorCode, words: &[&str]) {
        // A session is for one statement.
        let problem = Desk::new().run(sql, &options(3, true)).expect_err(sql);
        assert_eq!(problem.code, code, "{sql}: {problem}");
        for word in words {
            assert!(problem.detail.contains(word), "{sql}: {problem}");
        }
    }
}

#[test]
fn functions_stand_wherever_expressions_do() {
    for (with, without) in [
        (
            "SELECT id, math.twice(v) AS x FROM t WHERE math.twice(id) < 40",
            "SELECT id, v * 2 AS x FROM t WHERE id * 2 < 40",
        ),
        (
            "SELECT k, sum(math.twice(v)) AS x FROM t GROUP BY k HAVING sum(math.twice(v)) > 100",
            "SELECT k, sum(v * 2) AS x FROM t GROUP BY k HAVING sum(v * 2) > 100",
        ),
        (
            "SELECT math.twice(k) AS x, count(*) AS n FROM t GROUP BY 1",
            "SELECT k * 2 AS x, count(*) AS n FROM t GROUP BY 1",
        ),
        (
            "SELECT a.id, b.id AS other FROM t a JOIN u b ON a.k = b.k AND math.twice(a.v) < b.v",
            "SELECT a.id, b.id AS other FROM t a JOIN u b ON a.k = b.k AND a.v * 2 < b.v",
        ),
        (
            "SELECT a.id, b.id AS other FROM t a LEFT JOIN u b ON math.twice(a.id) = b.id",
            "SELECT a.id, b.id AS other FROM t a LEFT JOIN u b ON a.id * 2 = b.id",
        ),
        (
            "SELECT a.id, b.id AS other FROM u a JOIN w b ON math.twice(a.id) < b.id + 45",
            "SELECT a.id, b.id AS other FROM u a JOIN w b ON a.id * 2 < b.id + 45",
        ),
        (
            "SELECT DISTINCT math.twice(math.twice(k)) AS x FROM t UNION SELECT math.twice(id) FROM u",
            "SELECT DISTINCT k * 4 AS x FROM t UNION SELECT id * 2 FROM u",
        ),
        (
            "SELECT id, sum(v) OVER (PARTITION BY math.twice(k) ORDER BY math.twice(id)) AS x FROM t",
            "SELECT id, sum(v) OVER (PARTITION BY k ORDER BY id) AS x FROM t",
        ),
        ("SELECT math.twice(id) AS x FROM e", "SELECT id AS x FROM e"),
    ] {
        for options in [options(1, true), options(3, true), options(3, false)] {
            let expected = run(&Session::new(), &SMALL, without, &options).expect(without);
            let found = Desk::new().run(with, &options).expect(with);
            assert_eq!(sorted(&found), sorted(&expected), "{with}");
        }
    }
}

#[test]
fn names_may_be_quoted_or_not() {
    let desk = Desk::new();
    let sql = "SELECT Math.TWICE(2) AS a, \"math\".\"twice\"(3) AS b, my_math.half_of(8) AS c, \
               \"my-math\".\"half-of\"(10) AS d";
    assert_eq!(desk.rows(sql), [["4", "6", "4", "5"]]);
    let statement = desk.session.parse(sql).expect("a query");
    assert_eq!(statement.functions(), ["math/twice", "my-math/half-of"]);
    let statement = desk.session.parse("SELECT abs(1), a.b.c(2)");
    assert!(statement.expect("a query").functions().is_empty());
}

#[test]
fn constants_are_computed_in_tasks() {
    let desk = Desk::new();
    let sql = "SELECT math.twice(21) AS x, id FROM t WHERE math.twice(1) = 2";
    let (_, stages) = plan(&desk.session, &SMALL, sql, &options(1, true)).expect("a plan");
    let mut lines = stages[0].operators.iter();
    let calls = lines.any(|line| line.text.contains("math.twice(21)"));
    assert!(calls, "{:?}", stages[0].operators);
    assert_eq!(stages[0].functions.iter().collect::<Vec<_>>(), [&0]);
    assert_eq!(desk.native.doubled.load(Ordering::Relaxed), 0);
    let rows = desk.rows(sql);
    assert!(rows.len() == 60 && rows.iter().all(|row| row[0] == "42"));
    // Once for each batch, and not for each row.
    assert!(desk.native.doubled.load(Ordering::Relaxed) < 60);
}

#[test]
fn arguments_become_wider_and_nulls_stay() {
    let desk = Desk::new();
    let sql = "SELECT math.twice(CAST(3 AS SMALLINT)) AS a, math.twice(NULL) AS b, math.twice(k) AS c FROM t \
               WHERE k IS NULL LIMIT 1";
    assert_eq!(desk.rows(sql), [["6", "NULL", "NULL"]]);
    let code = ErrorCode::InvalidJob;
    let words = ["argument 1 of `math.twice` is utf8", "int64", "CAST"];
    desk.refuses("SELECT math.twice(s) AS x FROM t", code, &words);
    desk.refuses("SELECT math.twice(1.5) AS x", code, &["float64"]);
}

#[test]
fn a_function_that_is_not_deterministic_runs_for_each_row() {
    let desk = Desk::new();
    let rows = desk.rows("SELECT math.count() AS a, math.count() AS b FROM t");
    let mut values: Vec<&String> = rows.iter().flatten().collect();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), 120);
}

#[test]
fn a_case_in_a_select_list_guards_a_function() {
    let desk = Desk::new();
    let sql =
        "SELECT DISTINCT CASE WHEN k <> 0 THEN math.inverse(k) END AS x FROM t ORDER BY x LIMIT 2";
    assert_eq!(desk.rows(sql), [["166"], ["200"]]);
}

#[test]
fn what_is_wrong_with_a_function_is_said() {
    let desk = Desk::new();
    desk.refuses(
        "SELECT math.twice(1, 2) AS x",
        ErrorCode::GuestError,
        &["takes 1 arguments, not 2"],
    );
    desk.refuses(
        "SELECT id FROM t WHERE math.inverse(k) > 3",
        ErrorCode::GuestError,
        &["0 has no inverse"],
    );
    desk.refuses(
        "SELECT math.twise(1) AS x",
        ErrorCode::InvalidJob,
        &["math.twise", "math.twice"],
    );
    // Without functions, the same statement names nothing.
    let problem = run(
        &Session::new(),
        &SMALL,
        "SELECT math.twice(1) AS x",
        &options(1, true),
    );
    let problem = problem.expect_err("nobody knows the function");
    assert_eq!(problem.code, ErrorCode::InvalidJob, "{problem}");
}
