//! Scalar subqueries of at most one row: those that may give more are checked by an aggregate.
//!
//! DataFusion makes joins of scalar subqueries, and a join multiplies rows where SQL has an error. Subqueries that
//! refer to the outer query need no check: DataFusion refuses them unless they aggregate.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, FetchType, LogicalPlan, LogicalPlanBuilder,
    Signature, Subquery, Volatility,
};

/// Tasks find the aggregate by this name, which no statement is likely to use.
const NAME: &str = "weft_single_value";

/// The aggregate of at most one row: its value, and null of no row. More rows are an error.
pub(crate) fn single_value() -> AggregateUDF {
    AggregateUDF::from(SingleValue {
        signature: Signature::any(1, Volatility::Immutable),
    })
}

/// Lets scalar subqueries fail that give more than one row, however deep they lie.
pub(crate) fn check_single_values(plan: LogicalPlan) -> Result<LogicalPlan> {
    let function = single_value();
    let checked = plan.transform_up_with_subqueries(|node| {
        if !holds_scalar_subquery(&node)? {
            return Ok(Transformed::no(node));
        }
        node.map_expressions(|expression| {
            expression.transform_up(|expression| with_check(expression, &function))
        })
    })?;
    Ok(checked.data)
}

/// Whether an expression of a node holds a scalar subquery.
pub(crate) fn holds_scalar_subquery(node: &LogicalPlan) -> Result<bool> {
    let mut holds = false;
    node.apply_expressions(|expression| {
        holds |= expression.contains_scalar_subquery();
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(holds)
}

fn with_check(expression: Expr, function: &AggregateUDF) -> Result<Transformed<Expr>> {
    match expression {
        Expr::ScalarSubquery(subquery)
            if subquery.outer_ref_columns.is_empty() && !is_single(&subquery.subquery) =>
        {
            let plan = single(subquery.subquery, function)?;
            Ok(Transformed::yes(Expr::ScalarSubquery(Subquery {
                subquery: Arc::new(plan),
                outer_ref_columns: subquery.outer_ref_columns,
                spans: subquery.spans,
            })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether a plan gives at most one row for sure. `LogicalPlan::max_rows` counts no row for a SELECT without FROM.
fn is_single(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Limit(limit) => {
            let fetch = limit.get_fetch_type();
            matches!(fetch, Ok(FetchType::Literal(Some(0 | 1)))) || is_single(&limit.input)
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Distinct(_)
        | LogicalPlan::SubqueryAlias(_) => plan.inputs().into_iter().all(is_single),
        _ => false,
    }
}

/// The plan's only column, aggregated to one row. It keeps its name, which is that of the subquery.
fn single(plan: Arc<LogicalPlan>, function: &AggregateUDF) -> Result<LogicalPlan> {
    let Some(column) = plan.schema().columns().into_iter().next() else {
        return internal_err!("a scalar subquery has no column");
    };
    let name = column.name.clone();
    let value = function.call(vec![Expr::Column(column)]);
    let aggregate = LogicalPlanBuilder::new_from_arc(plan)
        .aggregate(Vec::<Expr>::new(), vec![value])?
        .build()?;
    let columns = aggregate.schema().columns().into_iter();
    let named: Vec<Expr> = columns
        .map(|column| Expr::Column(column).alias(name.as_str()))
        .collect();
    LogicalPlanBuilder::from(aggregate).project(named)?.build()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SingleValue {
    signature: Signature,
}

impl AggregateUDFImpl for SingleValue {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [argument] => Ok(argument.clone()),
            _ => internal_err!("{NAME} takes one argument"),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Single {
            value: ScalarValue::try_from(args.return_type())?,
            n_rows: 0,
        }))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let value = format_state_name(args.name, "value");
        let n_rows = format_state_name(args.name, "count");
        Ok(vec![
            Arc::new(Field::new(value, args.return_type().clone(), true)),
            Arc::new(Field::new(n_rows, DataType::UInt64, true)),
        ])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The value of the only row so far. A row whose value is null is a row.
#[derive(Debug)]
struct Single {
    value: ScalarValue,
    n_rows: u64,
}

impl Single {
    fn add(&mut self, values: &ArrayRef, row: usize, n_rows: u64) -> Result<()> {
        if n_rows == 0 {
            return Ok(());
        }
        self.n_rows = self.n_rows.saturating_add(n_rows);
        if self.n_rows > 1 {
            return exec_err!("a scalar subquery gave more than one row");
        }
        self.value = ScalarValue::try_from_array(values, row)?;
        // The value may be a slice of a large batch.
        self.value.compact();
        Ok(())
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else {
            return internal_err!("{NAME} takes one argument");
        };
        for row in 0..values.len() {
            self.add(values, row, 1)?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) - size_of_val(&self.value) + self.value.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            self.value.clone(),
            ScalarValue::UInt64(Some(self.n_rows)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [values, counts] = states else {
            return internal_err!("{NAME} has two states");
        };
        let Some(counts) = counts.as_primitive_opt::<UInt64Type>() else {
            return internal_err!("{NAME} counts rows in UInt64");
        };
        for (row, n_rows) in counts.values().iter().enumerate() {
            self.add(values, row, *n_rows)?;
        }
        Ok(())
    }
}
