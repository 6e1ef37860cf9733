//! What is wrong with a record that cannot be decoded, in the words of those who wrote the job: decoders count columns from 0,
//! and have names of their own for types.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde::de::IgnoredAny;
use weft_core::job::CsvFormat;

use super::format::{CsvDecoder, NOT_UTF8, check_csv, projected};

/// Characters that are shown of a value, and of a column's name and type.
const SHOWN_CHARS_MAX: usize = 100;

/// What is wrong with a record, and what to do about it.
pub(super) struct Reason {
    pub(super) what: String,
    pub(super) advice: &'static str,
}

impl Reason {
    /// Of a record that is none.
    pub(super) fn malformed(what: impl Into<String>) -> Reason {
        Reason {
            what: what.into(),
            advice: "mend it, or use `bad_records = \"skip\"` or `{ dead_letter = \"FOLDER\" }`",
        }
    }

    /// Of a record with a value that its column does not take.
    pub(super) fn misfit(what: String) -> Reason {
        Reason {
            what,
            advice: "mend it, give the column another type in `schema`, or use `bad_records = \"skip\"` or \
                     `{ dead_letter = \"FOLDER\" }`",
        }
    }
}

impl CsvDecoder {
    /// Why one record is none with these columns. `error` is what the decoder says.
    pub(super) fn reason(&self, columns: &SchemaRef, record: &[u8], error: &ArrowError) -> Reason {
        if let Some(what) = malformed_csv(&self.csv, self.schema.fields().len(), record) {
            return Reason::malformed(what);
        }
        let misfit = first_misfit(columns.fields().len(), |range| {
            let columns = Arc::new(Schema::new(&columns.fields()[range.clone()]));
            self.part(range).decode(&columns, record).is_err()
        });
        let told = misfit.and_then(|column| {
            let field = columns.field(column);
            let value = self.value(column, field, record)?;
            Some(not_valid(&value, field.name(), field.data_type()))
        });
        match told {
            Some(what) => Reason::misfit(what),
            None => Reason::malformed(plain(error)),
        }
    }

    /// The same for some of the columns.
    fn part(&self, columns: Range<usize>) -> CsvDecoder {
        let wanted: Vec<usize> = self.order[columns]
            .iter()
            .map(|at| self.projection[*at])
            .collect();
        let (projection, order) = projected(&wanted);
        CsvDecoder {
            csv: self.csv.clone(),
            schema: Arc::clone(&self.schema),
            projection,
            order,
        }
    }

    /// The text that stands in a column.
    fn value(&self, column: usize, field: &Field, record: &[u8]) -> Option<String> {
        let text = |name: &String| Field::new(name, DataType::Utf8, true);
        let fields = self.schema.fields().iter().map(|field| text(field.name()));
        let as_text = CsvDecoder {
            schema: Arc::new(Schema::new(fields.collect::<Fields>())),
            ..self.part(column..column + 1)
        };
        let column = Arc::new(Schema::new(vec![text(field.name())]));
        let batches = as_text.decode(&column, record).ok()?;
        let texts = batches.first()?.column(0).as_string_opt::<i32>()?;
        let text = texts.iter().next()??;
        Some(text.to_owned())
    }
}

/// The reason for a value that is not valid in its column's type.
pub(super) fn not_valid(value: &str, column: &str, data_type: &DataType) -> String {
    format!(
        "`{}` is not a valid {} (column `{}`)",
        shown(value),
        shown(&weft_sandbox::type_name(data_type)),
        shown(column)
    )
}

/// As much of a text as is shown.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The first of `n` columns with which decoding fails, found by halves. Nothing where it fails with none of them alone.
fn first_misfit(n: usize, fails: impl Fn(Range<usize>) -> bool) -> Option<usize> {
    let (mut start, mut end) = (0, n);
    while end - start > 1 {
        let middle = start + (end - start) / 2;
        match fails(start..middle) {
            true => end = middle,
            false => start = middle,
        }
    }
    (start < end && fails(start..end)).then_some(start)
}

/// What is wrong with the form of a record of CSV.
pub(super) fn malformed_csv(csv: &CsvFormat, columns: usize, record: &[u8]) -> Option<String> {
    if std::str::from_utf8(record).is_err() {
        return Some(NOT_UTF8.into());
    }
    if let Err(error) = check_csv(csv, record) {
        return Some(plain(&error));
    }
    let found = values(csv, record);
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    (found != columns).then(|| {
        format!(
            "it has {found} value{}, and there {} {columns} column{}",
            plural(found),
            if columns == 1 { "is" } else { "are" },
            plural(columns)
        )
    })
}

/// What is wrong with the form of a line of JSON.
pub(super) fn malformed_json(line: &[u8]) -> Option<String> {
    // What JSON takes for space, no more.
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let start = line.iter().position(|byte| !is_space(byte))?;
    let end = line.iter().rposition(|byte| !is_space(byte))?;
    let line = &line[start..=end];
    match serde_json::from_slice::<IgnoredAny>(line) {
        Err(_) if std::str::from_utf8(line).is_err() => Some(NOT_UTF8.into()),
        Err(error) => {
            // It knows this line only.
            let what = error.to_string().replace("line 1 column", "byte");
            Some(format!("the line is no JSON object: {what}"))
        }
        Ok(IgnoredAny) => {
            let other = match line.first() {
                Some(b'{') => return None,
                Some(b'[') => "an array (`jq -c '.[]'` makes lines of it)",
                _ => "a single value",
            };
            Some(format!("the line is no JSON object, but {other}"))
        }
    }
}

