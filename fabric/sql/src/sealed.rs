//! A node that keeps rules from looking into a merge join.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use crate::Plan;
use crate::merge_join::rebuilt;
use crate::one_input::on_one_input;

/// Stands on a merge join while a plan is optimised; the cutter takes it out again.
///
/// DataFusion pushes projections through a merge join and leaves its filter with the positions of before. The order of
/// the join's rows is hidden as well: an exchange above it would be planned as one that keeps the order, and exchanges
/// by key do not. Only another merge join sees it, and then need not sort.
#[derive(Debug)]
pub(crate) struct Sealed {
    input: Plan,
    shows_order: bool,
    properties: Arc<PlanProperties>,
}

impl Sealed {
    pub(crate) fn of(input: Plan) -> Plan {
        Self::with_order(input, false)
    }

    fn with_order(input: Plan, shows_order: bool) -> Plan {
        let properties = match shows_order {
            true => Arc::clone(input.properties()),
            false => unordered(input.properties()),
        };
        Arc::new(Self {
            input,
            shows_order,
            properties,
        })
    }

    fn over(&self, input: Plan) -> Plan {
        Self::with_order(input, self.shows_order)
    }

    /// The plan with the order of a merge join below it shown, as far as the nodes in between keep an order.
    pub(crate) fn opened(plan: Plan) -> Result<Plan> {
        if let Some(sealed) = plan.downcast_ref::<Self>() {
            return Ok(Self::with_order(Arc::clone(&sealed.input), true));
        }
        if !plan.is::<ProjectionExec>() && !plan.is::<FilterExec>() {
            return Ok(plan);
        }
        let children = plan.children().into_iter().cloned().map(Self::opened);
        let children = children.collect::<Result<Vec<_>>>()?;
        rebuilt(&plan, children)
    }
}

fn unordered(properties: &PlanProperties) -> Arc<PlanProperties> {
    let mut facts = properties.eq_properties.clone();
    facts.clear_orderings();
    Arc::new(PlanProperties::new(
        facts,
        properties.partitioning.clone(),
        properties.emission_type,
        properties.boundedness,
    ))
}

impl DisplayAs for Sealed {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

impl ExecutionPlan for Sealed {
    on_one_input!("Sealed");

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![self.shows_order]
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        internal_err!("Sealed is taken out when a plan is cut")
    }
}
