//! Planning, which is a task: lists inputs, binds functions, cuts stages, and writes each stage's plan into the store.
//!
//! Maps are fused with what feeds them; a stage ends where a shuffle begins. Splits, partition counts and names depend on the
//! inputs alone, never on nodes, cores or timing.

mod bind;
mod draft;
mod inputs;
#[cfg(test)]
mod mutants;
mod outputs;
mod patterns;
#[cfg(test)]
mod splits;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weft_core::job::{JobSpec, OutputSpec, StageSpec, Work};
use weft_core::{Digest, ErrorCode, FunctionUsage, Problem};
use weft_protocol::{Columns, FINGERPRINT, MAX_PLAN_STAGES, Plan, PlanRequest, job_prefix};
use weft_sandbox::{Component, type_name};
use weft_store::{Blobs, Manifest, prepare_output};

use self::draft::Draft;
use self::stages::Outlet;
use crate::plan::Source;

/// Plans a job.
pub(crate) struct Planner<'a> {
    request: &'a PlanRequest,
    blobs: &'a Blobs,
    components: HashMap<Digest, Arc<Component>>,
    stages: Vec<Draft>,
    pub(crate) usage: Vec<FunctionUsage>,
    pub(crate) columns: Vec<Columns>,
    input_bytes: u64,
    /// By output, the manifest that it joins.
    joined: BTreeMap<String, Manifest>,
    /// Stops planning: the job has ended, or nobody waits for the check.
    cancel: CancellationToken,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        request: &'a PlanRequest,
        blobs: &'a Blobs,
        components: HashMap<Digest, Arc<Component>>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            cancel,
            request,
            blobs,
            components,
            stages: Vec::new(),
            usage: Vec::new(),
            columns: Vec::new(),
            input_bytes: 0,
            joined: BTreeMap::new(),
        }
    }

    pub(crate) async fn plan(&mut self) -> Result<Plan, Problem> {
        let spec = &self.request.spec;
        if !self.request.check {
            self.joined = outputs::folders(spec)?;
        }
        let mut outlets: BTreeMap<&str, Outlet> = BTreeMap::new();
        for input in &spec.inputs {
            // An input that nothing reads is not listed.
            let by_stage = spec
                .stages
                .iter()
                .any(|stage| stage.reads().any(|from| from == input.name));
            if by_stage || outputs_of(spec, &input.name).next().is_some() {
                let outlet = self.input(input)?;
                self.note_columns(&input.name, &outlet);
                self.sinks(&input.name, &outlet)?;
                outlets.insert(&input.name, outlet);
            }
        }
        for stage in in_order(spec) {
            let outlet = match &stage.work {
                Work::Map { function } => self.map(stage, function, &outlets).await?,
                Work::Reduce {
                    keys,
                    partitions,
                    combine,
                    reduce,
                } => {
                    self.reduce(
                        stage,
                        keys,
                        *partitions,
                        combine.as_deref(),
                        reduce.as_deref(),
                        &outlets,
                    )
                    .await?
                }
                Work::Tasks { function, count } => self.tasks(stage, function, *count)?,
                // Placeholder: the planner of SQL stands here.
                Work::Sql { .. } => {
                    let detail = format!("stage `{}`: SQL is not planned yet", stage.name);
                    return Err(Problem::new(ErrorCode::InvalidJob, detail));
                }
            };
            self.note_columns(&stage.name, &outlet);
            self.sinks(&stage.name, &outlet)?;
            outlets.insert(&stage.name, outlet);
        }
        if self.request.check {
            // Last, so that a folder that holds files does not hide what is wrong with the job.
            self.joined = outputs::folders(spec)?;
        }
        self.check_appends()?;
        for output in spec.outputs.iter().filter(|_| !self.request.check) {
            prepare_output(Path::new(&output.path), &self.request.job)
                .map_err(|error| error.problem())?;
        }
        self.write().await
    }

    /// What a check tells. Jobs that run have no use for it.
    fn note_columns(&mut self, of: &str, outlet: &Outlet) {
        if !self.request.check {
            return;
        }
        let fields = outlet.schema.fields().iter();
        let columns = fields.map(|field| (field.name().clone(), type_name(field.data_type())));
        self.columns.push(Columns {
            of: of.to_owned(),
            columns: columns.collect(),
        });
    }

    fn check_appends(&self) -> Result<(), Problem> {
        let sinks = self.stages.iter().flat_map(|stage| &stage.sinks);
        for sink in sinks {
            let outputs = self.request.spec.outputs.iter();
            for output in outputs.filter(|output| output.name == sink.output) {
                if let Some(joined) = self.joined.get(&output.name) {
                    outputs::check_append(output, joined, &sink.schema)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the stages' plans into the store. What remains is the shape that the control plane keeps.
    async fn write(&mut self) -> Result<Plan, Problem> {
        let drafts = std::mem::take(&mut self.stages);
        if drafts.len() > MAX_PLAN_STAGES {
            let n = drafts.len();
            let detail = format!("the job makes {n} stages; {MAX_PLAN_STAGES} are allowed");
            return Err(Problem::new(ErrorCode::TooLarge, detail));
        }
        // Names of writing stages are complete only now.
        let labels: Vec<String> = drafts.iter().map(Draft::label).collect();
        let mut stages = Vec::new();
        for (position, mut draft) in drafts.into_iter().enumerate() {
            if let Source::Shuffle { edge, from, .. } = &mut draft.source {
                from.clone_from(&labels[edge.stage as usize]);
            }
            let key = format!("{}/plan/{position}.json", job_prefix(&self.request.job));
            stages.push(draft.shape(key.clone()));
            let bytes = serde_json::to_vec(&draft.plan(self.request, position))
                .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
            if !self.request.check {
                let put = self.blobs.put_durable(&key, bytes.into()).await;
                put.map_err(|error| error.problem())?;
            }
        }
        Ok(Plan {
            stages,
            fingerprint: FINGERPRINT.into(),
            input_bytes: self.input_bytes,
        })
    }
}

/// The outputs that rows of an input or a stage are written to.
fn outputs_of<'a>(spec: &'a JobSpec, from: &'a str) -> impl Iterator<Item = &'a OutputSpec> {
    let outputs = spec.outputs.iter();
    outputs.filter(move |output| output.from == from && !spec.is_dead_letters(output))
}

/// Stages in an order in which each comes after those it reads; otherwise as in the document.
fn in_order(spec: &JobSpec) -> Vec<&StageSpec> {
    let mut known: Vec<&str> = spec
        .inputs
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    let mut waiting: Vec<&StageSpec> = spec.stages.iter().collect();
    let mut ordered = Vec::new();
    while !waiting.is_empty() {
        let ready = |stage: &&StageSpec| stage.reads().all(|from| known.contains(&from));
        let (now, later): (Vec<&StageSpec>, Vec<&StageSpec>) = waiting.into_iter().partition(ready);
        if now.is_empty() {
            // Cycles were refused when the job was decoded.
            break;
        }
        known.extend(now.iter().map(|stage| stage.name.as_str()));
        ordered.extend(now);
        waiting = later;
    }
    ordered
}