/// How many values a record of CSV has.
pub(super) fn values(csv: &CsvFormat, record: &[u8]) -> usize {
    #[derive(Clone, Copy)]
    enum Place {
        Start,
        Plain,
        Quoted,
        /// Behind a quote that ends the value, unless another one follows.
        Quote,
    }
    let end = record
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'));
    let record = end.map_or(&[][..], |end| &record[..=end]);
    let (mut n, mut place) = (1, Place::Start);
    for byte in record {
        let is_quote = Some(*byte) == csv.quote;
        place = match place {
            Place::Quoted if is_quote => Place::Quote,
            Place::Quoted => Place::Quoted,
            Place::Start | Place::Quote if is_quote => Place::Quoted,
            _ if *byte == csv.delimiter => {
                n += 1;
                Place::Start
            }
            _ => Place::Plain,
        };
    }
    n
}

/// What the decoder says, without its own name. It knows no other line than this one.
pub(super) fn plain(error: &ArrowError) -> String {
    let text = match error {
        ArrowError::ParseError(text)
        | ArrowError::CsvError(text)
        | ArrowError::JsonError(text)
        | ArrowError::CastError(text) => text.clone(),
        other => other.to_string(),
    };
    text.replace(" for line 1", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> SchemaRef {
        let decimal = DataType::Decimal128(6, 2);
        Arc::new(Schema::new(vec![
            Field::new("c", DataType::Int32, true),
            Field::new("a", DataType::Utf8, true),
            Field::new("b", decimal, true),
        ]))
    }

    /// A file of four columns, of which the job reads three in another order.
    fn csv() -> CsvDecoder {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let fields = [text("a"), text("b"), text("unread")];
        let last = Field::new("c", DataType::Int32, true);
        let (projection, order) = projected(&[3, 0, 1]);
        CsvDecoder {
            csv: CsvFormat {
                header: true,
                delimiter: b',',
                quote: Some(b'"'),
                columns: Vec::new(),
            },
            schema: Arc::new(Schema::new(
                fields.into_iter().chain([last]).collect::<Vec<_>>(),
            )),
            projection,
            order,
        }
    }

    #[track_caller]
    fn check(format: &CsvDecoder, record: &[u8], expected: &str) {
        let error = format.decode(&columns(), record).expect_err("it is bad");
        assert_eq!(format.reason(&columns(), record, &error).what, expected);
    }

    #[test]
    fn values_are_told_by_the_columns_that_the_job_knows() {
        let csv = csv();
        check(&csv, b"x,1.5,,y\n", "`y` is not a valid int32 (column `c`)");
        check(
            &csv,
            b"x,\"1,5\",,\n",
            "`1,5` is not a valid decimal128(6, 2) (column `b`)",
        );
        check(
            &csv,
            b"x,1.555,,7\n",
            "`1.555` is not a valid decimal128(6, 2) (column `b`)",
        );
        let long = format!("x,,,{}\n", "x".repeat(1000));
        let shown = format!(
            "`{}…` is not a valid int32 (column `c`)",
            "x".repeat(SHOWN_CHARS_MAX)
        );
        check(&csv, long.as_bytes(), &shown);
    }

    #[test]
    fn values_are_counted_between_delimiters() {
        let csv = CsvFormat {
            delimiter: b'\t',
            ..csv().csv
        };
        for (record, expected) in [
            ("a\tb\n", 2),
            ("a\t\t\r\n", 3),
            ("\"\"\n", 1),
            ("\"a\tb\"\t\"\"\"\t\"\n", 2),
            ("x\"\"\ty\n", 2),
        ] {
            assert_eq!(values(&csv, record.as_bytes()), expected, "{record:?}");
        }
    }

    #[test]
    fn records_that_are_none_are_told_apart() {
        let csv = csv();
        check(&csv, b"x,y\n", "it has 2 values, and there are 4 columns");
        check(
            &csv,
            b"x,1,,7,8\n",
            "it has 5 values, and there are 4 columns",
        );
        check(&csv, b"x,1,\xff,7\n", NOT_UTF8);
        check(
            &csv,
            b"\"x\"y,1,,7\n",
            "there is text behind a closing quote",
        );
        for (line, expected) in [
            (
                "[{\"c\": 1}]",
                "the line is no JSON object, but an array (`jq -c '.[]'` makes lines of it)",
            ),
            ("7", "the line is no JSON object, but a single value"),
            (
                "{",
                "the line is no JSON object: EOF while parsing an object at byte 1",
            ),
        ] {
            assert_eq!(malformed_json(line.as_bytes()).as_deref(), Some(expected));
        }
    }
}
