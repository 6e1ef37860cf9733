//! Jobs that an executor works on: contexts and plans of their stages, and what stops them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio_util::sync::CancellationToken;
use weft_core::{Digest, ErrorCode, JobId, Problem, TaskId, lock};
use weft_protocol::{EARLIER_FINGERPRINTS, FINGERPRINT, StageContext};
use weft_shuffle::ObjectReader;
use weft_store::Blobs;

use crate::plan::{NodeWork, Source, StagePlan};

/// Stages by job.
pub(super) struct Stages {
    blobs: Blobs,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// What stops the planning of a job.
    planning: HashMap<JobId, CancellationToken>,
    jobs: BTreeMap<JobId, Job>,
}

struct Job {
    stages: BTreeMap<u32, Arc<Stage>>,
    reader: ObjectReader,
    cancel: CancellationToken,
}

/// A stage whose tasks may come.
pub(super) struct Stage {
    pub(super) context: Arc<StageContext>,
    plan: Mutex<Option<Arc<StagePlan>>>,
}

/// A stage with what its tasks share with those of the job's other stages.
pub(super) struct Found {
    pub(super) stage: Arc<Stage>,
    pub(super) reader: ObjectReader,
    pub(super) cancel: CancellationToken,
}

impl Stages {
    pub(super) fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }

    /// Records a job whose planning is about to wait for a slot.
    pub(super) fn expect_plan(&self, job: &JobId) {
        self.held()
            .planning
            .insert(job.clone(), CancellationToken::new());
    }

    /// Returns what stops the planning of a job.
    pub(super) fn planning(&self, job: &JobId) -> Option<CancellationToken> {
        self.held().planning.get(job).cloned()
    }

    /// Drops a job that is planned, or could not be.
    pub(super) fn planned(&self, job: &JobId) {
        self.held().planning.remove(job);
    }

    /// Records a stage whose tasks are about to come.
    pub(super) fn open(&self, context: StageContext) {
        let mut held = self.held();
        let new = || Job {
            stages: BTreeMap::new(),
            reader: ObjectReader::new(self.blobs.clone()),
            cancel: CancellationToken::new(),
        };
        let job = held.jobs.entry(context.job.clone()).or_insert_with(new);
        // Stages that read one edge share what follows from its indexes, and that may have changed with the objects.
        let mut others = job.stages.values();
        if others.any(|before| reads_others(&before.context, &context)) {
            job.reader = ObjectReader::new(self.blobs.clone());
        }
        let stage = Stage {
            context: Arc::new(context),
            plan: Mutex::default(),
        };
        job.stages.insert(stage.context.stage, Arc::new(stage));
    }

    /// Finds the stage of a task.
    pub(super) fn find(&self, task: &TaskId) -> Option<Found> {
        let held = self.held();
        let job = held.jobs.get(&task.job)?;
        Some(Found {
            stage: Arc::clone(job.stages.get(&task.stage)?),
            reader: job.reader.clone(),
            cancel: job.cancel.clone(),
        })
    }

    /// Stops the work of a job, and drops it.
    pub(super) fn forget(&self, job: &JobId) {
        let mut held = self.held();
        if let Some(planning) = held.planning.get(job) {
            planning.cancel();
        }
        if let Some(job) = held.jobs.remove(job) {
            job.cancel.cancel();
        }
    }

    /// Returns the plan of a stage, which is read once.
    ///
    /// Errors: `Internal` if the stage, or the plan, is of other formats.
    pub(super) async fn plan_of(&self, stage: &Stage) -> Result<Arc<StagePlan>, Problem> {
        check_fingerprint(&stage.context.fingerprint)?;
        if let Some(plan) = &*lock(&stage.plan) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(self.read_plan(&stage.context.plan).await?);
        *lock(&stage.plan) = Some(Arc::clone(&plan));
        Ok(plan)
    }

    /// Reads the plan of a stage from the store.
    pub(super) async fn read_plan(&self, key: &str) -> Result<StagePlan, Problem> {
        let bytes = self.blobs.get(key).await.map_err(|error| error.problem())?;
        let plan: StagePlan = serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(
                ErrorCode::Internal,
                format!("the plan `{key}` is damaged: {error}"),
            )
        })?;
        check_fingerprint(&plan.fingerprint)?;
        Ok(plan)
    }
}

