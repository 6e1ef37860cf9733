//! The columns of text formats: those that a job names, or those that the first records of its input seem to have.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{AsArray, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use weft_core::job::{BadRecords, ColumnSpec, ColumnType, CsvFormat, InputFormat};
use weft_core::{ErrorCode, Problem};

use super::Inputs;
use super::blocks::{Dialect, ends, first_block};
use super::format::{CsvDecoder, NOT_UTF8, csv_format, header_end, header_names, is_code};
use super::json::Shape;
use super::reason::{malformed_csv, malformed_json, plain, values};
use super::value;

/// Records that columns are inferred from.
const INFERRED_RECORDS_MAX: usize = 1000;
/// Files of a JSON input whose first records are looked at; of more, some in between are left out.
const SAMPLED_FILES_MAX: usize = 1000;
/// Records of each of them but the first.
const SAMPLED_RECORDS_MAX: usize = 100;
/// Files of a CSV table whose headers are compared when it is created.
const MAX_HEADERS: usize = 1000;

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

fn arrow_type(data_type: &ColumnType) -> DataType {
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
        ColumnType::Decimal128 { precision, scale } => DataType::Decimal128(*precision, *scale),
        ColumnType::List(item) => {
            DataType::List(Arc::new(Field::new("item", arrow_type(item), true)))
        }
        ColumnType::Struct(members) => DataType::Struct(fields(members)),
    }
}

fn fields(columns: &[ColumnSpec]) -> Fields {
    let field = |column: &ColumnSpec| Field::new(&column.name, arrow_type(&column.data_type), true);
    columns.iter().map(field).collect()
}

/// The columns that somebody names, each of which may hold null.
pub(crate) fn declared(columns: &[ColumnSpec]) -> SchemaRef {
    Arc::new(Schema::new(fields(columns)))
}

/// The columns of a CSV input: those that the job names, or those that its first file with records seems to have. Named
/// ones are looked for in the header of the first file; those of the others are held against them when they are read.
pub(crate) fn csv_schema(
    inputs: &Inputs,
    csv: &CsvFormat,
    files: &[(String, u64)],
    bad_records: &BadRecords,
) -> Result<SchemaRef, Problem> {
    let dialect = Dialect::of(&InputFormat::Csv(csv.clone()));
    if !csv.columns.is_empty() {
        let schema = declared(&csv.columns);
        let first = files.iter().find(|(_, bytes)| *bytes > 0);
        if let (true, Some((path, file_bytes))) = (csv.header, first)
            && let Some(names) = header(inputs, csv, path, *file_bytes)?
        {
            csv_format(csv, &schema, path, Some(names))?;
        }
        return Ok(schema);
    }
    let mut only_header = None;
    for (path, file_bytes) in files {
        let block = first_block(inputs, path, *file_bytes, dialect)?;
        let wanted = 1 + usize::from(csv.header);
        let (whole, mut start) = (ended(&block), 0);
        let records = ends(dialect, &whole, 0).filter(|end| {
            let record = &whole[std::mem::replace(&mut start, *end)..*end];
            !record.trim_ascii().is_empty()
        });
        let records = records.take(wanted).count();
        if is_blank(&block) {
            continue;
        }
        if records >= wanted {
            return csv_columns(csv, path, &block, bad_records, Origin::File);
        }
        only_header.get_or_insert((path, block));
    }
    match only_header {
        Some((path, block)) => csv_columns(csv, path, &block, bad_records, Origin::File),
        None => Err(nothing_to_infer_from(&files[0].0, Origin::File)),
    }
}

/// The names in the header of a file. Nothing if the file is blank.
fn header(
    inputs: &Inputs,
    csv: &CsvFormat,
    path: &str,
    file_bytes: u64,
) -> Result<Option<Vec<String>>, Problem> {
    let dialect = Dialect::of(&InputFormat::Csv(csv.clone()));
    let block = ended(&first_block(inputs, path, file_bytes, dialect)?).into_owned();
    if is_blank(&block) {
        return Ok(None);
    }
    let end = header_end(path, dialect, &block)?;
    header_names(csv, path, &block[..end]).map(Some)
}

