//! Records of text formats with columns: CSV, and JSON lines.
//!
//! A block of CSV is decoded at once; where that fails, it is halved until the bad records stand alone. JSON is decoded
//! record by record.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use weft_core::Problem;
use weft_core::job::{BadRecords, CsvFormat, InputFormat, UnknownFields};

use super::blocks::{Blocks, Dialect, ends};
use super::format::{CsvDecoder, NEVER_CLOSED, csv_format, header_end, header_names};
use super::infer::{self, Origin};
use super::json::{Decoder, Unknown, with_rest};
use super::reason::Reason;
use super::{BATCH_ROWS, BadRecord, Inputs, LeftOut};
use crate::plan::{FileSplit, FilesPlan, Part};
use crate::problems::internal;

/// Decoder of the records.
enum Format {
    Csv(CsvDecoder),
    Json(Box<Decoder>),
    /// The file has no bytes once it is decompressed, and no header either.
    Nothing,
}

/// Reads the records of one split.
pub(crate) struct RecordReader {
    pub(super) blocks: Blocks,
    pub(super) left_out: LeftOut,
    format: Format,
    dialect: Dialect,
    pub(super) schema: SchemaRef,
    ready: VecDeque<RecordBatch>,
    /// JSON lines that are not decoded yet.
    lines: Option<Lines>,
    /// Columns of a CSV file that the input, whose columns were inferred, does not have.
    extra: Vec<String>,
    /// Their values.
    passed_over: Unknown,
}

/// A block of lines, the first of which are decoded.
struct Lines {
    block: Vec<u8>,
    start: usize,
    /// The position of the block in the (decompressed) file.
    position: u64,
}

impl RecordReader {
    pub(super) fn open(
        inputs: &Inputs,
        plan: &FilesPlan,
        split: &FileSplit,
    ) -> Result<Self, Problem> {
        let dialect = Dialect::of(&plan.format);
        let mut extra = Vec::new();
        let mut blocks = Blocks::open(inputs, split, dialect)?;
        blocks.skip_mark()?;
        let format = match &plan.format {
            InputFormat::Csv(csv) if csv.header => match Header::read(inputs, csv, split)? {
                None => Format::Nothing,
                Some(Header { names, end }) => {
                    skip_to(&mut blocks, end)?;
                    if csv.columns.is_empty() {
                        let is_extra = |name: &&String| plan.schema.index_of(name).is_err();
                        extra = names.iter().filter(is_extra).cloned().collect();
                    }
                    Format::Csv(csv_format(csv, &plan.schema, &split.path, Some(names))?)
                }
            },
            InputFormat::Csv(csv) => Format::Csv(csv_format(csv, &plan.schema, &split.path, None)?),
            InputFormat::Json {
                columns,
                unknown_fields,
            } => {
                let is_declared = !columns.is_empty();
                let decoder = Decoder::new(&plan.schema, *unknown_fields, is_declared);
                Format::Json(Box::new(decoder))
            }
            _ => Format::Nothing,
        };
        Ok(Self {
            blocks,
            left_out: LeftOut::new(plan.bad_records.clone()),
            format,
            dialect,
            schema: Arc::clone(&plan.schema),
            ready: VecDeque::new(),
            lines: None,
            extra,
            passed_over: Unknown::new(UnknownFields::Ignore),
        })
    }

    /// The records of what somebody sends. Its columns are those that the first ones seem to have.
    pub(super) fn of_stream(mut blocks: Blocks, input: &InputFormat) -> Result<Self, Problem> {
        let dialect = Dialect::of(input);
        let whole = blocks.fill_first(dialect)?;
        let first = &blocks.pending[..whole];
        let name = &blocks.split.path;
        let (format, schema) = match input {
            InputFormat::Csv(csv) => {
                let schema = infer::csv_columns(csv, name, first, &BadRecords::Fail, Origin::Body)?;
                let header = match csv.header {
                    true => header_end(name, dialect, first)?,
                    false => 0,
                };
                let names = match csv.header {
                    true => Some(header_names(csv, name, &first[..header])?),
                    false => None,
                };
                let format = Format::Csv(csv_format(csv, &schema, name, names)?);
                blocks.consume(header);
                (format, schema)
            }
            _ => {
                let schema = infer::json_columns(name, first, &BadRecords::Fail, Origin::Body)?;
                let unknown_fields = UnknownFields::default();
                let schema = with_rest(&schema, unknown_fields);
                let decoder = Decoder::new(&schema, unknown_fields, false);
                (Format::Json(Box::new(decoder)), schema)
            }
        };
        Ok(Self {
            blocks,
            left_out: LeftOut::of_stream(),
            format,
            dialect,
            schema,
            ready: VecDeque::new(),
            lines: None,
            extra: Vec::new(),
            passed_over: Unknown::new(UnknownFields::Ignore),
        })
    }

