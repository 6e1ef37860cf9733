//! The bytes of a split, decompressed, in blocks of whole records.

use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use weft_core::{ErrorCode, Problem};

use super::{InputFile, Inputs, unreadable};
use crate::plan::{FileSplit, Part};

/// Bytes that one block holds, unless a record is longer. Small enough to stay in the cache on its way to a guest.
pub(super) const BLOCK_BYTES: usize = 512 << 10;
/// Bytes of one record.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// Bytes that are read at a time of what somebody sends.
const STREAM_READ_BYTES: usize = 64 << 10;
/// Bytes that are read at a time where only ends of records are looked for.
const SCAN_BYTES: usize = 1 << 20;
/// Memory that a zstd file may ask for its window, as a power of two.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// No text in UTF-8 begins with these.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// How a file of a text format is compressed, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(path: &str) -> Self {
        Self::named(path).unwrap_or(Self::None)
    }

    /// The same. Errors: the name of a compression that is not read.
    pub(crate) fn named(path: &str) -> Result<Self, &'static str> {
        let extension = Path::new(path).extension().unwrap_or_default();
        match extension.to_ascii_lowercase().to_str().unwrap_or_default() {
            "gz" | "gzip" => Ok(Self::Gzip),
            "zst" | "zstd" => Ok(Self::Zstd),
            "bz2" | "bzip2" => Err("bzip2"),
            "xz" | "lzma" => Err("xz"),
            "br" => Err("Brotli"),
            "lz4" => Err("LZ4"),
            "sz" | "snappy" => Err("Snappy"),
            "zip" => Err("ZIP"),
            "7z" => Err("7-Zip"),
            "z" => Err("`compress`"),
            _ => Ok(Self::None),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Where records end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// At each `\n`.
    Lines,
    /// At each `\n` and each `\r` that is not between quotes; a quote counts where a value begins with it. What is empty is no
    /// record, so `\r\n` ends one.
    Csv { delimiter: u8, quote: Option<u8> },
}

/// Where in a record a scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    ValueStart,
    Plain,
    Quoted,
    /// Behind a quote within quotes, which ends the value or stands for itself.
    Quote,
}

/// Finds ends of records across blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan {
    dialect: Dialect,
    place: Place,
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

impl Scan {
    /// A scan that begins where a record does.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            place: Place::ValueStart,
        }
    }

    /// The position behind the next end of a record at or after `from`. Where there is none, all bytes count as scanned.
    pub(crate) fn next_end(&mut self, bytes: &[u8], from: usize) -> Option<usize> {
        match self.dialect {
            Dialect::Lines => memchr::memchr(b'\n', &bytes[from..]).map(|at| from + at + 1),
            Dialect::Csv { quote: None, .. } => {
                memchr::memchr2(b'\n', b'\r', &bytes[from..]).map(|at| from + at + 1)
            }
            Dialect::Csv {
                delimiter,
                quote: Some(quote),
            } => self.next_quoted_end(delimiter, quote, bytes, from),
        }
    }

    fn next_quoted_end(
        &mut self,
        delimiter: u8,
        quote: u8,
        bytes: &[u8],
        from: usize,
    ) -> Option<usize> {
        let mut at = from;
        while at < bytes.len() {
            let found = match self.place {
                Place::Quoted => memchr::memchr(quote, &bytes[at..]),
                Place::Plain => memchr::memchr3(delimiter, b'\n', b'\r', &bytes[at..]),
                Place::Quote | Place::ValueStart => Some(0),
            };
            at += found?;
            let byte = bytes[at];
            self.place = match self.place {
                Place::Quoted => Place::Quote,
                Place::Quote | Place::ValueStart if byte == quote => Place::Quoted,
                _ if byte == delimiter || is_line_end(byte) => Place::ValueStart,
                _ => Place::Plain,
            };
            at += 1;
            if self.place == Place::ValueStart && is_line_end(byte) {
                return Some(at);
            }
        }
        None
    }
}

