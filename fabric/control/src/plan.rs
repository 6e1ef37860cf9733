//! Checks of plans: they come from executors, which are not trusted.

use weft_core::job::TASKS_MAX;
use weft_protocol::{EdgeRef, Plan, StageShape};

use crate::bounds::{MAX_EDGES, MAX_PLAN_TASKS, MAX_READS, MAX_STAGES};

/// Checks that stages read edges of stages before them, with a task for each partition.
///
/// Errors say which stage is wrong.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    let (n_stages, most) = (plan.stages.len(), MAX_STAGES);
    if n_stages > most {
        return Err(format!(
            "the plan has {n_stages} stages; {most} are allowed"
        ));
    }
    let n_tasks: u64 = plan
        .stages
        .iter()
        .map(|stage| u64::from(stage.n_tasks))
        .sum();
    if n_tasks > MAX_PLAN_TASKS {
        return Err(format!(
            "the plan's stages have {n_tasks} tasks; {MAX_PLAN_TASKS} are allowed"
        ));
    }
    for (position, stage) in plan.stages.iter().enumerate() {
        let (name, n_reads) = (&stage.name, stage.reads.len());
        if stage.n_tasks > TASKS_MAX {
            return Err(format!(
                "the plan's stage `{name}` has {} tasks; {TASKS_MAX} are allowed",
                stage.n_tasks
            ));
        }
        if stage.edges.len() > MAX_EDGES {
            return Err(format!(
                "the plan's stage `{name}` writes {} edges; {MAX_EDGES} are allowed",
                stage.edges.len()
            ));
        }
        if n_reads > MAX_READS {
            return Err(format!(
                "the plan's stage `{name}` reads {n_reads} edges; {MAX_READS} are allowed"
            ));
        }
        for edge in &stage.reads {
            check_edge(&plan.stages[..position], stage, *edge)?;
        }
    }
    Ok(())
}

fn check_edge(before: &[StageShape], stage: &StageShape, read: EdgeRef) -> Result<(), String> {
    let EdgeRef {
        stage: writer,
        edge,
    } = read;
    let written = before.get(writer as usize);
    let written = written.and_then(|writer| writer.edges.get(edge as usize));
    if written.is_some_and(|edge| edge.partitions == stage.n_tasks) {
        return Ok(());
    }
    Err(format!(
        "the plan's stage `{}` has {} tasks and reads edge {edge} of stage {writer}, which does not fit",
        stage.name, stage.n_tasks
    ))
}
