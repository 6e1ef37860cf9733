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
use weft_sandbox::MemoryAccount;

/// Runs that are merged at a time; each holds a batch in memory.
pub(crate) const FAN_IN_MAX: usize = 48;
/// Rows of a batch in a run. Small: a merge holds one of each run.
const RUN_BATCH_ROWS: usize = 2048;

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
pub(crate) struct Run(File);

/// Writes a run batch by batch.
pub(crate) struct RunWriter(StreamWriter<BufWriter<File>>);

impl RunWriter {
    pub(crate) fn new(schema: &SchemaRef, folder: &Path) -> Result<Self, ArrowError> {
        let file = tempfile::tempfile_in(folder)?;
        Ok(Self(StreamWriter::try_new(
            BufWriter::with_capacity(1 << 18, file),
            schema,
        )?))
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        for start in (0..batch.num_rows()).step_by(RUN_BATCH_ROWS) {
            self.0
                .write(&batch.slice(start, RUN_BATCH_ROWS.min(batch.num_rows() - start)))?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Run, ArrowError> {
        let file = self
            .0
            .into_inner()?
            .into_inner()
            .map_err(|error| error.into_error())?;
        Ok(Run(file))
    }
}

fn stream(run: Run, schema: &SchemaRef) -> Result<SendableRecordBatchStream, DataFusionError> {
    let mut file = run.0;
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
        .with_batch_size(RUN_BATCH_ROWS)
        .with_fetch(None)
        .with_reservation(MemoryConsumer::new("merge of spilled runs").register(&pool))
        // The default spreads ties over the runs, which would make the order depend on timing.
        .with_round_robin_tie_breaker(false)
        .build()
}
