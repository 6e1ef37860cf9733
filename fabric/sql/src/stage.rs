//! Stages of a statement, as the caller makes them part of a job.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use weft_core::{ErrorCode, Problem};
use weft_protocol::{ReadMode, TaskRange};

use crate::adaptive::{Adaptive, adaptive};
use crate::codec;
use crate::cut::{Stage, Target};
use crate::error::planning;
use crate::filters::ScanFilter;
use crate::text::{self, PlanLine};
use crate::variants::{branches, number};

/// One stage of a statement.
#[derive(Debug, Clone)]
pub struct SqlStage {
    /// Encoded plans. Their ranges follow each other and cover the stage's tasks.
    pub variants: Vec<Variant>,
    /// Leaves of all variants; plans refer to them by position.
    pub leaves: Vec<LeafPlan>,
    /// Number of tasks.
    pub n_tasks: u32,
    /// Place of the rows.
    pub out: Out,
    /// Columns of the rows.
    pub schema: SchemaRef,
    /// Functions of components that the plans call, by position in the session's.
    pub functions: BTreeSet<u32>,
    /// The plan for people, before unions are split.
    pub operators: Vec<PlanLine>,
    /// Expressions of the hash by which rows go on, or of their order, for people.
    pub keys: Vec<String>,
}

/// A plan and the tasks that run it.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Tasks of the stage.
    pub tasks: TaskRange,
    /// The plan for [`Session::open`](crate::Session::open).
    pub plan: Vec<u8>,
    /// Ways in which the tasks may be more or fewer, if they may.
    pub adaptive: Option<Adaptive>,
}

/// Rows that a leaf asks for, of tasks in the given range. Other tasks never open it.
#[derive(Debug, Clone, PartialEq)]
pub enum LeafPlan {
    /// Rows of another stage.
    Exchange {
        /// Position among the stages that were returned with this one, before it.
        stage: usize,
        /// Share of each task.
        mode: ReadMode,
        /// Tasks that read.
        tasks: TaskRange,
        /// A merge reads the leaf: [`Sources`](crate::Sources) have a stream for each task of the writing stage.
        per_writer: bool,
    },
    /// Rows of a table, of which each task reads its own slice.
    Scan {
        /// Position among the tables that were given.
        table: usize,
        /// Positions of the columns to read, in order; all where there is no list.
        columns: Option<Vec<usize>>,
        /// Conditions that all wanted rows fulfil; the plan tests them again.
        filters: Vec<ScanFilter>,
        /// Rows after which a task may stop.
        limit: Option<usize>,
        /// Tasks that read.
        tasks: TaskRange,
    },
}

/// Place of a stage's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// By the hash of [`TaskRows::keys`](crate::TaskRows::keys).
    Hash {
        /// Number of partitions.
        partitions: u32,
    },
    /// In one partition, in the order in which a task puts them out.
    Single,
    /// The same, sorted by [`TaskRows::order`](crate::TaskRows::order), by which tasks read ranges.
    Sorted,
    /// In the statement's result. Only the last stage does so.
    Result,
}

impl SqlStage {
    /// Encodes a stage. `context` has the functions that tasks decode with, so that a plan which they could not
    /// decode is refused here.
    pub(crate) fn new(stage: &Stage, context: &TaskContext) -> Result<Self, Problem> {
        let schema = stage.plan.schema();
        let keys: &[Arc<dyn PhysicalExpr>] = match &stage.target {
            Target::Hash(keys, _) => keys,
            Target::Single | Target::Sorted(_) | Target::Result => &[],
        };
        let order = match &stage.target {
            Target::Sorted(order) => Some(order),
            Target::Hash(..) | Target::Single | Target::Result => None,
        };
        let out = match &stage.target {
            Target::Hash(_, n) => Out::Hash {
                partitions: small(*n)?,
            },
            Target::Single => Out::Single,
            Target::Sorted(_) => Out::Sorted,
            Target::Result => Out::Result,
        };
        let mut variants = Vec::new();
        let mut leaves = Vec::new();
        let mut functions = BTreeSet::new();
        let mut first = 0;
        for branch in branches(&stage.plan).map_err(planning)? {
            let count = small(stage.n_ranges.unwrap_or(branch.n_tasks))?;
            let tasks = TaskRange { first, count };
            let adaptive = adaptive(&branch.plan, leaves.len()).filter(|_| count > 1);
            let plan = number(branch.plan, tasks, &mut leaves).map_err(planning)?;
            let encoded = codec::encode(plan.clone(), &schema, keys, order, &mut functions);
            let encoded = encoded.map_err(planning)?;
            codec::check_depth(&encoded)?;
            let decoded = codec::decode(&encoded, context, None).map_err(planning)?;
            codec::check_same(&plan, &decoded.plan)?;
            variants.push(Variant {
                tasks,
                plan: encoded,
                adaptive,
            });
            first += count;
        }
        let n_tasks = small(stage.n_tasks())?;
        if first != n_tasks {
            let detail = format!("{n_tasks} tasks share plans for {first}");
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        Ok(Self {
            variants,
            leaves,
            n_tasks,
            out,
            schema,
            functions,
            operators: text::operators(&stage.plan),
            keys: text::keys(&stage.target),
        })
    }
}

fn small(n: usize) -> Result<u32, Problem> {
    let too_many = |_| {
        let detail = format!("the statement needs {n} tasks in a stage; lower `partitions`");
        Problem::new(ErrorCode::TooLarge, detail)
    };
    u32::try_from(n).map_err(too_many)
}
