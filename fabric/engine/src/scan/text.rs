//! Lines of text as record batches with one column, `line`.
//!
//! A line belongs to the split in which it begins. Line ends (`\n`) are not part of lines; a last line without one counts.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flate2::read::MultiGzDecoder;
use weft_core::job::BadRecords;
use weft_core::{ErrorCode, Problem};

use crate::plan::TextSplit;

/// Bytes of text that one batch holds, unless a line is longer. Small enough to stay in the cache on its way to a guest.
const BATCH_BYTES: usize = 512 << 10;
/// Bytes of one line.
const LINE_BYTES_MAX: usize = 64 << 20;

/// The schema of text inputs.
pub(crate) fn schema(utf8: bool) -> SchemaRef {
    let data_type = if utf8 {
        DataType::Utf8
    } else {
        DataType::Binary
    };
    Arc::new(Schema::new(vec![Field::new("line", data_type, false)]))
}

/// Bytes of a split in file order, `fill` by `fill`.
enum Bytes {
    Plain { file: File, offset: u64 },
    Gzip(Box<MultiGzDecoder<File>>),
}

impl Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Bytes::Plain { file, offset } => {
                let read = file.read_at(buffer, *offset)?;
                *offset += read as u64;
                Ok(read)
            }
            Bytes::Gzip(decoder) => decoder.read(buffer),
        }
    }
}

/// Reads the lines of one split.
pub(crate) struct TextReader {
    split: TextSplit,
    utf8: bool,
    bad_records: BadRecords,
    schema: SchemaRef,
    bytes: Bytes,
    /// Bytes read and not yet given out; the first of them has position `position` in the (decompressed) file.
    pending: Vec<u8>,
    position: u64,
    ended: bool,
    /// Bytes read from the file.
    pub(crate) bytes_read: u64,
    /// Lines left out because they are not UTF-8.
    pub(crate) skipped: u64,
}

impl TextReader {
    pub(crate) fn open(
        split: &TextSplit,
        utf8: bool,
        bad_records: BadRecords,
    ) -> Result<Self, Problem> {
        let file = File::open(&split.path).map_err(|error| unreadable(split, &error))?;
        let found = file
            .metadata()
            .map_err(|error| unreadable(split, &error))?
            .len();
        if found != split.file_bytes {
            let detail = format!(
                "`{}` had {} bytes when the job was planned and has {found} now: inputs must not change under a job",
                split.path, split.file_bytes
            );
            return Err(Problem::new(ErrorCode::BadRecord, detail));
        }
        // A byte early: a line begins at `start` only if the byte before ends a line.
        let position = split.start.saturating_sub(1);
        let bytes = if split.gzip {
            Bytes::Gzip(Box::new(MultiGzDecoder::new(file)))
        } else {
            Bytes::Plain {
                file,
                offset: position,
            }
        };
        let mut reader = Self {
            split: split.clone(),
            utf8,
            bad_records,
            schema: schema(utf8),
            bytes,
            pending: Vec::new(),
            position,
            ended: false,
            bytes_read: 0,
            skipped: 0,
        };
        if split.start > 0 {
            reader.skip_line()?;
        }
        Ok(reader)
    }

