//! WITH RECURSIVE: a recursion runs in one task, step by step.
//!
//! ```text
//! RecursiveQueryExec ─▶ rows of the first query, then of each step
//!   first query
//!   Steps: counts the steps
//!     query that reads the step before, by WorkTableExec; it runs again for each step
//! ```
//!
//! DataFusion's encoding knows neither node. Both are encoded here, and a task counts its steps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err, not_impl_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion_proto::protobuf;
use prost::Message;
use weft_core::{ErrorCode, Problem};

use crate::Plan;
use crate::codec::schema_of;
use crate::cut::with_children;
use crate::error::carried;
use crate::one::OnePartition;
use crate::one_input::on_one_input;
use crate::statement::invalid;

/// Steps of a recursion in a task. One within the steps of another counts through.
const STEPS_MAX: u32 = 100_000;

/// A node of a recursion, encoded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RecursionNode {
    #[prost(string, tag = "1")]
    name: String,
    /// Columns of its rows.
    #[prost(message, optional, tag = "2")]
    schema: Option<protobuf::Schema>,
    /// It reads the step before, and is no recursion itself.
    #[prost(bool, tag = "3")]
    reads_step: bool,
    /// Rows that were there before are left out.
    #[prost(bool, tag = "4")]
    is_distinct: bool,
}

/// Encodes a node, without its inputs, if it belongs to a recursion.
pub(crate) fn encoded(plan: &Plan) -> Result<Option<RecursionNode>> {
    let recursion = plan.downcast_ref::<RecursiveQueryExec>();
    let table = plan.downcast_ref::<WorkTableExec>();
    let (name, is_distinct) = match (recursion, table) {
        (Some(recursion), _) => (recursion.name(), recursion.is_distinct()),
        (None, Some(table)) => (table.name(), false),
        (None, None) => return Ok(None),
    };
    Ok(Some(RecursionNode {
        name: name.to_owned(),
        schema: Some(protobuf::Schema::try_from(&*plan.schema())?),
        reads_step: table.is_some(),
        is_distinct,
    }))
}

/// Decodes a node over its inputs.
pub(crate) fn decoded(node: &RecursionNode, inputs: &[Plan]) -> Result<Plan> {
    let schema = schema_of(node.schema.as_ref())?;
    match (node.reads_step, inputs) {
        (true, []) => {
            // The recursion above knows which of its columns these are.
            let table = WorkTableExec::new(node.name.clone(), schema, None)?;
            Ok(Arc::new(table))
        }
        (false, [first, step]) => {
            let step: Plan = Arc::new(Steps {
                input: with_columns(step, &node.name, &schema)?,
                name: node.name.clone(),
                n_steps: Arc::default(),
            });
            let (name, first) = (node.name.clone(), Arc::clone(first));
            let recursion =
                RecursiveQueryExec::try_new(name, schema, first, step, node.is_distinct)?;
            Ok(Arc::new(recursion))
        }
        (_, inputs) => internal_err!("a node of a recursion has {} inputs", inputs.len()),
    }
}

/// The query of a step, which reads columns of the step before: those with the names that it knows.
fn with_columns(step: &Plan, name: &str, all: &SchemaRef) -> Result<Plan> {
    let step = Arc::clone(step).transform_up(|node| {
        let table = node.downcast_ref::<WorkTableExec>();
        let Some(table) = table.filter(|table| table.name() == name) else {
            return Ok(Transformed::no(node));
        };
        let read = table.schema();
        let positions = read.fields().iter().map(|field| all.index_of(field.name()));
        let positions = positions.collect::<Result<Vec<usize>, _>>()?;
        let mut fields = all.fields().to_vec();
        for (position, field) in positions.iter().zip(read.fields()) {
            fields[*position] = Arc::clone(field);
        }
        let all = Arc::new(Schema::new(fields));
        let table: Plan = Arc::new(WorkTableExec::new(name.to_owned(), all, Some(positions))?);
        Ok(Transformed::yes(table))
    })?;
    Ok(step.data)
}

/// Has a step read each union in one partition, before distribution is decided: an exchange further up would be one of
/// rows of the step before.
#[derive(Debug)]
pub(crate) struct StepsInOne;

