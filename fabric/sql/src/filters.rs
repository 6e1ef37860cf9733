//! Conditions of WHERE that a scan knows of, so that files and row groups without wanted rows are not read.
//!
//! A scan may still give rows that do not fulfil them: the plan above it tests every row. So a condition is taken
//! over only if it certainly says of a value what the plan's own test does. Floats are left out: their NaN and their
//! two zeros are compared in several ways.

use std::fmt;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator as Logical};
use weft_core::job::Operator;

use crate::table::Table;

/// Tests of one filter: a longer list of values is tested by the plan alone.
const TESTS_MAX: usize = 1_000;
/// Tests of one filter that people are shown.
const TESTS_SHOWN_MAX: usize = 4;

/// A condition on one column of a table: rows that pass none of the tests are not wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanFilter {
    /// Name of the column.
    pub column: String,
    /// Tests, at least one.
    pub any: Vec<Test>,
}

/// A test of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The value compares so with one of the column's own type, which is not null. Null passes none.
    Compare(Operator, ScalarValue),
    /// The value is null.
    IsNull,
    /// The value is not null.
    IsNotNull,
}

impl fmt::Display for ScanFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, test) in self.any.iter().take(TESTS_SHOWN_MAX).enumerate() {
            let or = if position > 0 { " OR " } else { "" };
            write!(f, "{or}{} ", self.column)?;
            match test {
                Test::Compare(operator, ScalarValue::Utf8(Some(text))) => {
                    write!(f, "{operator} '{text}'")?;
                }
                Test::Compare(operator, value) => write!(f, "{operator} {value}")?,
                Test::IsNull => f.write_str("IS NULL")?,
                Test::IsNotNull => f.write_str("IS NOT NULL")?,
            }
        }
        match self.any.len().saturating_sub(TESTS_SHOWN_MAX) {
            0 => Ok(()),
            n => write!(f, " OR {n} more"),
        }
    }
}

/// Filters that all rows pass which fulfil a condition; none if it says nothing that a scan of the table could use.
pub(crate) fn filters_of(condition: &Expr, table: &Table) -> Vec<ScanFilter> {
    match condition {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Logical::And,
            right,
        }) => {
            let mut all = filters_of(left, table);
            all.extend(filters_of(right, table));
            all
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Logical::Or,
            right,
        }) => either(filters_of(left, table), filters_of(right, table)),
        Expr::Between(between) if !between.negated => {
            let low = Operator::GreaterOrEqual;
            let low = compared(&between.expr, low, &between.low, table);
            let high = Operator::LessOrEqual;
            let high = compared(&between.expr, high, &between.high, table);
            low.into_iter().chain(high).collect()
        }
        other => one(other, table).into_iter().collect(),
    }
}

/// The filter of two conditions of which one holds, if both are about one column and nothing else.
fn either(left: Vec<ScanFilter>, right: Vec<ScanFilter>) -> Vec<ScanFilter> {
    let (Ok([mut left]), Ok([right])) = (
        <[ScanFilter; 1]>::try_from(left),
        <[ScanFilter; 1]>::try_from(right),
    ) else {
        return Vec::new();
    };
    if left.column != right.column || left.any.len() + right.any.len() > TESTS_MAX {
        return Vec::new();
    }
    left.any.extend(right.any);
    vec![left]
}

/// The filter of a condition without AND and OR.
fn one(condition: &Expr, table: &Table) -> Option<ScanFilter> {
    let tested = |value: &Expr, test: Test| {
        let column = column(value, table)?.name().clone();
        let any = vec![test];
        Some(ScanFilter { column, any })
    };
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let as_written = compared(left, operator(*op)?, right, table);
            as_written.or_else(|| compared(right, operator(op.swap()?)?, left, table))
        }
        Expr::IsNull(value) => tested(value, Test::IsNull),
        Expr::IsNotNull(value) => tested(value, Test::IsNotNull),
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) if (1..=TESTS_MAX).contains(&list.len()) => {
            let field = column(expr, table)?;
            let equal = |value| Some(Test::Compare(Operator::Equal, literal(value, field)?));
            let column = field.name().clone();
            let any = list.iter().map(equal).collect::<Option<_>>()?;
            Some(ScanFilter { column, any })
        }
        _ => None,
    }
}

fn compared(value: &Expr, operator: Operator, with: &Expr, table: &Table) -> Option<ScanFilter> {
    let field = column(value, table)?;
    let any = vec![Test::Compare(operator, literal(with, field)?)];
    let column = field.name().clone();
    Some(ScanFilter { column, any })
}

fn operator(of: Logical) -> Option<Operator> {
    match of {
        Logical::Eq => Some(Operator::Equal),
        Logical::Lt => Some(Operator::Less),
        Logical::LtEq => Some(Operator::LessOrEqual),
        Logical::Gt => Some(Operator::Greater),
        Logical::GtEq => Some(Operator::GreaterOrEqual),
        _ => None,
    }
}

