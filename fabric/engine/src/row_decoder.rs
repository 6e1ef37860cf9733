//! Rows that the API sends as an Arrow stream, as text.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::preview::TextRow;
use crate::schema;
use crate::untrusted::decode;

/// Columns and rows that were decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextRows {
    /// Name and type of each column.
    pub schema: Vec<(String, String)>,
    /// The rows.
    pub rows: Vec<TextRow>,
}

/// Decodes a stream piece by piece, whatever the pieces.
#[derive(Default)]
pub struct RowDecoder {
    decoder: StreamDecoder,
    rows: Vec<TextRow>,
}

impl RowDecoder {
    /// Takes the next piece of the stream.
    ///
    /// Errors are for people: the bytes are not an Arrow stream. Then the decoder must not be used any more.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), String> {
        let pushed = decode(|| self.decode(piece))?;
        pushed.map_err(|error| error.to_string())
    }

    fn decode(&mut self, piece: &[u8]) -> Result<(), ArrowError> {
        let mut buffer = Buffer::from(piece);
        while !buffer.is_empty() {
            if let Some(batch) = self.decoder.decode(&mut buffer)? {
                push_texts(&batch, &mut self.rows)?;
            }
        }
        Ok(())
    }

    /// Returns what came.
    ///
    /// Errors are for people: the stream ends within a message, or before its columns.
    pub fn finish(mut self) -> Result<TextRows, String> {
        self.decoder.finish().map_err(|error| error.to_string())?;
        let schema = self.decoder.schema();
        let schema = schema.ok_or("the stream ends before its columns")?;
        Ok(TextRows {
            schema: schema::texts(&schema),
            rows: self.rows,
        })
    }
}

/// Adds the rows of a batch.
fn push_texts(batch: &RecordBatch, rows: &mut Vec<TextRow>) -> Result<(), ArrowError> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter();
    let columns = columns.map(|column| {
        let texts = ArrayFormatter::try_new(column, &options);
        texts.map(|texts| (column, texts))
    });
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    rows.extend((0..batch.num_rows()).map(|row| {
        let values = columns.iter().map(|(column, texts)| {
            let is_there = !column.is_null(row);
            is_there.then(|| texts.value(row).to_string())
        });
        values.collect()
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn stream(rows: usize) -> Vec<u8> {
        let texts = StringArray::from(vec![Some("a"), None, Some("c")]);
        let numbers = Int64Array::from(vec![None, Some(1), Some(2)]);
        let batch = RecordBatch::try_from_iter_with_nullable([
            ("text", Arc::new(texts) as _, true),
            ("n", Arc::new(numbers) as _, true),
        ]);
        let batch = batch.expect("of one length").slice(0, rows);
        let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).expect("a stream");
        if rows > 0 {
            writer.write(&batch).expect("it writes");
        }
        writer.into_inner().expect("it ends")
    }

    fn decoded(bytes: &[u8], piece_bytes: usize) -> Result<TextRows, String> {
        let mut decoder = RowDecoder::default();
        for piece in bytes.chunks(piece_bytes) {
            decoder.push(piece)?;
        }
        decoder.finish()
    }

    #[test]
    fn rows_come_back_whatever_the_pieces() {
        let bytes = stream(3);
        for piece_bytes in [1, 7, 64, bytes.len()] {
            let found = decoded(&bytes, piece_bytes).expect("it is a stream");
            let columns = [("text", "utf8"), ("n", "int64")];
            let columns = columns.map(|(name, of)| (name.to_owned(), of.to_owned()));
            assert_eq!(found.schema, columns);
            let row = |row: [Option<&str>; 2]| row.map(|value| value.map(str::to_owned)).to_vec();
            let expected = [
                row([Some("a"), None]),
                row([None, Some("1")]),
                row([Some("c"), Some("2")]),
            ];
            assert_eq!(found.rows, expected, "in pieces of {piece_bytes} bytes");
        }
        let none = decoded(&stream(0), 5).expect("it is a stream");
        assert_eq!((none.schema.len(), none.rows.len()), (2, 0));
    }

    #[test]
    fn a_stream_that_is_cut_is_no_result() {
        let bytes = stream(3);
        for cut in [0, 3, 40, bytes.len() / 2] {
            decoded(&bytes[..cut], 16).expect_err("it is cut");
        }
        decoded(b"not Arrow at all, but text that is long", 16).expect_err("it is text");
    }
}
