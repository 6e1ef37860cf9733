//! `/v1/jobs/{id}/plan`: the plan of a job for people, stage by stage, and how it ran.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use weft_control::{Job, StageState};
use weft_core::{JobId, Problem};
use weft_protocol::{StageShape, StageText, TaskCommit, plan_text_key};
use weft_store::Blobs;

use super::auth::Principal;
use super::reply::ApiResult;
use super::{Api, jobs, views};

/// Partitions that are shown of those that several tasks shared.
const SPLIT_SHOWN_MAX: usize = 100;

/// Shows the plan of a job. A job that has not been planned has no stages.
pub(crate) async fn show(
    State(api): State<Api>,
    principal: Principal,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let job = jobs::find(&api, &principal.tenant, &id).await?;
    let texts = texts(&api.blobs, &job.id).await?;
    Ok(Json(json!({ "items": items(&job, &texts) })))
}

/// The texts that the planner wrote: none of a job that was planned by an earlier version, or is being planned.
async fn texts(blobs: &Blobs, job: &JobId) -> Result<Vec<StageText>, Problem> {
    let key = plan_text_key(job);
    let is_there = blobs.exists(&key).await.map_err(|error| error.problem())?;
    if !is_there {
        return Ok(Vec::new());
    }
    let bytes = blobs.get(&key).await.map_err(|error| error.problem())?;
    // A machine that lost its power may have lost the end of the object: it is not synced.
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(%job, %error, "the text of a plan cannot be read");
        Vec::new()
    }))
}

fn items(job: &Job, texts: &[StageText]) -> Vec<Value> {
    let shapes = job.plan().into_iter().flat_map(|plan| &plan.stages);
    let stages = shapes.zip(views::stages(job)).zip(job.stages());
    let item =
        |(position, ((shape, view), progress)): (usize, ((&StageShape, Value), &StageState))| {
            let ran = Ran::of(progress);
            json!({
                "stage": view,
                "cpu_ms": views::milliseconds(ran.cpu_ns),
                "task_rows": ran.task_rows(),
                "adaptive": adaptive(shape, progress),
                "plan": texts.get(position),
            })
        };
    stages.enumerate().map(item).collect()
}

/// The number of tasks that was planned, and what those read that run in their place; nothing if all are as planned.
fn adaptive(shape: &StageShape, progress: &StageState) -> Option<Value> {
    let settled = shape.adaptive.iter().filter_map(|tasks| {
        let settled = tasks.settled?;
        Some((tasks.planned.count, settled))
    });
    let settled: Vec<(u32, u32)> = settled.collect();
    if settled.is_empty() {
        return None;
    }
    let planned = settled.iter().fold(shape.n_tasks, |n, (planned, settled)| {
        n.saturating_sub(*settled).saturating_add(*planned)
    });
    let parts = progress.commits.values().filter_map(|commit| commit.part);
    let split = parts
        .clone()
        .filter(|part| part.pieces > 1 && part.piece == 0);
    let split = split.map(|part| json!({ "partition": part.first, "tasks": part.pieces }));
    Some(json!({
        "tasks_planned": planned,
        "partitions_most": parts.map(|part| part.count).max(),
        "split": split.take(SPLIT_SHOWN_MAX).collect::<Vec<_>>(),
    }))
}

/// Sums over the committed tasks of a stage that its progress does not have.
struct Ran {
    cpu_ns: u64,
    /// Rows that each task read, the fewest first, and the task.
    rows: Vec<(u64, u32)>,
}

impl Ran {
    fn of(progress: &StageState) -> Self {
        let mut ran = Self {
            cpu_ns: 0,
            rows: Vec::with_capacity(progress.commits.len()),
        };
        for commit in progress.commits.values() {
            let TaskCommit { task, usage, .. } = &**commit;
            let usage = usage.lines();
            ran.cpu_ns = ran.cpu_ns.saturating_add(views::cpu_ns(&usage));
            // The fabric's own line comes last.
            let rows = usage.last().map_or(0, |own| own.billed.rows_in);
            ran.rows.push((rows, *task));
        }
        ran.rows.sort_unstable();
        ran
    }

    /// The task that read most rows, and the median; nothing until a task is done.
    fn task_rows(&self) -> Option<Value> {
        let (rows_largest, task) = *self.rows.last()?;
        let (rows_median, _) = self.rows[self.rows.len() / 2];
        Some(json!({
            "task": task,
            "rows_largest": rows_largest,
            "rows_median": rows_median,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_told_by_the_largest_and_the_median() {
        let of = |rows: &[(u64, u32)]| {
            let rows = rows.to_vec();
            Ran { cpu_ns: 0, rows }.task_rows()
        };
        assert_eq!(of(&[]), None);
        let expected = json!({ "task": 2, "rows_largest": 90, "rows_median": 7 });
        assert_eq!(of(&[(5, 1), (7, 0), (90, 2)]), Some(expected));
    }

    #[tokio::test]
    async fn a_text_that_is_damaged_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a store");
        let job = JobId::new(1_700_000_000_000, 1);
        let none = texts(&blobs, &job).await.expect("it reads");
        assert!(none.is_empty(), "{none:?}");
        let text = StageText {
            reads: vec!["orders: csv".into()],
            ..StageText::default()
        };
        let whole = serde_json::to_vec(&[&text]).expect("it is encoded");
        let put = blobs.put(&plan_text_key(&job), whole.clone()).await;
        put.expect("it writes");
        assert_eq!(texts(&blobs, &job).await.expect("it reads"), vec![text]);
        let half = whole[..whole.len() / 2].to_vec();
        let put = blobs.put(&plan_text_key(&job), half).await;
        put.expect("it writes");
        let none = texts(&blobs, &job).await.expect("it reads");
        assert!(none.is_empty(), "{none:?}");
    }
}