/// The column that an expression is, if filters on it are of use.
fn column<'a>(expression: &Expr, table: &'a Table) -> Option<&'a Field> {
    let Expr::Column(column) = expression else {
        return None;
    };
    let position = table.schema.index_of(&column.name).ok()?;
    let prunes = table.columns.get(position).is_some_and(|of| of.prunes);
    prunes.then(|| table.schema.field(position))
}

/// The value that an expression is, if it is one of the column's type and neither null nor a float.
fn literal(expression: &Expr, field: &Field) -> Option<ScalarValue> {
    let Expr::Literal(value, _) = expression else {
        return None;
    };
    let data_type = field.data_type();
    let fits = !value.is_null() && value.data_type() == *data_type && is_compared(data_type);
    fits.then(|| value.clone())
}

/// Whether all that reads a value of this type compares it in the same way.
fn is_compared(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Utf8
                | DataType::Date32
                | DataType::Timestamp(TimeUnit::Microsecond, None)
                | DataType::Decimal128(_, _)
        )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use datafusion::prelude::{col, lit};

    use super::*;
    use crate::table::TableColumn;

    /// The filters of a condition on the columns `n` and `m`, whole numbers, `f`, a float, `t`, a text, and `x`,
    /// which nothing is known of.
    fn check(condition: &Expr, expected: &[&str]) {
        let fields = [
            ("n", DataType::Int64),
            ("m", DataType::Int64),
            ("f", DataType::Float64),
            ("t", DataType::Utf8),
            ("x", DataType::Int64),
        ];
        let columns = fields.iter().map(|(name, _)| TableColumn {
            prunes: *name != "x",
            ..TableColumn::default()
        });
        let columns = columns.collect();
        let fields = fields.map(|(name, data_type)| Field::new(name, data_type, true));
        let table = Table {
            name: "table".into(),
            schema: Arc::new(Schema::new(fields.to_vec())),
            rows: None,
            bytes: None,
            columns,
        };
        let found = filters_of(condition, &table);
        let found: Vec<String> = found.iter().map(ScanFilter::to_string).collect();
        assert_eq!(found, expected, "{condition}");
    }

    #[test]
    fn comparisons_with_values_of_the_columns_type_are_taken_over() {
        check(&col("n").eq(lit(5i64)), &["n = 5"]);
        check(&lit(5i64).lt(col("n")), &["n > 5"]);
        check(&col("t").gt_eq(lit("a")), &["t >= 'a'"]);
        check(&col("n").is_null(), &["n IS NULL"]);
        check(&col("f").is_not_null(), &["f IS NOT NULL"]);
        check(
            &col("n").between(lit(1i64), lit(3i64)),
            &["n >= 1", "n <= 3"],
        );
        let list = [1i64, 2, 3, 4, 5, 6].map(lit).to_vec();
        let shown = "n = 1 OR n = 2 OR n = 3 OR n = 4 OR 2 more";
        check(&col("n").in_list(list, false), &[shown]);
    }

    #[test]
    fn what_a_scan_might_see_otherwise_is_left_to_the_plan() {
        for condition in [
            col("n").eq(lit(5i32)),
            col("n").eq(lit(ScalarValue::Int64(None))),
            col("n").not_eq(lit(5i64)),
            col("n").in_list(vec![lit(5i64)], true),
            col("n").in_list(vec![lit(5i64), lit(ScalarValue::Int64(None))], false),
            (col("n") + lit(1i64)).eq(lit(5i64)),
            col("n").eq(col("m")),
            col("f").gt(lit(1.5)),
            col("x").eq(lit(5i64)),
            col("t").like(lit("a%")),
        ] {
            check(&condition, &[]);
        }
        let many = (0..=1_000i64).map(lit).collect();
        check(&col("n").in_list(many, false), &[]);
    }

    #[test]
    fn conditions_are_joined_where_both_sides_allow() {
        let (n, m) = (col("n").gt(lit(5i64)), col("m").lt(lit(1i64)));
        let unknown = col("f").gt(lit(0.5));
        check(&n.clone().and(m.clone()), &["n > 5", "m < 1"]);
        check(&n.clone().and(unknown.clone()), &["n > 5"]);
        check(&n.clone().or(m), &[]);
        check(&n.clone().or(unknown.clone()), &[]);
        check(&n.clone().or(col("n").is_null()), &["n > 5 OR n IS NULL"]);
        // A part of one side is implied by that side.
        let side = col("n").eq(lit(1i64)).and(unknown);
        check(&side.or(n), &["n = 1 OR n > 5"]);
    }
}
