//! Merge joins in place of hash joins: they sort both sides, which spills, where a hash join holds one in memory.

use std::collections::BTreeSet;
use std::convert::identity;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, JoinType, Result, internal_err};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;

use crate::Plan;
use crate::cut::{n_partitions, with_children};

/// Returns whether a merge join gives the same rows as this join.
///
/// NOT IN has no merge join. Of several keys none may be a float: rows are sorted with zeros of both signs apart and
/// merged with them equal, so that a key after one would be out of order.
pub(crate) fn can_merge(join: &HashJoinExec) -> bool {
    let schema = join.left().schema();
    let is_only = join.on().len() == 1;
    let is_sorted = |key: DataType| {
        !key.is_nested() && key != DataType::Null && (is_only || !key.is_floating())
    };
    let mut keys = join.on().iter();
    !join.null_aware && keys.all(|(left, _)| left.data_type(&schema).is_ok_and(is_sorted))
}

/// Makes a merge join of a hash join, over sides that are sorted or will be, without the limit of that. `seal` may put
/// a node on the merge join, below the projection that restores the columns.
pub(crate) fn merge_join(
    join: &HashJoinExec,
    build: Plan,
    probe: Plan,
    seal: impl FnOnce(Plan) -> Plan,
) -> Result<Plan> {
    let (n_build, n_probe) = (build.schema().fields().len(), probe.schema().fields().len());
    // For each key of its left side a merge join holds the rows of its right side, so the smaller one goes there
    // where the type of the join leaves a choice.
    let is_swapped = matches!(join.join_type(), JoinType::Inner | JoinType::Full);
    let (left, right, on, filter) = if is_swapped {
        let on = join.on().iter();
        let on = on.map(|(build, probe)| (Arc::clone(probe), Arc::clone(build)));
        let filter = join.filter().map(JoinFilter::swap);
        (probe, build, on.collect(), filter)
    } else {
        (build, probe, join.on().to_vec(), join.filter().cloned())
    };
    let filter = filter.as_ref().map(left_first).transpose()?;
    let sort_options = vec![SortOptions::default(); join.on().len()];
    let merged = SortMergeJoinExec::try_new(
        left,
        right,
        on,
        filter,
        *join.join_type(),
        sort_options,
        join.null_equality(),
    )?;
    let merged = seal(Arc::new(merged));
    let column = |position: usize| match is_swapped {
        true if position < n_build => n_probe + position,
        true => position - n_build,
        false => position,
    };
    let columns: Vec<usize> = match &join.projection {
        Some(projection) => projection.iter().map(|at| column(*at)).collect(),
        None => (0..join.join_schema().fields().len()).map(column).collect(),
    };
    projected(merged, &columns, join)
}

/// The filter as merge joins read it: with the columns of the left side before those of the right, wherever they stood,
/// and with nulls in all of them, since it also sees rows that found no match.
fn left_first(filter: &JoinFilter) -> Result<JoinFilter> {
    let columns = filter.column_indices();
    let of_side = |side: JoinSide| {
        let positions = columns.iter().enumerate();
        positions.filter_map(move |(position, column)| (column.side == side).then_some(position))
    };
    let order: Vec<usize> = of_side(JoinSide::Left)
        .chain(of_side(JoinSide::Right))
        .collect();
    if order.len() != columns.len() {
        return internal_err!("a filter of a join has columns of neither side");
    }
    let expression = Arc::clone(filter.expression()).transform_up(|expression| {
        let Some(column) = expression.downcast_ref::<Column>() else {
            return Ok(Transformed::no(expression));
        };
        let Some(position) = order.iter().position(|before| *before == column.index()) else {
            return internal_err!("a filter of a join lacks its column {column}");
        };
        let moved: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), position));
        Ok(Transformed::yes(moved))
    })?;
    let fields = order.iter().map(|before| {
        let field = filter.schema().field(*before).clone();
        field.with_nullable(true)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = order.iter().map(|before| columns[*before].clone());
    Ok(JoinFilter::new(expression.data, columns.collect(), schema))
}

/// Columns of a merge join as the hash join has them.
fn projected(merged: Plan, columns: &[usize], join: &HashJoinExec) -> Result<Plan> {
    let schema = merged.schema();
    if columns.iter().copied().eq(0..schema.fields().len()) {
        return Ok(merged);
    }
    let expressions = columns.iter().map(|position| {
        let name = schema.field(*position).name();
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, *position));
        (column, name.clone())
    });
    let expressions: Vec<_> = expressions.collect();
    let as_before = join.schema();
    let projection = ProjectionExec::try_new_with_schema_metadata(expressions, merged, &as_before)?;
    Ok(Arc::new(projection))
}

