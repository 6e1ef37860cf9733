//! Numbers of tasks that follow from what was committed: settled once, when all that a stage reads is complete.
//!
//! Whoever leads finds the settled number in the state, and a repeated commit comes too late to change it.

use weft_core::job::TASKS_MAX;
use weft_protocol::{
    AdaptiveTasks, EdgeBytes, EdgeRef, MAX_PLAN_TASKS, ReadMode, StageShape, settled_tasks,
};

use crate::running::{Running, StageState};

impl Running {
    /// Settles how many tasks of a stage run, from the bytes that were written for it. They stay as planned if commits
    /// of an earlier version do not tell their bytes.
    pub(crate) fn settle(&mut self, stage: u32) {
        let share = share_of_room(&self.plan.stages, stage);
        let Some(shape) = self.plan.stages.get_mut(stage as usize) else {
            return;
        };
        if shape.adaptive.iter().all(|tasks| tasks.settled.is_some()) {
            return;
        }
        let mut room = share.min(TASKS_MAX.saturating_sub(shape.n_tasks));
        let mut adaptive = shape.adaptive.clone();
        let mut total = shape.n_tasks;
        for tasks in &mut adaptive {
            let Some(wanted) = n_wanted(shape, &self.stages, tasks) else {
                return;
            };
            let planned = tasks.planned.count;
            let added = wanted.saturating_sub(planned).min(room);
            let count = wanted.min(planned.saturating_add(added));
            room -= added;
            total = total.saturating_sub(planned).saturating_add(count);
            tasks.settled = Some(count);
        }
        for read in &mut shape.reads {
            read.tasks = read.tasks.map(|tasks| settled_tasks(&adaptive, tasks));
        }
        shape.n_tasks = total;
        shape.adaptive = adaptive;
    }
}

/// Number of tasks that a stage may have more than planned: its share of what the plan has room for, by the tasks that
/// may become more. It is the same whichever stages are settled, so that the order in which they are does not matter.
pub(crate) fn share_of_room(stages: &[StageShape], stage: u32) -> u32 {
    let n_all: u64 = stages.iter().map(n_planned).sum();
    let room = MAX_PLAN_TASKS.saturating_sub(n_all);
    let of_all: u64 = stages.iter().map(n_splittable).sum();
    let of_stage = stages.get(stage as usize).map_or(0, n_splittable);
    let share = room.saturating_mul(of_stage) / of_all.max(1);
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// Number of tasks of a stage that may become more.
fn n_splittable(shape: &StageShape) -> u64 {
    let tasks = shape.adaptive.iter();
    let tasks = tasks.filter(|tasks| !tasks.split.is_empty());
    tasks.map(|tasks| u64::from(tasks.planned.count)).sum()
}

/// Number of tasks of a stage as it was planned.
fn n_planned(shape: &StageShape) -> u64 {
    let n_tasks = u64::from(shape.n_tasks);
    shape.adaptive.iter().fold(n_tasks, |n, tasks| {
        let planned = tasks.planned.count;
        let settled = tasks.settled.unwrap_or(planned);
        n.saturating_sub(u64::from(settled)) + u64::from(planned)
    })
}

/// Number of tasks that some planned ones want for what they read, each a part of its own. Nothing if its bytes are not
/// known.
fn n_wanted(shape: &StageShape, stages: &[StageState], tasks: &AdaptiveTasks) -> Option<u32> {
    let (mut bytes, mut split) = (0u64, Vec::new());
    for (position, read) in (0u32..).zip(&shape.reads) {
        let is_shared = matches!(read.mode, ReadMode::Partitioned | ReadMode::Ranged);
        if !is_shared || read.tasks != Some(tasks.planned) {
            continue;
        }
        let of_edge = edge_bytes(stages, read.edge_ref())?;
        bytes = bytes.saturating_add(of_edge.all);
        if tasks.split.contains(&position) {
            split.push(of_edge);
        }
    }
    Some(tasks.count(bytes, &split))
}

/// Bytes of all that was written to an edge. Nothing if a commit does not tell.
fn edge_bytes(stages: &[StageState], edge: EdgeRef) -> Option<EdgeBytes> {
    let writer = stages.get(edge.stage as usize)?;
    let bytes = writer.bytes.get(edge.edge as usize).copied();
    (!writer.lacks_bytes).then(|| bytes.unwrap_or_default())
}

/// Checks that adaptive tasks of a planned stage stand in order, and read what the stage reads.
pub(crate) fn check(shape: &StageShape) -> Result<(), String> {
    let mut end = 0;
    for tasks in &shape.adaptive {
        let (first, count) = (tasks.planned.first, tasks.planned.count);
        let ends = first.checked_add(count);
        let is_range = first >= end && count > 0 && ends.is_some_and(|end| end <= shape.n_tasks);
        let mut split = tasks.split.iter();
        let reads = |read: &u32| {
            let read = shape.reads.get(*read as usize);
            read.is_some_and(|read| read.mode.is_partitioned() && read.tasks == Some(tasks.planned))
        };
        if !is_range || tasks.settled.is_some() || !split.all(reads) {
            return Err(format!(
                "the plan's stage `{}` has {} tasks; {count} from {first} on cannot be more or fewer",
                shape.name, shape.n_tasks
            ));
        }
        end = ends.unwrap_or(end);
    }
    Ok(())
}
