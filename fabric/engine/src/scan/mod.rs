//! Reading inputs: one split of one file, as record batches in types that functions see.
//!
//! Text formats are read in blocks of whole records ([`blocks`]); a record belongs to the split in which it begins.

mod arrow_ipc;
mod blocks;
mod exact;
mod file;
mod filter;
mod format;
mod infer;
mod json;
mod object;
mod parquet;
mod prune;
mod reason;
mod records;
mod sample;
mod shared;
mod text;
mod value;

pub(crate) use arrow_ipc::file_schema as arrow_schema;
pub(crate) use blocks::{Compression, Dialect, record_starts};
pub(crate) use file::{InputFile, Inputs};
pub(crate) use filter::Filter;
pub(crate) use infer::{check_headers, csv_schema, declared, json_schema};
pub(crate) use json::{Unknown, with_rest};
pub(crate) use parquet::metadata as parquet_metadata;
pub(crate) use prune::{Bounds, row_groups};
pub(crate) use sample::first_records;
pub(crate) use shared::shared_bytes;
pub(crate) use text::schema as text_schema;
pub(crate) use value::date32;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::util::display::FormatOptions;
use weft_core::job::{BadRecords, InputFormat};
use weft_core::{ErrorCode, Problem};

use crate::plan::{FileSplit, FilesPlan};

/// Rows of one batch.
const BATCH_ROWS: usize = 16 * 1024;

/// What to do about a bad record that comes with a call.
const STREAM_ADVICE: &str = "mend it, send another type (Arrow names its columns, `application/octet-stream` is not looked at), or run a job, which can \
     leave it out";

/// A record that could not be read.
pub(crate) struct BadRecord {
    /// Where it begins in the (decompressed) file.
    pub(crate) position: u64,
    pub(crate) reason: String,
    pub(crate) record: Vec<u8>,
}

/// Records that were left out.
pub(crate) struct LeftOut {
    policy: BadRecords,
    /// How many there were.
    pub(crate) count: u64,
    /// Those that wait to be written as dead letters.
    pub(crate) waiting: Vec<BadRecord>,
    /// Whoever reads the error has a job file, which advice is about.
    is_advised: bool,
}

impl LeftOut {
    fn new(policy: BadRecords) -> Self {
        Self {
            policy,
            count: 0,
            waiting: Vec::new(),
            is_advised: true,
        }
    }

    /// Nothing may be left out, and there is no job whose policy could be another.
    fn of_stream() -> Self {
        Self {
            is_advised: false,
            ..Self::new(BadRecords::Fail)
        }
    }

    /// True where somebody sees why a record is bad.
    fn is_told(&self) -> bool {
        self.policy != BadRecords::Skip
    }

    /// True where the first bad record ends the task.
    fn is_final(&self) -> bool {
        self.policy == BadRecords::Fail
    }

    /// Records a bad record. Errors: the job wants none.
    fn add(&mut self, split: &FileSplit, bad: BadRecord, advice: &str) -> Result<(), Problem> {
        match &self.policy {
            BadRecords::Fail => {
                let advice = match self.is_advised {
                    true => advice,
                    false => STREAM_ADVICE,
                };
                let detail = format!(
                    "`{}`, byte {}: {}; {advice}",
                    split.path, bad.position, bad.reason
                );
                return Err(Problem::new(ErrorCode::BadRecord, detail));
            }
            BadRecords::Skip => {}
            BadRecords::DeadLetter { .. } => self.waiting.push(bad),
        }
        self.count += 1;
        Ok(())
    }
}

/// The columns of dead letters.
pub(crate) fn bad_records_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("file", DataType::Utf8, false),
        Field::new("position", DataType::UInt64, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new("record", DataType::Utf8, false),
    ]))
}

/// Records of `path` as rows of dead letters. Bytes that are not UTF-8 are replaced.
pub(crate) fn bad_records_batch(
    path: &str,
    records: &[BadRecord],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let texts = |text: fn(&BadRecord) -> Cow<'_, str>| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(text)))
    };
    let paths = std::iter::repeat_n(path, records.len());
    RecordBatch::try_new(
        bad_records_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(paths)),
            Arc::new(UInt64Array::from_iter_values(
                records.iter().map(|bad| bad.position),
            )),
            texts(|bad| Cow::Borrowed(&bad.reason)),
            texts(|bad| String::from_utf8_lossy(&bad.record)),
        ],
    )
}