/// The plan with other children, or itself if they are the same.
pub(crate) fn rebuilt(plan: &Plan, children: Vec<Plan>) -> Result<Plan> {
    let mut pairs = plan.children().into_iter().zip(&children);
    if pairs.all(|(before, child)| Arc::ptr_eq(before, child)) {
        return Ok(Arc::clone(plan));
    }
    with_children(plan, children)
}

/// Hash joins of a task's plan that [`with_merges`] can replace, from the root down.
pub(crate) fn hash_joins(plan: &Plan) -> Vec<&HashJoinExec> {
    let mut joins: Vec<&HashJoinExec> = replaceable(plan).into_iter().collect();
    for child in plan.children() {
        joins.extend(hash_joins(child));
    }
    joins
}

fn replaceable(plan: &Plan) -> Option<&HashJoinExec> {
    let join = plan.downcast_ref::<HashJoinExec>()?;
    let is_of_task = n_partitions(join.left()) == 1 && n_partitions(join.right()) == 1;
    (is_of_task && can_merge(join)).then_some(join)
}

/// Replaces hash joins of a task's plan, which has been cut: those that `chosen` lists by their position among the
/// [`hash_joins`].
pub(crate) fn with_merges(plan: &Plan, chosen: &BTreeSet<usize>) -> Result<Plan> {
    let mut n_seen = 0;
    replaced(plan, chosen, &mut n_seen)
}

fn replaced(plan: &Plan, chosen: &BTreeSet<usize>, n_seen: &mut usize) -> Result<Plan> {
    let join = replaceable(plan).filter(|_| {
        *n_seen += 1;
        chosen.contains(&(*n_seen - 1))
    });
    let children = plan.children().into_iter();
    let children = children.map(|child| replaced(child, chosen, n_seen));
    let children = children.collect::<Result<Vec<_>>>()?;
    match join {
        Some(join) => replaced_join(join, children),
        None => rebuilt(plan, children),
    }
}

/// A merge join over sorted sides, whose rows come in every order in which those of the hash join come: nodes above
/// it, and stages that merge its rows, were planned on that.
fn replaced_join(join: &HashJoinExec, sides: Vec<Plan>) -> Result<Plan> {
    let [build, probe] = sides.as_slice() else {
        return internal_err!("a join with {} sides", sides.len());
    };
    let (left, right): (Vec<_>, Vec<_>) = join.on().iter().cloned().unzip();
    let (build, probe) = (sorted(build, left)?, sorted(probe, right)?);
    let merged = merge_join(join, build, probe, identity)?;
    let facts = merged.properties().equivalence_properties();
    let planned_on = join.properties().equivalence_properties();
    let mut missing = Vec::new();
    for order in planned_on.oeq_class().iter() {
        if !facts.ordering_satisfy(order.clone())? {
            missing.extend(order.iter().cloned());
        }
    }
    // Rows that can be in several orders at once are in all of them if sorted by one and then by the next.
    let ordered: Plan = match LexOrdering::new(missing) {
        Some(order) => Arc::new(SortExec::new(order, merged)),
        None => merged,
    };
    // A limit in the join takes the first rows in order.
    let limited: Plan = match join.fetch() {
        Some(fetch) => Arc::new(LocalLimitExec::new(ordered, fetch)),
        None => ordered,
    };
    Ok(limited)
}

fn sorted(side: &Plan, keys: Vec<Arc<dyn PhysicalExpr>>) -> Result<Plan> {
    let ascending = |key| PhysicalSortExpr::new(key, SortOptions::default());
    let Some(order) = LexOrdering::new(keys.into_iter().map(ascending)) else {
        return internal_err!("a hash join without keys");
    };
    let facts = side.properties().equivalence_properties();
    if facts.ordering_satisfy(order.clone())? {
        return Ok(Arc::clone(side));
    }
    Ok(Arc::new(SortExec::new(order, Arc::clone(side))))
}
