//! Window functions: what DataFusion's encoding of them loses, carried beside the plan.
//!
//! The encoding writes neither that a function is read backwards nor `IGNORE NULLS`, nor the `FILTER` of an aggregate.
//! The first two are found by their position in the plan and put back after decoding. A filter cannot be read from a
//! plan at all: it becomes part of an argument before the plan is made, or the statement is refused.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_err, not_impl_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Expr, LogicalPlan, ReversedUDWF, WindowFunctionDefinition, WindowUDF, when,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::window::{SlidingAggregateWindowExpr, StandardWindowFunctionExpr};
use datafusion::physical_plan::windows::{
    BoundedWindowAggExec, PlainAggregateWindowExpr, StandardWindowExpr, WindowAggExec, WindowExpr,
    WindowUDFExpr, create_udwf_window_expr,
};
use prost::Message;

use crate::Plan;

/// Aggregates to which a null is as good as no row, so that a filter may make nulls of what it leaves out.
const SKIPS_NULLS: [&str; 5] = ["avg", "count", "max", "min", "sum"];
/// The end of an aggregate's text that has no filter.
const NO_FILTER: &str = ", filter: None }";

/// Properties of a window function that an encoded plan lacks.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Lost {
    /// Position among the plan's nodes of windows, inputs first.
    #[prost(uint32, tag = "1")]
    node: u32,
    /// Position within the node.
    #[prost(uint32, tag = "2")]
    expression: u32,
    #[prost(bool, tag = "3")]
    is_reversed: bool,
    #[prost(bool, tag = "4")]
    ignore_nulls: bool,
}

/// Collects what the encoding of a plan would lose, and refuses what cannot be put back.
pub(crate) fn lost(plan: &Plan) -> Result<Vec<Lost>> {
    let mut nodes = Vec::new();
    collect_windows(plan, &mut nodes);
    let mut all = Vec::new();
    for (node, expressions) in (0..).zip(nodes) {
        for (expression, window) in (0..).zip(expressions) {
            let (is_reversed, ignore_nulls) = lost_by(window)?;
            if is_reversed || ignore_nulls {
                all.push(Lost {
                    node,
                    expression,
                    is_reversed,
                    ignore_nulls,
                });
            }
        }
    }
    Ok(all)
}

/// Puts back what a decoded plan has lost.
pub(crate) fn restored(plan: Plan, lost: &[Lost]) -> Result<Plan> {
    let mut node = 0;
    let mut n_restored = 0;
    let plan = plan.transform_up(|plan| {
        let Some(expressions) = windows(&plan) else {
            return Ok(Transformed::no(plan));
        };
        let mut expressions = expressions.to_vec();
        let before = n_restored;
        for one in lost.iter().filter(|one| one.node == node) {
            let Some(expression) = expressions.get_mut(one.expression as usize) else {
                return internal_err!("an encoded plan lacks a window function");
            };
            *expression = restored_window(expression, one, &input_schema(&plan))?;
            n_restored += 1;
        }
        node += 1;
        if n_restored == before {
            return Ok(Transformed::no(plan));
        }
        Ok(Transformed::yes(with_windows(&plan, expressions)?))
    })?;
    if n_restored != lost.len() {
        return internal_err!("an encoded plan lacks a node of windows");
    }
    Ok(plan.data)
}

/// Collects the window functions of each node, inputs first as `transform_up` meets them.
fn collect_windows<'a>(plan: &'a Plan, nodes: &mut Vec<&'a [Arc<dyn WindowExpr>]>) {
    for child in plan.children() {
        collect_windows(child, nodes);
    }
    nodes.extend(windows(plan));
}

fn windows(plan: &Plan) -> Option<&[Arc<dyn WindowExpr>]> {
    if let Some(node) = plan.downcast_ref::<BoundedWindowAggExec>() {
        return Some(node.window_expr());
    }
    plan.downcast_ref::<WindowAggExec>()
        .map(WindowAggExec::window_expr)
}