/// Compares the headers of files with the columns of their table: those that it has must be there, and if they were
/// inferred, no others. Of very many files, the first ones are looked at.
///
/// Errors: `SchemaMismatch`, with the first file whose header differs.
pub(crate) fn check_headers(
    inputs: &Inputs,
    csv: &CsvFormat,
    schema: &SchemaRef,
    files: &[(&str, u64)],
) -> Result<(), Problem> {
    for (path, file_bytes) in files.iter().filter(|_| csv.header).take(MAX_HEADERS) {
        let Some(names) = header(inputs, csv, path, *file_bytes)? else {
            continue;
        };
        let mut other = names.iter().filter(|_| csv.columns.is_empty());
        if let Some(other) = other.find(|name| schema.index_of(name).is_err()) {
            let first = files.first().map_or("", |(path, _)| path);
            let detail = format!(
                "`{path}` has the column `{other}`, and the table has none: its columns are those of `{first}`. List \
                 the columns in the statement to leave others out, or keep the files apart"
            );
            return Err(Problem::new(ErrorCode::SchemaMismatch, detail));
        }
        csv_format(csv, schema, path, Some(names))?;
    }
    Ok(())
}

fn is_blank(block: &[u8]) -> bool {
    block.iter().all(u8::is_ascii_whitespace)
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
    let records = FirstRecords {
        path,
        block: &block,
        header,
        dialect,
        origin,
    };
    let names = match csv.header {
        true => header_names(csv, path, &block[..header])?,
        // Those of the first record that has values at all.
        false => {
            let n = records.iter().next().map(|record| values(csv, record));
            (1..=n.unwrap_or(0))
                .map(|position| format!("column_{position}"))
                .collect()
        }
    };
    if names.is_empty() {
        return Err(nothing_to_infer_from(path, origin));
    }
    let mut good = Vec::new();
    records.each(bad_records, |record| {
        if let Some(what) = malformed_csv(csv, names.len(), record) {
            return Err(what);
        }
        good.extend_from_slice(record);
        Ok(())
    })?;
    let columns = texts(csv, &names, &good);
    let columns = columns.map_err(|error| records.not_inferred(1, &plain(&error)))?;
    let shapes = columns.iter().map(|texts| {
        let mut shape = TextShape::default();
        texts.iter().flatten().for_each(|text| shape.add(text));
        shape
    });
    let shapes: Vec<TextShape> = shapes.collect();
    let fields = names.iter().zip(&shapes);
    let fields = fields.map(|(name, shape)| Field::new(name, shape.data_type(), true));
    Ok(Arc::new(Schema::new(fields.collect::<Fields>())))
}

/// The values of records of CSV, by column.
fn texts(
    csv: &CsvFormat,
    names: &[String],
    records: &[u8],
) -> Result<Vec<StringArray>, ArrowError> {
    let fields = names.iter().enumerate();
    let fields = fields.map(|(n, _)| Field::new(n.to_string(), DataType::Utf8, true));
    let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
    let all: Vec<usize> = (0..names.len()).collect();
    let decoder = CsvDecoder {
        csv: csv.clone(),
        schema: Arc::clone(&schema),
        projection: all.clone(),
        order: all,
    };
    let batches = decoder.decode(&schema, records)?;
    let whole = concat_batches(&schema, &batches)?;
    let columns = whole.columns().iter();
    Ok(columns.map(|column| column.as_string().clone()).collect())
}

/// The numbers seen in a column.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    /// The least and the largest whole number.
    whole: Option<(i128, i128)>,
    /// Numbers beyond all types: whole ones of more than 38 digits, fractions beyond the range of floats.
    is_huge: bool,
    has_fractions: bool,
}

