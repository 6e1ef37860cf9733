//! A node that ends the plan of a task that is cancelled.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

use crate::Plan;
use crate::error::carried;
use crate::one_input::on_one_input;
use crate::task::Sources;

/// Asks before each batch whether the task goes on.
///
/// Leaves ask by themselves, but a join makes rows for hours out of one batch of a leaf, and an aggregate above it
/// never returns before it has read them all.
#[derive(Debug)]
struct Stop {
    input: Plan,
    sources: Arc<dyn Sources>,
}

/// Puts the node above all others that may go on for long without a leaf being read.
pub(crate) fn stoppable(plan: Plan, sources: &Arc<dyn Sources>) -> Result<Plan> {
    let stoppable = plan.transform_up(|node| {
        if !goes_on(&node) {
            return Ok(Transformed::no(node));
        }
        let stop: Plan = Arc::new(Stop {
            input: node,
            sources: Arc::clone(sources),
        });
        Ok(Transformed::yes(stop))
    })?;
    Ok(stoppable.data)
}

fn goes_on(plan: &Plan) -> bool {
    plan.is::<CrossJoinExec>()
        || plan.is::<HashJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<LazyMemoryExec>()
        || plan.is::<RecursiveQueryExec>()
}

impl Stop {
    fn over(&self, input: Plan) -> Plan {
        Arc::new(Self {
            input,
            sources: Arc::clone(&self.sources),
        })
    }
}

impl DisplayAs for Stop {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

impl ExecutionPlan for Stop {
    on_one_input!("Stop");

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
        let rows = self.input.execute(partition, context)?;
        let sources = Arc::clone(&self.sources);
        let schema = rows.schema();
        let rows = rows.map(move |batch| {
            sources.check().map_err(carried)?;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
