//! Conditions that scans know of: they spare rows that nobody wants, and all statements of these tests run with them.

use arrow::array::{Array, RecordBatch};
use arrow::compute::kernels::cmp::{eq, gt, gt_eq, lt, lt_eq};
use weft_core::job::Operator;
use weft_sql::{LeafPlan, ScanFilter, Session, Test};

use crate::data::SMALL;
use crate::runner::{options, plan, run};

/// Whether rows of a batch pass a filter. Scans leave out other batches, as they do row groups of files.
pub(crate) fn may_pass(batch: &RecordBatch, filter: &ScanFilter) -> bool {
    let column = batch.column_by_name(&filter.column);
    let column = column.expect("a column of the table");
    filter.any.iter().any(|test| match test {
        Test::IsNull => column.null_count() > 0,
        Test::IsNotNull => column.null_count() < column.len(),
        Test::Compare(operator, value) => {
            assert_eq!(*column.data_type(), value.data_type(), "{filter}");
            let value = value.to_scalar().expect("a value");
            let passes = match operator {
                Operator::Equal => eq(column, &value),
                Operator::Less => lt(column, &value),
                Operator::LessOrEqual => lt_eq(column, &value),
                Operator::Greater => gt(column, &value),
                Operator::GreaterOrEqual => gt_eq(column, &value),
                Operator::NotEqual => panic!("no filter says so: {filter}"),
            };
            passes.expect("they compare").true_count() > 0
        }
    })
}

/// The filters of all scans of a statement, sorted.
fn filters(sql: &str) -> Vec<ScanFilter> {
    let (_, stages) = plan(&Session::new(), &SMALL, sql, &options(3, true)).expect(sql);
    let mut found = Vec::new();
    for leaf in stages.into_iter().flat_map(|stage| stage.leaves) {
        if let LeafPlan::Scan { filters, .. } = leaf {
            found.extend(filters);
        }
    }
    found.sort_by_key(ScanFilter::to_string);
    found
}

fn check(sql: &str, expected: &[&str]) {
    let found = filters(sql);
    let found: Vec<String> = found.iter().map(ScanFilter::to_string).collect();
    assert_eq!(found, expected, "{sql}");
}

#[test]
fn scans_know_the_conditions_on_their_columns() {
    check(
        "SELECT v FROM t WHERE id >= 10 AND s = 's1' AND v + id > 7",
        &["id >= 10", "s = 's1'"],
    );
    check(
        "SELECT id FROM t WHERE k IS NULL OR k = 6",
        &["k IS NULL OR k = 6"],
    );
    check(
        "SELECT t.id FROM t JOIN u ON t.k = u.k WHERE t.id < 5 AND u.v > 50",
        &["id < 5", "v > 50"],
    );
    check("SELECT id FROM t WHERE f > 1", &[]);
    check("SELECT id FROM t WHERE id = 5 OR v = 7", &[]);
    // What the outer side lacks is null: its condition is none on the table.
    check(
        "SELECT u.id FROM u LEFT JOIN t ON u.id = t.v WHERE t.id IS NULL",
        &[],
    );
}

#[test]
fn plans_show_the_conditions_of_a_scan() {
    let sql = "SELECT v FROM t WHERE id >= 10";
    let (_, stages) = plan(&Session::new(), &SMALL, sql, &options(3, true)).expect(sql);
    let lines = stages[0].operators.iter();
    let text: String = lines.map(|line| line.text.clone() + "\n").collect();
    assert!(text.contains("filters=[id >= 10]"), "{text}");
    assert!(text.contains("FilterExec: id"), "{text}");
}

#[test]
fn a_filter_may_leave_nothing_to_read() {
    let sql = "SELECT count(*) AS n, max(v) AS v FROM t WHERE id > 1000";
    let found = filters(sql);
    let table = &SMALL[0];
    assert_eq!((table.name, found.len()), ("t", 1));
    assert!(!table.batches.iter().any(|batch| may_pass(batch, &found[0])));
    let rows = run(&Session::new(), &SMALL, sql, &options(3, true)).expect(sql);
    assert_eq!(crate::runner::text(&rows), [["0", "NULL"]]);
}
