//! The columns of text formats: those that a job names, or those that the first records of its input seem to have.

use std::borrow::Cow;
use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use weft_core::job::{BadRecords, ColumnSpec, ColumnType, CsvFormat, InputFormat};
use weft_core::{ErrorCode, Problem};

use super::blocks::{Dialect, ends, first_block};
use super::format::{columns_format, header_end};
use super::reason::{malformed_csv, malformed_json, plain, values};

/// Records that columns are inferred from.
const INFERRED_RECORDS_MAX: usize = 1000;

/// What columns are inferred from, which decides what there is to be done where they cannot be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// A file of a job.
    File,
    /// What comes with a call.
    Body,
}

impl Origin {
    fn advice(self) -> &'static str {
        match self {
            Origin::File => {
                "mend the file, name the columns in `schema`, or let `bad_records` leave such records out"
            }
            Origin::Body => "mend it, or send Arrow, which names its columns",
        }
    }
}

fn arrow_type(data_type: ColumnType) -> DataType {
    match data_type {
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int8 => DataType::Int8,
        ColumnType::Int16 => DataType::Int16,
        ColumnType::Int32 => DataType::Int32,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Uint8 => DataType::UInt8,
        ColumnType::Uint16 => DataType::UInt16,
        ColumnType::Uint32 => DataType::UInt32,
        ColumnType::Uint64 => DataType::UInt64,
        ColumnType::Float32 => DataType::Float32,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Utf8 => DataType::Utf8,
        ColumnType::Date32 => DataType::Date32,
        ColumnType::TimestampUs => DataType::Timestamp(TimeUnit::Microsecond, None),
        ColumnType::Decimal128 { precision, scale } => DataType::Decimal128(precision, scale),
    }
}

fn declared(columns: &[ColumnSpec]) -> SchemaRef {
    let field = |column: &ColumnSpec| Field::new(&column.name, arrow_type(column.data_type), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Fields>()))
}

/// The columns of a CSV input: those that the job names, or those that its first file seems to have.
pub(crate) fn csv_schema(
    csv: &CsvFormat,
    path: &str,
    file_bytes: u64,
    bad_records: &BadRecords,
) -> Result<SchemaRef, Problem> {
    if !csv.columns.is_empty() {
        return Ok(declared(&csv.columns));
    }
    let block = first_block(
        path,
        file_bytes,
        Dialect::of(&InputFormat::Csv(csv.clone())),
    )?;
    csv_columns(csv, path, &block, bad_records, Origin::File)
}

/// The columns that a CSV input seems to have, which begins with these records.
pub(super) fn csv_columns(
    csv: &CsvFormat,
    path: &str,
    first: &[u8],
    bad_records: &BadRecords,
    origin: Origin,
) -> Result<SchemaRef, Problem> {
    let dialect = Dialect::of(&InputFormat::Csv(csv.clone()));
    let block = ended(first);
    let header = match csv.header {
        true => header_end(path, dialect, &block)?,
        false => 0,
    };
    let format = columns_format(csv).with_header(csv.header);
    let infer = |records: &[u8]| {
        let inferred = format.infer_schema(Cursor::new(records), Some(INFERRED_RECORDS_MAX));
        Ok(inferred?.0)
    };
    // What tells a record with too few values, or too many: the header, or else the first record.
    let like = match header {
        0 => ends(dialect, &block, 0).next().unwrap_or(0),
        header => header,
    };
    let columns = values(csv, &block[..like]);
    let check = |record: &[u8]| {
        let malformed = columns.and_then(|n| malformed_csv(csv, n, record));
        malformed.map_or(Ok(()), Err)?;
        let inferred = infer(&[&block[..like], record].concat());
        inferred.map_or_else(|error| Err(plain(&error)), |_| Ok(()))
    };
    let records = FirstRecords {
        path,
        block: &block,
        header,
        dialect,
        origin,
    };
    records.infer(bad_records, infer, check)
}

