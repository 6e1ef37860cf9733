//! Formats of records: what turns their bytes into rows, and what it would take for something else.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use weft_core::job::{CsvFormat, InputFormat};
use weft_core::{ErrorCode, Problem};

use super::blocks::{Dialect, ends};
use super::exact::{decoded_field, may_be_inexact};
use super::{BATCH_ROWS, conform};

pub(super) const NOT_UTF8: &str = "it is not UTF-8";
/// A byte that text in UTF-8 never has, where values are not quoted.
const NO_QUOTE: u8 = 0xff;

/// A quote that nothing closes swallows the rest of its file.
pub(super) const NEVER_CLOSED: &str = "a quote is never closed";

/// Turns records of CSV into rows.
pub(super) struct CsvDecoder {
    pub(super) csv: CsvFormat,
    /// All columns of the file, in the types in which they are decoded.
    pub(super) schema: SchemaRef,
    /// Those that are read, in the order of the file.
    pub(super) projection: Vec<usize>,
    /// Positions of the input's columns among those.
    pub(super) order: Vec<usize>,
}

impl CsvDecoder {
    /// Decodes whole records into these columns. Errors: some of them are none.
    pub(super) fn decode(
        &self,
        columns: &SchemaRef,
        records: &[u8],
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        check_csv(&self.csv, records)?;
        // Numbers are decoded as texts where they may be codes, where the first time may have lost digits, or failed
        // over a whole number that is written as `1.0` or `1e3`: few blocks have such.
        let has_numbers = columns
            .fields()
            .iter()
            .any(|field| field.data_type().is_numeric());
        let may_have_codes =
            has_numbers && self.csv.columns.is_empty() && may_have_codes(&self.csv, records);
        let is_exact = |batches: &Vec<RecordBatch>| {
            !batches
                .iter()
                .flat_map(RecordBatch::columns)
                .any(may_be_inexact)
        };
        let numbers = match may_have_codes {
            true => None,
            false => self
                .decode_as(Arc::clone(&self.schema), records)
                .ok()
                .filter(is_exact),
        };
        let batches = match numbers {
            Some(batches) => batches,
            None => {
                let fields = self.schema.fields().iter();
                let fields = fields.map(|field| decoded_field(field, true));
                let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
                self.decode_as(schema, records)?
            }
        };
        if may_have_codes {
            self.check_codes(&batches, columns)?;
        }
        let conform = |batch| conform(batch, &self.order, columns);
        batches.into_iter().map(conform).collect()
    }

    /// Refuses texts such as `007` in columns that were inferred to hold numbers: they would lose their zeros.
    /// `batches`: numbers as texts.
    fn check_codes(&self, batches: &[RecordBatch], columns: &Schema) -> Result<(), ArrowError> {
        let positions = self.order.iter().zip(columns.fields());
        for (position, _) in positions.filter(|(_, field)| field.data_type().is_numeric()) {
            let texts = batches.iter();
            let texts = texts.filter_map(|batch| batch.column(*position).as_string_opt::<i32>());
            if let Some(code) = texts.flatten().flatten().find(|text| is_code(text)) {
                let what = format!("`{code}` is a code rather than a number");
                return Err(ArrowError::ParseError(what));
            }
        }
        Ok(())
    }

    fn decode_as(&self, schema: SchemaRef, records: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
        let builder = arrow_csv::ReaderBuilder::new(schema)
            .with_delimiter(self.csv.delimiter)
            .with_quote(self.csv.quote.unwrap_or(NO_QUOTE))
            .with_batch_size(rows_at_most(records))
            .with_projection(self.projection.clone());
        let mut decoder = builder.build_decoder();
        drain(records, |bytes| match bytes {
            Some(bytes) => decoder.decode(bytes).map(|read| (read, None)),
            None => decoder.flush().map(|batch| (0, batch)),
        })
    }
}

