//! Parquet files: some row groups, the columns that are asked for.

use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use weft_core::job::InputFormat;
use weft_core::{ErrorCode, Problem};

use super::{BATCH_ROWS, Filter, check_size, conform, positions, unreadable};
use crate::plan::{FileSplit, FilesPlan, Part};
use crate::untrusted::decode;

/// Bytes of one batch, more or less, going by what the footer says of the rows.
const BATCH_BYTES: usize = 8 << 20;

/// A file's footer. What it says of Arrow's own types is not believed: the types of Parquet are all that is needed.
pub(crate) fn metadata(path: &str, file: &File) -> Result<ArrowReaderMetadata, Problem> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = decode(|| ArrowReaderMetadata::load(file, options));
    let metadata = metadata.map_err(|panic| broken(path, &panic))?;
    metadata.map_err(|error| broken(path, &error))
}

pub(super) fn broken(path: &str, error: &dyn std::fmt::Display) -> Problem {
    let detail = format!("`{path}` is not readable Parquet: {error}");
    Problem::new(ErrorCode::BadRecord, detail)
}

/// Reads the row groups of one split.
pub(crate) struct ParquetReader {
    path: String,
    reader: ParquetRecordBatchReader,
    pub(super) schema: SchemaRef,
    /// Where the columns of the input stand among those that are read.
    order: Vec<usize>,
    filter: Filter,
    /// Where the columns that are read stand in the file, ascending.
    columns: Vec<usize>,
    pub(super) bytes_read: u64,
}

impl ParquetReader {
    pub(super) fn open(plan: &FilesPlan, split: &FileSplit) -> Result<Self, Problem> {
        let file = File::open(&split.path).map_err(|error| unreadable(&split.path, "", &error))?;
        check_size(split, &file)?;
        let metadata = metadata(&split.path, &file)?;
        let filter = match &plan.format {
            InputFormat::Parquet { filter, .. } => filter.as_slice(),
            _ => &[],
        };
        let filter = Filter::new(&split.path, &metadata, filter)?;
        let wanted = positions(&split.path, metadata.schema(), &plan.schema)?;
        let mut columns: Vec<usize> = wanted.iter().copied().chain(filter.columns()).collect();
        columns.sort_unstable();
        columns.dedup();
        let n_groups = metadata.metadata().num_row_groups();
        let groups = match split.part {
            Part::RowGroups { first, count } => first..(first + count).min(n_groups),
            Part::Whole | Part::Bytes { .. } => 0..n_groups,
        };
        let mask = ProjectionMask::roots(
            metadata.metadata().file_metadata().schema_descr(),
            columns.iter().copied(),
        );
        let (all_bytes, all_rows) = groups.clone().fold((0, 0), |(bytes, rows), group| {
            let group = metadata.metadata().row_group(group);
            let count = |n: i64| usize::try_from(n).unwrap_or(0);
            (
                bytes + count(group.total_byte_size()),
                rows + count(group.num_rows()),
            )
        });
        let row_bytes = all_bytes.checked_div(all_rows).unwrap_or(0).max(1);
        let rows = BATCH_BYTES / row_bytes;
        let chunks = groups.clone().flat_map(|group| {
            let columns = metadata.metadata().row_group(group).columns();
            columns.iter().enumerate()
        });
        let chunks = chunks.filter(|(leaf, _)| mask.leaf_included(*leaf));
        let bytes_read = chunks
            .map(|(_, chunk)| u64::try_from(chunk.compressed_size()).unwrap_or(0))
            .sum();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_row_groups(groups.collect())
            .with_batch_size(rows.clamp(1, BATCH_ROWS));
        let reader = decode(|| builder.build()).map_err(|panic| broken(&split.path, &panic))?;
        let reader = reader.map_err(|error| broken(&split.path, &error))?;
        let order = wanted
            .iter()
            .map(|position| columns.partition_point(|other| other < position))
            .collect();
        Ok(Self {
            path: split.path.clone(),
            reader,
            schema: Arc::clone(&plan.schema),
            order,
            filter,
            columns,
            bytes_read,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        let read = decode(|| {
            let batch = self.reader.next()?;
            let passing = batch.and_then(|batch| self.filter.apply(batch, &self.columns));
            Some(passing.and_then(|batch| conform(batch, &self.order, &self.schema)))
        });
        let read = read.map_err(|panic| broken(&self.path, &panic))?;
        read.transpose().map_err(|error| broken(&self.path, &error))
    }
}
