//! Lines of text as record batches with one column, `line`.
//!
//! A line belongs to the split in which it begins. Line ends (`\n`) are not part of lines; a last line without one counts.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weft_core::Problem;
use weft_core::job::BadRecords;

use super::blocks::{Blocks, Dialect};
use super::{BadRecord, Inputs, LeftOut};
use crate::plan::FileSplit;

/// The schema of text inputs.
pub(crate) fn schema(utf8: bool) -> SchemaRef {
    let data_type = if utf8 {
        DataType::Utf8
    } else {
        DataType::Binary
    };
    Arc::new(Schema::new(vec![Field::new("line", data_type, false)]))
}

/// Reads the lines of one split.
pub(crate) struct TextReader {
    pub(super) blocks: Blocks,
    /// Lines that are not UTF-8.
    pub(super) left_out: LeftOut,
    utf8: bool,
    pub(super) schema: SchemaRef,
}

impl TextReader {
    pub(super) fn open(
        inputs: &Inputs,
        split: &FileSplit,
        utf8: bool,
        bad: BadRecords,
    ) -> Result<Self, Problem> {
        let mut blocks = Blocks::open(inputs, split, Dialect::Lines)?;
        if utf8 {
            blocks.skip_mark()?;
        }
        Ok(Self {
            blocks,
            left_out: LeftOut::new(bad),
            utf8,
            schema: schema(utf8),
        })
    }

    /// The lines of what somebody sends.
    pub(super) fn of_stream(blocks: Blocks, utf8: bool) -> Self {
        Self {
            blocks,
            left_out: LeftOut::of_stream(),
            utf8,
            schema: schema(utf8),
        }
    }

    /// The lines of the next block, none where all are left out, or nothing at the split's end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        if !self.blocks.is_at_end() {
            self.blocks.fill_block()?;
            let mut lines = self.cut();
            while lines.offsets.len() == 1 && !self.blocks.ended {
                self.blocks.fill_record("line")?;
                lines = self.cut();
            }
            if lines.consumed == 0 {
                return Ok(None);
            }
            let start = self.blocks.position;
            self.blocks.consume(lines.consumed);
            return self.batch(lines, start).map(Some);
        }
        Ok(None)
    }

    /// Cuts the whole lines that begin in the split out of what is pending, without their ends.
    fn cut(&self) -> Lines {
        let pending = &self.blocks.pending;
        let mut lines = Lines {
            offsets: vec![0],
            values: Vec::with_capacity(pending.len()),
            consumed: 0,
        };
        let last_start = self.blocks.end - self.blocks.position;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', pending) {
            if start as u64 >= last_start {
                break;
            }
            lines.push(&pending[start..end]);
            start = end + 1;
        }
        if self.blocks.ended
            && start < pending.len()
            && (start as u64) < last_start
            && memchr::memchr(b'\n', &pending[start..]).is_none()
        {
            lines.push(&pending[start..]);
            start = pending.len();
        }
        lines.consumed = start;
        lines
    }

    fn batch(&mut self, lines: Lines, start: u64) -> Result<RecordBatch, Problem> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(lines.offsets));
        let values = Buffer::from_vec(lines.values);
        let array: ArrayRef = if !self.utf8 {
            Arc::new(BinaryArray::new(offsets, values, None))
        } else {
            match StringArray::try_new(offsets.clone(), values.clone(), None) {
                Ok(array) => Arc::new(array),
                Err(_) => Arc::new(self.valid_lines(&offsets, &values, start)?),
            }
        };
        RecordBatch::try_new(Arc::clone(&self.schema), vec![array])
            .map_err(|error| self.blocks.bad(start, &error.to_string()))
    }

    /// Some line is not UTF-8: fails at the first one, or leaves them out, as the job asks.
    fn valid_lines(
        &mut self,
        offsets: &OffsetBuffer<i32>,
        values: &Buffer,
        start: u64,
    ) -> Result<StringArray, Problem> {
        let mut kept = Vec::new();
        for (row, pair) in offsets.windows(2).enumerate() {
            let bounds = |offset: i32| {
                usize::try_from(offset).expect("offsets of a batch are small and positive")
            };
            match std::str::from_utf8(&values[bounds(pair[0])..bounds(pair[1])]) {
                Ok(line) => kept.push(line),
                Err(_) => {
                    let line = &values[bounds(pair[0])..bounds(pair[1])];
                    let bad = BadRecord {
                        // Each earlier line also took one byte for its end.
                        position: start + bounds(pair[0]) as u64 + row as u64,
                        reason: "the line is not UTF-8".into(),
                        record: line.to_vec(),
                    };
                    let advice = "use `bad_records = \"skip\"` or `{ dead_letter = \"FOLDER\" }`, or `encoding = \"binary\"`";
                    self.left_out.add(&self.blocks.split, bad, advice)?;
                }
            }
        }
        Ok(StringArray::from_iter_values(kept))
    }
}

struct Lines {
    offsets: Vec<i32>,
    values: Vec<u8>,
    consumed: usize,
}

