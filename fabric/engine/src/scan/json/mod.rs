//! JSON lines: one object a line, read by a strict parser straight into columns.
//!
//! Every record is parsed whole, also what no column takes. A record that does not fit leaves no trace in the
//! columns, so that the records around it are kept ([`Decoder::decode`]).

mod column;
mod infer;
mod object;
mod unknown;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde::de::DeserializeSeed;
use weft_core::job::{REST_COLUMN, UnknownFields};

use super::BATCH_ROWS;
use super::format::NOT_UTF8;
use super::reason::{Reason, malformed_json};
use column::{Column, Members, Scalar};
use object::{Object, Walk};

pub(super) use infer::Shape;
pub(crate) use unknown::Unknown;

/// Values of one record, and of one batch unless it has one row: keys that a record lacks take memory, too.
const MAX_CELLS: usize = 16 << 20;

/// Turns lines into rows.
pub(super) struct Decoder {
    schema: SchemaRef,
    members: Members,
    /// Keys that no other column has, as JSON; the last column.
    rest: Option<Column>,
    rows: usize,
    text_is_number: bool,
    pub(super) unknown: Unknown,
}

/// The columns of an input, with the one that unknown keys go to.
pub(crate) fn with_rest(schema: &Schema, unknown_fields: UnknownFields) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    if unknown_fields == UnknownFields::Rest {
        fields.push(Arc::new(Field::new(REST_COLUMN, DataType::Utf8, true)));
    }
    Arc::new(Schema::new(fields))
}

impl Decoder {
    /// For the columns that [`with_rest`] answers. `is_declared`: the job names them, with their types.
    pub(super) fn new(
        schema: &SchemaRef,
        unknown_fields: UnknownFields,
        is_declared: bool,
    ) -> Self {
        let fields = schema.fields();
        let (members, rest) = match unknown_fields {
            UnknownFields::Rest => {
                let (rest, members) = fields.split_last().expect("there is the rest");
                (members, Some(Column::new(rest)))
            }
            UnknownFields::Ignore | UnknownFields::Fail => (&fields[..], None),
        };
        Self {
            schema: Arc::clone(schema),
            members: Members::new(&Fields::from(members.to_vec())),
            rest,
            rows: 0,
            text_is_number: is_declared,
            unknown: Unknown::new(unknown_fields),
        }
    }

    /// Adds the record of one line, if there is one.
    ///
    /// Errors: it is no record, or does not fit the columns; then nothing is added.
    pub(super) fn decode(&mut self, line: &[u8]) -> Result<(), Reason> {
        let Ok(text) = std::str::from_utf8(line) else {
            return Err(Reason::malformed(NOT_UTF8));
        };
        // JSON's own space, no more.
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            return Ok(());
        }
        let mut walk = Walk {
            text_is_number: self.text_is_number,
            unknown: &mut self.unknown,
            path: Vec::new(),
            rest: String::new(),
            cells: 0,
            misfit: None,
        };
        let mut parser = serde_json::Deserializer::from_str(text);
        let object = Object {
            members: &mut self.members,
            walk: &mut walk,
        };
        let parsed = object.deserialize(&mut parser).and_then(|()| parser.end());
        let Walk {
            misfit, mut rest, ..
        } = walk;
        self.unknown.end_record(parsed.is_ok());
        let Err(error) = parsed else {
            self.rows += 1;
            if let Some(column) = &mut self.rest {
                let scalar = match rest.is_empty() {
                    true => Scalar::Null,
                    false => {
                        rest.push('}');
                        Scalar::Text(rest.into())
                    }
                };
                column.push(&scalar, false);
            }
            return Ok(());
        };
        self.members.truncate(self.rows);
        Err(match misfit {
            // What stands behind it may be no JSON at all.
            Some(what) => match malformed_json(text.as_bytes()) {
                Some(malformed) => Reason::malformed(malformed),
                None => Reason::misfit(what),
            },
            None => Reason::malformed(
                malformed_json(text.as_bytes()).unwrap_or_else(|| error.to_string()),
            ),
        })
    }

    /// The rows since the last call, if there are any.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        if rows == 0 {
            return Ok(None);
        }
        let mut columns: Vec<ArrayRef> = self.members.take()?;
        columns.extend(self.rest.as_mut().map(Column::take).transpose()?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        RecordBatch::try_new_with_options(schema, columns, &options).map(Some)
    }

    /// Whether a batch is complete.
    pub(super) fn is_full(&self) -> bool {
        let most = MAX_CELLS / self.schema.fields().len().max(1);
        self.rows >= most.clamp(1, BATCH_ROWS)
    }
}

#[cfg(test)]
mod tests;
