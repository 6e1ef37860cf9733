//! Checks of plans: they come from executors, which are not trusted.

use weft_core::job::TASKS_MAX;
use weft_protocol::{EdgeRef, Plan};

/// Checks that stages read edges of stages before them, with a task for each partition.
///
/// Errors say which stage is wrong.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    for (position, stage) in plan.stages.iter().enumerate() {
        let name = &stage.name;
        if stage.n_tasks > TASKS_MAX {
            return Err(format!(
                "the plan's stage `{name}` has {} tasks; {TASKS_MAX} are allowed",
                stage.n_tasks
            ));
        }
        let Some(EdgeRef {
            stage: writer,
            edge,
        }) = stage.reads
        else {
            continue;
        };
        let read = plan.stages[..position]
            .get(writer as usize)
            .and_then(|writer| writer.edges.get(edge as usize));
        if read.is_none_or(|edge| edge.partitions != stage.n_tasks) {
            return Err(format!(
                "the plan's stage `{name}` has {} tasks and reads edge {edge} of stage {writer}, which does not fit",
                stage.n_tasks
            ));
        }
    }
    Ok(())
}