impl Lines {
    fn push(&mut self, line: &[u8]) {
        self.values.extend_from_slice(line);
        self.offsets
            .push(i32::try_from(self.values.len()).expect("a batch is shorter than 2 GiB"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow::array::AsArray;

    use super::super::blocks::BLOCK_BYTES;
    use super::*;
    use crate::plan::Part;

    fn lines(
        path: &std::path::Path,
        start: u64,
        end: u64,
        utf8: bool,
        bad: BadRecords,
    ) -> Result<Vec<Vec<u8>>, Problem> {
        let file_bytes = std::fs::metadata(path).expect("it is there").len();
        let part = match path.extension() {
            Some(_) => Part::Whole,
            None => Part::Bytes { start, end },
        };
        let split = FileSplit {
            path: path.display().to_string(),
            file_bytes,
            e_tag: None,
            part,
        };
        let mut reader = TextReader::open(&Inputs::default(), &split, utf8, bad)?;
        let mut lines = Vec::new();
        while let Some(batch) = reader.next()? {
            let column = batch.column(0);
            lines.extend((0..batch.num_rows()).map(|row| {
                if utf8 {
                    column.as_string::<i32>().value(row).as_bytes().to_vec()
                } else {
                    column.as_binary::<i32>().value(row).to_vec()
                }
            }));
        }
        Ok(lines)
    }

    fn file(bytes: &[u8], suffix: &str) -> tempfile::NamedTempFile {
        let mut builder = tempfile::Builder::new();
        // A dot would look like an extension.
        builder.prefix("text").suffix(suffix);
        let mut file = builder.tempfile().expect("a file");
        file.write_all(bytes).expect("it writes");
        file
    }

    #[test]
    fn every_way_of_splitting_gives_each_line_once() {
        for text in [
            "",
            "\n",
            "a",
            "a\n",
            "a\nbb\n\nccc",
            "\n\n\n",
            "one\ntwo\nthree\n",
        ] {
            let file = file(text.as_bytes(), "");
            let expected: Vec<Vec<u8>> = text
                .split_terminator('\n')
                .map(|line| line.as_bytes().to_vec())
                .collect();
            let n = text.len() as u64;
            for cut in 0..=n {
                let mut found = Vec::new();
                for (start, end) in [(0, cut), (cut, n)] {
                    if start < end {
                        found.extend(
                            lines(file.path(), start, end, false, BadRecords::Fail)
                                .expect("it reads"),
                        );
                    }
                }
                assert_eq!(found, expected, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn lines_longer_than_a_batch_and_many_batches() {
        let mut text = vec![b'x'; 3 * BLOCK_BYTES];
        text.push(b'\n');
        for n in 0..200_000 {
            text.extend_from_slice(format!("line {n}\n").as_bytes());
        }
        let file = file(&text, "");
        let third = text.len() as u64 / 3;
        let mut count = 0;
        for (start, end) in [
            (0, third),
            (third, 2 * third),
            (2 * third, text.len() as u64),
        ] {
            count += lines(file.path(), start, end, false, BadRecords::Fail)
                .expect("it reads")
                .len();
        }
        assert_eq!(count, 200_001);
    }

    #[test]
    fn gzip_of_several_members_and_broken_gzip() {
        let mut bytes = Vec::new();
        for part in ["a\nb", "b\nc\n"] {
            let mut encoder =
                flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            encoder.write_all(part.as_bytes()).expect("it writes");
            encoder.finish().expect("it ends");
        }
        let good = file(&bytes, ".gz");
        let found =
            lines(good.path(), 0, bytes.len() as u64, false, BadRecords::Fail).expect("it reads");
        assert_eq!(found, [b"a".to_vec(), b"bb".to_vec(), b"c".to_vec()]);
        let broken = file(&bytes[..bytes.len() - 9], ".gz");
        let problem = lines(
            broken.path(),
            0,
            bytes.len() as u64 - 9,
            false,
            BadRecords::Fail,
        )
        .expect_err("it is cut");
        assert!(problem.detail.contains("not readable gzip"), "{problem}");
    }

    /// A file of some hundred kilobytes that is one line of more than a line may have.
    #[test]
    fn a_bomb_is_stopped_where_a_line_is_too_long() {
        let mut bytes = Vec::new();
        let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
        let block = vec![b'x'; 1 << 20];
        for _ in 0..200 {
            encoder.write_all(&block).expect("it writes");
        }
        encoder.finish().expect("it ends");
        let n_bytes = bytes.len() as u64;
        assert!(n_bytes < 4 << 20, "{n_bytes} bytes");
        let bomb = file(&bytes, ".gz");
        for policy in [BadRecords::Fail, BadRecords::Skip] {
            let problem =
                lines(bomb.path(), 0, n_bytes, false, policy).expect_err("it is too long");
            assert!(problem.detail.contains("longer than 64 MiB"), "{problem}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_fails_or_is_skipped() {
        let file = file(b"good\nb\xffd\nalso good\n", "");
        let problem = lines(file.path(), 0, 19, true, BadRecords::Fail).expect_err("line 2 is bad");
        assert!(problem.detail.contains("byte 5"), "{problem}");
        let put_aside = BadRecords::DeadLetter {
            output: "aside".into(),
        };
        for policy in [BadRecords::Skip, put_aside] {
            let kept = lines(file.path(), 0, 19, true, policy).expect("it is left out");
            assert_eq!(kept, [b"good".to_vec(), b"also good".to_vec()]);
        }
    }
}