/// Reads one split.
pub(crate) enum Reader {
    Text(Box<text::TextReader>),
    Records(Box<records::RecordReader>),
    Parquet(Box<parquet::ParquetReader>),
    Arrow(Box<arrow_ipc::ArrowReader>),
}

impl Reader {
    pub(crate) fn open(
        inputs: &Inputs,
        plan: &FilesPlan,
        split: &FileSplit,
    ) -> Result<Self, Problem> {
        let bad = plan.bad_records.clone();
        Ok(match &plan.format {
            InputFormat::Text { utf8 } => {
                Self::Text(Box::new(text::TextReader::open(inputs, split, *utf8, bad)?))
            }
            InputFormat::Csv(_) | InputFormat::Json { .. } => {
                Self::Records(Box::new(records::RecordReader::open(inputs, plan, split)?))
            }
            InputFormat::Parquet { .. } => {
                Self::Parquet(Box::new(parquet::ParquetReader::open(inputs, plan, split)?))
            }
            InputFormat::Arrow { .. } => {
                Self::Arrow(Box::new(arrow_ipc::ArrowReader::open(inputs, plan, split)?))
            }
        })
    }

    /// Reads what somebody sends, in a format other than Parquet, which is read from its end. `name` is what errors call it.
    pub(crate) fn of_stream(
        format: &InputFormat,
        name: &str,
        bytes: Box<dyn io::Read + Send>,
    ) -> Result<Self, Problem> {
        Ok(match format {
            InputFormat::Text { utf8 } => {
                let blocks = blocks::Blocks::of_stream(name, bytes);
                Self::Text(Box::new(text::TextReader::of_stream(blocks, *utf8)))
            }
            InputFormat::Csv(_) | InputFormat::Json { .. } => {
                let blocks = blocks::Blocks::of_stream(name, bytes);
                Self::Records(Box::new(records::RecordReader::of_stream(blocks, format)?))
            }
            InputFormat::Arrow { .. } => {
                Self::Arrow(Box::new(arrow_ipc::ArrowReader::of_stream(name, bytes)?))
            }
            InputFormat::Parquet { .. } => {
                let detail = "Parquet cannot be read as it comes";
                return Err(Problem::new(ErrorCode::Internal, detail));
            }
        })
    }

    /// The columns of what comes next.
    pub(crate) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Text(reader) => &reader.schema,
            Self::Records(reader) => &reader.schema,
            Self::Parquet(reader) => &reader.schema,
            Self::Arrow(reader) => &reader.schema,
        }
    }

    /// The next rows, or nothing at the split's end.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        match self {
            Self::Text(reader) => reader.next(),
            Self::Records(reader) => reader.next(),
            Self::Parquet(reader) => reader.next(),
            Self::Arrow(reader) => reader.next(),
        }
    }

    /// Bytes read so far, after decompression of text formats; of Parquet those of the column chunks.
    pub(crate) fn bytes_read(&self) -> u64 {
        match self {
            Self::Text(reader) => reader.blocks.bytes_read,
            Self::Records(reader) => reader.blocks.bytes_read,
            Self::Parquet(reader) => reader.bytes_read,
            Self::Arrow(reader) => reader.bytes_read,
        }
    }

    /// Keys of JSON records that no column has.
    pub(crate) fn unknown(&self) -> Option<&Unknown> {
        match self {
            Self::Records(reader) => reader.unknown(),
            Self::Text(_) | Self::Parquet(_) | Self::Arrow(_) => None,
        }
    }

    /// What was left out so far. Parquet and Arrow have no bad records: a file is readable or it is not.
    pub(crate) fn left_out(&mut self) -> Option<&mut LeftOut> {
        match self {
            Self::Text(reader) => Some(&mut reader.left_out),
            Self::Records(reader) => Some(&mut reader.left_out),
            Self::Parquet(_) | Self::Arrow(_) => None,
        }
    }
}

