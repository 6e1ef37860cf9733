//! A stage while it is cut: its operators, what they feed, and what becomes of it.

use weft_core::Limits;
use weft_core::job::StageSpec;
use weft_protocol::{
    AdaptiveTasks, EdgeKind, EdgeRead, EdgeShape, FINGERPRINT, PlanRequest, SlotVector, StageShape,
    TASK_BYTES,
};

use crate::plan::{EdgePlan, Leaf, Node, NodeWork, SinkPlan, Source, SqlPlan, StagePlan};

/// A task may be worth at most this part of its memory where fewer tasks than planned run: rows that operators hold and
/// cannot spill then fit as before.
const COALESCED_SHARE: u64 = 8;

/// A stage that is being cut.
pub(super) struct Draft {
    pub(super) names: Vec<String>,
    pub(super) limits: Limits,
    pub(super) source: Source,
    pub(super) n_tasks: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<EdgePlan>,
    pub(super) sinks: Vec<SinkPlan>,
    pub(super) deterministic: bool,
}

impl Draft {
    pub(super) fn add(&mut self, stage: &StageSpec, deterministic: bool) {
        self.names.push(stage.name.clone());
        self.deterministic &= deterministic;
        if self.names.len() == 1 {
            self.limits = stage.limits.clone();
        } else {
            self.limits = self.limits.narrow(&stage.limits);
        }
    }

