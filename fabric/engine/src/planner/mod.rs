//! Planning, which is a task: lists inputs, binds functions, cuts stages, and writes each stage's plan into the store.
//!
//! Maps are fused with what feeds them; a stage ends where a shuffle begins. Splits, partition counts and names depend on the
//! inputs alone, never on nodes, cores or timing.

mod inputs;
#[cfg(test)]
mod mutants;
mod outputs;
mod patterns;
#[cfg(test)]
mod splits;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tokio_util::sync::CancellationToken;
use weft_core::PinnedFunction;
use weft_core::job::{
    BadRecords, InputSpec, JobSpec, OutputSpec, STAGES_MAX, StageSpec, TASKS_MAX, Work,
};
use weft_core::{Digest, ErrorCode, FunctionUsage, Limits, Meters, Problem};
use weft_protocol::{EdgeKind, EdgeRef, EdgeShape, Plan, SlotVector, StageShape};
use weft_sandbox::{Component, Guest, GuestMeters, thread_cpu_ns, type_name};
use weft_store::{Blobs, Manifest, prepare_output};

use self::inputs::{Listed, list};
use crate::describe;
use crate::plan::{EdgePlan, FilesPlan, FunctionPlan, Node, NodeWork, SinkPlan, Source, StagePlan};
use crate::{scan, schema};
use weft_protocol::{Columns, PlanRequest};
use weft_protocol::{FINGERPRINT, job_prefix};

/// Input bytes for each partition of a shuffle that does not say how many it wants.
const PARTITION_BYTES: u64 = 64 << 20;
const PARTITIONS_CHOSEN_MAX: u64 = 256;

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

/// A stage that is being cut.
struct Draft {
    names: Vec<String>,
    limits: Limits,
    source: Source,
    n_tasks: u32,
    nodes: Vec<Node>,
    edges: Vec<EdgePlan>,
    sinks: Vec<SinkPlan>,
    deterministic: bool,
}

/// Where rows of some input or stage come out.
#[derive(Clone)]
struct Outlet {
    stage: usize,
    node: usize,
    schema: SchemaRef,
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
            if spec
                .stages
                .iter()
                .any(|stage| stage.from.as_deref() == Some(&input.name))
            {
                let outlet = self.input(input)?;
                self.note_columns(&input.name, &outlet);
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
            };
            self.note_columns(&stage.name, &outlet);
            self.sinks(stage, &outlet)?;
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

    fn input(&mut self, input: &InputSpec) -> Result<Outlet, Problem> {
        let Listed {
            schema,
            splits,
            bytes,
        } = list(input)?;
        self.input_bytes += bytes;
        let n_tasks = u32::try_from(splits.len()).ok().filter(|n| *n <= TASKS_MAX);
        let n_tasks = n_tasks.ok_or_else(|| {
            let (name, n) = (&input.name, splits.len());
            let detail =
                format!("the input `{name}` makes {n} tasks; a stage may have {TASKS_MAX}");
            Problem::new(ErrorCode::TooLarge, detail)
        })?;
        let (mut sinks, mut dead_letters) = (Vec::new(), None);
        if let BadRecords::DeadLetter { output } = &input.bad_records {
            let outputs = self.request.spec.outputs.iter();
            for output in outputs.filter(|found| found.name == *output) {
                sinks.push(self.sink(output, &scan::bad_records_schema())?);
                dead_letters = Some(0);
            }
        }
        let source = Source::Files(FilesPlan {
            input: input.name.clone(),
            format: input.format.clone(),
            schema: Arc::clone(&schema),
            splits,
            bad_records: input.bad_records.clone(),
            dead_letters,
        });
        let draft = Draft {
            names: Vec::new(),
            limits: self.request.spec.limits.clone(),
            source,
            n_tasks,
            nodes: vec![node(NodeWork::Pass)],
            edges: Vec::new(),
            sinks,
            deterministic: true,
        };
        self.stages.push(draft);
        Ok(Outlet {
            stage: self.stages.len() - 1,
            node: 0,
            schema,
        })
    }

