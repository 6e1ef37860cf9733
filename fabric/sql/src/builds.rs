//! Build sides of hash joins, which cannot spill: bounded by estimates while a statement is planned.

use std::any::Any;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::{Result, internal_err, not_impl_err};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

use crate::Plan;
use crate::merge_join::{can_merge, merge_join, rebuilt};
use crate::sealed::Sealed;

/// A side that every task reads may take this part of the memory for build sides: tasks join one large table with
/// several small ones, and hold all of these at once.
const BROADCAST_SHARE: u64 = 8;
/// Bytes of a side that every task reads, whatever the memory: an eighth of the 64 MiB that a task reads. Above that
/// an exchange of both sides moves less.
const BROADCAST_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a row of a side of which only the number of rows is known.
const ROW_BYTES: u64 = 64;
/// Bytes of a text, with its offset.
const TEXT_BYTES: u64 = 32;
/// Bytes of a list or a struct.
const NESTED_BYTES: u64 = 64;
/// Bytes that the hash table takes for each row.
const TABLE_BYTES: u64 = 24;

/// Bytes of a side up to which every task reads it whole, and rows if bytes are not known.
pub(crate) fn broadcast_limits(build_bytes: u64) -> (usize, usize) {
    let bytes = (build_bytes / BROADCAST_SHARE).min(BROADCAST_BYTES_MAX);
    let small = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    (small(bytes), small(bytes / ROW_BYTES))
}

/// Bytes that build sides in one task may take, on the way to [`BoundBuilds`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct BuildBytes(pub(crate) u64);

impl ConfigExtension for BuildBytes {
    const PREFIX: &'static str = "weft";
}

impl ExtensionOptions for BuildBytes {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(*self)
    }

    fn set(&mut self, key: &str, _value: &str) -> Result<()> {
        not_impl_err!("setting `weft.{key}`")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// The rule that makes merge joins of hash joins whose build side is estimated to be too large for a task.
///
/// A side of unknown size stays a build side: a task that runs out of memory over it starts over with a merge join.
#[derive(Debug)]
pub(crate) struct BoundBuilds;

impl PhysicalOptimizerRule for BoundBuilds {
    fn optimize(&self, plan: Plan, config: &ConfigOptions) -> Result<Plan> {
        let bytes = config.extensions.get::<BuildBytes>();
        let budget = Budget {
            bytes: bytes.map_or(u64::MAX, |bytes| bytes.0),
            n_tasks: (config.execution.target_partitions as u64).max(1),
        };
        let (plan, _) = budget.bounded(&plan)?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        "bound_builds"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

struct Budget {
    bytes: u64,
    n_tasks: u64,
}

impl Budget {
    /// The plan with joins within the budget, and bytes that a task holds of build sides while it reads its rows.
    fn bounded(&self, plan: &Plan) -> Result<(Plan, u64)> {
        let mut children = Vec::new();
        let mut held = 0;
        for child in plan.children() {
            let (child, of_child) = self.bounded(child)?;
            children.push(child);
            held = of_child.max(held);
        }
        let Some(join) = plan.downcast_ref::<HashJoinExec>() else {
            return Ok((rebuilt(plan, children)?, held));
        };
        // Sides that are exchanged are made by other tasks.
        let is_exchanged = self.n_tasks > 1 && *join.partition_mode() == PartitionMode::Partitioned;
        let is_broadcast = self.n_tasks > 1 && !is_exchanged;
        let build = estimate(join.left()).unwrap_or(0);
        let held = match is_exchanged {
            true => build / self.n_tasks,
            false => held.saturating_add(build),
        };
        let fits = held < self.bytes || self.bytes == u64::MAX;
        if fits || is_broadcast || join.fetch().is_some() || !can_merge(join) {
            return Ok((rebuilt(plan, children)?, held));
        }
        let mut children = children.into_iter().map(Sealed::opened);
        match (children.next(), children.next()) {
            (Some(build), Some(probe)) => Ok((merge_join(join, build?, probe?, Sealed::of)?, 0)),
            _ => internal_err!("a join without two sides"),
        }
    }
}

/// Bytes that the rows of a plan take in a hash table. Nothing if that cannot be told.
///
/// A join whose rows cannot be told is taken for one with a key: each row of a side meets about one of the other.
fn estimate(plan: &Plan) -> Option<u64> {
    let context = StatisticsContext::new();
    let statistics = context
        .compute(plan.as_ref(), &StatisticsArgs::new())
        .ok()?;
    let known = |n: Option<&usize>| n.map(|n| *n as u64);
    let bytes = known(statistics.total_byte_size.get_value());
    let rows = known(statistics.num_rows.get_value());
    let row_bytes = width(&plan.schema());
    match (bytes, rows) {
        (Some(bytes), Some(rows)) => Some(with_table(bytes, rows)),
        (Some(bytes), None) => Some(with_table(bytes, bytes / row_bytes)),
        (None, Some(rows)) => Some(with_table(rows.saturating_mul(row_bytes), rows)),
        (None, None) if plan.children().is_empty() => None,
        (None, None) => plan.children().into_iter().map(estimate).sum(),
    }
}

fn with_table(bytes: u64, rows: u64) -> u64 {
    bytes.saturating_add(rows.saturating_mul(TABLE_BYTES))
}

/// Bytes that a row is likely to take, at least one.
fn width(schema: &Schema) -> u64 {
    let of_type = |data_type: &DataType| match data_type.primitive_width() {
        Some(width) => width as u64,
        None if data_type.is_nested() => NESTED_BYTES,
        None if *data_type == DataType::Boolean || *data_type == DataType::Null => 1,
        None => TEXT_BYTES,
    };
    let fields = schema.fields().iter();
    fields
        .map(|field| of_type(field.data_type()))
        .sum::<u64>()
        .max(1)
}
