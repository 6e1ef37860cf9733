//! What turns batches into the bytes of a file, or of an answer.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use weft_core::job::OutputFormat;
use weft_protocol::RowsFormat;

use crate::arrow_messages::MessageWriter;
use crate::carrier::Restored;
use crate::times::check_times;

/// Bytes of one row as JSON, which the writer holds: in lists of structs, names are repeated for each item.
const JSON_ROW_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a value that has a width of its own, as text, at the most.
const VALUE_TEXT_BYTES: u64 = 48;

/// Encodes batches into `W`, columns as [what they stand for](crate::carrier).
pub(crate) struct Encoder<W: Write + Send> {
    columns: Restored,
    writer: Writer<W>,
}

enum Writer<W: Write + Send> {
    Parquet(Box<ArrowWriter<W>>),
    Csv(Box<arrow_csv::Writer<W>>),
    Json(Box<arrow_json::LineDelimitedWriter<W>>),
    Arrow(Box<FileWriter<W>>),
    ArrowStream(Box<StreamWriter<W>>),
    ArrowMessages(Box<MessageWriter<W>>),
}

impl<W: Write + Send> Encoder<W> {
    /// A file in this format.
    pub(crate) fn file(
        format: OutputFormat,
        schema: &SchemaRef,
        to: W,
    ) -> Result<Self, ArrowError> {
        let columns = Restored::new(schema);
        let schema = &columns.schema;
        let writer = match format {
            OutputFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_created_by("weft".into())
                    .build();
                let writer = ArrowWriter::try_new(to, Arc::clone(schema), Some(properties))?;
                Writer::Parquet(Box::new(writer))
            }
            OutputFormat::Csv => {
                let mut writer = arrow_csv::Writer::new(to);
                // The header, which a file without rows has as well.
                writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                Writer::Csv(Box::new(writer))
            }
            OutputFormat::Json => Writer::Json(Box::new(arrow_json::LineDelimitedWriter::new(to))),
            OutputFormat::Arrow => Writer::Arrow(Box::new(FileWriter::try_new(to, schema)?)),
        };
        Ok(Self { columns, writer })
    }

    /// What can be read as it comes: Arrow as a stream, and no Parquet, whose end says where what is.
    pub(crate) fn stream(
        format: OutputFormat,
        schema: &SchemaRef,
        to: W,
    ) -> Result<Self, ArrowError> {
        match format {
            OutputFormat::Arrow => {
                let columns = Restored::new(schema);
                let writer = StreamWriter::try_new(to, &columns.schema)?;
                Ok(Self {
                    columns,
                    writer: Writer::ArrowStream(Box::new(writer)),
                })
            }
            OutputFormat::Parquet => {
                let what = "Parquet cannot be written as it goes";
                Err(ArrowError::NotYetImplemented(what.into()))
            }
            format => Self::file(format, schema, to),
        }
    }

    /// Rows in a format that their reader asked for.
    pub(crate) fn rows(format: RowsFormat, schema: &SchemaRef, to: W) -> Result<Self, ArrowError> {
        match format {
            RowsFormat::File(format) => Self::stream(format, schema, to),
            RowsFormat::Messages => {
                let columns = Restored::new(schema);
                let writer = MessageWriter::try_new(to, &columns.schema)?;
                Ok(Self {
                    columns,
                    writer: Writer::ArrowMessages(Box::new(writer)),
                })
            }
        }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let batch = &self.columns.batch(batch)?;
        match &mut self.writer {
            Writer::Parquet(writer) => Ok(writer.write(batch)?),
            Writer::Csv(writer) => writer.write(batch),
            Writer::Json(writer) => {
                // The writer would put the text of an error where the time belongs.
                check_times(batch)?;
                for rows in slices(batch, JSON_ROW_BYTES_MAX) {
                    let bytes = match text_bytes(&rows, Escapes::All) {
                        bytes if bytes <= JSON_ROW_BYTES_MAX => bytes,
                        _ => text_bytes(&rows, Escapes::AsThereAre),
                    };
                    if bytes > JSON_ROW_BYTES_MAX {
                        let most = JSON_ROW_BYTES_MAX >> 20;
                        let what = format!(
                            "a row takes {} MiB as JSON; {most} are allowed",
                            bytes >> 20
                        );
                        return Err(ArrowError::JsonError(what));
                    }
                    writer.write(&rows)?;
                }
                Ok(())
            }
            Writer::Arrow(writer) => writer.write(batch),
            Writer::ArrowStream(writer) => writer.write(batch),
            Writer::ArrowMessages(writer) => writer.write(batch),
        }
    }

    /// Bytes that are encoded and not yet written.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.writer {
            Writer::Parquet(writer) => writer.in_progress_size(),
            Writer::Csv(_)
            | Writer::Json(_)
            | Writer::Arrow(_)
            | Writer::ArrowStream(_)
            | Writer::ArrowMessages(_) => 0,
        }
    }

    pub(crate) fn flush(&mut self) -> Result<(), ArrowError> {
        match &mut self.writer {
            Writer::Parquet(writer) => Ok(writer.flush()?),
            Writer::Csv(_)
            | Writer::Json(_)
            | Writer::Arrow(_)
            | Writer::ArrowStream(_)
            | Writer::ArrowMessages(_) => Ok(()),
        }
    }

    pub(crate) fn finish(self) -> Result<W, ArrowError> {
        match self.writer {
            Writer::Parquet(writer) => Ok(writer.into_inner()?),
            Writer::Csv(writer) => Ok(writer.into_inner()),
            Writer::Json(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner())
            }
            Writer::Arrow(writer) => writer.into_inner(),
            Writer::ArrowStream(writer) => writer.into_inner(),
            Writer::ArrowMessages(writer) => Ok(writer.into_inner()),
        }
    }
}

