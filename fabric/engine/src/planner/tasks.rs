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

/// Partitions that rows are dealt out to at least, unless the stage says how many it wants: a small input may be a
/// lot of
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

    /// Has the results of a set come to one task, in order, where an output takes them: each task of the set would
    /// write
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;
    use weft_core::job::{MAX_KEPT_BYTES, decode};
    use weft_core::{Digest, FunctionKind, FunctionRecord, JobId, PinnedFunction};
    use weft_protocol::{Plan, PlanRequest};
    use weft_sql::Session;
    use weft_store::Blobs;

    use super::*;
    use crate::plan::StagePlan;

    fn pinned() -> PinnedFunction {
        PinnedFunction {
            reference: "hello/echo".into(),
            component: "hello".into(),
            version: "1.0.0".into(),
            digest: Digest::from_sha256(&[1; 32]),
            function: FunctionRecord {
                name: "echo".into(),
                kind: FunctionKind::Task,
                summary: String::new(),
                deterministic: true,
            },
        }
    }

    /// Plans a job over a file of three rows. Nothing of it runs.
    async fn planned(stages: Value, outputs: Value) -> (Plan, Vec<StagePlan>) {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = folder.path().join("rows.csv");
        std::fs::write(&rows, "n,partition\n1,a\n2,b\n3,c\n").expect("it writes");
        let spec = json!({
            "name": "tasks",
            "input": { "rows": { "format": "csv", "uri": rows } },
            "stage": stages,
            "output": outputs,
        });
        let request = PlanRequest {
            job: JobId::new(1, 2),
            spec: decode(&spec).expect("it is right"),
            functions: vec![pinned()],
            artefacts: BTreeMap::new(),
            started_ms: 0,
            check: false,
            tables: BTreeMap::new(),
            max_kept_bytes: MAX_KEPT_BYTES,
        };
        let blobs = Blobs::local(&folder.path().join("store")).expect("a folder");
        let (session, cancel) = (Session::new(), CancellationToken::new());
        let mut planner = Planner::new(&request, &blobs, HashMap::new(), &session, cancel);
        let plan = planner.plan().await.expect("it is planned");
        let mut stages = Vec::new();
        for shape in &plan.stages {
            let bytes = blobs.get(&shape.plan).await.expect("it was written");
            stages.push(serde_json::from_slice(&bytes).expect("a plan"));
        }
        (plan, stages)
    }

    /// Name, number of tasks, and stages that are read.
    fn shapes(plan: &Plan) -> Vec<(&str, u32, Vec<u32>)> {
        let stages = plan.stages.iter();
        let shape = stages.map(|stage| {
            let reads = stage.reads.iter().map(|read| read.stage);
            (stage.name.as_str(), stage.n_tasks, reads.collect())
        });
        shape.collect()
    }

    fn columns(schema: &SchemaRef) -> Vec<&str> {
        let fields = schema.fields().iter();
        fields.map(|field| field.name().as_str()).collect()
    }

    #[tokio::test]
    async fn a_set_that_nothing_reads_has_no_rows() {
        let set = json!([{ "name": "set", "task": "hello/echo", "count": 9, "input": "hi" }]);
        let (plan, stages) = planned(set, json!({})).await;
        assert_eq!(shapes(&plan), [("set", 9, vec![])]);
        assert!(stages[0].has_no_readers());
        let NodeWork::Task(task) = &stages[0].nodes[0].work else {
            panic!("{:?}", stages[0].nodes)
        };
        assert_eq!(task.input, b"hi");
    }

    #[tokio::test]
    async fn an_output_gets_the_results_of_a_set_in_order() {
        let set = json!([
            { "name": "set", "task": "hello/echo", "count": 9 },
            { "name": "sorted", "from": "set", "shuffle": { "keys": ["result"], "partitions": 2 } },
        ]);
        let outputs = json!({ "results": { "from": "set" }, "sorted": { "from": "sorted" } });
        let (plan, stages) = planned(set, outputs).await;
        let expected = [
            ("set", 9, vec![]),
            ("set.results", 1, vec![0]),
            ("sorted", 2, vec![0]),
        ];
        assert_eq!(shapes(&plan), expected);
        assert!(!stages[0].has_no_readers() && stages[0].sinks.is_empty());
        assert_eq!(columns(&stages[1].sinks[0].schema), ["index", "result"]);
        let Source::Shuffle { keys, .. } = &stages[1].source else {
            panic!("{:?}", stages[1].source)
        };
        assert_eq!(*keys, [0]);
    }

    #[tokio::test]
    async fn rows_are_numbered_and_dealt_out_by_their_places() {
        let each = json!([{ "name": "each", "for_each": "rows", "task": "hello/echo" }]);
        let outputs = json!({ "results": { "from": "each" } });
        let (plan, stages) = planned(each, outputs).await;
        let expected = [("rows", 1, vec![]), ("each", MIN_EACH_PARTITIONS, vec![0])];
        assert_eq!(shapes(&plan), expected);
        let edge = &stages[0].edges[0];
        // A column of that name may be there before.
        let numbered = ["n", "partition", "partition", "index"];
        assert_eq!(columns(&edge.schema), numbered);
        assert_eq!(edge.keys, [2, 3]);
        let NodeWork::Each(each) = &stages[1].nodes[0].work else {
            panic!("{:?}", stages[1].nodes)
        };
        assert_eq!(columns(&each.rows), ["n", "partition"]);
        let results = columns(&stages[1].sinks[0].schema);
        assert_eq!(results, ["partition", "index", "result"]);
    }

    #[tokio::test]
    async fn the_partitions_that_a_stage_asks_for_are_its_tasks() {
        let each = json!([{
            "name": "each", "for_each": "rows", "task": "hello/echo", "each": "batch", "partitions": 3,
        }]);
        let (plan, stages) = planned(each, json!({})).await;
        assert_eq!(plan.stages[1].n_tasks, 3);
        let NodeWork::Number(numbers) = &stages[0].nodes[1].work else {
            panic!("{:?}", stages[0].nodes)
        };
        assert_eq!(numbers.rows, 1_024);
    }
}