/// Schema of the input of a node of windows.
fn input_schema(plan: &Plan) -> SchemaRef {
    match plan.children().first() {
        Some(input) => input.schema(),
        None => plan.schema(),
    }
}

fn with_windows(plan: &Plan, windows: Vec<Arc<dyn WindowExpr>>) -> Result<Plan> {
    if let Some(node) = plan.downcast_ref::<BoundedWindowAggExec>() {
        let input = Arc::clone(node.input());
        let mode = node.input_order_mode.clone();
        let can_repartition = !node.partition_keys().is_empty();
        let node = BoundedWindowAggExec::try_new(windows, input, mode, can_repartition)?;
        return Ok(Arc::new(node));
    }
    let Some(node) = plan.downcast_ref::<WindowAggExec>() else {
        return internal_err!("{} has no window functions", plan.name());
    };
    let input = Arc::clone(node.input());
    let can_repartition = !node.partition_keys().is_empty();
    let node = WindowAggExec::try_new(windows, input, can_repartition)?;
    Ok(Arc::new(node))
}

/// Whether a function is reversed, and ignores nulls, without its encoding saying so.
fn lost_by(window: &Arc<dyn WindowExpr>) -> Result<(bool, bool)> {
    if let Some(function) = function_of(window) {
        return flags(function);
    }
    let Some(aggregate) = aggregate_of(window) else {
        return not_impl_err!("the window function `{}`", window.name());
    };
    // The filter has no accessor. It is the last field of either kind.
    if !format!("{window:?}").ends_with(NO_FILTER) {
        return not_impl_err!(
            "FILTER of the window function `{}`; only {} take it OVER a window",
            aggregate.fun().name(),
            SKIPS_NULLS.join(", ")
        );
    }
    if !aggregate.order_bys().is_empty() {
        return not_impl_err!(
            "ORDER BY within the window function `{}`",
            aggregate.fun().name()
        );
    }
    // Whether it ignores nulls is encoded.
    Ok((aggregate.is_reversed(), false))
}

fn function_of(window: &Arc<dyn WindowExpr>) -> Option<&WindowUDFExpr> {
    let standard = window.as_any().downcast_ref::<StandardWindowExpr>()?;
    let function = standard.get_standard_func_expr();
    function.as_any().downcast_ref::<WindowUDFExpr>()
}

fn aggregate_of(window: &Arc<dyn WindowExpr>) -> Option<&AggregateFunctionExpr> {
    let window = window.as_any();
    if let Some(plain) = window.downcast_ref::<PlainAggregateWindowExpr>() {
        return Some(plain.get_aggregate_expr());
    }
    window
        .downcast_ref::<SlidingAggregateWindowExpr>()
        .map(SlidingAggregateWindowExpr::get_aggregate_expr)
}

/// Whether a function is reversed, and ignores nulls. The fields have no accessors; they are the last of its text.
fn flags(function: &WindowUDFExpr) -> Result<(bool, bool)> {
    let text = format!("{function:?}");
    let all = [(false, false), (false, true), (true, false), (true, true)];
    for (is_reversed, ignore_nulls) in all {
        let end = format!(", is_reversed: {is_reversed}, ignore_nulls: {ignore_nulls} }}");
        if text.ends_with(&end) {
            return Ok((is_reversed, ignore_nulls));
        }
    }
    internal_err!(
        "the window function `{}` does not tell its direction",
        function.fun().name()
    )
}