impl PhysicalOptimizerRule for StepsInOne {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        let plan = plan.transform_up(|node| {
            let Some(recursion) = node.downcast_ref::<RecursiveQueryExec>() else {
                return Ok(Transformed::no(node));
            };
            let step = Arc::clone(recursion.recursive_term()).transform_down(|node| {
                if !node.is::<UnionExec>() || reads_step(&node, &mut Vec::new()) {
                    return Ok(Transformed::no(node));
                }
                let one = OnePartition::of(node);
                Ok(Transformed::new(one, true, TreeNodeRecursion::Jump))
            })?;
            let children = vec![Arc::clone(recursion.static_term()), step.data];
            Ok(Transformed::yes(with_children(&node, children)?))
        })?;
        Ok(plan.data)
    }

    fn name(&self) -> &str {
        "steps_in_one"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Refuses an exchange of rows that come from the step before: a step runs within one task.
pub(crate) fn check_exchange(plan: &Plan) -> Result<()> {
    match reads_step(plan, &mut Vec::new()) {
        true => not_impl_err!(
            "UNION within the last query of WITH RECURSIVE, over rows that it reads from itself; make one query of \
             its parts, or one recursion of each"
        ),
        false => Ok(()),
    }
}

/// Refuses rows of a step where they are not: outside of the recursion, as its step reads itself only in a subquery, of
/// which DataFusion takes no notice, or within the steps of another one, which read them again and again.
pub(crate) fn check_steps(plan: &Plan) -> Result<(), Problem> {
    if reads_step(plan, &mut Vec::new()) {
        return Err(invalid(
            "a query of WITH RECURSIVE reads itself in a subquery alone: name it in the FROM of its last query, by a \
             join"
                .to_owned(),
        ));
    }
    check_inner_steps(plan)
}

fn check_inner_steps(plan: &Plan) -> Result<(), Problem> {
    if let Some(recursion) = plan.downcast_ref::<RecursiveQueryExec>()
        && reads_step(recursion.recursive_term(), &mut vec![recursion.name()])
    {
        return Err(invalid(format!(
            "the last query of the recursion `{}` reads rows of the recursion around it: read them in its first query, \
             or outside of it",
            recursion.name()
        )));
    }
    plan.children().into_iter().try_for_each(check_inner_steps)
}

/// Whether a plan reads the step before of a recursion that is not itself a part of the plan.
fn reads_step<'a>(plan: &'a Plan, within: &mut Vec<&'a str>) -> bool {
    if let Some(table) = plan.downcast_ref::<WorkTableExec>() {
        return !within.contains(&table.name());
    }
    let Some(recursion) = plan.downcast_ref::<RecursiveQueryExec>() else {
        let mut children = plan.children().into_iter();
        return children.any(|child| reads_step(child, within));
    };
    if reads_step(recursion.static_term(), within) {
        return true;
    }
    within.push(recursion.name());
    let reads = reads_step(recursion.recursive_term(), within);
    within.pop();
    reads
}

/// Counts how often its input is started, which is once for each step.
#[derive(Debug)]
struct Steps {
    input: Plan,
    /// Name of the recursion.
    name: String,
    /// DataFusion makes the node anew for each step.
    n_steps: Arc<AtomicU32>,
}

impl Steps {
    fn over(&self, input: Plan) -> Plan {
        Arc::new(Self {
            input,
            name: self.name.clone(),
            n_steps: Arc::clone(&self.n_steps),
        })
    }
}

impl DisplayAs for Steps {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Steps")
    }
}

impl ExecutionPlan for Steps {
    on_one_input!("Steps");

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if self.n_steps.fetch_add(1, Ordering::Relaxed) >= STEPS_MAX {
            let detail = format!(
                "the recursion `{}` takes more than {STEPS_MAX} steps: it ends when its last query gives no row, so \
                 give that a condition, such as a bound of a counter",
                self.name
            );
            return Err(carried(Problem::new(ErrorCode::LimitExceeded, detail)));
        }
        self.input.execute(partition, context)
    }
}