impl Numbers {
    /// Adds a number as JSON writes it.
    pub(super) fn add(&mut self, text: &str) {
        if text.contains(['.', 'e', 'E']) || text == "-0" {
            match value::float64(text) {
                Some(_) => self.has_fractions = true,
                None => self.is_huge = true,
            }
            return;
        }
        match text.parse::<i128>() {
            Ok(value) if value.unsigned_abs() < 10_u128.pow(38) => {
                let (least, most) = self.whole.unwrap_or((value, value));
                self.whole = Some((least.min(value), most.max(value)));
            }
            _ => self.is_huge = true,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.whole.is_some() || self.is_huge || self.has_fractions
    }

    /// The type that holds all of them exactly, fractions as floats do.
    pub(super) fn data_type(&self) -> DataType {
        const FLOAT64_EXACT: i128 = 1 << 53;
        if self.is_huge {
            return DataType::Utf8;
        }
        let within = |(least, most): (i128, i128), from, to| from <= least && most <= to;
        match self.whole {
            _ if self.has_fractions => match self.whole {
                Some(range) if !within(range, -FLOAT64_EXACT, FLOAT64_EXACT) => DataType::Utf8,
                _ => DataType::Float64,
            },
            Some(range) if within(range, i64::MIN.into(), i64::MAX.into()) => DataType::Int64,
            Some(range) if within(range, 0, u64::MAX.into()) => DataType::UInt64,
            Some(_) => DataType::Decimal128(38, 0),
            None => DataType::Utf8,
        }
    }
}

/// The texts seen in a CSV column. Empty ones are null.
#[derive(Debug, Default)]
struct TextShape {
    boolean: bool,
    numbers: Numbers,
    /// `inf` and `NaN`, which are numbers beside numbers.
    no_finite_number: bool,
    date: bool,
    timestamp: bool,
    text: bool,
}

impl TextShape {
    fn add(&mut self, text: &str) {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        if text.is_empty() {
        } else if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            self.boolean = true;
        } else if is_number && is_number_of_csv(digits) {
            self.numbers.add(text);
        } else if matches!(text, "NaN" | "nan" | "inf" | "-inf") {
            self.no_finite_number = true;
        } else if value::date32(text).is_some() {
            self.date = true;
        } else if is_number && value::timestamp_us(text).is_some() {
            self.timestamp = true;
        } else {
            self.text = true;
        }
    }

    /// The type that holds all values exactly.
    fn data_type(&self) -> DataType {
        let kinds = [
            self.boolean,
            self.numbers.any(),
            self.date,
            self.timestamp,
            self.text,
        ];
        if kinds.iter().filter(|seen| **seen).count() != 1 {
            return DataType::Utf8;
        }
        match self {
            Self { numbers, .. } if numbers.any() => match self.no_finite_number {
                true if matches!(numbers.data_type(), DataType::Float64 | DataType::Int64) => {
                    let mut with_nan = Numbers {
                        has_fractions: true,
                        ..Numbers::default()
                    };
                    with_nan.whole = numbers.whole;
                    with_nan.data_type()
                }
                true => DataType::Utf8,
                false => numbers.data_type(),
            },
            _ if self.no_finite_number => DataType::Utf8,
            Self { boolean: true, .. } => DataType::Boolean,
            Self { date: true, .. } => DataType::Date32,
            Self {
                timestamp: true, ..
            } => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => DataType::Utf8,
        }
    }
}

/// Whether a text without its sign is a number, and not a code such as `007`.
fn is_number_of_csv(digits: &str) -> bool {
    !is_code(digits) && digits.parse::<f64>().is_ok()
}

/// The columns of a JSON input: those that the job names, or those that the first records of its files seem to have.
pub(crate) fn json_schema(
    inputs: &Inputs,
    columns: &[ColumnSpec],
    files: &[(String, u64)],
    bad_records: &BadRecords,
) -> Result<SchemaRef, Problem> {
    if !columns.is_empty() {
        return Ok(declared(columns));
    }
    let mut shape = Shape::default();
    let step = files.len().div_ceil(SAMPLED_FILES_MAX).max(1);
    let mut first = true;
    for (path, file_bytes) in files.iter().step_by(step) {
        let block = first_block(inputs, path, *file_bytes, Dialect::Lines)?;
        if is_blank(&block) {
            continue;
        }
        // The first file's head may be held against the job's wish; those of the others only add.
        match first {
            true => json_shape(&mut shape, path, &block, bad_records, Origin::File)?,
            false => {
                let before = shape.clone();
                json_keys(&mut shape, &block);
                // Records that fit no column beside the others are bad ones.
                if *bad_records != BadRecords::Fail && shape.schema().is_err() {
                    shape = before;
                }
            }
        }
        first = false;
    }
    json_shape_schema(&shape, &files[0].0, Origin::File)
}

/// The columns that a JSON input seems to have, which begins with these records.
pub(super) fn json_columns(
    path: &str,
    first: &[u8],
    bad_records: &BadRecords,
    origin: Origin,
) -> Result<SchemaRef, Problem> {
    let mut shape = Shape::default();
    json_shape(&mut shape, path, first, bad_records, origin)?;
    json_shape_schema(&shape, path, origin)
}