/// The user's fault where the file is not there, not theirs to read, or broken; the platform's otherwise.
pub(crate) fn unreadable(path: &str, what: &str, error: &io::Error) -> Problem {
    let broken = matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other
    );
    let missing = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    );
    match (broken && !what.is_empty(), missing) {
        (true, _) => Problem::new(
            ErrorCode::BadRecord,
            format!("`{path}` is not readable {what}: {error}"),
        ),
        (_, true) => Problem::new(
            ErrorCode::BadRecord,
            format!("`{path}` cannot be read: {error}"),
        ),
        _ => Problem::new(
            ErrorCode::StoreUnavailable,
            format!("`{path}` cannot be read: {error}"),
        ),
    }
}

/// Fails where the file is not as it was when the job was planned.
fn check_size(split: &FileSplit, file: &std::fs::File) -> Result<(), Problem> {
    let metadata = file.metadata();
    let found = metadata
        .map_err(|error| unreadable(&split.path, "", &error))?
        .len();
    if found == split.file_bytes {
        return Ok(());
    }
    let detail = format!(
        "`{}` had {} bytes when the job was planned and has {found} now: inputs must not change under a job",
        split.path, split.file_bytes
    );
    Err(Problem::new(ErrorCode::BadRecord, detail))
}

/// Positions in a file of the columns of `schema`, in its order. Errors: a column is missing or of another type.
pub(crate) fn positions(
    path: &str,
    found: &SchemaRef,
    schema: &SchemaRef,
) -> Result<Vec<usize>, Problem> {
    let position = |field: &Arc<Field>| {
        let at = found.index_of(field.name()).ok();
        let fits = |at: &usize| common_field(field, found.field(*at)).is_some();
        at.filter(fits).ok_or_else(|| {
            let detail = format!(
                "`{path}` has no column `{}` of type {}, as the input has",
                field.name(),
                weft_sandbox::type_name(field.data_type())
            );
            Problem::new(ErrorCode::SchemaMismatch, detail)
        })
    };
    schema.fields().iter().map(position).collect()
}

/// The field that holds the values of both, if there is one: nullable where either is, of the other's type where one
/// holds nothing but null. Items of lists go by position whatever their name, members of structs by name in any
/// order.
pub(crate) fn common_field(field: &FieldRef, other: &Field) -> Option<FieldRef> {
    let data_type = common_type(
        field.data_type(),
        &weft_sandbox::guest_type(other.data_type()),
        matches!(other.data_type(), DataType::Null),
    )?;
    let is_nullable = field.is_nullable() || other.is_nullable();
    let common = Field::clone(field).with_data_type(data_type);
    Some(Arc::new(common.with_nullable(is_nullable)))
}

fn common_type(wanted: &DataType, found: &DataType, found_is_null: bool) -> Option<DataType> {
    match (wanted, found) {
        (wanted, found) if wanted == found => Some(wanted.clone()),
        (wanted, _) if found_is_null => Some(wanted.clone()),
        (DataType::Null, found) => Some(found.clone()),
        (DataType::List(item), DataType::List(other)) => {
            common_field(item, other).map(DataType::List)
        }
        (DataType::Struct(members), DataType::Struct(others)) => {
            if members.len() != others.len() {
                return None;
            }
            let member = |member: &FieldRef| {
                let other = others.iter().find(|other| other.name() == member.name());
                common_field(member, other?)
            };
            let members: Option<Vec<_>> = members.iter().map(member).collect();
            members.map(|members| DataType::Struct(members.into()))
        }
        _ => None,
    }
}

/// A value that does not fit is an error, not null.
const EXACT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: FormatOptions::new(),
};

/// The batch in the order and types of `schema`.
pub(crate) fn conform(
    batch: RecordBatch,
    order: &[usize],
    schema: &SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = order.iter().zip(schema.fields());
    let columns =
        columns.map(|(position, field)| exact::cast(batch.column(*position), field.data_type()));
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)
}