    /// What the control plane keeps of the stage, whose plan lies under `key`.
    pub(super) fn shape(&self, key: String) -> StageShape {
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
            reads: self.reads(),
            adaptive: self.adaptive(),
            edges: self.edges.iter().map(edge).collect(),
            limits: self.limits.clone(),
            slot,
            resident: false,
            deterministic: self.deterministic,
        }
    }

    /// The edges that the stage reads.
    pub(super) fn reads(&self) -> Vec<EdgeRead> {
        match &self.source {
            Source::Shuffle { edge, .. } => vec![EdgeRead::from(*edge)],
            Source::Sql(sql) => sql.leaves.iter().filter_map(Leaf::read).collect(),
            Source::Files(_) | Source::Nothing => Vec::new(),
        }
    }

    /// The tasks that may be more or fewer once their inputs are committed.
    fn adaptive(&self) -> Vec<AdaptiveTasks> {
        let Source::Sql(sql) = &self.source else {
            return Vec::new();
        };
        // A function may count on having all rows of a key, and a side of a join that is computed by several tasks
        // must have the same rows in each.
        let may_split = self.deterministic && self.nodes.len() == 1;
        let may_coalesce = self.may_coalesce(sql);
        let read_of = |leaf: &u32| {
            let before = sql.leaves.iter().take(*leaf as usize);
            small(before.filter(|leaf| leaf.read().is_some()).count())
        };
        let adaptive = sql.variants.iter().filter_map(|variant| {
            let adaptive = variant.adaptive.as_ref()?;
            let split = adaptive.split.iter().filter(|_| may_split).map(read_of);
            let tasks = AdaptiveTasks {
                planned: variant.tasks,
                coalesce: adaptive.coalesce && may_coalesce,
                split: split.collect(),
                settled: None,
            };
            (tasks.coalesce || !tasks.split.is_empty()).then_some(tasks)
        });
        adaptive.collect()
    }

    /// Whether one task may read what several were planned for. Limits count by function and task, and a job that keeps
    /// to them with the tasks that were planned must do so with fewer.
    fn may_coalesce(&self, sql: &SqlPlan) -> bool {
        let calls_none = self.nodes.len() == 1 && sql.functions.is_empty();
        let combines_none = self.edges.iter().all(|edge| edge.combine.is_none());
        let fits = TASK_BYTES <= self.limits.memory_bytes / COALESCED_SHARE;
        calls_none && combines_none && fits
    }

    pub(super) fn plan(self, request: &PlanRequest, position: usize) -> StagePlan {
        StagePlan {
            fingerprint: FINGERPRINT.into(),
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

    pub(super) fn label(&self) -> String {
        match &self.source {
            // Nothing is done to the rows of an input but to write them, or to shuffle them.
            Source::Files(files) if self.names.is_empty() => files.input.clone(),
            _ => self.names.join("+"),
        }
    }
}

pub(super) fn node(work: NodeWork) -> Node {
    Node {
        work,
        children: Vec::new(),
        edges: Vec::new(),
        sinks: Vec::new(),
    }
}

pub(super) fn small(n: usize) -> u32 {
    u32::try_from(n).expect("stages, edges and partitions are few")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::{Schema, SchemaRef};
    use weft_core::Digest;
    use weft_protocol::{ReadMode, TaskRange};

    use super::*;
    use crate::plan::{AdaptivePlan, EdgeLeaf, EdgeRows, FunctionPlan, SqlVariant};

    fn schema() -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn function() -> FunctionPlan {
        FunctionPlan {
            stage: "query".into(),
            label: "geo@1.0.0/km".into(),
            digest: Digest::from_sha256(&[7; 32]),
            function: "km".into(),
            params: Vec::new(),
            limits: Limits::default(),
            output: schema(),
        }
    }

    /// A stage whose four tasks may be fewer, and more where they read its only edge.
    fn draft() -> Draft {
        let tasks = TaskRange { first: 0, count: 4 };
        let leaf = EdgeLeaf {
            read: EdgeRead {
                stage: 0,
                edge: 0,
                mode: ReadMode::Partitioned,
                tasks: Some(tasks),
            },
            from: "writer".into(),
            schema: schema(),
            columns: None,
            per_writer: false,
        };
        let adaptive = AdaptivePlan {
            coalesce: true,
            split: vec![0],
        };
        let variant = SqlVariant {
            tasks,
            plan: Vec::new(),
            adaptive: Some(adaptive),
        };
        Draft {
            names: vec!["query".into()],
            limits: Limits::default(),
            source: Source::Sql(SqlPlan {
                variants: vec![variant],
                leaves: vec![Leaf::Edge(leaf)],
                schema: schema(),
                is_last: true,
                functions: BTreeMap::new(),
            }),
            n_tasks: 4,
            nodes: vec![node(NodeWork::Pass)],
            edges: Vec::new(),
            sinks: Vec::new(),
            deterministic: true,
        }
    }

    /// Whether tasks may be fewer and whether they may be more, once the stage is changed.
    fn ways(change: impl FnOnce(&mut Draft)) -> (bool, bool) {
        let mut draft = draft();
        change(&mut draft);
        match draft.adaptive().as_slice() {
            [] => (false, false),
            [tasks] => (tasks.coalesce, !tasks.split.is_empty()),
            several => panic!("{several:?}"),
        }
    }

    #[test]
    fn tasks_are_not_fewer_where_limits_count_by_function_and_task() {
        assert_eq!(ways(|_| ()), (true, true));
        let calls = |draft: &mut Draft| {
            if let Source::Sql(sql) = &mut draft.source {
                sql.functions.insert(0, function());
            }
        };
        assert_eq!(ways(calls), (false, true));
        let maps = |draft: &mut Draft| draft.nodes.push(node(NodeWork::Map(function())));
        assert_eq!(ways(maps), (false, false));
        let combines = |draft: &mut Draft| {
            draft.edges.push(EdgePlan {
                partitions: 2,
                keys: vec![0],
                combine: Some(function()),
                rows: EdgeRows::Sorted,
                schema: schema(),
            });
        };
        assert_eq!(ways(combines), (false, true));
        let memory = |bytes: u64| ways(|draft| draft.limits.memory_bytes = bytes);
        assert_eq!(memory(8 * TASK_BYTES), (true, true));
        assert_eq!(memory(Limits::MEMORY_BYTES_MIN), (false, true));
    }
}