    /// The next rows, none where all records of a block are left out, or nothing at the split's end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        let batch = self.decoded()?;
        let rows = batch.as_ref().map_or(0, RecordBatch::num_rows) as u64;
        if rows > 0 {
            for name in &self.extra {
                self.passed_over.add_values(name, rows);
            }
        }
        Ok(batch)
    }

    fn decoded(&mut self) -> Result<Option<RecordBatch>, Problem> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(Some(batch));
        }
        if let Some(lines) = self.lines.take() {
            self.decode_lines(lines)?;
            return Ok(Some(self.next_ready()));
        }
        if self.blocks.is_at_end() {
            return Ok(None);
        }
        self.blocks.fill_block()?;
        let mut whole = self.blocks.whole_records(self.dialect);
        while whole == 0 && !self.blocks.ended {
            self.blocks.fill_record("record")?;
            whole = self.blocks.whole_records(self.dialect);
        }
        let position = self.blocks.position;
        let mut block = self.blocks.take(whole);
        if !block
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            block.push(b'\n');
        }
        match &mut self.format {
            Format::Csv(decoder) => match decoder.decode(&self.schema, &block) {
                Ok(batches) => self.ready.extend(batches),
                Err(_) => self.decode_records(&block, position)?,
            },
            Format::Json(_) => self.decode_lines(Lines {
                block,
                start: 0,
                position,
            })?,
            Format::Nothing => {}
        }
        Ok(Some(self.next_ready()))
    }

    /// The next rows that are decoded; none where there are none.
    fn next_ready(&mut self) -> RecordBatch {
        let none = || RecordBatch::new_empty(Arc::clone(&self.schema));
        self.ready.pop_front().unwrap_or_else(none)
    }

    /// Keys of JSON and columns of CSV that the input does not have.
    pub(super) fn unknown(&self) -> Option<&Unknown> {
        match &self.format {
            Format::Json(decoder) => Some(&decoder.unknown),
            Format::Csv(_) => Some(&self.passed_over),
            Format::Nothing => None,
        }
    }

    /// Decodes JSON lines until a batch is complete, or all of the block are decoded.
    fn decode_lines(&mut self, mut lines: Lines) -> Result<(), Problem> {
        let Format::Json(decoder) = &mut self.format else {
            return Ok(());
        };
        while lines.start < lines.block.len() && !decoder.is_full() {
            let rest = &lines.block[lines.start..];
            let bytes = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..bytes];
            if let Err(reason) = decoder.decode(line) {
                let bad = BadRecord {
                    position: lines.position + lines.start as u64,
                    reason: reason.what,
                    record: line.trim_ascii_end().to_vec(),
                };
                self.left_out.add(&self.blocks.split, bad, reason.advice)?;
            }
            lines.start += bytes + 1;
        }
        self.ready
            .extend(decoder.take().map_err(|error| internal(&error))?);
        if lines.start < lines.block.len() {
            self.lines = Some(lines);
        }
        Ok(())
    }

    /// Decodes what it can of a block of CSV that has bad records.
    fn decode_records(&mut self, block: &[u8], position: u64) -> Result<(), Problem> {
        let ends: Vec<usize> = ends(self.dialect, block, 0).collect();
        let mut decoded = Vec::new();
        // First and last record of the parts that are to be decoded; the next part is at the end.
        let mut todo = Vec::new();
        match ends.len().checked_sub(1) {
            Some(last) => todo.push((0, last)),
            None => self.leave_out(block, position, Reason::malformed(NEVER_CLOSED))?,
        }
        let Format::Csv(decoder) = &self.format else {
            return Ok(());
        };
        let mut bad = Vec::new();
        while let Some((first, last)) = todo.pop() {
            let start = if first == 0 { 0 } else { ends[first - 1] };
            let bytes = &block[start..ends[last]];
            match decoder.decode(&self.schema, bytes) {
                Ok(batches) => decoded.extend(batches),
                Err(error) if first == last => {
                    // Who only skips reads no reasons.
                    let reason = match self.left_out.is_told() {
                        true => decoder.reason(&self.schema, bytes, &error),
                        false => Reason::malformed(""),
                    };
                    bad.push((start, ends[last], reason));
                    if self.left_out.is_final() {
                        break;
                    }
                }
                Err(_) => {
                    let middle = first + (last - first) / 2;
                    todo.push((middle + 1, last));
                    todo.push((first, middle));
                }
            }
        }
        for (start, end, reason) in bad {
            self.leave_out(&block[start..end], position + start as u64, reason)?;
        }
        let rest = ends.last().map_or(0, |end| *end);
        if rest > 0 && rest < block.len() {
            let reason = Reason::malformed(NEVER_CLOSED);
            self.leave_out(&block[rest..], position + rest as u64, reason)?;
        }
        // A function that sees what is left of a block sees it in one piece. Room is made for as many rows as there are.
        let rows: usize = decoded.iter().map(RecordBatch::num_rows).sum();
        let mut whole = BatchCoalescer::new(Arc::clone(&self.schema), rows.clamp(1, BATCH_ROWS));
        let merge = || {
            for batch in decoded {
                whole.push_batch(batch)?;
            }
            whole.finish_buffered_batch()
        };
        merge().map_err(|error| internal(&error))?;
        self.ready
            .extend(std::iter::from_fn(|| whole.next_completed_batch()));
        Ok(())
    }

    fn leave_out(&mut self, record: &[u8], position: u64, reason: Reason) -> Result<(), Problem> {
        let bad = BadRecord {
            position,
            reason: reason.what,
            record: record.trim_ascii_end().to_vec(),
        };
        self.left_out.add(&self.blocks.split, bad, reason.advice)
    }
}