/// Where records of a plain CSV file begin at or after each of `wanted`, which rise. A file with quotes is read up to the last one.
pub(crate) fn record_starts(
    inputs: &Inputs,
    (path, bytes): (&str, u64),
    dialect: Dialect,
    wanted: &[u64],
) -> Result<Vec<u64>, Problem> {
    let failed = |error: io::Error| unreadable(path, "", &error);
    let file = inputs.open(path, bytes)?;
    let mut block = vec![0; SCAN_BYTES];
    let quote = match dialect {
        Dialect::Csv { quote, .. } => quote,
        Dialect::Lines => None,
    };
    if quote.is_some() {
        file.expect_in_order(0..bytes);
    }
    let mut starts = Vec::new();
    match quote {
        Some(quote) if has_byte(&file, quote, &mut block).map_err(failed)? => {
            file.expect_in_order(0..bytes);
            let scan = Scan::new(dialect);
            next_starts(&file, scan, 0, wanted, &mut block, &mut starts).map_err(failed)?;
        }
        // Without quotes every line end ends a record.
        _ => {
            file.expect_in_order(0..0);
            let lines = match dialect {
                Dialect::Csv { delimiter, .. } => Dialect::Csv {
                    delimiter,
                    quote: None,
                },
                Dialect::Lines => Dialect::Lines,
            };
            for wanted in wanted {
                let (scan, from) = (Scan::new(lines), wanted.saturating_sub(1));
                next_starts(&file, scan, from, &[*wanted], &mut block, &mut starts)
                    .map_err(failed)?;
            }
        }
    }
    Ok(starts)
}

/// Adds where records begin at or after each of `wanted`, by a scan from `offset`.
fn next_starts(
    file: &InputFile,
    mut scan: Scan,
    mut offset: u64,
    wanted: &[u64],
    block: &mut [u8],
    starts: &mut Vec<u64>,
) -> io::Result<()> {
    let mut wanted = wanted.iter().copied().peekable();
    while wanted.peek().is_some() {
        let read = file.read_at(block, offset)?;
        if read == 0 {
            starts.extend(wanted.map(|_| offset));
            return Ok(());
        }
        let mut from = 0;
        while let Some(end) = scan.next_end(&block[..read], from) {
            let start = offset + end as u64;
            while wanted.next_if(|wanted| *wanted <= start).is_some() {
                starts.push(start);
            }
            if wanted.peek().is_none() {
                return Ok(());
            }
            from = end;
        }
        offset += read as u64;
    }
    Ok(())
}

fn has_byte(file: &InputFile, byte: u8, block: &mut [u8]) -> io::Result<bool> {
    let mut offset = 0;
    loop {
        let read = file.read_at(block, offset)?;
        if read == 0 {
            return Ok(false);
        }
        if memchr::memchr(byte, &block[..read]).is_some() {
            return Ok(true);
        }
        offset += read as u64;
    }
}

/// Bytes of a split in file order.
enum Bytes {
    /// Up to where the file ended when the job was planned.
    Plain {
        file: InputFile,
        offset: u64,
        end: u64,
    },
    /// What somebody sends, as it comes.
    Stream(Box<dyn Read + Send>),
    Gzip(Box<MultiGzDecoder<InputFile>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, BufReader<InputFile>>>),
}

impl Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Bytes::Plain { file, offset, end } => {
                let left = usize::try_from(end.saturating_sub(*offset)).unwrap_or(usize::MAX);
                let most = left.min(buffer.len());
                let read = file.read_at(&mut buffer[..most], *offset)?;
                *offset += read as u64;
                Ok(read)
            }
            Bytes::Stream(stream) => stream.read(buffer),
            Bytes::Gzip(decoder) => decoder.read(buffer),
            Bytes::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The bytes of a split that have been read and not yet given out.
pub(super) struct Blocks {
    pub(super) split: FileSplit,
    compression: Compression,
    bytes: Bytes,
    /// The first of them has position `position` in the (decompressed) file.
    pub(super) pending: Vec<u8>,
    pub(super) position: u64,
    /// Records that begin here or later are of other splits.
    pub(super) end: u64,
    /// Nothing comes after what is pending.
    pub(super) ended: bool,
    /// Bytes read, after decompression.
    pub(super) bytes_read: u64,
}

impl Blocks {
    /// Opens a split. Of lines, it may begin within one, which belongs to the split before it; of CSV, it begins with a record.
    pub(super) fn open(
        inputs: &Inputs,
        split: &FileSplit,
        dialect: Dialect,
    ) -> Result<Self, Problem> {
        let file = inputs.open_split(split)?;
        file.expect_in_order(match split.part {
            // A byte early, where lines are read.
            Part::Bytes { start, end } => start.saturating_sub(1)..end,
            Part::Whole | Part::RowGroups { .. } => 0..split.file_bytes,
        });
        Self::of_file(file, split, dialect)
    }

    /// Opens a split of which no more than the front is read.
    pub(super) fn open_front(
        inputs: &Inputs,
        split: &FileSplit,
        dialect: Dialect,
    ) -> Result<Self, Problem> {
        Self::of_file(inputs.open_split(split)?, split, dialect)
    }

