//! Branches of a stage: a union gives each of its tasks one of its inputs, so a stage has a plan for each.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_err, not_impl_err};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::union::UnionExec;
use weft_protocol::TaskRange;

use crate::Plan;
use crate::cut::{n_partitions, reads_whole, with_children};
use crate::leaf::Leaf;
use crate::stage::LeafPlan;

/// A plan without unions, and the number of tasks that run it.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    pub(crate) plan: Plan,
    pub(crate) n_tasks: usize,
}

/// Splits a stage's plan into branches, in the order of its tasks. Nodes above a union are copied into each branch.
pub(crate) fn branches(plan: &Plan) -> Result<Vec<Branch>> {
    let children = plan.children();
    if plan.is::<UnionExec>() {
        let inputs = children.into_iter().map(branches);
        return Ok(inputs.collect::<Result<Vec<_>>>()?.concat());
    }
    if children.is_empty() {
        return Ok(vec![childless(plan)?]);
    }
    let mut inputs = Vec::new();
    for (position, child) in children.into_iter().enumerate() {
        let is_whole = reads_whole(plan, position);
        if !is_whole && n_partitions(child) != n_partitions(plan) {
            let (above, below) = (n_partitions(plan), n_partitions(child));
            return not_impl_err!("{} with {above} partitions over {below}", plan.name());
        }
        inputs.push((is_whole, branches(child)?));
    }
    let n_branches = inputs
        .iter()
        .map(|(_, input)| input.len())
        .max()
        .unwrap_or(1);
    (0..n_branches)
        .map(|branch| join(plan, &inputs, branch, n_branches))
        .collect()
}

/// One branch of a node, from those of its inputs. An input that is read whole is the same in every branch.
fn join(
    plan: &Plan,
    inputs: &[(bool, Vec<Branch>)],
    branch: usize,
    n_branches: usize,
) -> Result<Branch> {
    let mut n_tasks = None;
    let mut children = Vec::new();
    for (is_whole, input) in inputs {
        let at = if *is_whole { 0 } else { branch };
        let expected = if *is_whole { 1 } else { n_branches };
        let Some(input) = input.get(at).filter(|_| input.len() == expected) else {
            return not_impl_err!("{} over unions side by side", plan.name());
        };
        if !is_whole
            && n_tasks
                .replace(input.n_tasks)
                .is_some_and(|n| n != input.n_tasks)
        {
            return not_impl_err!("{} over unions of different parts", plan.name());
        }
        children.push(Arc::clone(&input.plan));
    }
    Ok(Branch {
        plan: with_children(plan, children)?,
        n_tasks: n_tasks.unwrap_or(1),
    })
}

/// The branch of a node without inputs.
fn childless(plan: &Plan) -> Result<Branch> {
    let n_tasks = n_partitions(plan);
    if plan.is::<EmptyExec>() {
        let plan: Plan = Arc::new(EmptyExec::new(plan.schema()));
        return Ok(Branch { plan, n_tasks });
    }
    if !plan.is::<Leaf>() && n_tasks != 1 {
        return not_impl_err!("{} with {n_tasks} partitions", plan.name());
    }
    if plan.is::<LazyMemoryExec>() && plan.schema().fields().is_empty() {
        // Encoding loses the rows where no column is read.
        return not_impl_err!("counting rows of a table function; count one of its columns");
    }
    let plan = Arc::clone(plan);
    Ok(Branch { plan, n_tasks })
}

/// Numbers the leaves of a branch and adds them to those of its stage.
pub(crate) fn number(plan: Plan, tasks: TaskRange, leaves: &mut Vec<LeafPlan>) -> Result<Plan> {
    let numbered = plan.transform_up(|node| {
        let Some(leaf) = node.downcast_ref::<Leaf>() else {
            return Ok(Transformed::no(node));
        };
        let Ok(number) = u32::try_from(leaves.len()) else {
            return internal_err!("a stage with {} leaves", leaves.len());
        };
        leaves.push(leaf.plan(tasks)?);
        Ok(Transformed::yes(leaf.numbered(number)))
    })?;
    Ok(numbered.data)
}