/// Drops what lies before `end`, a position in the file.
fn skip_to(blocks: &mut Blocks, end: u64) -> Result<(), Problem> {
    while blocks.position < end {
        blocks.fill_block()?;
        let left = usize::try_from(end - blocks.position).unwrap_or(usize::MAX);
        let skipped = left.min(blocks.pending.len());
        if skipped == 0 {
            break;
        }
        blocks.consume(skipped);
    }
    Ok(())
}

/// The first record of a CSV file that is not blank.
struct Header {
    names: Vec<String>,
    /// The end in the (decompressed) file.
    end: u64,
}

impl Header {
    /// Nothing where the file is empty.
    fn read(inputs: &Inputs, csv: &CsvFormat, split: &FileSplit) -> Result<Option<Self>, Problem> {
        let dialect = Dialect::of(&InputFormat::Csv(csv.clone()));
        let whole = FileSplit {
            part: Part::Whole,
            ..split.clone()
        };
        let mut blocks = Blocks::open_front(inputs, &whole, dialect)?;
        let bytes = blocks.fill_first(dialect)?;
        let (begins, block) = (blocks.position, blocks.take(bytes));
        if block.trim_ascii().is_empty() {
            return Ok(None);
        }
        let end = header_end(&split.path, dialect, &block)?;
        Ok(Some(Self {
            names: header_names(csv, &split.path, &block[..end])?,
            end: begins + end as u64,
        }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::scan::record_starts;

    fn rows(path: &str, format: &InputFormat, part: Part) -> Result<Vec<String>, Problem> {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Utf8, true),
            Field::new("b", DataType::Int64, true),
        ]);
        let plan = FilesPlan {
            input: "rows".into(),
            format: format.clone(),
            schema: Arc::new(schema),
            splits: Vec::new(),
            bad_records: BadRecords::Fail,
            dead_letters: None,
        };
        let split = FileSplit {
            path: path.into(),
            file_bytes: std::fs::metadata(path).expect("it is there").len(),
            e_tag: None,
            part,
        };
        let mut reader = RecordReader::open(&Inputs::default(), &plan, &split)?;
        let mut rows = Vec::new();
        while let Some(batch) = reader.next()? {
            rows.extend((0..batch.num_rows()).map(|row| {
                let value = |column: usize| {
                    let column = batch.column(column);
                    arrow::util::display::array_value_to_string(column, row).expect("text")
                };
                format!("{}={}", value(0), value(1))
            }));
        }
        Ok(rows)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().prefix("records").tempfile();
        let file = file.expect("a file");
        std::fs::write(file.path(), text).expect("it writes");
        file
    }

