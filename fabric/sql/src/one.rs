//! A node that wants its input in one partition.

use std::fmt;
use std::sync::Arc;

use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    Partitioning, PlanProperties,
};

use crate::Plan;
use crate::one_input::on_one_input;

/// Requires one partition of its input while distribution is decided; the cutter takes it out again.
///
/// A `CoalescePartitionsExec` that is put in by hand is stripped by the rule that decides distribution.
#[derive(Debug)]
pub(crate) struct OnePartition {
    input: Plan,
    properties: Arc<PlanProperties>,
}

impl OnePartition {
    pub(crate) fn of(input: Plan) -> Plan {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Arc::new(Self {
            input,
            properties: Arc::new(properties),
        })
    }

    fn over(&self, input: Plan) -> Plan {
        Self::of(input)
    }
}

impl DisplayAs for OnePartition {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnePartition")
    }
}

impl ExecutionPlan for OnePartition {
    on_one_input!("OnePartition");

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn execute(
        &self,
        _partition: usize,
        _context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        internal_err!("OnePartition is taken out when a plan is cut")
    }
}
