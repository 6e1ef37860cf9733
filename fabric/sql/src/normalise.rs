//! The rule that makes joins safe to cut, before distribution is decided.

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};

use crate::Plan;
use crate::cut::{n_partitions, with_children};
use crate::one::OnePartition;

/// Changes joins that would be wrong if each task ran them on its part of the right side.
///
/// A join that puts out rows of its left side after it has seen all of the right is not a broadcast: each task
/// would put out its own unmatched rows. NOT IN sees its whole right side in one task, since only that task knows
/// whether the side holds a null, or any row.
///
/// A side that holds a join is exchanged as well. How many rows a join puts out is a guess, far too low if keys
/// repeat that DataFusion takes for unique, and each task would hold them all.
#[derive(Debug)]
pub(crate) struct NormaliseJoins;

impl PhysicalOptimizerRule for NormaliseJoins {
    fn optimize(&self, plan: Plan, _config: &ConfigOptions) -> Result<Plan> {
        Ok(plan.transform_up(normalised)?.data)
    }

    fn name(&self) -> &str {
        "normalise_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn normalised(plan: Plan) -> Result<Transformed<Plan>> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        if join.null_aware {
            return Ok(Transformed::yes(right_in_one(&plan)?));
        }
        let is_partitioned = *join.partition_mode() == PartitionMode::Partitioned;
        let is_guessed = || n_partitions(join.left()) > 1 && holds_join(join.left());
        if !is_partitioned && (emits_left(join.join_type()) || is_guessed()) {
            let join = join
                .builder()
                .with_partition_mode(PartitionMode::Partitioned)
                .recompute_properties();
            return Ok(Transformed::yes(join.build_exec()?));
        }
    }
    let loops = plan.downcast_ref::<NestedLoopJoinExec>();
    if loops.is_some_and(|join| emits_left(join.join_type())) {
        return Ok(Transformed::yes(right_in_one(&plan)?));
    }
    Ok(Transformed::no(plan))
}

fn emits_left(join: &JoinType) -> bool {
    match join {
        JoinType::Left
        | JoinType::Full
        | JoinType::LeftSemi
        | JoinType::LeftAnti
        | JoinType::LeftMark => true,
        JoinType::Inner
        | JoinType::Right
        | JoinType::RightSemi
        | JoinType::RightAnti
        | JoinType::RightMark => false,
    }
}

/// Whether the number of rows comes from a join, and nothing above bounds it.
fn holds_join(plan: &Plan) -> bool {
    let aggregate = plan.downcast_ref::<AggregateExec>();
    let is_one_row = aggregate.is_some_and(|aggregate| aggregate.group_expr().is_empty());
    if is_one_row || plan.fetch().is_some() {
        return false;
    }
    plan.is::<HashJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<CrossJoinExec>()
        || plan.children().into_iter().any(holds_join)
}

/// The join with its right side in one partition.
fn right_in_one(join: &Plan) -> Result<Plan> {
    let mut children: Vec<Plan> = join.children().into_iter().cloned().collect();
    if let Some(right) = children.pop() {
        children.push(OnePartition::of(right));
    }
    with_children(join, children)
}