/// Returns whether a stage reads other objects of an edge than were there before: some were lost, and written again.
fn reads_others(before: &StageContext, now: &StageContext) -> bool {
    before.inputs.iter().any(|old| {
        let mut inputs = now.inputs.iter();
        inputs.any(|new| new.edge == old.edge && new.objects != old.objects)
    })
}

/// Fails if a job was planned with another partition hash, plan encoding, segment format or DataFusion than this
/// executor has: what it wrote would not fit what others wrote. Plans of earlier releases that mean the same are
/// taken.
fn check_fingerprint(of_plan: &str) -> Result<(), Problem> {
    if of_plan != FINGERPRINT && !EARLIER_FINGERPRINTS.contains(&of_plan) {
        let detail = format!(
            "the job was planned with the formats `{of_plan}`, and this executor has `{FINGERPRINT}`: run the job again once all \
             nodes run one release of Weft"
        );
        return Err(Problem::new(ErrorCode::Internal, detail));
    }
    Ok(())
}

/// The components that a stage's tasks enter.
pub(super) fn components(plan: &StagePlan) -> impl Iterator<Item = &Digest> {
    let nodes = plan.nodes.iter().filter_map(|node| match &node.work {
        NodeWork::Map(function) | NodeWork::Reduce(function) => Some(&function.digest),
        NodeWork::Task(task) => Some(&task.function.digest),
        NodeWork::Each(each) => Some(&each.function.digest),
        NodeWork::Pass | NodeWork::Number(_) => None,
    });
    let edges = plan
        .edges
        .iter()
        .filter_map(|edge| edge.combine.as_ref().map(|function| &function.digest));
    let source = match &plan.source {
        Source::Shuffle { combine, .. } => combine.as_ref().map(|function| &function.digest),
        Source::Files(_) | Source::Sql(_) | Source::Nothing => None,
    };
    let of_statement = match &plan.source {
        Source::Sql(sql) => Some(&sql.functions),
        Source::Files(_) | Source::Shuffle { .. } | Source::Nothing => None,
    };
    let of_statement = of_statement.into_iter().flat_map(BTreeMap::values);
    let of_statement = of_statement.map(|function| &function.digest);
    nodes.chain(edges).chain(source).chain(of_statement)
}

#[cfg(test)]
mod tests {
    use weft_protocol::{EdgeInput, EdgeRef, ObjectRef, Sums};

    use super::*;

    const EDGE: EdgeRef = EdgeRef { stage: 0, edge: 0 };

    /// A stage that reads the edge, of which one task has written this object.
    fn reading(stage: u32, key: &str) -> StageContext {
        let object = ObjectRef {
            key: key.into(),
            bytes: 1,
            index_xxh3: 0,
        };
        StageContext {
            job: JobId::new(1, 1),
            stage,
            fingerprint: FINGERPRINT.into(),
            plan: "plan".into(),
            inputs: vec![EdgeInput {
                edge: EDGE,
                expected: Sums::default(),
                objects: vec![Some(object)],
            }],
            adaptive: Vec::new(),
            artefacts: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn what_follows_from_lost_objects_is_forgotten_whichever_stage_comes_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let stages = Stages::new(Blobs::local(folder.path()).expect("a store"));
        let ranges = |stage: u32| {
            let task = TaskId {
                job: JobId::new(1, 1),
                stage,
                task: 0,
            };
            let found = stages.find(&task).expect("it is open");
            found.reader.shared_ranges(EDGE, 4)
        };
        stages.open(reading(1, "first"));
        let first = ranges(1);
        stages.open(reading(2, "first"));
        assert!(Arc::ptr_eq(&first, &ranges(2)), "they are shared");
        // The object was lost, and written again: a stage that is new here is the first to hear of it.
        stages.open(reading(3, "second"));
        assert!(!Arc::ptr_eq(&first, &ranges(3)));
    }
}
