//! A stage while it is cut: its operators, what they feed, and what becomes of it.

use weft_core::Limits;
use weft_core::job::StageSpec;
use weft_protocol::{
    AdaptiveTasks, EdgeKind, EdgeRead, EdgeShape, FINGERPRINT, PlanRequest, SlotVector, StageShape,
};

use crate::plan::{EdgePlan, Leaf, Node, NodeWork, SinkPlan, Source, StagePlan};

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
        let read_of = |leaf: &u32| {
            let before = sql.leaves.iter().take(*leaf as usize);
            small(before.filter(|leaf| leaf.read().is_some()).count())
        };
        let adaptive = sql.variants.iter().filter_map(|variant| {
            let adaptive = variant.adaptive.as_ref()?;
            let split = adaptive.split.iter().filter(|_| may_split).map(read_of);
            let tasks = AdaptiveTasks {
                planned: variant.tasks,
                coalesce: adaptive.coalesce,
                split: split.collect(),
                settled: None,
            };
            (tasks.coalesce || !tasks.split.is_empty()).then_some(tasks)
        });
        adaptive.collect()
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
