//! Planning, which is a task: lists inputs, binds functions, cuts stages, and writes each stage's plan into the store.
//!
//! Maps are fused with what feeds them; a stage ends where a shuffle begins. Splits, partition counts and names depend on the
//! inputs alone, never on nodes, cores or timing.

mod bind;
mod catalog;
mod command;
mod describe;
mod draft;
mod endings;
mod explain;
mod folders;
mod footers;
mod inputs;
mod insert;
#[cfg(test)]
mod mutants;
mod objects;
mod outputs;
mod patterns;
#[cfg(test)]
mod splits;
mod sql;
mod sql_functions;
mod stages;
mod tables;
mod tasks;
#[cfg(test)]
mod tests;
mod union;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use tokio_util::sync::CancellationToken;
use weft_core::job::{BadRecords, InputSpec, JobSpec, OutputSpec, StageSpec, Work};
use weft_core::{Digest, ErrorCode, FunctionUsage, Problem};
use weft_protocol::{
    Columns, FINGERPRINT, MAX_EDGES, MAX_PLAN_STAGES, MAX_PLAN_TASKS, MAX_READS, Plan, PlanRequest,
    StageShape, StageText, job_prefix, plan_text_key,
};
use weft_sandbox::{Component, type_name};
use weft_sql::Session;
use weft_store::{Blobs, Manifest};

pub(crate) use self::catalog::listed_schema;
pub(crate) use self::command::Directive;
use self::draft::Draft;
use self::explain::SqlText;
use self::sql::SqlWork;
use self::stages::Outlet;
use crate::plan::{Leaf, Source};
use crate::scan::Inputs;

