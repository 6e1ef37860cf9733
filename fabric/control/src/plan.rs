//! Checks of plans: they come from executors, which are not trusted.

use weft_core::job::{OUTPUTS_MAX, OutputSpec, TASKS_MAX};
use weft_protocol::{
    EdgeRead, MAX_EDGES, MAX_PLAN_STAGES, MAX_PLAN_TASKS, MAX_READS, Plan, ReadMode, StageShape,
};

use crate::adaptive;
use crate::bounds::MAX_KEPT_TABLES_BYTES;

/// Checks that stages read edges of stages before them, whose partitions fit the tasks that read them.
///
/// Errors say which stage is wrong.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    let (n_stages, most) = (plan.stages.len(), MAX_PLAN_STAGES);
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
            check_edge(&plan.stages[..position], stage, edge)?;
        }
        adaptive::check(stage)?;
    }
    Ok(())
}

/// Checks outputs that a statement adds to those of its job's document.
pub(crate) fn check_outputs(outputs: &[OutputSpec], added: &[OutputSpec]) -> Result<(), String> {
    let n = outputs.len() + added.len();
    if n > OUTPUTS_MAX {
        return Err(format!(
            "the plan makes {n} outputs; {OUTPUTS_MAX} are allowed"
        ));
    }
    let keeps_too_much = |one: &&OutputSpec| one.max_kept_bytes() > Some(MAX_KEPT_TABLES_BYTES);
    if let Some(kept) = added.iter().find(keeps_too_much) {
        return Err(format!(
            "the plan keeps more than {MAX_KEPT_TABLES_BYTES} bytes of the output `{}`",
            kept.name
        ));
    }
    let is_taken = |position: usize, one: &OutputSpec| {
        let mut others = outputs.iter().chain(&added[..position]);
        others.any(|other| other.name == one.name)
    };
    let mut added = added.iter().enumerate();
    match added.find(|(position, one)| is_taken(*position, one)) {
        None => Ok(()),
        Some((_, one)) => Err(format!(
            "the plan has two outputs of the name `{}`",
            one.name
        )),
    }
}

/// Checks one read of `stage`, of an edge that a stage of `before` writes.
fn check_edge(before: &[StageShape], stage: &StageShape, read: &EdgeRead) -> Result<(), String> {
    let (name, n_tasks) = (&stage.name, stage.n_tasks);
    let (writer, edge, readers) = (read.stage, read.edge, read.readers(stage));
    if let Some(range) = read.tasks {
        let end = range.first.checked_add(range.count);
        if range.count == 0 || end.is_none_or(|end| end > n_tasks) {
            return Err(format!(
                "the plan's stage `{name}` has {n_tasks} tasks; {} from {} on cannot read edge {edge} of stage {writer}",
                range.count, range.first
            ));
        }
    }
    let partitions = match read.mode {
        ReadMode::Partitioned => readers.count,
        ReadMode::Broadcast | ReadMode::Sliced | ReadMode::Ranged => 1,
    };
    let written = before.get(writer as usize);
    let written = written.and_then(|writer| writer.edges.get(edge as usize));
    if written.is_some_and(|edge| edge.partitions == partitions) {
        return Ok(());
    }
    Err(format!(
        "the plan's stage `{name}` has {n_tasks} tasks, and {} of them read edge {edge} of stage {writer}, which must be there \
         with {partitions} partitions",
        readers.count
    ))
}