    fn of_file(file: InputFile, split: &FileSplit, dialect: Dialect) -> Result<Self, Problem> {
        let failed = |error: io::Error| unreadable(&split.path, "", &error);
        let compression = Compression::of(&split.path);
        let (start, end) = match split.part {
            Part::Bytes { start, end } => (start, end),
            Part::Whole | Part::RowGroups { .. } => (0, u64::MAX),
        };
        let position = match dialect {
            // A byte early: a line begins at `start` only if the byte before ends a line.
            Dialect::Lines => start.saturating_sub(1),
            Dialect::Csv { .. } => start,
        };
        let bytes = match compression {
            Compression::None => Bytes::Plain {
                file,
                offset: position,
                end: split.file_bytes,
            },
            Compression::Gzip => Bytes::Gzip(Box::new(MultiGzDecoder::new(file))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(file).map_err(failed)?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(failed)?;
                Bytes::Zstd(Box::new(decoder))
            }
        };
        let mut blocks = Self {
            split: split.clone(),
            compression,
            bytes,
            pending: Vec::new(),
            position,
            end,
            ended: false,
            bytes_read: 0,
        };
        if position < start {
            blocks.skip_line()?;
        }
        Ok(blocks)
    }

    /// What somebody sends, all of it. `name` is what errors call it.
    pub(super) fn of_stream(name: &str, stream: Box<dyn Read + Send>) -> Self {
        Self {
            split: FileSplit::of_stream(name),
            compression: Compression::None,
            bytes: Bytes::Stream(stream),
            pending: Vec::new(),
            position: 0,
            end: u64::MAX,
            ended: false,
            bytes_read: 0,
        }
    }

    /// True where the split has no more records.
    pub(super) fn is_at_end(&self) -> bool {
        self.position >= self.end || (self.ended && self.pending.is_empty())
    }

    /// Reads until a block is pending, or all there is. Of a stream, what has come: its rows need not wait for later ones.
    pub(super) fn fill_block(&mut self) -> Result<(), Problem> {
        let has_come = self.is_stream() && memchr::memchr2(b'\n', b'\r', &self.pending).is_some();
        if !self.ended && !has_come && self.pending.len() < BLOCK_BYTES {
            self.fill(BLOCK_BYTES - self.pending.len())?;
        }
        Ok(())
    }

    /// Reads until the records at the front are pending, as many as a block holds and one at least; of a stream, too, so that what
    /// they tell does not depend on when they came. Answers how many bytes they are.
    pub(super) fn fill_first(&mut self, dialect: Dialect) -> Result<usize, Problem> {
        self.skip_mark()?;
        while !self.ended && self.pending.len() < BLOCK_BYTES {
            self.fill(BLOCK_BYTES - self.pending.len())?;
        }
        let mut whole = self.whole_records(dialect);
        while whole == 0 && !self.ended {
            self.fill_record("record")?;
            whole = self.whole_records(dialect);
            if whole > 0 && self.is_stream() {
                // Those behind it may have come with it, or not.
                whole = ends(dialect, &self.pending, 0).next().unwrap_or(whole);
            }
        }
        Ok(whole)
    }

    fn is_stream(&self) -> bool {
        matches!(self.bytes, Bytes::Stream(_))
    }

    /// Reads more of a record that is longer than what is pending. Errors: it is longer than records may be.
    pub(super) fn fill_record(&mut self, what: &str) -> Result<(), Problem> {
        if self.pending.len() > RECORD_BYTES_MAX {
            let most = RECORD_BYTES_MAX >> 20;
            return Err(self.bad(
                self.position,
                &format!("a {what} is longer than {most} MiB"),
            ));
        }
        if !self.is_stream() {
            return self.fill(self.pending.len().max(BLOCK_BYTES));
        }
        // What is pending is looked at anew after this: only where a record may have ended, or much has come.
        let old = self.pending.len();
        loop {
            let before = self.pending.len();
            self.fill(STREAM_READ_BYTES)?;
            let ends = memchr::memchr2(b'\n', b'\r', &self.pending[before..]).is_some();
            if ends || self.ended || self.pending.len() >= 2 * old {
                return Ok(());
            }
        }
    }

