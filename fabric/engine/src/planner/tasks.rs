//! Stages of task functions: so many tasks, or one for each row. Their results are rows.
//!
//! ```text
//!   count:     [task function] ──▶ stages that read it
//!                     └─ by index ─▶ [one task] ──▶ outputs
//!   for_each:  [.. ─▶ number] ── by place ─▶ [function, for each place] ──▶ stages, outputs
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use weft_core::Problem;
use weft_core::job::{EachInput, StageSpec, Work};

use super::draft::{Draft, node};
use super::stages::{Outlet, outlet, partitions_of};
use super::{Planner, outputs_of};
use crate::plan::{
    EachPlan, EdgePlan, EdgeRows, FunctionPlan, NodeWork, NumberPlan, Source, TaskPlan,
};
use crate::task_results::{INDEX, PARTITION, counted_schema, number, placed_schema};

/// Partitions that rows are dealt out to at least, unless the stage says how many it wants: a small input may be a lot of
/// work.
const MIN_EACH_PARTITIONS: u32 = 16;

impl Planner<'_> {
    /// Adds a set of so many tasks.
    pub(super) fn tasks(
        &mut self,
        stage: &StageSpec,
        function: &str,
        count: u32,
        input: &[u8],
    ) -> Result<Outlet, Problem> {
        let plan = TaskPlan {
            function: self.task_function(stage, function, counted_schema())?,
            input: input.to_vec(),
        };
        let schema = Arc::clone(&plan.function.output);
        let deterministic = self.pinned(function)?.function.deterministic;
        let mut draft = draft(stage, Source::Nothing, count, NodeWork::Task(plan));
        draft.add(stage, deterministic);
        Ok(self.added(draft, schema))
    }

    /// Has the results of a set come to one task, in order, where an output takes them: each task of the set would write
    /// a file of its own. Rows of other stages come out where they are.
    pub(super) fn gathered(&mut self, stage: &StageSpec, outlet: &Outlet) -> Outlet {
        let is_set = matches!(stage.work, Work::Tasks { .. });
        let is_written = outputs_of(&self.request.spec, &stage.name).next().is_some();
        if !(is_set && is_written) {
            return outlet.clone();
        }
        let schema = Arc::clone(&outlet.schema);
        let source = self.sorted(outlet, &schema, vec![0], 1);
        let mut draft = draft(stage, source, 1, NodeWork::Pass);
        draft.names = vec![format!("{}.results", stage.name)];
        self.added(draft, schema)
    }

    /// Adds tasks for the rows of what the stage reads. `work`: the input of a task, and the number of partitions.
    pub(super) fn for_each(
        &mut self,
        stage: &StageSpec,
        function: &str,
        work: (EachInput, Option<u32>),
        outlets: &BTreeMap<&str, Outlet>,
    ) -> Result<Outlet, Problem> {
        let (input, partitions) = work;
        let from = outlet(stage, outlets)?;
        let plan = EachPlan {
            function: self.task_function(stage, function, placed_schema())?,
            input,
            rows: Arc::clone(&from.schema),
        };
        let deterministic = self.pinned(function)?.function.deterministic;
        let chosen = || partitions_of(self.input_bytes).max(MIN_EACH_PARTITIONS);
        let partitions = partitions.unwrap_or_else(chosen);
        let numbered = self.numbered(&from, input.rows());
        let n_columns = from.schema.fields().len();
        let keys = vec![n_columns, n_columns + 1];
        let source = self.sorted(&numbered, &numbered.schema, keys, partitions);
        let schema = Arc::clone(&plan.function.output);
        let mut draft = draft(stage, source, partitions, NodeWork::Each(plan));
        draft.add(stage, deterministic);
        Ok(self.added(draft, schema))
    }

    /// A task function in its place. `output`: the columns of its results.
    fn task_function(
        &self,
        stage: &StageSpec,
        function: &str,
        output: SchemaRef,
    ) -> Result<FunctionPlan, Problem> {
        let pinned = self.pinned(function)?;
        Ok(FunctionPlan {
            stage: stage.name.clone(),
            label: pinned.label(),
            digest: pinned.digest.clone(),
            function: pinned.function.name.clone(),
            params: self.request.spec.params_of(stage),
            limits: stage.limits.clone(),
            output,
        })
    }

    /// Has the rows of an outlet come out with their places, `rows` of them with one number.
    fn numbered(&mut self, from: &Outlet, rows: u32) -> Outlet {
        let mut fields = from.schema.fields().to_vec();
        fields.extend([PARTITION, INDEX].map(|name| Arc::new(number(name))));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let plan = NumberPlan {
            rows,
            schema: Arc::clone(&schema),
        };
        let draft = &mut self.stages[from.stage];
        draft.nodes.push(node(NodeWork::Number(plan)));
        let position = draft.nodes.len() - 1;
        draft.nodes[from.node].children.push(position);
        Outlet {
            stage: from.stage,
            node: position,
            schema,
        }
    }

    /// Has an outlet feed an edge that is sorted by numbers, and returns what reads it.
    fn sorted(
        &mut self,
        from: &Outlet,
        schema: &SchemaRef,
        keys: Vec<usize>,
        partitions: u32,
    ) -> Source {
        let edge = EdgePlan {
            partitions,
            keys: keys.clone(),
            combine: None,
            rows: EdgeRows::Sorted,
            schema: Arc::clone(schema),
        };
        Source::Shuffle {
            edge: self.edge(from, edge),
            from: self.stages[from.stage].label(),
            keys,
            combine: None,
            schema: Arc::clone(schema),
        }
    }

    /// Adds a stage, whose rows come out of its first operator.
    fn added(&mut self, draft: Draft, schema: SchemaRef) -> Outlet {
        self.stages.push(draft);
        Outlet {
            stage: self.stages.len() - 1,
            node: 0,
            schema,
        }
    }
}

fn draft(stage: &StageSpec, source: Source, n_tasks: u32, work: NodeWork) -> Draft {
    Draft {
        names: Vec::new(),
        limits: stage.limits.clone(),
        source,
        n_tasks,
        nodes: vec![node(work)],
        edges: Vec::new(),
        sinks: Vec::new(),
        deterministic: true,
    }
}