fn json_shape(
    shape: &mut Shape,
    path: &str,
    first: &[u8],
    bad_records: &BadRecords,
    origin: Origin,
) -> Result<(), Problem> {
    let block = ended(first);
    let records = FirstRecords {
        path,
        block: &block,
        header: 0,
        dialect: Dialect::Lines,
        origin,
    };
    records.each(bad_records, |record| {
        malformed_json(record).map_or(Ok(()), Err)?;
        let text = std::str::from_utf8(record).map_err(|_| NOT_UTF8.to_owned())?;
        shape.add_record(text.trim())
    })
}

/// Adds the first records of a further file. Bad ones are left to whoever reads it.
fn json_keys(shape: &mut Shape, block: &[u8]) {
    let lines = block.split(|byte| *byte == b'\n');
    let texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
    for text in texts.map(str::trim).take(SAMPLED_RECORDS_MAX) {
        if malformed_json(text.as_bytes()).is_none() && !text.is_empty() {
            let _ = shape.add_record(text);
        }
    }
}

fn json_shape_schema(shape: &Shape, path: &str, origin: Origin) -> Result<SchemaRef, Problem> {
    let schema = shape.schema().map_err(|what| {
        let advice = origin.advice();
        let detail = format!("`{path}`: its columns cannot be inferred: {what}; {advice}");
        Problem::new(ErrorCode::BadRecord, detail)
    })?;
    if schema.fields().is_empty() {
        return Err(nothing_to_infer_from(path, origin));
    }
    Ok(Arc::new(schema))
}

fn nothing_to_infer_from(path: &str, origin: Origin) -> Problem {
    let advice = match origin {
        Origin::File => "say them in `schema`",
        Origin::Body => "send one at least, or Arrow, which names its columns",
    };
    let detail = format!("`{path}` has no record to infer columns from; {advice}");
    Problem::new(ErrorCode::SchemaMismatch, detail)
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
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.header;
        let ends = ends(self.dialect, self.block, start);
        // Where there are quotes, ends are looked for from the beginning.
        let records = ends.filter(|end| *end > self.header).map(move |end| {
            let record = &self.block[start..end];
            start = end;
            record
        });
        // Between `\r` and `\n` there is an empty one.
        let records = records.filter(|record| !record.trim_ascii().is_empty());
        records.take(INFERRED_RECORDS_MAX)
    }

    /// Looks at each record. Errors: one is bad and the job wants none, or most are.
    fn each(
        &self,
        bad_records: &BadRecords,
        mut look: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), Problem> {
        let (mut n_good, mut bad) = (0_usize, Vec::new());
        for (number, record) in (1..).zip(self.iter()) {
            match look(record) {
                Ok(()) => n_good += 1,
                Err(what) if *bad_records == BadRecords::Fail => {
                    return Err(self.not_inferred(number, &what));
                }
                Err(what) => bad.push((number, what)),
            }
        }
        // Where most are bad, it is what they are held against that is wrong: a header, say, or the first record.
        match bad.first() {
            Some((number, what)) if bad.len() > n_good => Err(self.not_inferred(*number, what)),
            _ => Ok(()),
        }
    }

    fn not_inferred(&self, number: usize, what: &str) -> Problem {
        let detail = format!(
            "`{}`: its columns cannot be inferred: record {number}: {what}; {}",
            self.path,
            self.origin.advice()
        );
        Problem::new(ErrorCode::BadRecord, detail)
    }
}

#[cfg(test)]
mod tests {
    use weft_core::job::UnknownFields;

    use super::*;

    fn columns(format: &InputFormat, text: &str, bad: &BadRecords) -> Result<String, Problem> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("it writes");
        let (path, bytes) = (file.path().to_str().expect("text"), text.len() as u64);
        let inputs = Inputs::default();
        let schema = match format {
            InputFormat::Csv(csv) => csv_schema(&inputs, csv, &[(path.to_owned(), bytes)], bad)?,
            _ => json_schema(&inputs, &[], &[(path.to_owned(), bytes)], bad)?,
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
            let refused = json_schema(
                &Inputs::default(),
                &[],
                &[(path.to_owned(), bytes.len() as u64)],
                &BadRecords::Skip,
            );
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
            unknown_fields: UnknownFields::Ignore,
        };
        let text = "{\"a\": 1}\n{\"a\": \nnonsense\n{\"a\": 2, \"b\": \"x\"}";
        check(&json, text, "a Int64, b Utf8");
    }
}
