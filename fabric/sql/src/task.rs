//! Plans in tasks: decoded with the task's sources and memory, and read as a stream of batches.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::physical_plan::metrics::MetricsSet;
use futures::StreamExt;
use weft_core::Problem;

use crate::Plan;
use crate::error::{is_out_of_memory, problem};
use crate::functions::Functions;
use crate::leaf::restamp;
use crate::order::SortKeys;
use crate::restart::{Origin, Restart};

/// Rows of a task's leaves.
pub trait Sources: fmt::Debug + Send + Sync {
    /// Number of streams of a leaf: one, or one for each writer where a merge reads it.
    fn streams(&self, leaf: u32) -> usize;
    /// Opens a stream of a leaf. A plan may open it again, and gets the same rows; it may leave a stream unread.
    ///
    /// Batches have the columns that the leaf's plan names, in that order and with those types.
    /// [`carried`](crate::carried) makes an item of a problem.
    fn open(&self, leaf: u32, stream: usize) -> Result<SendableRecordBatchStream, Problem>;
    /// Opens a stream of a leaf whose rows several tasks share: one writer's rows in the range of this task. Rows are
    /// in the order of `keys`, and rows of equal keys in that of writers and then as they were written. Each task has
    /// a range of that order, the first task the first one.
    fn open_range(
        &self,
        leaf: u32,
        stream: usize,
        keys: &SortKeys,
    ) -> Result<SendableRecordBatchStream, Problem>;
    /// Fails once the task is cancelled. A plan asks before it goes on with what it computes by itself.
    fn check(&self) -> Result<(), Problem>;
    /// Says that the plan starts over, and opens its leaves again. No row has come out of it.
    fn start_over(&self) {}
    /// Functions of components that the task's plan calls, if it may call any.
    fn functions(&self) -> Option<Arc<dyn Functions>> {
        None
    }
}

/// Memory and disk of a task.
#[derive(Debug, Clone)]
pub struct TaskMemory {
    /// Pool that operators ask for memory.
    pub pool: Arc<dyn MemoryPool>,
    /// Folder in which operators spill, in a folder of their own that goes with the plan.
    pub spill_folder: PathBuf,
}

/// Rows of a plan that runs.
///
/// If the plan runs out of memory before its first row and has hash joins, which cannot spill, it starts over with
/// merge joins. Build sides are read before the first row, so that this is when they turn out to be too large.
pub struct TaskRows {
    rows: SendableRecordBatchStream,
    /// Counters of the operators. Not the plan itself: a join in it would keep its rows to the end.
    metrics: Vec<MetricsSet>,
    restart: Option<Restart>,
    schema: SchemaRef,
    keys: Option<HashKeys>,
    order: Option<SortKeys>,
}

impl TaskRows {
    pub(crate) fn open(
        state: &Arc<SessionState>,
        plan: &[u8],
        sources: Arc<dyn Sources>,
        memory: TaskMemory,
    ) -> Result<Self> {
        let origin = Origin {
            state: Arc::clone(state),
            plan: plan.to_vec(),
            sources,
            memory,
        };
        let decoded = origin.decode()?;
        let keys = (!decoded.keys.is_empty()).then_some(HashKeys {
            expressions: decoded.keys,
        });
        let rows = origin.execute(&decoded.plan)?;
        let mut metrics = Vec::new();
        collect_metrics(&decoded.plan, &mut metrics);
        Ok(Self {
            rows,
            metrics,
            restart: Restart::of(origin, decoded.plan),
            schema: decoded.schema,
            keys,
            order: decoded.order,
        })
    }

    /// Reads the next batch, with the schema of the stage. Not cancel-safe: a dropped call may lose rows.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, Problem>> {
        loop {
            let error = match self.rows.next().await? {
                Ok(batch) => {
                    if batch.num_rows() > 0 {
                        self.restart = None;
                    }
                    return Some(restamp(batch, &self.schema).map_err(problem));
                }
                Err(error) => error,
            };
            if let Err(error) = self.start_over(error) {
                return Some(Err(problem(error)));
            }
        }
    }

    /// Starts the plan over, or fails with the error that it ended with.
    fn start_over(&mut self, error: DataFusionError) -> Result<()> {
        let restart = self.restart.take().filter(|_| is_out_of_memory(&error));
        let Some(restart) = restart else {
            return Err(error);
        };
        // Frees the memory of the plan that ran.
        self.rows = Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.schema)));
        let started = restart.start()?;
        collect_metrics(&started.plan, &mut self.metrics);
        (self.rows, self.restart) = (started.rows, started.restart);
        Ok(())
    }

    /// Bytes that operators have written to disk so far, for want of memory.
    pub fn spilled_bytes(&self) -> u64 {
        let sets = self.metrics.iter().filter_map(MetricsSet::spilled_bytes);
        sets.fold(0, |sum: u64, bytes| sum.saturating_add(bytes as u64))
    }

    /// Keys by which rows are placed, of a stage whose rows go by hash.
    pub fn keys(&self) -> Option<HashKeys> {
        self.keys.clone()
    }

    /// Order of the rows, of a stage whose rows are read in ranges.
    pub fn order(&self) -> Option<SortKeys> {
        self.order.clone()
    }
}

impl fmt::Debug for TaskRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = f.debug_struct("TaskRows");
        rows.field("schema", &self.schema).field("keys", &self.keys);
        rows.finish_non_exhaustive()
    }
}

/// Expressions by whose values rows are placed.
#[derive(Debug, Clone)]
pub struct HashKeys {
    expressions: Vec<Arc<dyn PhysicalExpr>>,
}

impl HashKeys {
    /// Computes the keys of a batch of [`TaskRows`], a column for each. Equal values may have several forms, such
    /// as zeros of both signs: the caller gives them one before it hashes.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, Problem> {
        let value = |key: &Arc<dyn PhysicalExpr>| {
            let value = key.evaluate(batch)?;
            value.into_array(batch.num_rows())
        };
        let values = self.expressions.iter().map(value);
        values.collect::<Result<Vec<_>>>().map_err(problem)
    }
}

/// Collects the counters of a plan that was started. They go on counting.
fn collect_metrics(plan: &Plan, metrics: &mut Vec<MetricsSet>) {
    metrics.extend(plan.metrics());
    for child in plan.children() {
        collect_metrics(child, metrics);
    }
}
