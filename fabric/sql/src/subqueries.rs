//! Scalar subqueries where DataFusion does not run them: in ORDER BY, GROUP BY, arguments of aggregates and windows,
//! and ON.
//!
//! DataFusion makes joins of the scalar subqueries of projections and filters alone. Those of other nodes move to a
//! projection beneath, and a projection above gives the columns that the node had:
//!
//! ```text
//! Sort: v - (subquery)      Projection: id, v
//!   Projection: id, v   ─▶    Sort: v - x
//!                               Projection: id, v, (subquery) AS x
//!                                 Projection: id, v
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, Projection, Sort, Subquery};

use crate::single_value::holds_scalar_subquery;

/// Start of the names of moved values, which no statement is likely to use.
const NAME: &str = "__weft_subquery_";

/// Moves scalar subqueries to where they are run, however deep they lie. One that refers to columns of the outer query
/// which a projection beneath cannot see stays, and is refused later.
pub(crate) fn subqueries_moved(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut moves = Moves::default();
    let moved = plan.transform_up_with_subqueries(|node| moves.moved(node))?;
    Ok(moved.data)
}

/// Subqueries that were moved out of a plan, which are numbered.
#[derive(Debug, Default)]
struct Moves {
    n: usize,
}

impl Moves {
    fn moved(&mut self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        if !holds_scalar_subquery(&node)? {
            return Ok(Transformed::no(node));
        }
        let moved = match &node {
            LogicalPlan::Sort(sort) => self.of_sort(&node, sort)?,
            LogicalPlan::Window(window) => {
                self.beneath(&node, &window.input, window.window_expr.len())?
            }
            LogicalPlan::Aggregate(aggregate) if !has_grouping_set(aggregate) => {
                self.beneath(&node, &aggregate.input, node.schema().fields().len())?
            }
            LogicalPlan::Join(join) => self.of_join(&node, join)?,
            _ => None,
        };
        Ok(match moved {
            Some(moved) => Transformed::yes(moved),
            None => Transformed::no(node),
        })
    }

    /// Moves subqueries of a node with one input. Its last `n_own` columns are its expressions, those before are the
    /// input's.
    fn beneath(
        &mut self,
        node: &LogicalPlan,
        input: &Arc<LogicalPlan>,
        n_own: usize,
    ) -> Result<Option<LogicalPlan>> {
        let mut values = Vec::new();
        let fits = |subquery: &Subquery| sees(input.schema(), subquery);
        let expressions = self.replaced(node.expressions(), &fits, &mut values)?;
        if values.is_empty() {
            return Ok(None);
        }
        let input = with_values(input, values)?;
        let moved = node.with_new_exprs(expressions, vec![input])?;
        as_before(moved, node.schema(), n_own).map(Some)
    }

    /// Moves subqueries of ORDER BY. They see columns of the select list, and columns that are not in it: the latter
    /// only beneath the list.
    fn of_sort(&mut self, node: &LogicalPlan, sort: &Sort) -> Result<Option<LogicalPlan>> {
        let schema = sort.input.schema();
        let mut input = Arc::clone(&sort.input);
        let mut expressions = node.expressions();
        if let LogicalPlan::Projection(list) = sort.input.as_ref() {
            let mut values = Vec::new();
            let fits = |subquery: &Subquery| {
                !sees(schema, subquery) && sees(list.input.schema(), subquery)
            };
            expressions = self.replaced(expressions, &fits, &mut values)?;
            if !values.is_empty() {
                let columns = list.expr.iter().cloned().chain(values);
                let list = Projection::try_new(columns.collect(), Arc::clone(&list.input))?;
                input = Arc::new(LogicalPlan::Projection(list));
            }
        }
        let mut values = Vec::new();
        let fits = |subquery: &Subquery| sees(schema, subquery);
        let expressions = self.replaced(expressions, &fits, &mut values)?;
        if values.is_empty() && Arc::ptr_eq(&input, &sort.input) {
            return Ok(None);
        }
        let input = with_values(&input, values)?;
        let moved = node.with_new_exprs(expressions, vec![input])?;
        as_before(moved, schema, 0).map(Some)
    }

