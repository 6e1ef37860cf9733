//! Plans in tasks: decoded with the task's sources and memory, and read as a stream of batches.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use futures::StreamExt;
use weft_core::Problem;

use crate::codec;
use crate::cut::n_partitions;
use crate::error::problem;
use crate::functions::Functions;
use crate::leaf::restamp;

/// Bytes that a task may spill at a time.
const SPILLED_BYTES_MAX: u64 = 64 << 30;
/// Spilled runs that are merged at a time; each is an open file.
const FAN_IN_MAX: usize = 48;
/// A sort keeps this part of the task's memory for merging what it spilled.
const SORT_SHARE: usize = 8;

/// Rows of a task's leaves.
pub trait Sources: fmt::Debug + Send + Sync {
    /// Number of streams of a leaf: one, or one for each writer where a merge reads it.
    fn streams(&self, leaf: u32) -> usize;
    /// Opens a stream of a leaf. A plan may open it again, and gets the same rows; it may leave a stream unread.
    ///
    /// Batches have the columns that the leaf's plan names, in that order and with those types.
    /// [`carried`](crate::carried) makes an item of a problem.
    fn open(&self, leaf: u32, stream: usize) -> Result<SendableRecordBatchStream, Problem>;

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
pub struct TaskRows {
    rows: SendableRecordBatchStream,
    schema: SchemaRef,
    keys: Option<HashKeys>,
}

impl TaskRows {
    pub(crate) fn open(
        state: &SessionState,
        plan: &[u8],
        sources: Arc<dyn Sources>,
        memory: TaskMemory,
    ) -> Result<Self> {
        let context = Arc::new(context(state, memory)?);
        let decoded = codec::decode(plan, &context, Some(sources))?;
        let n = n_partitions(&decoded.plan);
        if n != 1 {
            return Err(internal_datafusion_err!("a task's plan has {n} partitions"));
        }
        let keys = (!decoded.keys.is_empty()).then_some(HashKeys {
            expressions: decoded.keys,
        });
        Ok(Self {
            rows: decoded.plan.execute(0, context)?,
            schema: decoded.schema,
            keys,
        })
    }

    /// Reads the next batch, with the schema of the stage. Not cancel-safe: a dropped call may lose rows.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, Problem>> {
        let batch = self.rows.next().await?;
        let batch = batch.and_then(|batch| restamp(batch, &self.schema));
        Some(batch.map_err(problem))
    }

    /// Keys by which rows are placed, of a stage whose rows go by hash.
    pub fn keys(&self) -> Option<HashKeys> {
        self.keys.clone()
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

/// Functions and settings of the session, with a task's memory and disk.
fn context(state: &SessionState, memory: TaskMemory) -> Result<TaskContext> {
    let mut config = state.config().clone();
    if let MemoryLimit::Finite(bytes) = memory.pool.memory_limit() {
        let execution = &mut config.options_mut().execution;
        let share = bytes / SORT_SHARE;
        execution.sort_spill_reservation_bytes = execution.sort_spill_reservation_bytes.min(share);
    }
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![memory.spill_folder]))
        .with_max_temp_directory_size(SPILLED_BYTES_MAX)
        .with_max_spill_merge_fan_in(FAN_IN_MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(memory.pool)
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let context = TaskContext::from(state);
    Ok(context.with_session_config(config).with_runtime(runtime))
}