/// Whether a value may begin with a zero and another digit, or with `+`.
fn may_have_codes(csv: &CsvFormat, records: &[u8]) -> bool {
    let is_start = |before: &[u8]| match before.last() {
        None | Some(b'\n' | b'\r') => true,
        Some(byte) => *byte == csv.delimiter || Some(*byte) == csv.quote,
    };
    memchr::memchr2_iter(b'0', b'+', records).any(|at| {
        let before = &records[..at];
        let is_first = is_start(before) || before.strip_suffix(b"-").is_some_and(is_start);
        is_first && records.get(at + 1).is_some_and(u8::is_ascii_digit)
    })
}

/// Whether a text of digits has leading zeros, or a `+`: numbers are not written so, codes are.
pub(super) fn is_code(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let next = digits
        .strip_prefix('0')
        .and_then(|rest| rest.bytes().next());
    text.starts_with('+') || next.is_some_and(|next| next.is_ascii_digit())
}

/// Finds what the decoder of CSV would take for something else.
pub(super) fn check_csv(csv: &CsvFormat, records: &[u8]) -> Result<(), ArrowError> {
    let error = |what: &str| Err(ArrowError::ParseError(what.into()));
    match csv.quote {
        None if memchr::memchr(NO_QUOTE, records).is_some() => error(NOT_UTF8),
        Some(quote) if memchr::memchr(quote, records).is_some() => {
            let dialect = Dialect::Csv {
                delimiter: csv.delimiter,
                quote: csv.quote,
            };
            if ends(dialect, records, 0).last() != Some(records.len()) {
                return error(NEVER_CLOSED);
            }
            match has_text_behind_quotes(csv.delimiter, quote, records) {
                true => error("there is text behind a closing quote"),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// True where a quoted value does not end with its quote. The decoder would take it; but most often a quote that opens a value
/// was not closed, and what closes it stands in a later record.
fn has_text_behind_quotes(delimiter: u8, quote: u8, records: &[u8]) -> bool {
    let mut rest = records;
    loop {
        // At the start of a value.
        let is_end = |byte: u8| byte == delimiter || byte == b'\n' || byte == b'\r';
        if rest.first() != Some(&quote) {
            match memchr::memchr3(delimiter, b'\n', b'\r', rest) {
                Some(end) => rest = &rest[end + 1..],
                None => return false,
            }
            continue;
        }
        rest = &rest[1..];
        loop {
            let Some(at) = memchr::memchr(quote, rest) else {
                return false;
            };
            rest = &rest[at + 1..];
            match rest.first() {
                Some(byte) if *byte == quote => rest = &rest[1..],
                Some(byte) if is_end(*byte) => {
                    rest = &rest[1..];
                    break;
                }
                Some(_) => return true,
                None => return false,
            }
        }
    }
}

/// No more rows than line ends: decoders make room for as many as they are told.
fn rows_at_most(records: &[u8]) -> usize {
    let lines = memchr::memchr2_iter(b'\n', b'\r', records).take(BATCH_ROWS);
    lines.count().max(1)
}

/// Drives a decoder: it takes bytes until it has a batch, which it gives when it gets none.
fn drain(
    mut records: &[u8],
    mut decode: impl FnMut(Option<&[u8]>) -> Result<(usize, Option<RecordBatch>), ArrowError>,
) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut batches = Vec::new();
    loop {
        let (read, _) = decode(Some(records))?;
        records = &records[read..];
        if read == 0 || records.is_empty() {
            match decode(None)? {
                (_, Some(batch)) => batches.push(batch),
                (_, None) if records.is_empty() => return Ok(batches),
                (_, None) => {
                    let left = records.len();
                    let text = format!("{left} bytes of a block are no record");
                    return Err(ArrowError::ParseError(text));
                }
            }
        }
    }
}

impl Dialect {
    /// Where records of a text format end.
    pub(crate) fn of(format: &InputFormat) -> Self {
        match format {
            InputFormat::Csv(CsvFormat {
                delimiter, quote, ..
            }) => Self::Csv {
                delimiter: *delimiter,
                quote: *quote,
            },
            _ => Self::Lines,
        }
    }
}

/// The end of the first record of a file; blank lines before it belong to it.
fn first_record(dialect: Dialect, block: &[u8]) -> Option<usize> {
    let mut ends = ends(dialect, block, 0);
    ends.find(|end| !block[..*end].trim_ascii().is_empty())
}

/// Where the first record of a file ends. Errors: it has none, because a quote swallows all.
pub(super) fn header_end(path: &str, dialect: Dialect, block: &[u8]) -> Result<usize, Problem> {
    if let Some(end) = first_record(dialect, block) {
        return Ok(end);
    }
    match first_record(dialect, &[block, b"\n"].concat()) {
        Some(_) => Ok(block.len()),
        None => {
            let detail = format!("`{path}`: the header cannot be read: {NEVER_CLOSED}");
            Err(Problem::new(ErrorCode::BadRecord, detail))
        }
    }
}

/// What arrow counts and infers columns by; without a header.
pub(super) fn columns_format(csv: &CsvFormat) -> arrow_csv::reader::Format {
    arrow_csv::reader::Format::default()
        .with_delimiter(csv.delimiter)
        .with_quote(csv.quote.unwrap_or(NO_QUOTE))
}

/// The names of a header. A column without a name, as the index that pandas writes, is `column` and its position from
/// 0.
pub(super) fn header_names(
    csv: &CsvFormat,
    path: &str,
    header: &[u8],
) -> Result<Vec<String>, Problem> {
    let ended = [header, b"\n"].concat();
    if let Err(error) = check_csv(csv, &ended) {
        let what = super::reason::plain(&error);
        let detail = format!("`{path}`: its header cannot be read: {what}");
        return Err(Problem::new(ErrorCode::BadRecord, detail));
    }
    let format = columns_format(csv).with_header(true);
    let inferred = format.infer_schema(Cursor::new(header), Some(0));
    let (schema, _) = inferred.map_err(|error| {
        Problem::new(
            ErrorCode::BadRecord,
            format!("`{path}`: its header cannot be read: {error}"),
        )
    })?;
    let names = schema.fields().iter().enumerate();
    let names = names.map(|(position, field)| match field.name().as_str() {
        "" => format!("column{position}"),
        name => name.to_owned(),
    });
    Ok(names.collect())
}

/// A file's columns, in the types in which the decoder gives them.
fn decoded_csv(fields: impl Iterator<Item = Field>) -> SchemaRef {
    let fields = fields.map(|field| decoded_field(&field, false));
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

/// The columns of a file, and which of them are read. `names` are those of its header, where it has one.
pub(super) fn csv_format(
    csv: &CsvFormat,
    schema: &SchemaRef,
    path: &str,
    names: Option<Vec<String>>,
) -> Result<CsvDecoder, Problem> {
    let Some(names) = names else {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        return Ok(CsvDecoder {
            csv: csv.clone(),
            schema: decoded_csv(schema.fields().iter().map(|field| (**field).clone())),
            projection: all.clone(),
            order: all,
        });
    };
    let position = |field: &Arc<Field>| {
        if names.iter().filter(|name| *name == field.name()).count() > 1 {
            let detail = format!("`{path}` has the column `{}` twice", field.name());
            return Err(Problem::new(ErrorCode::SchemaMismatch, detail));
        }
        names
            .iter()
            .position(|name| name == field.name())
            .ok_or_else(|| {
                let detail = format!(
                    "`{path}` has no column `{}`; its header has `{}`",
                    field.name(),
                    names.join("`, `")
                );
                Problem::new(ErrorCode::SchemaMismatch, detail)
            })
    };
    let wanted = schema
        .fields()
        .iter()
        .map(position)
        .collect::<Result<Vec<_>, _>>()?;
    let (projection, order) = projected(&wanted);
    let field = |(at, name): (usize, &String)| match wanted.iter().position(|want| *want == at) {
        Some(column) => schema.field(column).clone(),
        None => Field::new(name, DataType::Utf8, true),
    };
    let fields = names.iter().enumerate().map(field);
    Ok(CsvDecoder {
        csv: csv.clone(),
        schema: decoded_csv(fields),
        projection,
        order,
    })
}

/// Positions in the order of the file, and where the wanted ones stand among those.
pub(super) fn projected(wanted: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let mut projection = wanted.to_vec();
    projection.sort_unstable();
    let order = wanted
        .iter()
        .map(|position| projection.partition_point(|other| other < position))
        .collect();
    (projection, order)
}
