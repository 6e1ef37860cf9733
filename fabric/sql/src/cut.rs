//! Cuts a plan into stages at every node that moves rows between partitions.

use std::sync::Arc;

use datafusion::common::{Result, not_impl_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::Partitioning;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode,
};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;

use crate::Plan;
use crate::leaf::{Leaf, Read};
use crate::one::OnePartition;
use crate::order::{SortKeys, fit};
use crate::recursion::check_exchange;
use crate::sealed::Sealed;

/// Tasks that share the last merge of a statement: each reads from all tasks that sort.
const MERGING_TASKS_MAX: usize = 256;

/// Place of a stage's rows: by the hash of these expressions, in one partition, in one that is sorted, or in the
/// result.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Hash(Vec<Arc<dyn PhysicalExpr>>, usize),
    Single,
    Sorted(SortKeys),
    Result,
}

/// A plan between two exchanges, with a partition for each task.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) plan: Plan,
    pub(crate) target: Target,
    /// Tasks that share the one partition of the plan, each with a range of the rows that a merge reads.
    pub(crate) n_ranges: Option<usize>,
}

impl Stage {
    pub(crate) fn n_tasks(&self) -> usize {
        self.n_ranges.unwrap_or_else(|| n_partitions(&self.plan))
    }
}

/// Cuts a plan. Each stage stands after those that it reads; the last is the result, in the order of its tasks.
pub(crate) fn cut(plan: &Plan) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    let (root, n_ranges) = match shared_merge(plan)? {
        Some(keys) => {
            let (root, n_ranges) = ranged(plan, keys, &mut stages)?;
            (root, Some(n_ranges))
        }
        None => (below(plan, &mut stages)?, None),
    };
    stages.push(Stage {
        plan: root,
        target: Target::Result,
        n_ranges,
    });
    Ok(stages)
}

/// The keys of a merge whose work tasks can share: the statement ends with it, or with nodes above it that take row
/// by row. A limit needs one task.
fn shared_merge(root: &Plan) -> Result<Option<SortKeys>> {
    let mut plan = root;
    while takes_row_by_row(plan) {
        plan = plan.children()[0];
    }
    let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() else {
        return Ok(None);
    };
    let schema = merge.input().schema();
    let is_shared = plan.fetch().is_none() && n_partitions(merge.input()) > 1;
    if !is_shared || !fit(merge.expr(), &schema)? {
        return Ok(None);
    }
    SortKeys::new(merge.expr().to_vec(), &schema).map(Some)
}

fn takes_row_by_row(plan: &Plan) -> bool {
    (plan.is::<ProjectionExec>() || plan.is::<FilterExec>()) && plan.fetch().is_none()
}

/// Cuts below a merge that [`shared_merge`] found; `plan` is it or stands above it. Tasks merge ranges of what was
/// written, so that their rows, one task after the other, are those of one merge. Returns their number as well.
fn ranged(plan: &Plan, keys: SortKeys, stages: &mut Vec<Stage>) -> Result<(Plan, usize)> {
    let child = plan.children()[0];
    if takes_row_by_row(plan) {
        let (child, n_ranges) = ranged(child, keys, stages)?;
        return Ok((with_children(plan, vec![child])?, n_ranges));
    }
    let input = below(child, stages)?;
    let properties = Arc::clone(input.properties());
    let n_ranges = n_partitions(&input).min(MERGING_TASKS_MAX);
    let stage = push(stages, input, Target::Sorted(keys.clone()));
    let leaf = Leaf::ranged(stage, keys, properties);
    Ok((with_children(plan, vec![leaf])?, n_ranges))
}

pub(crate) fn n_partitions(plan: &Plan) -> usize {
    plan.properties().partitioning.partition_count()
}

pub(crate) fn with_children(plan: &Plan, children: Vec<Plan>) -> Result<Plan> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(children, options)
}

/// Whether every task needs all rows of this child, whatever its own part of the others.
pub(crate) fn reads_whole(plan: &Plan, child: usize) -> bool {
    collects_left(plan) && child == 0 || plan.is::<SortPreservingMergeExec>()
}

fn collects_left(plan: &Plan) -> bool {
    let hash = plan.downcast_ref::<HashJoinExec>();
    hash.is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft)
        || plan.is::<CrossJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
}

fn push(stages: &mut Vec<Stage>, plan: Plan, target: Target) -> usize {
    stages.push(Stage {
        plan,
        target,
        n_ranges: None,
    });
    stages.len() - 1
}

fn below(plan: &Plan, stages: &mut Vec<Stage>) -> Result<Plan> {
    if is_exchange(plan) {
        check_exchange(plan)?;
    }
    let mut children = Vec::new();
    for child in plan.children() {
        children.push(below(child, stages)?);
    }
    if children.is_empty() {
        return Ok(Arc::clone(plan));
    }
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        return hash_exchange(plan, repartition, children.remove(0), stages);
    }
    if plan.is::<CoalescePartitionsExec>() {
        return Ok(single_exchange(plan, children.remove(0), stages));
    }
    if plan.is::<SortPreservingMergeExec>() {
        // The merge stays in the reader, over one stream for each writer.
        let properties = Arc::clone(children[0].properties());
        let stage = push(stages, children.remove(0), Target::Single);
        return with_children(plan, vec![Leaf::stage(stage, Read::PerWriter, properties)]);
    }
    if plan.is::<OnePartition>() || plan.is::<Sealed>() {
        return Ok(children.remove(0));
    }
    // A collected side that has one partition, and so no exchange, would be computed by every task.
    let is_cut = children[0]
        .downcast_ref::<Leaf>()
        .is_some_and(Leaf::is_stage);
    if collects_left(plan) && n_partitions(plan) > 1 && !is_cut {
        let properties = Arc::clone(children[0].properties());
        let stage = push(stages, Arc::clone(&children[0]), Target::Single);
        children[0] = Leaf::stage(stage, Read::All, properties);
    }
    with_children(plan, children)
}

fn is_exchange(plan: &Plan) -> bool {
    plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<SortPreservingMergeExec>()
}

fn hash_exchange(
    plan: &Plan,
    repartition: &RepartitionExec,
    input: Plan,
    stages: &mut Vec<Stage>,
) -> Result<Plan> {
    let Partitioning::Hash(keys, n) = repartition.partitioning() else {
        return not_impl_err!("an exchange by {}", repartition.partitioning());
    };
    if repartition.preserve_order() {
        return not_impl_err!("an exchange by key that merges");
    }
    let stage = push(stages, input, Target::Hash(keys.clone(), *n));
    Ok(Leaf::stage(
        stage,
        Read::Keyed,
        Arc::clone(plan.properties()),
    ))
}

fn single_exchange(plan: &Plan, input: Plan, stages: &mut Vec<Stage>) -> Plan {
    let properties = Arc::clone(plan.properties());
    let Some(limit) = plan.fetch() else {
        let stage = push(stages, input, Target::Single);
        return Leaf::stage(stage, Read::All, properties);
    };
    // Each writer stops at the limit and the reader stops again, by task and then in order: the same rows every time.
    let input = Arc::new(LocalLimitExec::new(input, limit));
    let stage = push(stages, input, Target::Single);
    let leaf = Leaf::stage(stage, Read::All, properties);
    Arc::new(GlobalLimitExec::new(leaf, 0, Some(limit)))
}