/// Plans a job.
pub(crate) struct Planner<'a> {
    request: &'a PlanRequest,
    blobs: &'a Blobs,
    opener: Inputs,
    components: HashMap<Digest, Arc<Component>>,
    stages: Vec<Draft>,
    pub(crate) usage: Vec<FunctionUsage>,
    pub(crate) columns: Vec<Columns>,
    /// The stages for people, for a check.
    pub(crate) texts: Vec<StageText>,
    /// By position, text of the stages that statements were cut into.
    sql_texts: BTreeMap<usize, SqlText>,
    input_bytes: u64,
    /// Patterns of the inputs whose bytes are counted.
    counted: BTreeSet<Vec<String>>,
    /// By output, the manifest that it joins.
    joined: BTreeMap<String, Manifest>,
    session: Session,
    /// The view that is being created: it may not read itself.
    creating: Option<String>,
    /// The columns of the statement's rows are listed, and no row is read.
    describes: bool,
    /// Columns of the last stage.
    result: Option<SchemaRef>,
    /// Staging folders of outputs are made once the job is known to have the outputs, by its tasks.
    stages_later: bool,
    /// Stops planning: the job has ended, or nobody waits for the check.
    cancel: CancellationToken,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(
        request: &'a PlanRequest,
        blobs: &'a Blobs,
        components: HashMap<Digest, Arc<Component>>,
        session: &Session,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            cancel,
            session: session.clone(),
            creating: None,
            describes: false,
            result: None,
            stages_later: false,
            request,
            blobs,
            opener: Inputs::new(blobs.grants()),
            components,
            stages: Vec::new(),
            usage: Vec::new(),
            columns: Vec::new(),
            texts: Vec::new(),
            sql_texts: BTreeMap::new(),
            input_bytes: 0,
            counted: BTreeSet::new(),
            joined: BTreeMap::new(),
        }
    }

    pub(crate) async fn plan(&mut self) -> Result<Plan, Problem> {
        let spec = &self.request.spec;
        if !self.request.check {
            self.joined = outputs::folders(spec, self.blobs).await?;
        }
        let mut outlets = self.inputs(spec)?;
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
                Work::Tasks {
                    function,
                    count,
                    input,
                } => self.tasks(stage, function, *count, input)?,
                Work::ForEach {
                    function,
                    each,
                    partitions,
                } => self.for_each(stage, function, (*each, *partitions), &outlets)?,
                Work::Sql {
                    sql,
                    from,
                    folder,
                    partitions,
                    ..
                } => {
                    let work = SqlWork {
                        sql,
                        from,
                        folder: folder.as_deref(),
                        partitions: *partitions,
                    };
                    self.sql(stage, work, &outlets).await?
                }
                Work::Union { from, partitions } => {
                    self.union(stage, from, *partitions, &outlets).await?
                }
            };
            self.note_columns(&stage.name, &outlet.schema);
            let gathered = self.gathered(stage, &outlet);
            self.sinks(&stage.name, &gathered)?;
            self.result = Some(Arc::clone(&outlet.schema));
            outlets.insert(&stage.name, outlet);
        }
        if self.request.check {
            // Last, so that a folder that holds files does not hide what is wrong with the job.
            self.joined = outputs::folders(spec, self.blobs).await?;
        }
        self.check_appends()?;
        self.prepare_outputs().await?;
        self.write().await
    }

    /// Plans the inputs that are read as they are. One that nothing reads is not listed, and statements read files by
    /// themselves.
    fn inputs<'s>(&mut self, spec: &'s JobSpec) -> Result<BTreeMap<&'s str, Outlet>, Problem> {
        let mut outlets = BTreeMap::new();
        for input in &spec.inputs {
            let by_stage = spec
                .stages
                .iter()
                .filter(|stage| !is_statement(&stage.work) || has_dead_letters(input))
                .any(|stage| stage.reads().any(|from| from == input.name));
            if by_stage || outputs_of(spec, &input.name).next().is_some() {
                let outlet = self.input(input)?;
                self.note_columns(&input.name, &outlet.schema);
                self.sinks(&input.name, &outlet)?;
                outlets.insert(input.name.as_str(), outlet);
            }
        }
        Ok(outlets)
    }

    async fn prepare_outputs(&self) -> Result<(), Problem> {
        let stages_now = !(self.request.check || self.stages_later);
        let outputs = self.request.spec.outputs.iter();
        for output in outputs.filter(|_| stages_now) {
            let job = &self.request.job;
            let place = self.blobs.output_place(job, output);
            let place = place.map_err(|error| error.problem())?;
            let prepared = place.prepare(job).await;
            prepared.map_err(|error| error.problem())?;
        }
        Ok(())
    }

    /// Counts the bytes of an input, once, whoever reads it.
    fn count(&mut self, input: &InputSpec, bytes: u64) {
        if self.counted.insert(input.uris.clone()) {
            self.input_bytes += bytes;
        }
    }

    /// What a check tells. Jobs that run have no use for it.
    fn note_columns(&mut self, of: &str, schema: &Schema) {
        if !self.request.check || self.columns.iter().any(|one| one.of == of) {
            return;
        }
        let fields = schema.fields().iter();
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
        self.write_texts(explain::texts(&drafts, &labels, &self.sql_texts))
            .await?;
        let mut stages = Vec::new();
        for (position, mut draft) in drafts.into_iter().enumerate() {
            match &mut draft.source {
                Source::Shuffle { edge, from, .. } => {
                    from.clone_from(&labels[edge.stage as usize]);
                }
                Source::Sql(sql) => {
                    for leaf in &mut sql.leaves {
                        if let Leaf::Edge(edge) = leaf {
                            edge.from.clone_from(&labels[edge.read.stage as usize]);
                        }
                    }
                }
                Source::Files(_) | Source::Nothing => {}
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
        check_bounds(&stages)?;
        Ok(Plan {
            stages,
            fingerprint: FINGERPRINT.into(),
            input_bytes: self.input_bytes,
        })
    }

    /// Writes the stages' plans for people beside the job's archive; a check answers with them.
    async fn write_texts(&mut self, texts: Vec<StageText>) -> Result<(), Problem> {
        if self.request.check {
            self.texts = texts;
            return Ok(());
        }
        let bytes = serde_json::to_vec(&texts)
            .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        // Nothing depends on it, so no disk is waited for.
        let key = plan_text_key(&self.request.job);
        let put = self.blobs.put(&key, bytes);
        put.await.map_err(|error| error.problem())
    }
}

/// Fails for a plan that the control plane would refuse: statements may make more than job files can.
fn check_bounds(stages: &[StageShape]) -> Result<(), Problem> {
    let too_large = |detail: String| Err(Problem::new(ErrorCode::TooLarge, detail));
    let n_tasks: u64 = stages.iter().map(|stage| u64::from(stage.n_tasks)).sum();
    if n_tasks > MAX_PLAN_TASKS {
        return too_large(format!(
            "the job makes {n_tasks} tasks; {MAX_PLAN_TASKS} are allowed: lower `partitions`"
        ));
    }
    for StageShape {
        name, reads, edges, ..
    } in stages
    {
        let (n_reads, n_edges) = (reads.len(), edges.len());
        if n_reads > MAX_READS {
            return too_large(format!(
                "stage `{name}` reads {n_reads} other stages; {MAX_READS} are allowed: split its UNION or joins over \
                 several stages"
            ));
        }
        if n_edges > MAX_EDGES {
            return too_large(format!(
                "stage `{name}` is read {n_edges} times; {MAX_EDGES} are allowed"
            ));
        }
    }
    Ok(())
}

/// Whether a stage reads its inputs by a plan of DataFusion.
fn is_statement(work: &Work) -> bool {
    matches!(work, Work::Sql { .. } | Work::Union { .. })
}

fn has_dead_letters(input: &InputSpec) -> bool {
    matches!(input.bad_records, BadRecords::DeadLetter { .. })
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