/// The columns of a JSON input, likewise.
pub(crate) fn json_schema(
    columns: &[ColumnSpec],
    path: &str,
    file_bytes: u64,
    bad_records: &BadRecords,
) -> Result<SchemaRef, Problem> {
    if !columns.is_empty() {
        return Ok(declared(columns));
    }
    let block = first_block(path, file_bytes, Dialect::Lines)?;
    json_columns(path, &block, bad_records, Origin::File)
}

/// The columns that a JSON input seems to have, likewise.
pub(super) fn json_columns(
    path: &str,
    first: &[u8],
    bad_records: &BadRecords,
    origin: Origin,
) -> Result<SchemaRef, Problem> {
    let block = ended(first);
    let infer = |records: &[u8]| {
        let records = Cursor::new(records);
        Ok(arrow_json::reader::infer_json_schema(records, Some(INFERRED_RECORDS_MAX))?.0)
    };
    let check = |record: &[u8]| {
        malformed_json(record).map_or(Ok(()), Err)?;
        infer(record).map_or_else(|error| Err(plain(&error)), |_| Ok(()))
    };
    let records = FirstRecords {
        path,
        block: &block,
        header: 0,
        dialect: Dialect::Lines,
        origin,
    };
    records.infer(bad_records, infer, check)
}

/// Records, the last one with a line end, too.
fn ended(records: &[u8]) -> Cow<'_, [u8]> {
    match records.ends_with(b"\n") {
        true => Cow::Borrowed(records),
        false => Cow::Owned([records, b"\n"].concat()),
    }
}

/// The records at the front of a file.
struct FirstRecords<'a> {
    path: &'a str,
    block: &'a [u8],
    /// Where the header ends.
    header: usize,
    dialect: Dialect,
    origin: Origin,
}

impl FirstRecords<'_> {
    /// The columns that they seem to have. `check` says what is wrong with one of them.
    fn infer(
        &self,
        bad_records: &BadRecords,
        infer: impl Fn(&[u8]) -> Result<Schema, ArrowError>,
        check: impl Fn(&[u8]) -> Result<(), String>,
    ) -> Result<SchemaRef, Problem> {
        match infer(&self.good(bad_records, &check)) {
            Ok(schema) => seen_by_functions(self.path, &schema, self.origin),
            Err(error) => Err(self.not_inferred(&error, check)),
        }
    }

    fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.header;
        let records = ends(self.dialect, self.block, start).map(move |end| {
            let record = &self.block[start..end];
            start = end;
            record
        });
        // Between `\r` and `\n` there is an empty one.
        let records = records.filter(|record| !record.trim_ascii().is_empty());
        records.take(INFERRED_RECORDS_MAX)
    }

    /// What columns are inferred from: the block, without the bad ones among its first records where those are left out and few.
    fn good(
        &self,
        bad_records: &BadRecords,
        check: impl Fn(&[u8]) -> Result<(), String>,
    ) -> Cow<'_, [u8]> {
        if *bad_records == BadRecords::Fail {
            return Cow::Borrowed(self.block);
        }
        let mut good = self.block[..self.header].to_vec();
        let (mut n_good, mut n_bad) = (0, 0);
        for record in self.records() {
            match check(record) {
                Ok(()) => {
                    good.extend_from_slice(record);
                    n_good += 1;
                }
                Err(_) => n_bad += 1,
            }
        }
        match n_bad > n_good {
            // It is what they are held against that is wrong: a header, say, or the first record.
            true => Cow::Borrowed(self.block),
            false => Cow::Owned(good),
        }
    }

    fn not_inferred(
        &self,
        error: &ArrowError,
        check: impl Fn(&[u8]) -> Result<(), String>,
    ) -> Problem {
        let bad = (1..).zip(self.records()).find_map(|(number, record)| {
            let what = check(record).err()?;
            Some(format!("record {number}: {what}"))
        });
        let detail = format!(
            "`{}`: its columns cannot be inferred: {}; {}",
            self.path,
            bad.unwrap_or_else(|| plain(error)),
            self.origin.advice()
        );
        Problem::new(ErrorCode::BadRecord, detail)
    }
}

