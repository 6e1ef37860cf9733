//! Parquet files: some row groups, the columns that are asked for.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType,
};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use weft_core::job::InputFormat;
use weft_core::{ErrorCode, Problem};

use super::file::Failure;
use super::{BATCH_ROWS, Filter, InputFile, Inputs, conform, positions, unreadable};
use crate::plan::{FileSplit, FilesPlan, Part};
use crate::untrusted::decode;

/// Bytes of one batch, more or less, going by what the footer says of the rows.
const BATCH_BYTES: usize = 8 << 20;

/// A file's footer. What it says of Arrow's own types is not believed: the types of Parquet are all that is needed.
/// INT96 is read as microseconds, because nanoseconds end in the year 2262.
///
/// Errors: `BadRecord` where it cannot be read, and where it has other rows than its row groups.
pub(crate) fn metadata(path: &str, file: &InputFile) -> Result<ArrowReaderMetadata, Problem> {
    read_metadata(path, file).map_err(|problem| file.failure().or(path, || problem))
}

fn read_metadata(path: &str, file: &InputFile) -> Result<ArrowReaderMetadata, Problem> {
    let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = decode(|| ArrowReaderMetadata::load(file, options()));
    let metadata = metadata.map_err(|panic| broken(path, &panic))?;
    let metadata = metadata.map_err(|error| broken(path, &error))?;
    let rows = metadata.metadata().file_metadata().num_rows();
    let groups = metadata.metadata().row_groups().iter();
    let rows_of_groups = groups.map(RowGroupMetaData::num_rows);
    let rows_of_groups = rows_of_groups.fold(0_i64, i64::saturating_add);
    if rows != rows_of_groups {
        let what = format!("its footer counts {rows} rows, and its row groups {rows_of_groups}");
        return Err(broken(path, &what));
    }
    if let Some(what) = lacks_values(&metadata) {
        return Err(broken(path, &what));
    }
    if !has_int96(&metadata) {
        return Ok(metadata);
    }
    let schema = in_microseconds(&metadata);
    let metadata = decode(|| {
        let options = options().with_schema(schema);
        ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
    });
    let metadata = metadata.map_err(|panic| broken(path, &panic))?;
    metadata.map_err(|error| broken(path, &error))
}

/// Finds a column that has a value for each row, and more or fewer than there are rows.
fn lacks_values(metadata: &ArrowReaderMetadata) -> Option<String> {
    let groups = metadata.metadata().row_groups().iter();
    let mut chunks = groups.flat_map(|group| {
        let chunks = group.columns().iter();
        chunks.map(|chunk| (group.num_rows(), chunk))
    });
    let (rows, chunk) = chunks.find(|(rows, chunk)| {
        chunk.column_descr().max_rep_level() == 0 && chunk.num_values() != *rows
    })?;
    let (path, values) = (chunk.column_path(), chunk.num_values());
    Some(format!(
        "its column `{path}` has {values} values in {rows} rows"
    ))
}

fn has_int96(metadata: &ArrowReaderMetadata) -> bool {
    physical_types(metadata).any(|kind| kind == PhysicalType::INT96)
}

/// Types of the leaves, in the order of the file.
fn physical_types(metadata: &ArrowReaderMetadata) -> impl Iterator<Item = PhysicalType> {
    let columns = metadata.parquet_schema().columns().iter();
    columns.map(|column| column.physical_type())
}

/// The columns of a file, those of INT96 in microseconds.
fn in_microseconds(metadata: &ArrowReaderMetadata) -> SchemaRef {
    fn field(of: &FieldRef, leaves: &mut impl Iterator<Item = PhysicalType>) -> FieldRef {
        let data_type = match of.data_type() {
            DataType::List(item) => DataType::List(field(item, leaves)),
            DataType::Map(entries, sorted) => DataType::Map(field(entries, leaves), *sorted),
            DataType::Struct(members) => {
                DataType::Struct(members.iter().map(|member| field(member, leaves)).collect())
            }
            other => match leaves.next() {
                Some(PhysicalType::INT96) => DataType::Timestamp(TimeUnit::Microsecond, None),
                _ => other.clone(),
            },
        };
        Arc::new(Field::clone(of).with_data_type(data_type))
    }
    let mut leaves = physical_types(metadata);
    let fields = metadata.schema().fields().iter();
    let fields: Fields = fields.map(|of| field(of, &mut leaves)).collect();
    Arc::new(Schema::new(fields))
}

/// The same columns, those of INT96 in nanoseconds.
fn in_nanoseconds(
    path: &str,
    metadata: &ArrowReaderMetadata,
) -> Result<ArrowReaderMetadata, Problem> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let plain = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options);
    plain.map_err(|error| broken(path, &error))
}

