//! Stages are cut: maps are added to what feeds them, a stage begins where a shuffle ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use weft_core::job::{BadRecords, InputSpec, OutputSpec, StageSpec, TASKS_MAX};
use weft_core::{ErrorCode, Problem};
use weft_protocol::EdgeRef;
use weft_sandbox::type_name;

use super::draft::{Draft, node, small};
use super::inputs::{Listed, list};
use super::{Planner, outputs, outputs_of};
use crate::plan::{EdgePlan, EdgeRows, FilesPlan, NodeWork, SinkPlan, Source};
use crate::{canonical, scan, schema};

/// Input bytes for each partition of a shuffle that does not say how many it wants.
const PARTITION_BYTES: u64 = 64 << 20;
const PARTITIONS_CHOSEN_MAX: u64 = 256;

/// Where rows of some input or stage come out.
#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) stage: usize,
    pub(super) node: usize,
    pub(super) schema: SchemaRef,
}

impl Planner<'_> {
    pub(super) fn input(&mut self, input: &InputSpec) -> Result<Outlet, Problem> {
        let Listed {
            schema,
            splits,
            bytes,
            ..
        } = list(&self.opener, input)?;
        self.count(input, bytes);
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

    pub(super) async fn map(
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

    pub(super) async fn reduce(
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
        let on_edge = canonical::edge_schema(&from.schema, &key_columns);
        let combine_plan = match combine {
            Some(function) => Some(self.bind_combine(stage, function, &on_edge).await?),
            None => None,
        };
        let partitions = partitions.unwrap_or_else(|| partitions_of(self.input_bytes));
        let edge = self.edge(
            &from,
            EdgePlan {
                partitions,
                keys: key_columns.clone(),
                combine: combine_plan.clone(),
                rows: EdgeRows::Sorted,
                schema: Arc::clone(&on_edge),
            },
        );
        if let Some(function) = combine {
            let deterministic = self.pinned(function)?.function.deterministic;
            self.stages[from.stage].deterministic &= deterministic;
        }
        let (work, schema, deterministic) = match reduce {
            Some(function) => {
                let plan = self.bind(stage, function, &on_edge).await?;
                let schema = Arc::clone(&plan.output);
                let deterministic = self.pinned(function)?.function.deterministic;
                (NodeWork::Reduce(plan), schema, deterministic)
            }
            None => match combine_plan.clone() {
                Some(plan) => (NodeWork::Reduce(plan), Arc::clone(&on_edge), true),
                None => (NodeWork::Pass, Arc::clone(&on_edge), true),
            },
        };
        let source = Source::Shuffle {
            edge,
            from: self.stages[from.stage].label(),
            keys: key_columns,
            combine: combine_plan,
            schema: Arc::clone(&on_edge),
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

    /// Has an outlet feed an edge.
    pub(super) fn edge(&mut self, from: &Outlet, plan: EdgePlan) -> EdgeRef {
        let writer = &mut self.stages[from.stage];
        writer.edges.push(plan);
        let edge = writer.edges.len() - 1;
        writer.nodes[from.node].edges.push(edge);
        EdgeRef {
            stage: small(from.stage),
            edge: small(edge),
        }
    }

    /// Has an outlet feed the outputs that name its input or stage.
    pub(super) fn sinks(&mut self, from: &str, outlet: &Outlet) -> Result<(), Problem> {
        for output in outputs_of(&self.request.spec, from) {
            let sink = self.sink(output, &outlet.schema)?;
            let draft = &mut self.stages[outlet.stage];
            draft.sinks.push(sink);
            let sink = draft.sinks.len() - 1;
            draft.nodes[outlet.node].sinks.push(sink);
        }
        Ok(())
    }

    fn sink(&self, output: &OutputSpec, schema: &SchemaRef) -> Result<SinkPlan, Problem> {
        outputs::check_columns(output, schema)?;
        Ok(SinkPlan {
            output: output.name.clone(),
            folder: output.path().unwrap_or_default().to_owned(),
            max_kept_bytes: output.max_kept_bytes(),
            stage: output.from.clone(),
            format: output.format,
            partition_by: outputs::partition_columns(output, schema)?,
            schema: Arc::clone(schema),
        })
    }
}

/// Number of partitions for so many bytes of input.
pub(super) fn partitions_of(bytes: u64) -> u32 {
    let n = bytes
        .div_ceil(PARTITION_BYTES)
        .clamp(1, PARTITIONS_CHOSEN_MAX);
    small(usize::try_from(n).expect("it is clamped"))
}

pub(super) fn outlet(
    stage: &StageSpec,
    outlets: &BTreeMap<&str, Outlet>,
) -> Result<Outlet, Problem> {
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

fn key_columns(
    stage: &StageSpec,
    keys: &[String],
    schema: &SchemaRef,
) -> Result<Vec<usize>, Problem> {
    let column = |key: &String| {
        let column = schema.index_of(key).map_err(|_| {
            let names = schema::names(schema);
            let detail = format!(
                "stage `{}` shuffles by `{key}`, and `{}` has no such column; it has {}",
                stage.name,
                stage.from.clone().unwrap_or_default(),
                names
            );
            Problem::new(ErrorCode::SchemaMismatch, detail)
        })?;
        let data_type = schema.field(column).data_type();
        if !canonical::is_key_type(data_type) {
            let detail = format!(
                "stage `{}` shuffles by `{key}`, whose type {} is not one of keys",
                stage.name,
                type_name(data_type)
            );
            return Err(Problem::new(ErrorCode::SchemaMismatch, detail));
        }
        Ok(column)
    };
    keys.iter().map(column).collect()
}
