//! Stages whose tasks may be more or fewer than planned, once it is known how much they read.
//!
//! A task may always read several partitions of what was exchanged by hash: each key is in one task then, too. Several
//! tasks may share a partition of one side of a join, each with the whole of the other side, if nothing up to the end
//! of the stage needs the rows of a key in one task. Each of them then computes the other side, which must come out the
//! same: sums of floats and rows that tie depend on memory and spilling. So that side may filter, project, sort and
//! join what it reads, and no more.

use datafusion::common::JoinType;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;

use crate::Plan;
use crate::leaf::{Leaf, Read};

/// Ways in which the tasks of a variant may be more or fewer than planned: each reads partitions or a range of what
/// other stages wrote, and any number of tasks may share these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adaptive {
    /// Positions among the stage's leaves of those of which several tasks may share a partition. Each of them must read
    /// that partition of the other leaves whole.
    pub split: Vec<u32>,
}

/// Says how the tasks that run a plan may be more or fewer. Nothing if they must be as planned. The plan's leaves are
/// those of the stage from the position `first` on.
pub(crate) fn adaptive(plan: &Plan, first: usize) -> Option<Adaptive> {
    let mut leaves = Vec::new();
    collect(plan, true, &mut leaves);
    let (mut is_shared, mut split) = (false, Vec::new());
    for (position, (leaf, may_split)) in (first..).zip(leaves) {
        match leaf.read()? {
            // Of several partitions, one after the other, the rows are in no order.
            Read::Keyed if leaf.has_order() => return None,
            Read::Keyed => {
                is_shared = true;
                if may_split {
                    split.push(u32::try_from(position).ok()?);
                }
            }
            Read::Ranged => is_shared = true,
            Read::All | Read::PerWriter => {}
        }
    }
    is_shared.then_some(Adaptive { split })
}

/// Collects the leaves of a plan in order, each with whether its rows may be dealt out to tasks.
fn collect<'a>(plan: &'a Plan, may_split: bool, leaves: &mut Vec<(&'a Leaf, bool)>) {
    if let Some(leaf) = plan.downcast_ref::<Leaf>() {
        leaves.push((leaf, may_split));
    }
    let children = plan.children();
    for (position, child) in children.iter().enumerate() {
        let mut others = children.iter().enumerate();
        let may_split = may_split
            && takes_share(plan, position)
            && others.all(|(other, side)| other == position || has_same_rows(side));
        collect(child, may_split, leaves);
    }
}

/// Whether a plan gives the same rows in each of the tasks that read the same, in whatever order they come.
fn has_same_rows(plan: &Plan) -> bool {
    let keeps_rows = plan.is::<Leaf>()
        || plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<SortExec>()
        || plan.is::<HashJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<CrossJoinExec>();
    // Of rows that tie, a limit takes those that come first.
    keeps_rows && plan.fetch().is_none() && plan.children().into_iter().all(has_same_rows)
}

/// Whether the rows of a node are those of several tasks together, if each has a share of this child and all of the
/// others.
fn takes_share(plan: &Plan, child: usize) -> bool {
    // A limit counts the rows of a task.
    if plan.fetch().is_some() {
        return false;
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let is_partial = *aggregate.mode() == AggregateMode::Partial;
        return is_partial && aggregate.limit_options().is_none();
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return !join.null_aware && keeps_to(*join.join_type(), child);
    }
    if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        return keeps_to(join.join_type(), child);
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        return keeps_to(*join.join_type(), child);
    }
    plan.is::<CrossJoinExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<SortExec>()
}

/// Whether each row of a join depends on one row of this side, so that no row of the other side is put out for want of
/// a match, or once for all of its matches.
fn keeps_to(join_type: JoinType, side: usize) -> bool {
    match join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => side == 0,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            side == 1
        }
        JoinType::Full => false,
    }
}