    fn pinned(&self, reference: &str) -> Result<&'a PinnedFunction, Problem> {
        let found = self
            .request
            .functions
            .iter()
            .find(|function| function.reference == reference);
        found.ok_or_else(|| {
            Problem::new(ErrorCode::Internal, format!("`{reference}` is not pinned"))
        })
    }

    /// Binds a function to its input; what it answers is the schema of its output.
    async fn bind(
        &mut self,
        stage: &StageSpec,
        reference: &str,
        input: &SchemaRef,
    ) -> Result<FunctionPlan, Problem> {
        let pinned = self.pinned(reference)?;
        let label = pinned.label();
        let component = Arc::clone(self.components.get(&pinned.digest).ok_or_else(|| {
            Problem::new(ErrorCode::Internal, format!("`{label}` is not loaded"))
        })?);
        let params = self.request.spec.params_of(stage);
        let settings = describe::settings(
            &label,
            &stage.limits,
            self.cancel.clone(),
            self.request.spec.seed,
            self.request.started_ms,
        );
        if self.cancel.is_cancelled() {
            let given_up = "planning was given up: the job has ended";
            return Err(Problem::new(ErrorCode::Internal, given_up));
        }
        let began = thread_cpu_ns();
        let (bound, meters) = match Guest::start(&component, settings).await {
            Ok(mut guest) => {
                let bound = guest.bind(&pinned.function.name, input, &params).await;
                (bound, guest.meters())
            }
            // What a start that fails used is the guest's, too.
            Err(fault) => {
                let meters = GuestMeters {
                    cpu_ns: thread_cpu_ns() - began,
                    ..GuestMeters::default()
                };
                (Err(fault), meters)
            }
        };
        let billed = Meters {
            guest_cpu_ns: meters.cpu_ns,
            guest_calls: meters.calls,
            memory_byte_ns: meters.memory_byte_ns,
            memory_peak_bytes: meters.memory_peak_bytes,
            ..Meters::default()
        };
        self.usage.push(FunctionUsage {
            stage: stage.name.clone(),
            function: label.clone(),
            billed,
            ..FunctionUsage::default()
        });
        let output = bound.map_err(|fault| {
            let mut problem = describe::of_plan(fault, &stage.limits).problem(&label);
            problem.detail = format!("stage `{}`: {}", stage.name, problem.detail);
            problem
        })?;
        if output.fields().is_empty() {
            return Err(Problem::new(
                ErrorCode::SchemaMismatch,
                format!(
                    "stage `{}`: `{label}` was bound to an output without columns",
                    stage.name
                ),
            )
            .of_function(label));
        }
        Ok(FunctionPlan {
            stage: stage.name.clone(),
            label,
            digest: pinned.digest.clone(),
            function: pinned.function.name.clone(),
            params,
            limits: stage.limits.clone(),
            output,
        })
    }

    async fn map(
        &mut self,
        stage: &StageSpec,
        function: &str,
        outlets: &BTreeMap<&str, Outlet>,
    ) -> Result<Outlet, Problem> {
        let from = outlet(stage, outlets)?;
        let function_plan = self.bind(stage, function, &from.schema).await?;
        let deterministic = self.pinned(function)?.function.deterministic;
        let schema = Arc::clone(&function_plan.output);
        let draft = &mut self.stages[from.stage];
        draft.add(stage, deterministic);
        draft.nodes.push(node(NodeWork::Map(function_plan)));
        let position = draft.nodes.len() - 1;
        draft.nodes[from.node].children.push(position);
        Ok(Outlet {
            stage: from.stage,
            node: position,
            schema,
        })
    }

    async fn reduce(
        &mut self,
        stage: &StageSpec,
        keys: &[String],
        partitions: Option<u32>,
        combine: Option<&str>,
        reduce: Option<&str>,
        outlets: &BTreeMap<&str, Outlet>,
    ) -> Result<Outlet, Problem> {
        let from = outlet(stage, outlets)?;
        let key_columns = key_columns(stage, keys, &from.schema)?;
        let combine_plan = match combine {
            Some(function) => Some(self.bind_combine(stage, function, &from.schema).await?),
            None => None,
        };
        let partitions = partitions.unwrap_or_else(|| self.chosen_partitions());
        let edge = EdgePlan {
            partitions,
            keys: key_columns.clone(),
            combine: combine_plan.clone(),
            schema: Arc::clone(&from.schema),
        };
        let writer = &mut self.stages[from.stage];
        writer.edges.push(edge);
        let edge = writer.edges.len() - 1;
        writer.nodes[from.node].edges.push(edge);
        if let Some(function) = combine {
            let deterministic = self.pinned(function)?.function.deterministic;
            self.stages[from.stage].deterministic &= deterministic;
        }
        let (work, schema, deterministic) = match reduce {
            Some(function) => {
                let plan = self.bind(stage, function, &from.schema).await?;
                let schema = Arc::clone(&plan.output);
                (
                    NodeWork::Reduce(plan),
                    schema,
                    self.pinned(function)?.function.deterministic,
                )
            }
            None => match combine_plan.clone() {
                Some(plan) => (NodeWork::Reduce(plan), Arc::clone(&from.schema), true),
                None => (NodeWork::Pass, Arc::clone(&from.schema), true),
            },
        };
        let edge = EdgeRef {
            stage: small(from.stage),
            edge: small(edge),
        };
        let source = Source::Shuffle {
            edge,
            from: self.stages[from.stage].label(),
            keys: key_columns,
            combine: combine_plan,
            schema: Arc::clone(&from.schema),
        };
        let mut draft = Draft {
            names: Vec::new(),
            limits: stage.limits.clone(),
            source,
            n_tasks: partitions,
            nodes: vec![node(work)],
            edges: Vec::new(),
            sinks: Vec::new(),
            deterministic: true,
        };
        draft.add(stage, deterministic);
        self.stages.push(draft);
        Ok(Outlet {
            stage: self.stages.len() - 1,
            node: 0,
            schema,
        })
    }

    async fn bind_combine(
        &mut self,
        stage: &StageSpec,
        function: &str,
        input: &SchemaRef,
    ) -> Result<FunctionPlan, Problem> {
        let plan = self.bind(stage, function, input).await?;
        let same = plan.output.fields().len() == input.fields().len()
            && plan
                .output
                .fields()
                .iter()
                .zip(input.fields())
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if !same {
            let detail = format!(
                "stage `{}`: `{}` is a combiner and must answer `bind` with the fields that it was given",
                stage.name, plan.label
            );
            return Err(Problem::new(ErrorCode::SchemaMismatch, detail).of_function(plan.label));
        }
        Ok(FunctionPlan {
            output: Arc::clone(input),
            ..plan
        })
    }

    fn tasks(&mut self, stage: &StageSpec, function: &str, count: u32) -> Result<Outlet, Problem> {
        let pinned = self.pinned(function)?;
        let params = self.request.spec.params_of(stage);
        let output = schema::empty();
        let plan = FunctionPlan {
            stage: stage.name.clone(),
            label: pinned.label(),
            digest: pinned.digest.clone(),
            function: pinned.function.name.clone(),
            params,
            limits: stage.limits.clone(),
            output: Arc::clone(&output),
        };
        let mut draft = Draft {
            names: Vec::new(),
            limits: stage.limits.clone(),
            source: Source::Nothing,
            n_tasks: count,
            nodes: vec![node(NodeWork::Task(plan))],
            edges: Vec::new(),
            sinks: Vec::new(),
            deterministic: true,
        };
        draft.add(stage, pinned.function.deterministic);
        self.stages.push(draft);
        Ok(Outlet {
            stage: self.stages.len() - 1,
            node: 0,
            schema: output,
        })
    }

    fn sinks(&mut self, stage: &StageSpec, outlet: &Outlet) -> Result<(), Problem> {
        let outputs = self.request.spec.outputs.iter();
        for output in outputs.filter(|output| output.from == stage.name) {
            let sink = self.sink(output, &outlet.schema)?;
            let draft = &mut self.stages[outlet.stage];
            draft.sinks.push(sink);
            let sink = draft.sinks.len() - 1;
            draft.nodes[outlet.node].sinks.push(sink);
        }
        Ok(())
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

    fn sink(&self, output: &OutputSpec, schema: &SchemaRef) -> Result<SinkPlan, Problem> {
        outputs::check_columns(output, schema)?;
        Ok(SinkPlan {
            output: output.name.clone(),
            folder: output.path.clone(),
            stage: output.from.clone(),
            format: output.format,
            partition_by: outputs::partition_columns(output, schema)?,
            schema: Arc::clone(schema),
        })
    }

    fn chosen_partitions(&self) -> u32 {
        small(
            usize::try_from(
                self.input_bytes
                    .div_ceil(PARTITION_BYTES)
                    .clamp(1, PARTITIONS_CHOSEN_MAX),
            )
            .expect("it is clamped"),
        )
    }

    /// Writes the stages' plans into the store. What remains is the shape that the control plane keeps.
    async fn write(&mut self) -> Result<Plan, Problem> {
        let drafts = std::mem::take(&mut self.stages);
        if drafts.len() > STAGES_MAX {
            let n = drafts.len();
            let detail = format!("the job makes {n} stages; {STAGES_MAX} are allowed");
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

impl Draft {
    fn add(&mut self, stage: &StageSpec, deterministic: bool) {
        self.names.push(stage.name.clone());
        self.deterministic &= deterministic;
        if self.names.len() == 1 {
            self.limits = stage.limits.clone();
        } else {
            self.limits = self.limits.narrow(&stage.limits);
        }
    }

    /// What the control plane keeps of the stage, whose plan lies under `key`.
    fn shape(&self, key: String) -> StageShape {
        let edge = |edge: &EdgePlan| EdgeShape {
            kind: EdgeKind::Materialised,
            partitions: edge.partitions,
        };
        let slot = SlotVector {
            milli_cpu: 1000,
            memory_bytes: self.limits.memory_bytes,
            ..SlotVector::default()
        };
        StageShape {
            name: self.label(),
            n_tasks: self.n_tasks,
            plan: key,
            reads: match &self.source {
                Source::Shuffle { edge, .. } => Some(*edge),
                Source::Files(_) | Source::Nothing => None,
            },
            edges: self.edges.iter().map(edge).collect(),
            limits: self.limits.clone(),
            slot,
            resident: false,
            deterministic: self.deterministic,
        }
    }

    fn plan(self, request: &PlanRequest, position: usize) -> StagePlan {
        StagePlan {
            job: request.job.clone(),
            stage: small(position),
            name: self.label(),
            seed: request.spec.seed,
            started_ms: request.started_ms,
            limits: self.limits,
            source: self.source,
            nodes: self.nodes,
            edges: self.edges,
            sinks: self.sinks,
        }
    }

    fn label(&self) -> String {
        if self.names.is_empty() {
            "input".into()
        } else {
            self.names.join("+")
        }
    }
}

fn node(work: NodeWork) -> Node {
    Node {
        work,
        children: Vec::new(),
        edges: Vec::new(),
        sinks: Vec::new(),
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).expect("stages, edges and partitions are few")
}

fn outlet(stage: &StageSpec, outlets: &BTreeMap<&str, Outlet>) -> Result<Outlet, Problem> {
    let from = stage.from.as_deref().unwrap_or_default();
    let found = outlets.get(from).cloned();
    found.ok_or_else(|| {
        Problem::new(
            ErrorCode::Internal,
            format!(
                "stage `{}` reads `{from}`, which is not planned",
                stage.name
            ),
        )
    })
}

/// Stages in an order in which each comes after the one it reads; otherwise as in the document.
fn in_order(spec: &JobSpec) -> Vec<&StageSpec> {
    let mut known: Vec<&str> = spec
        .inputs
        .iter()
        .map(|input| input.name.as_str())
        .collect();
    let mut waiting: Vec<&StageSpec> = spec.stages.iter().collect();
    let mut ordered = Vec::new();
    while !waiting.is_empty() {
        let ready = |stage: &&StageSpec| {
            stage
                .from
                .as_deref()
                .is_none_or(|from| known.contains(&from))
        };
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

fn key_columns(
    stage: &StageSpec,
    keys: &[String],
    schema: &SchemaRef,
) -> Result<Vec<usize>, Problem> {
    let column = |key: &String| {
        schema.index_of(key).map_err(|_| {
            let names = schema::names(schema);
            let detail = format!(
                "stage `{}` shuffles by `{key}`, and `{}` has no such column; it has {}",
                stage.name,
                stage.from.clone().unwrap_or_default(),
                names
            );
            Problem::new(ErrorCode::SchemaMismatch, detail)
        })
    };
    keys.iter().map(column).collect()
}