/// Cuts a batch into parts that take no more than `bytes` as text, as far as single rows do not.
pub(crate) fn slices(batch: &RecordBatch, bytes: u64) -> Vec<RecordBatch> {
    let (mut todo, mut done) = (vec![batch.clone()], Vec::new());
    while let Some(part) = todo.pop() {
        let rows = part.num_rows();
        if rows <= 1 || text_bytes(&part, Escapes::All) <= bytes {
            done.push(part);
            continue;
        }
        let half = rows / 2;
        todo.push(part.slice(half, rows - half));
        todo.push(part.slice(0, half));
    }
    done
}

/// What is taken for a byte of text.
#[derive(Clone, Copy)]
enum Escapes {
    /// As much as any takes, `\u001f`.
    All,
    /// What each does: all of them are looked at.
    AsThereAre,
}

impl Escapes {
    fn bytes(self, text: &[u8]) -> u64 {
        let one = |byte: &u8| match byte {
            0..0x20 => 6,
            b'"' | b'\\' => 2,
            _ => 1,
        };
        match self {
            Escapes::All => 6 * text.len() as u64,
            Escapes::AsThereAre => text.iter().map(one).sum(),
        }
    }
}

/// Bytes of a batch as JSON, at the most; as CSV, it takes less.
fn text_bytes(batch: &RecordBatch, escapes: Escapes) -> u64 {
    let fields = batch.schema_ref().fields().iter();
    let columns = fields.zip(batch.columns());
    let rows = batch.num_rows() as u64;
    let bytes = columns.map(|(field, column)| named(field.name(), column, rows, escapes));
    bytes.fold(0, u64::saturating_add)
}

/// What `rows` values take with their name before each.
fn named(name: &str, column: &ArrayRef, rows: u64, escapes: Escapes) -> u64 {
    let name = escapes.bytes(name.as_bytes()) + 8;
    name.saturating_mul(rows)
        .saturating_add(values_text_bytes(column, escapes))
}

fn values_text_bytes(column: &ArrayRef, escapes: Escapes) -> u64 {
    let rows = column.len() as u64;
    match column.data_type() {
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            let (first, n) = ends(texts.value_offsets());
            escapes.bytes(&texts.value_data()[first..first + n]) + 8 * rows
        }
        // Two digits each.
        DataType::Binary => 2 * ends(column.as_binary::<i32>().value_offsets()).1 as u64 + 8 * rows,
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let (first, n) = ends(lists.value_offsets());
            let items = lists.values().slice(first, n);
            values_text_bytes(&items, escapes).saturating_add(8 * rows)
        }
        DataType::Struct(fields) => {
            let members = fields.iter().zip(column.as_struct().columns());
            let bytes = members.map(|(field, member)| named(field.name(), member, rows, escapes));
            bytes.fold(8 * rows, u64::saturating_add)
        }
        _ => VALUE_TEXT_BYTES * rows,
    }
}

/// Where the values begin that offsets lead to, and how many there are.
fn ends(offsets: &[i32]) -> (usize, usize) {
    let number =
        |offset: Option<&i32>| offset.map_or(0, |offset| usize::try_from(*offset).unwrap_or(0));
    let (first, last) = (number(offsets.first()), number(offsets.last()));
    (first, last - first)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, ListArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Fields, Schema};

    use super::*;

    fn written(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let mut encoder = Encoder::file(OutputFormat::Json, batch.schema_ref(), Vec::new())?;
        encoder.write(batch)?;
        encoder.finish()
    }

    #[test]
    fn what_text_takes_is_never_more_than_was_thought() {
        let texts = StringArray::from(vec!["\u{1}\u{2}", "", "\u{e9}\"\\"]);
        let batch = RecordBatch::try_from_iter([("a\"b", Arc::new(texts) as ArrayRef)]);
        let batch = batch.expect("one column");
        for rows in [batch.clone(), batch.slice(1, 2), batch.slice(2, 1)] {
            let bytes = written(&rows).expect("it writes").len() as u64;
            for escapes in [Escapes::All, Escapes::AsThereAre] {
                let thought = text_bytes(&rows, escapes);
                assert!(bytes <= thought, "{bytes} and {thought}");
            }
        }
        assert_eq!(slices(&batch, 1).len(), 3);
        assert_eq!(slices(&batch, u64::MAX), [batch]);
    }

    /// Two megabytes of a guest's would be gigabytes of text, which no row may be.
    #[test]
    fn names_that_are_repeated_for_each_item_are_refused() {
        let name = "n".repeat(1000);
        let n_items = 1 << 20;
        let fields = Fields::from(vec![Field::new(name, DataType::Boolean, false)]);
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true; n_items]));
        let items = StructArray::new(fields.clone(), vec![flags], None);
        let item = Arc::new(Field::new("item", DataType::Struct(fields), false));
        let offsets = OffsetBuffer::from_lengths([n_items]);
        let lists = ListArray::new(Arc::clone(&item), offsets, Arc::new(items), None);
        let schema = Schema::new(vec![Field::new("lists", DataType::List(item), false)]);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(lists)]);
        let error = written(&batch.expect("one column")).expect_err("it is too much");
        assert!(error.to_string().contains("512 are allowed"), "{error}");
    }
}