    fn fill(&mut self, more: usize) -> Result<(), Problem> {
        let more = match self.is_stream() {
            true => more.min(STREAM_READ_BYTES),
            false => more,
        };
        let (old, mut filled) = (self.pending.len(), self.pending.len());
        self.pending.resize(old + more, 0);
        while filled < self.pending.len() {
            match self.bytes.read(&mut self.pending[filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(read) => {
                    filled += read;
                    if self.is_stream() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(unreadable(
                        &self.split.path,
                        self.compression.name(),
                        &error,
                    ));
                }
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
                self.consume(end + 1);
                return Ok(());
            }
            let all = self.pending.len();
            self.consume(all);
            if self.ended || self.position >= self.end {
                return Ok(());
            }
            self.fill(64 << 10)?;
        }
    }

    /// Drops the byte order mark that some programs put in front of a file. Errors: it is UTF-16's.
    pub(super) fn skip_mark(&mut self) -> Result<(), Problem> {
        if self.position == 0 {
            self.fill_block()?;
            while self.pending.len() < BYTE_ORDER_MARK.len() && !self.ended {
                self.fill(BLOCK_BYTES)?;
            }
            if self.pending.starts_with(BYTE_ORDER_MARK) {
                self.consume(BYTE_ORDER_MARK.len());
            }
            if UTF16_MARKS
                .iter()
                .any(|mark| self.pending.starts_with(mark))
            {
                let what =
                    "the file is UTF-16; make it UTF-8, with `iconv -f UTF-16 -t UTF-8`, say";
                return Err(self.bad(0, what));
            }
        }
        Ok(())
    }

    /// Drops bytes at the front.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.position += bytes as u64;
        self.pending.drain(..bytes);
    }

    /// Takes bytes at the front.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<u8> {
        self.position += bytes as u64;
        let rest = self.pending.split_off(bytes);
        std::mem::replace(&mut self.pending, rest)
    }

    /// How many of the pending bytes are whole records of this split; 0 where more must be read first.
    pub(super) fn whole_records(&self, dialect: Dialect) -> usize {
        // The last byte that may begin a record of ours.
        let last = usize::try_from(self.end - self.position - 1).unwrap_or(usize::MAX);
        let whole = if last < self.pending.len() {
            ends(dialect, &self.pending, last).find(|end| *end > last)
        } else {
            last_end(dialect, &self.pending)
        };
        match whole {
            _ if self.ended && last >= self.pending.len() => self.pending.len(),
            Some(whole) => whole,
            None if self.ended => self.pending.len(),
            None => 0,
        }
    }

    pub(super) fn bad(&self, position: u64, what: &str) -> Problem {
        Problem::new(
            ErrorCode::BadRecord,
            format!("`{}`, byte {position}: {what}", self.split.path),
        )
    }
}

/// Positions behind the ends of records, those before `from` left out where that saves a scan.
pub(super) fn ends(dialect: Dialect, bytes: &[u8], from: usize) -> impl Iterator<Item = usize> {
    let mut scan = Scan::new(dialect);
    let mut at = if has_quotes(dialect, bytes) { 0 } else { from };
    if at > 0 {
        // Not at the start of a value, perhaps: there are no quotes that could mislead.
        scan.place = Place::Plain;
    }
    std::iter::from_fn(move || {
        at = scan.next_end(bytes, at)?;
        Some(at)
    })
}

fn has_quotes(dialect: Dialect, bytes: &[u8]) -> bool {
    matches!(dialect, Dialect::Csv { quote: Some(quote), .. } if memchr::memchr(quote, bytes).is_some())
}

/// The position behind the last end of a record.
fn last_end(dialect: Dialect, bytes: &[u8]) -> Option<usize> {
    let last = match dialect {
        Dialect::Lines => memchr::memrchr(b'\n', bytes),
        Dialect::Csv { .. } if has_quotes(dialect, bytes) => {
            return ends(dialect, bytes, 0).last();
        }
        Dialect::Csv { .. } => memchr::memrchr2(b'\n', b'\r', bytes),
    };
    last.map(|at| at + 1)
}

/// Whole records at the front of a file, as many as a block holds and one at least, unless the file has none.
pub(crate) fn first_block(
    inputs: &Inputs,
    path: &str,
    file_bytes: u64,
    dialect: Dialect,
) -> Result<Vec<u8>, Problem> {
    let split = FileSplit {
        path: path.to_owned(),
        file_bytes,
        e_tag: None,
        part: Part::Whole,
    };
    let mut blocks = Blocks::open_front(inputs, &split, dialect)?;
    let whole = blocks.fill_first(dialect)?;
    Ok(blocks.take(whole))
}

#[cfg(test)]
mod tests;
