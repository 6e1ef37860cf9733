//! The files of a task's outputs: Parquet, staged.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use weft_control::SinkFile;
use weft_core::{ErrorCode, JobId, Problem};
use weft_shuffle::StagedFile;

use crate::messages::TaskRequest;
use crate::plan::SinkPlan;

/// Encoded bytes that a row group holds before it is written.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// One output of a running task. No rows, no file; but the first task always writes one, so that readers find the schema.
pub(crate) struct SinkWriter {
    plan: SinkPlan,
    request: TaskRequest,
    writer: Option<ArrowWriter<StagedFile>>,
    pub(crate) rows: u64,
}

fn problem(folder: &str, error: &ParquetError) -> Problem {
    Problem::new(
        ErrorCode::StoreUnavailable,
        format!("writing to `{folder}`: {error}"),
    )
}

impl SinkWriter {
    pub(crate) fn new(plan: SinkPlan, request: TaskRequest) -> Self {
        Self {
            plan,
            request,
            writer: None,
            rows: 0,
        }
    }

    fn published_name(&self) -> String {
        format!(
            "part-{}-{:05}.parquet",
            self.plan.stage, self.request.id.task
        )
    }

    fn open(&mut self) -> Result<&mut ArrowWriter<StagedFile>, Problem> {
        if self.writer.is_none() {
            let staged = format!(
                "{}-{}-{}",
                self.request.epoch,
                self.request.sequence,
                self.published_name()
            );
            let job: &JobId = &self.request.id.job;
            let file = StagedFile::create(Path::new(&self.plan.folder), job, &staged)
                .map_err(|error| error.problem())?;
            let properties = WriterProperties::builder()
                .set_compression(Compression::SNAPPY)
                .set_created_by("weft".into())
                .build();
            let writer =
                ArrowWriter::try_new(file, Arc::clone(&self.plan.schema), Some(properties))
                    .map_err(|error| problem(&self.plan.folder, &error))?;
            self.writer = Some(writer);
        }
        Ok(self.writer.as_mut().expect("it was opened above"))
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), Problem> {
        self.rows += batch.num_rows() as u64;
        let folder = self.plan.folder.clone();
        let writer = self.open()?;
        writer
            .write(batch)
            .map_err(|error| problem(&folder, &error))?;
        if writer.in_progress_size() > ROW_GROUP_BYTES {
            writer.flush().map_err(|error| problem(&folder, &error))?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Option<SinkFile>, Problem> {
        if self.writer.is_none() && self.request.id.task != 0 {
            return Ok(None);
        }
        self.open()?;
        let name = self.published_name();
        let Self {
            plan, writer, rows, ..
        } = self;
        let writer = writer.expect("it was opened above");
        let file = writer
            .into_inner()
            .map_err(|error| problem(&plan.folder, &error))?;
        file.finish(&plan.output, name, rows)
            .map(Some)
            .map_err(|error| error.problem())
    }
}