/// Columns that were never seen to hold anything are text; times are in microseconds.
fn seen_by_functions(path: &str, schema: &Schema, origin: Origin) -> Result<SchemaRef, Problem> {
    fn seen(field: &Arc<Field>) -> Arc<Field> {
        let data_type = match field.data_type() {
            DataType::Null => DataType::Utf8,
            DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::List(item) => DataType::List(seen(item)),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(seen).collect()),
            other => other.clone(),
        };
        Arc::new(Field::new(field.name(), data_type, true))
    }
    if schema.fields().is_empty() {
        let advice = match origin {
            Origin::File => "say them in `schema`",
            Origin::Body => "send one at least, or Arrow, which names its columns",
        };
        let detail = format!("`{path}` has no record to infer columns from; {advice}");
        return Err(Problem::new(ErrorCode::SchemaMismatch, detail));
    }
    let fields: Fields = schema.fields().iter().map(seen).collect();
    Ok(Arc::new(Schema::new(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(format: &InputFormat, text: &str, bad: &BadRecords) -> Result<String, Problem> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("it writes");
        let (path, bytes) = (file.path().to_str().expect("text"), text.len() as u64);
        let schema = match format {
            InputFormat::Csv(csv) => csv_schema(csv, path, bytes, bad)?,
            _ => json_schema(&[], path, bytes, bad)?,
        };
        let column = |field: &Arc<Field>| format!("{} {}", field.name(), field.data_type());
        Ok(schema
            .fields()
            .iter()
            .map(column)
            .collect::<Vec<_>>()
            .join(", "))
    }

    #[track_caller]
    fn check(format: &InputFormat, text: &str, expected: &str) {
        let left_out = columns(format, text, &BadRecords::Skip);
        assert_eq!(left_out.expect("has columns"), expected);
        let failed = columns(format, text, &BadRecords::Fail).expect_err("one is bad");
        assert_eq!(failed.code, ErrorCode::BadRecord, "{failed}");
        assert!(failed.detail.contains("record 2: "), "{failed}");
    }

    #[test]
    fn files_that_say_that_they_are_utf16_are_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().to_str().expect("text");
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            let text = "\u{feff}{\"a\": 1}\n".encode_utf16();
            let bytes: Vec<u8> = text.flat_map(order).collect();
            std::fs::write(path, &bytes).expect("it writes");
            let refused = json_schema(&[], path, bytes.len() as u64, &BadRecords::Skip);
            let refused = refused.expect_err("it is no UTF-8");
            assert!(refused.detail.contains("UTF-16"), "{refused}");
        }
    }

    #[test]
    fn bad_records_are_left_out_where_the_input_leaves_them_out() {
        let csv = InputFormat::Csv(CsvFormat {
            header: true,
            delimiter: b',',
            quote: Some(b'"'),
            columns: Vec::new(),
        });
        let text = "a,b\nx,1\ny\nz,2,3\nv,4\n";
        check(&csv, text, "a Utf8, b Int64");
        check(&csv, &text.replace('\n', "\r\n"), "a Utf8, b Int64");
        let headless = InputFormat::Csv(CsvFormat {
            header: false,
            delimiter: b',',
            quote: Some(b'"'),
            columns: Vec::new(),
        });
        check(&headless, &text[4..], "column_1 Utf8, column_2 Int64");
        // Where most are bad nothing is inferred, rather than nearly all of them left out.
        for (format, text) in [
            (&csv, "a,b,c\nx,1\ny,2\nz,3\n"),
            (&headless, "title\nx,1\ny,2\nz,3\n"),
        ] {
            let failed = columns(format, text, &BadRecords::Skip).expect_err("most are bad");
            assert_eq!(failed.code, ErrorCode::BadRecord, "{failed}");
        }
        let behind_a_quote = "a,b\nx,1\n\"y\"y,\"2\n";
        let left_out = columns(&csv, behind_a_quote, &BadRecords::Skip);
        assert_eq!(left_out.expect("has columns"), "a Utf8, b Int64");
        let json = InputFormat::Json {
            columns: Vec::new(),
        };
        let text = "{\"a\": 1}\n{\"a\": \nnonsense\n{\"a\": 2, \"b\": \"x\"}";
        check(&json, text, "a Int64, b Utf8");
    }
}