    #[track_caller]
    fn check(format: &InputFormat, text: &str, expected: &[&str]) {
        let file = file(text);
        let path = file.path().to_str().expect("a plain name");
        assert_eq!(rows(path, format, Part::Whole).expect("it reads"), expected);
        let n = text.len() as u64;
        for cut in 1..n {
            let cut = record_starts(&Inputs::default(), (path, n), Dialect::of(format), &[cut])
                .expect("it reads")[0];
            let mut found = Vec::new();
            for (start, end) in [(0, cut), (cut, n)] {
                if start < end {
                    let part = Part::Bytes { start, end };
                    found.extend(rows(path, format, part).expect("it reads"));
                }
            }
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    fn csv(header: bool) -> InputFormat {
        InputFormat::Csv(CsvFormat {
            header,
            delimiter: b',',
            quote: Some(b'"'),
            columns: Vec::new(),
        })
    }

    fn json() -> InputFormat {
        InputFormat::Json {
            columns: vec![],
            unknown_fields: UnknownFields::Ignore,
        }
    }

    #[track_caller]
    fn check_bad(format: &InputFormat, text: &str, expected: &str) {
        let file = file(text);
        let problem = rows(file.path().to_str().expect("text"), format, Part::Whole);
        let problem = problem.expect_err("it is bad");
        assert!(problem.detail.contains(expected), "{problem}");
    }

    #[test]
    fn what_is_no_record_is_told() {
        check_bad(
            &csv(false),
            "x,1\n\"y,2\n",
            "byte 4: a quote is never closed",
        );
        check_bad(&csv(true), "a,\"b\nx,1\n", "the header cannot be read");
        for text in [
            "x,1\n\"y,2\nz,3\n\"v\",4\n",
            "x,1\n\"y\"y,2\n",
            "x,1\n\"y\" ,2\n",
        ] {
            let expected = "byte 4: there is text behind a closing quote";
            check_bad(&csv(false), text, expected);
        }
        check_bad(&csv(false), "x,1\ny\n", "byte 4");
        check_bad(&json(), "{\"b\":\n1}\n", "byte 0");
        check_bad(
            &json(),
            "{\"b\": 1} {\"b\": 2}\n",
            "trailing characters at byte 10",
        );
        check_bad(&json(), "{\"b\": 1.5e300}\n", "byte 0");
    }

    #[test]
    fn what_would_lose_something_is_no_record() {
        for number in [
            "1.5",
            "-1.99",
            "1e-1",
            "\"1.5\"",
            "\"7\"",
            "9223372036854775808",
        ] {
            check_bad(&json(), &format!("{{\"b\": {number}}}\n"), "byte 0");
        }
        let text = "{\"a\": 1.5, \"b\": 9007199254740993}\n{\"a\": null, \"b\": -7}\n";
        check(&json(), text, &["1.5=9007199254740993", "=-7"]);
    }

    #[test]
    fn line_ends_of_all_kinds_and_marks() {
        check(&csv(true), "a,b\rx,1\ry,2\r", &["x=1", "y=2"]);
        check(
            &csv(true),
            "a,b\r\nx,1\r\n\"y\r\n\",2\r\n",
            &["x=1", "y\r\n=2"],
        );
        check(&csv(true), "\u{feff}a,b\nx,1\n", &["x=1"]);
        check(&csv(true), "\r\n\na,b\nx,1\n", &["x=1"]);
        check(
            &csv(true),
            "a,b\nx,1.0\ny,1e3\nz,0\n",
            &["x=1", "y=1000", "z=0"],
        );
        check(&csv(false), "\u{feff}x,1\r\n", &["x=1"]);
        check(&json(), "\u{feff}{\"b\": 1}\r\n{\"b\": 2}", &["=1", "=2"]);
        check(&json(), "{\"a\": 5}\n{\"a\": \"x\"}\n", &["5=", "x="]);
    }

    #[test]
    fn every_way_of_splitting_gives_each_record_once() {
        check(
            &csv(true),
            "b,a\n1,\"x\ny\"\n2,\"\"\"\"\n\n3,z",
            &["x\ny=1", "\"=2", "z=3"],
        );
        check(&csv(false), "x,1\n\"y,\n\n\",2\n", &["x=1", "y,\n\n=2"]);
        check(&csv(false), "x,1\ny,2\nz,3", &["x=1", "y=2", "z=3"]);
        check(
            &csv(false),
            "x\"y,1\n\"\",2\n\"\"\"x\"\"\",\"3\"\r\n",
            &["x\"y=1", "=2", "\"x\"=3"],
        );
        check(&csv(true), "a,b\n", &[]);
        let text = "{\"a\": \"x\", \"b\": 1}\n{\"a\": \"y\"}\n\n{\"b\": 3, \"c\": 4}";
        check(&json(), text, &["x=1", "y=", "=3"]);
        check(&json(), "{\"a\": \"x\"}\n{\"a\": \"y\"}\n", &["x=", "y="]);
    }
}