    /// Moves subqueries of ON to the side whose columns they are compared with. DataFusion itself makes a filter of
    /// those of inner joins that refer to no other column.
    fn of_join(&mut self, node: &LogicalPlan, join: &Join) -> Result<Option<LogicalPlan>> {
        let mut expressions = node.expressions();
        // The filter is the last expression.
        let (Some(_), Some(filter)) = (&join.filter, expressions.pop()) else {
            return Ok(None);
        };
        let (left, right) = (join.left.schema(), join.right.schema());
        let is_moved = |subquery: &Subquery| {
            join.join_type != JoinType::Inner || !subquery.outer_ref_columns.is_empty()
        };
        let of_left = |subquery: &Subquery| is_moved(subquery) && sees(left, subquery);
        let of_right = |subquery: &Subquery| is_moved(subquery) && sees(right, subquery);
        let (mut left_values, mut right_values) = (Vec::new(), Vec::new());
        let mut conditions = Vec::new();
        for condition in split_conjunction_owned(filter) {
            let is_of_right = condition
                .column_refs()
                .into_iter()
                .all(|column| right.has_column(column));
            let condition = vec![condition];
            let condition = match is_of_right {
                true => {
                    let condition = self.replaced(condition, &of_right, &mut right_values)?;
                    self.replaced(condition, &of_left, &mut left_values)?
                }
                false => {
                    let condition = self.replaced(condition, &of_left, &mut left_values)?;
                    self.replaced(condition, &of_right, &mut right_values)?
                }
            };
            conditions.extend(condition);
        }
        if left_values.is_empty() && right_values.is_empty() {
            return Ok(None);
        }
        expressions.extend(conjunction(conditions));
        let inputs = vec![
            with_values(&join.left, left_values)?,
            with_values(&join.right, right_values)?,
        ];
        let moved = node.with_new_exprs(expressions, inputs)?;
        as_before(moved, node.schema(), 0).map(Some)
    }

    /// Replaces subqueries that fit by columns, and adds their values to `values`.
    fn replaced(
        &mut self,
        expressions: Vec<Expr>,
        fits: &dyn Fn(&Subquery) -> bool,
        values: &mut Vec<Expr>,
    ) -> Result<Vec<Expr>> {
        let mut replace = |expression: Expr| match expression {
            Expr::ScalarSubquery(subquery) if fits(&subquery) => {
                self.n += 1;
                let name = format!("{NAME}{}", self.n);
                values.push(Expr::ScalarSubquery(subquery).alias(name.as_str()));
                let column = Column::new_unqualified(name);
                Ok(Transformed::yes(Expr::Column(column)))
            }
            other => Ok(Transformed::no(other)),
        };
        let expressions = expressions.into_iter();
        expressions
            .map(|expression| Ok(expression.transform_up(&mut replace)?.data))
            .collect()
    }
}

/// Whether a projection over rows of this schema has all outer columns that a subquery refers to.
fn sees(schema: &DFSchema, subquery: &Subquery) -> bool {
    let mut outer = subquery.outer_ref_columns.iter();
    outer.all(|outer| match outer {
        Expr::OuterReferenceColumn(_, column) => schema.has_column(column),
        _ => false,
    })
}

fn has_grouping_set(aggregate: &Aggregate) -> bool {
    let mut groups = aggregate.group_expr.iter();
    groups.any(|group| matches!(group, Expr::GroupingSet(_)))
}

/// A projection of all columns of a plan, and of values behind them.
fn with_values(plan: &Arc<LogicalPlan>, values: Vec<Expr>) -> Result<LogicalPlan> {
    if values.is_empty() {
        return Ok(plan.as_ref().clone());
    }
    let columns = plan.schema().columns().into_iter().map(Expr::Column);
    let columns = columns.chain(values).collect();
    Projection::try_new(columns, Arc::clone(plan)).map(LogicalPlan::Projection)
}

/// A projection of the columns that a node had before its subqueries moved. Its last `n_own` columns have names that
/// are made of its expressions.
fn as_before(plan: LogicalPlan, schema: &DFSchema, n_own: usize) -> Result<LogicalPlan> {
    let (before, now) = (schema.columns(), plan.schema().columns());
    let (passed, own) = before.split_at(before.len().saturating_sub(n_own));
    let own_now = now
        .get(now.len().saturating_sub(n_own)..)
        .unwrap_or_default();
    let own = own.iter().zip(own_now).map(|(before, now)| {
        let value = Expr::Column(now.clone());
        match before == now {
            true => value,
            false => value.alias_qualified(before.relation.clone(), before.name.as_str()),
        }
    });
    let passed = passed.iter().cloned().map(Expr::Column);
    let columns = passed.chain(own).collect();
    Projection::try_new(columns, Arc::new(plan)).map(LogicalPlan::Projection)
}