    fn fill(&mut self, more: usize) -> Result<(), Problem> {
        let (old, mut filled) = (self.pending.len(), self.pending.len());
        self.pending.resize(old + more, 0);
        while filled < self.pending.len() {
            match self.bytes.read(&mut self.pending[filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.split, &error)),
            }
        }
        self.pending.truncate(filled);
        self.bytes_read += (filled - old) as u64;
        if self.ended
            && matches!(self.bytes, Bytes::Plain { .. })
            && self.position + self.pending.len() as u64 != self.split.file_bytes
        {
            let detail = format!("`{}` was cut while it was read", self.split.path);
            return Err(Problem::new(ErrorCode::BadRecord, detail));
        }
        Ok(())
    }

    /// Drops the line that began before the split.
    fn skip_line(&mut self) -> Result<(), Problem> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.pending) {
                self.pending.drain(..=end);
                self.position += end as u64 + 1;
                return Ok(());
            }
            self.position += self.pending.len() as u64;
            self.pending.clear();
            if self.ended || self.position >= self.split.end {
                return Ok(());
            }
            self.fill(64 << 10)?;
        }
    }

    /// The next lines, or nothing at the split's end.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        loop {
            let past_end = !self.split.gzip && self.position >= self.split.end;
            if past_end || (self.ended && self.pending.is_empty()) {
                return Ok(None);
            }
            if !self.ended && self.pending.len() < BATCH_BYTES {
                self.fill(BATCH_BYTES - self.pending.len())?;
            }
            let mut lines = self.cut();
            while lines.offsets.len() == 1 && !self.ended {
                if self.pending.len() > LINE_BYTES_MAX {
                    return Err(self.bad(
                        self.position,
                        &format!("a line is longer than {} MiB", LINE_BYTES_MAX >> 20),
                    ));
                }
                self.fill(self.pending.len().max(BATCH_BYTES))?;
                lines = self.cut();
            }
            if lines.consumed == 0 {
                return Ok(None);
            }
            let start = self.position;
            self.position += lines.consumed as u64;
            self.pending.drain(..lines.consumed);
            let batch = self.batch(lines, start)?;
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
    }

    /// Cuts the whole lines that begin in the split out of what is pending, without their ends.
    fn cut(&self) -> Lines {
        let mut lines = Lines {
            offsets: vec![0],
            values: Vec::with_capacity(self.pending.len()),
            consumed: 0,
        };
        let last_start = if self.split.gzip {
            u64::MAX
        } else {
            self.split.end - self.position
        };
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &self.pending) {
            if start as u64 >= last_start {
                break;
            }
            lines.push(&self.pending[start..end]);
            start = end + 1;
        }
        if self.ended
            && start < self.pending.len()
            && (start as u64) < last_start
            && memchr::memchr(b'\n', &self.pending[start..]).is_none()
        {
            lines.push(&self.pending[start..]);
            start = self.pending.len();
        }
        lines.consumed = start;
        lines
    }

    fn bad(&self, position: u64, what: &str) -> Problem {
        Problem::new(
            ErrorCode::BadRecord,
            format!("`{}`, byte {position}: {what}", self.split.path),
        )
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
            .map_err(|error| self.bad(start, &error.to_string()))
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
                Err(_) if self.bad_records == BadRecords::Skip => self.skipped += 1,
                // Each earlier line also took one byte for its end.
                Err(_) => return Err(self.bad(start + bounds(pair[0]) as u64 + row as u64, "the line is not UTF-8; use `bad_records = \"skip\"` or `encoding = \"binary\"`")),
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

/// The user's fault where the file is not there, not theirs to read, or broken; the platform's otherwise.
fn unreadable(split: &TextSplit, error: &io::Error) -> Problem {
    let broken = split.gzip
        && matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof
        );
    let missing = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    );
    let code = if broken || missing {
        ErrorCode::BadRecord
    } else {
        ErrorCode::StoreUnavailable
    };
    let what = if broken {
        "is not readable gzip"
    } else {
        "cannot be read"
    };
    Problem::new(code, format!("`{}` {what}: {error}", split.path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use arrow::array::AsArray;

    use super::*;

    fn lines(
        path: &std::path::Path,
        start: u64,
        end: u64,
        gzip: bool,
        utf8: bool,
        bad: BadRecords,
    ) -> Result<Vec<Vec<u8>>, Problem> {
        let file_bytes = std::fs::metadata(path).expect("it is there").len();
        let split = TextSplit {
            path: path.display().to_string(),
            start,
            end,
            file_bytes,
            gzip,
        };
        let mut reader = TextReader::open(&split, utf8, bad)?;
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

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
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
            let file = file(text.as_bytes());
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
                            lines(file.path(), start, end, false, false, BadRecords::Fail)
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
        let mut text = vec![b'x'; 3 * BATCH_BYTES];
        text.push(b'\n');
        for n in 0..200_000 {
            text.extend_from_slice(format!("line {n}\n").as_bytes());
        }
        let file = file(&text);
        let third = text.len() as u64 / 3;
        let mut count = 0;
        for (start, end) in [
            (0, third),
            (third, 2 * third),
            (2 * third, text.len() as u64),
        ] {
            count += lines(file.path(), start, end, false, false, BadRecords::Fail)
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
        let good = file(&bytes);
        let found = lines(
            good.path(),
            0,
            bytes.len() as u64,
            true,
            false,
            BadRecords::Fail,
        )
        .expect("it reads");
        assert_eq!(found, [b"a".to_vec(), b"bb".to_vec(), b"c".to_vec()]);
        let broken = file(&bytes[..bytes.len() - 9]);
        let problem = lines(
            broken.path(),
            0,
            bytes.len() as u64 - 9,
            true,
            false,
            BadRecords::Fail,
        )
        .expect_err("it is cut");
        assert!(problem.detail.contains("not readable gzip"), "{problem}");
    }

    #[test]
    fn text_that_is_not_utf8_fails_or_is_skipped() {
        let file = file(b"good\nb\xffd\nalso good\n");
        let problem =
            lines(file.path(), 0, 19, false, true, BadRecords::Fail).expect_err("line 2 is bad");
        assert!(problem.detail.contains("byte 5"), "{problem}");
        let kept = lines(file.path(), 0, 19, false, true, BadRecords::Skip).expect("it is skipped");
        assert_eq!(kept, [b"good".to_vec(), b"also good".to_vec()]);
    }
}
