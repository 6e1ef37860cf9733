//! Sorted runs that were spilled, merged back. Runs are merged in the order in which they were made, and equal keys keep that order.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion_common::DataFusionError;
use datafusion_execution::SendableRecordBatchStream;
use datafusion_execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion_physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion_physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use weft_sandbox::{MemoryAccount, batch_bytes};

/// Runs that are merged at a time; each holds a batch in memory.
const FAN_IN_MAX: usize = 48;
/// Runs that wait to be merged; each is an open file.
pub(crate) const RUNS_MAX: usize = 256;
/// Rows of a batch in a run. Small: a merge holds one of each run.
const RUN_BATCH_ROWS: usize = 2048;
/// A merge may take this part of the task's memory: what is pushed while it runs needs the rest.
const MERGE_SHARE: u64 = 2;
/// Batches that a merge holds for each run, at most: the one it reads, and those that its next output takes rows from, with their keys.
const BATCHES_OF_RUN: u64 = 4;

/// The task's memory account as a pool of DataFusion.
#[derive(Debug)]
pub(crate) struct AccountPool(pub(crate) Arc<MemoryAccount>);

impl std::fmt::Display for AccountPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "task memory of {} bytes", self.0.limit_bytes())
    }
}

impl MemoryPool for AccountPool {
    fn name(&self) -> &str {
        "task"
    }

    fn grow(&self, _reservation: &MemoryReservation, additional: usize) {
        self.0.grow(additional as u64);
    }

    fn shrink(&self, _reservation: &MemoryReservation, shrink: usize) {
        self.0.shrink(shrink as u64);
    }

    fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<(), DataFusionError> {
        if self.0.try_grow(additional as u64) {
            return Ok(());
        }
        let text = format!(
            "`{}` asks for {additional} bytes more than the task's memory limit of {}",
            reservation.consumer().name(),
            self.0.limit_bytes()
        );
        Err(DataFusionError::ResourcesExhausted(text))
    }

    fn reserved(&self) -> usize {
        usize::try_from(self.0.used_bytes()).unwrap_or(usize::MAX)
    }
}

/// A sorted run in an unnamed file.
pub(crate) struct Run {
    file: File,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// Its largest batch.
    batch_bytes: u64,
    /// Rows that its batches have at most.
    batch_rows: usize,
}

/// Writes a run batch by batch.
pub(crate) struct RunWriter {
    writer: StreamWriter<BufWriter<File>>,
    target_bytes: u64,
    batch_bytes: u64,
    batch_rows: usize,
}

impl RunWriter {
    /// `memory_bytes`: the task's limit, which tells how large the run's batches may be.
    pub(crate) fn new(
        schema: &SchemaRef,
        folder: &Path,
        memory_bytes: u64,
    ) -> Result<Self, ArrowError> {
        let file = tempfile::tempfile_in(folder)?;
        let writer = StreamWriter::try_new(BufWriter::with_capacity(1 << 18, file), schema)?;
        Ok(Self {
            writer,
            target_bytes: memory_bytes / (MERGE_SHARE * BATCHES_OF_RUN * FAN_IN_MAX as u64),
            batch_bytes: 0,
            batch_rows: 1,
        })
    }

    /// Adds sorted rows, in batches that are small enough for many runs to be merged in the task's memory.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let n = batch.num_rows();
        let row_bytes = (batch_bytes(batch) / n.max(1) as u64).max(1);
        let rows = usize::try_from(self.target_bytes / row_bytes).unwrap_or(usize::MAX);
        let rows = rows.clamp(1, RUN_BATCH_ROWS);
        for start in (0..n).step_by(rows) {
            let slice = batch.slice(start, rows.min(n - start));
            self.batch_bytes = self.batch_bytes.max(batch_bytes(&slice));
            self.batch_rows = self.batch_rows.max(slice.num_rows());
            self.writer.write(&slice)?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Run, ArrowError> {
        let mut file = self
            .writer
            .into_inner()?
            .into_inner()
            .map_err(|error| error.into_error())?;
        let bytes = file.stream_position()?;
        Ok(Run {
            file,
            bytes,
            batch_bytes: self.batch_bytes,
            batch_rows: self.batch_rows,
        })
    }
}

/// How many of `runs` a merge has memory for: two at least.
pub(crate) fn fan_in(runs: &[Run], memory_bytes: u64) -> usize {
    let largest = runs.iter().map(|run| run.batch_bytes).max().unwrap_or(0);
    let fits = memory_bytes / MERGE_SHARE / (BATCHES_OF_RUN * largest).max(1);
    usize::try_from(fits).map_or(FAN_IN_MAX, |fits| fits.clamp(2, FAN_IN_MAX))
}

fn stream(run: Run, schema: &SchemaRef) -> Result<SendableRecordBatchStream, DataFusionError> {
    let mut file = run.file;
    file.seek(SeekFrom::Start(0))?;
    let reader = StreamReader::try_new(BufReader::with_capacity(1 << 16, file), None)?;
    let batches = futures::stream::iter(reader.map(|batch| batch.map_err(DataFusionError::from)));
    Ok(Box::pin(RecordBatchStreamAdapter::new(
        Arc::clone(schema),
        batches,
    )))
}

/// Merges `runs`, sorted by `keys`, into one stream. Equal keys come in the order of the runs.
pub(crate) fn merge(
    runs: Vec<Run>,
    schema: &SchemaRef,
    keys: &[usize],
    account: &Arc<MemoryAccount>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let expression = |column: &usize| {
        PhysicalSortExpr::new_default(Arc::new(Column::new(schema.field(*column).name(), *column)))
    };
    let ordering = LexOrdering::new(keys.iter().map(expression))
        .ok_or_else(|| DataFusionError::Internal("a shuffle has no key".into()))?;
    let largest = runs.iter().max_by_key(|run| run.batch_bytes);
    let batch_rows = largest.map_or(1, |run| run.batch_rows);
    let streams = runs
        .into_iter()
        .map(|run| stream(run, schema))
        .collect::<Result<Vec<_>, _>>()?;
    let pool: Arc<dyn MemoryPool> = Arc::new(AccountPool(Arc::clone(account)));
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(Arc::clone(schema))
        .with_expressions(&ordering)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(batch_rows)
        .with_fetch(None)
        .with_reservation(MemoryConsumer::new("merge of spilled runs").register(&pool))
        // The default spreads ties over the runs, which would make the order depend on timing.
        .with_round_robin_tie_breaker(false)
        .build()
}