fn restored_window(
    window: &Arc<dyn WindowExpr>,
    lost: &Lost,
    schema: &SchemaRef,
) -> Result<Arc<dyn WindowExpr>> {
    let frame = Arc::clone(window.get_window_frame());
    let (partition_by, order_by) = (window.partition_by(), window.order_by());
    if let Some(function) = function_of(window) {
        let function = restored_function(function, lost, schema)?;
        let window = StandardWindowExpr::new(function, partition_by, order_by, frame);
        return Ok(Arc::new(window));
    }
    let Some(aggregate) = aggregate_of(window) else {
        return internal_err!("`{}` is no window function", window.name());
    };
    let fun = Arc::new(aggregate.fun().clone());
    let aggregate = AggregateExprBuilder::new(fun, aggregate.expressions())
        .schema(Arc::clone(schema))
        .alias(aggregate.name())
        .with_ignore_nulls(aggregate.ignore_nulls())
        .with_distinct(aggregate.is_distinct())
        .with_reversed(lost.is_reversed)
        .build()?;
    let aggregate = Arc::new(aggregate);
    if window.as_any().is::<PlainAggregateWindowExpr>() {
        let plain = PlainAggregateWindowExpr::new(aggregate, partition_by, order_by, frame, None);
        return Ok(Arc::new(plain));
    }
    let sliding = SlidingAggregateWindowExpr::new(aggregate, partition_by, order_by, frame, None);
    Ok(Arc::new(sliding))
}

fn restored_function(
    decoded: &WindowUDFExpr,
    lost: &Lost,
    schema: &Schema,
) -> Result<Arc<dyn StandardWindowFunctionExpr>> {
    let forward = |fun: &Arc<WindowUDF>| {
        let name = decoded.name().to_owned();
        create_udwf_window_expr(fun, decoded.args(), schema, name, lost.ignore_nulls)
    };
    let name = decoded.fun().name();
    let function = if lost.is_reversed {
        // Only functions that read forward can be made: the opposite one is, and then reversed.
        let ReversedUDWF::Reversed(opposite) = decoded.fun().reverse_expr() else {
            return internal_err!("the window function `{name}` has no opposite");
        };
        forward(&opposite)?.reverse_expr()
    } else {
        Some(forward(decoded.fun())?)
    };
    let Some(function) = function else {
        return internal_err!("the opposite of the window function `{name}` has none");
    };
    let Some(made) = function.as_any().downcast_ref::<WindowUDFExpr>() else {
        return internal_err!("the window function `{name}` is of another kind");
    };
    let is_same = made.fun().name() == name;
    if !is_same || flags(made)? != (lost.is_reversed, lost.ignore_nulls) {
        return internal_err!("the window function `{name}` cannot be decoded");
    }
    Ok(function)
}

/// Makes `sum(CASE WHEN c THEN x END) OVER ..` of `sum(x) FILTER (WHERE c) OVER ..`, which can be encoded.
#[derive(Debug)]
pub(crate) struct FiltersAsCases;

impl AnalyzerRule for FiltersAsCases {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(without_filters)?;
        Ok(plan.data)
    }

    fn name(&self) -> &str {
        "window_filters_as_cases"
    }
}

fn without_filters(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(plan, LogicalPlan::Window(_)) {
        return Ok(Transformed::no(plan));
    }
    // Nodes above know the column by its name, which has the filter in it.
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expression| {
        let name = names.save(&expression);
        let changed = expression.transform_up(without_filter)?;
        Ok(changed.update_data(|expression| name.restore(expression)))
    })?;
    plan.map_data(LogicalPlan::recompute_schema)
}

fn without_filter(expression: Expr) -> Result<Transformed<Expr>> {
    let Expr::WindowFunction(mut window) = expression else {
        return Ok(Transformed::no(expression));
    };
    let skips_nulls = match &window.fun {
        WindowFunctionDefinition::AggregateUDF(fun) => SKIPS_NULLS.contains(&fun.name()),
        // DataFusion itself would leave the filter out.
        WindowFunctionDefinition::WindowUDF(fun) if window.params.filter.is_some() => {
            return not_impl_err!("FILTER of the window function `{}`", fun.name());
        }
        WindowFunctionDefinition::WindowUDF(_) => false,
    };
    let params = &mut window.params;
    if skips_nulls
        && let Some(argument) = params.args.first_mut()
        && let Some(filter) = params.filter.take()
    {
        *argument = when(*filter, argument.clone()).end()?;
        return Ok(Transformed::yes(Expr::WindowFunction(window)));
    }
    Ok(Transformed::no(Expr::WindowFunction(window)))
}