/// Whether microseconds are all there is of nanoseconds, which wrap at the ends of their range.
fn is_whole(micros: &ArrayRef, nanos: &ArrayRef) -> bool {
    match (micros.data_type(), nanos.data_type()) {
        (same, other) if same == other => true,
        (DataType::Timestamp(_, _), DataType::Timestamp(_, _)) => {
            let micros = micros.as_primitive::<TimestampMicrosecondType>().iter();
            let nanos = nanos.as_primitive::<TimestampNanosecondType>().iter();
            let mut pairs = micros.zip(nanos);
            pairs.all(|(micros, nanos)| micros.map(|micros| micros.wrapping_mul(1_000)) == nanos)
        }
        (DataType::List(_), DataType::List(_)) => is_whole(
            micros.as_list::<i32>().values(),
            nanos.as_list::<i32>().values(),
        ),
        (DataType::Map(_, _), DataType::Map(_, _)) => {
            let columns = |map: &ArrayRef| map.as_map().entries().columns().to_vec();
            let pairs = columns(micros).into_iter().zip(columns(nanos));
            pairs
                .into_iter()
                .all(|(micros, nanos)| is_whole(&micros, &nanos))
        }
        (DataType::Struct(_), DataType::Struct(_)) => {
            let pairs = micros
                .as_struct()
                .columns()
                .iter()
                .zip(nanos.as_struct().columns());
            pairs
                .into_iter()
                .all(|(micros, nanos)| is_whole(micros, nanos))
        }
        _ => true,
    }
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
    /// The same rows, INT96 as nanoseconds, where the file has such columns.
    nanoseconds: Option<ParquetRecordBatchReader>,
    /// Tells what the store failed at from what the file is broken at.
    failure: Failure,
    pub(super) bytes_read: u64,
}

impl ParquetReader {
    pub(super) fn open(
        inputs: &Inputs,
        plan: &FilesPlan,
        split: &FileSplit,
    ) -> Result<Self, Problem> {
        let file = inputs.open_split(split)?;
        file.expect_end();
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
        let rows = batch_rows(&metadata, groups.clone());
        let chunks = groups.clone().flat_map(|group| {
            let columns = metadata.metadata().row_group(group).columns();
            columns.iter().enumerate()
        });
        let chunks = chunks.filter(|(leaf, _)| mask.leaf_included(*leaf));
        let chunks: Vec<Range<u64>> = chunks.map(|(_, chunk)| bytes_of(chunk)).collect();
        let sizes = chunks.iter().map(|chunk| chunk.end - chunk.start);
        let bytes_read = sizes.fold(0, u64::saturating_add);
        file.expect_side_by_side(chunks.into_iter());
        let failure = file.failure();
        let reader = |file: InputFile, metadata: ArrowReaderMetadata| {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
                .with_projection(mask.clone())
                .with_row_groups(groups.clone().collect())
                .with_batch_size(rows);
            let reader = decode(|| builder.build()).map_err(|panic| broken(&split.path, &panic))?;
            reader.map_err(|error| broken(&split.path, &error))
        };
        let nanoseconds = match has_int96(&metadata) {
            true => {
                let file = file.try_clone();
                let file = file.map_err(|error| unreadable(&split.path, "", &error))?;
                Some(reader(file, in_nanoseconds(&split.path, &metadata)?)?)
            }
            false => None,
        };
        let reader = reader(file, metadata)?;
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
            nanoseconds,
            failure,
            bytes_read,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        let read = decode(|| {
            let batch = self.reader.next()?;
            let nanoseconds = self.nanoseconds.as_mut().and_then(Iterator::next);
            let batch = batch.and_then(|batch| check_nanoseconds(batch, nanoseconds));
            let passing = batch.and_then(|batch| self.filter.apply(batch, &self.columns));
            Some(passing.and_then(|batch| conform(batch, &self.order, &self.schema)))
        });
        let broken = |error: &dyn std::fmt::Display| {
            self.failure.or(&self.path, || broken(&self.path, error))
        };
        let read = read.map_err(|panic| broken(&panic))?;
        read.transpose().map_err(|error| broken(&error))
    }
}

/// Bytes of a column chunk in the file, with its dictionary.
fn bytes_of(chunk: &ColumnChunkMetaData) -> Range<u64> {
    let start = chunk.dictionary_page_offset();
    let start = start.unwrap_or(chunk.data_page_offset());
    let start = u64::try_from(start).unwrap_or(0);
    let bytes = u64::try_from(chunk.compressed_size()).unwrap_or(0);
    start..start.saturating_add(bytes)
}

/// Rows of one batch, going by what the footer says of these row groups.
fn batch_rows(metadata: &ArrowReaderMetadata, groups: Range<usize>) -> usize {
    let count = |n: i64| usize::try_from(n).unwrap_or(0);
    let (all_bytes, all_rows) = groups.fold((0_usize, 0_usize), |(bytes, rows), group| {
        let group = metadata.metadata().row_group(group);
        (
            bytes.saturating_add(count(group.total_byte_size())),
            rows.saturating_add(count(group.num_rows())),
        )
    });
    let row_bytes = all_bytes.checked_div(all_rows).unwrap_or(0).max(1);
    (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS)
}

/// Fails where INT96 has times between two microseconds.
fn check_nanoseconds(
    micros: RecordBatch,
    nanos: Option<Result<RecordBatch, ArrowError>>,
) -> Result<RecordBatch, ArrowError> {
    let Some(nanos) = nanos.transpose()? else {
        return Ok(micros);
    };
    let fields = micros.schema_ref().fields().iter();
    let columns = micros.columns().iter().zip(nanos.columns());
    match fields
        .zip(columns)
        .find(|(_, (micros, nanos))| !is_whole(micros, nanos))
    {
        Some((field, _)) => {
            let name = field.name();
            let what = format!("column `{name}` has times with more digits than microseconds keep");
            Err(ArrowError::CastError(what))
        }
        None => Ok(micros),
    }
}
