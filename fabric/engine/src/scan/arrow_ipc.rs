//! Arrow IPC, files and streams, read message by message.
//!
//! What a message says of its body is checked before a decoder sees it: decoders believe it. A split's batches are those whose messages begin within
//! it; the others are passed over unread, but for dictionaries. What a file's footer says is not needed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Fields, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{MessageHeader, root_as_message};
use weft_core::{ErrorCode, Problem};

use super::{BATCH_ROWS, check_size, conform, positions, unreadable};
use crate::plan::{FileSplit, FilesPlan, Part};
use crate::untrusted::decode;

/// How a file begins; a stream begins with its first message.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// Bytes of what a message says of its body.
const METADATA_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a body.
const BODY_BYTES_MAX: u64 = 1 << 30;
/// Values of one array.
const VALUES_MAX: i64 = 1 << 31;

/// The messages of a file, each checked before its first byte is given out.
struct Messages {
    file: BufReader<File>,
    bytes: u64,
    /// Bytes of the file that have not been read.
    left: u64,
    /// Where messages of batches begin that are given out.
    wanted: Range<u64>,
    /// What is to be given out before the body.
    head: io::Cursor<Vec<u8>>,
    body_left: u64,
    ended: bool,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Messages {
    fn open(file: File, wanted: Range<u64>) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut left = bytes;
        let mut file = BufReader::with_capacity(256 << 10, file);
        let mut magic = Vec::new();
        file.by_ref().take(8).read_to_end(&mut magic)?;
        if magic == FILE_MAGIC {
            left -= 8;
            // Some writers fill up to where their buffers are aligned.
            while file.fill_buf()?.starts_with(&[0; 8]) {
                file.consume(8);
                left -= 8;
            }
        } else {
            file.rewind()?;
        }
        Ok(Self {
            file,
            bytes,
            left,
            wanted,
            head: io::Cursor::default(),
            body_left: 0,
            ended: false,
        })
    }

    fn take(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        if bytes > self.left {
            return Err(invalid("it ends within a message"));
        }
        self.left -= bytes;
        let mut taken = Vec::new();
        self.file.by_ref().take(bytes).read_to_end(&mut taken)?;
        if taken.len() as u64 != bytes {
            return Err(invalid("it was cut while it was read"));
        }
        Ok(taken)
    }

    /// Reads and checks the head of the next message that is wanted.
    fn advance(&mut self) -> io::Result<()> {
        while !self.advance_one()? {}
        Ok(())
    }

    /// Reads and checks the next message's head. Answers whether it is wanted, or the last one was.
    fn advance_one(&mut self) -> io::Result<bool> {
        let begins = self.bytes - self.left;
        if self.left == 0 {
            self.ended = true;
            return Ok(true);
        }
        let mut head = self.take(4)?;
        if head == [0xff; 4] {
            head.extend(self.take(4)?);
        }
        let length: [u8; 4] = head[head.len() - 4..].try_into().expect("four bytes");
        let length = u64::from(u32::from_le_bytes(length));
        if length > METADATA_BYTES_MAX {
            return Err(invalid(format!(
                "a message's head has {length} bytes; {METADATA_BYTES_MAX} are allowed"
            )));
        }
        if length == 0 {
            self.ended = true;
        } else {
            let metadata = self.take(length)?;
            let checked = check(&metadata)?;
            if checked.body > self.left {
                return Err(invalid("it ends within a message"));
            }
            self.left -= checked.body;
            if checked.is_batch && begins >= self.wanted.end {
                self.ended = true;
                return Ok(true);
            }
            if checked.is_batch && begins < self.wanted.start {
                let body = i64::try_from(checked.body).map_err(|_| invalid("a body"))?;
                self.file.seek_relative(body)?;
                return Ok(false);
            }
            self.body_left = checked.body;
            head.extend(metadata);
        }
        self.head = io::Cursor::new(head);
        Ok(true)
    }
}

impl Read for Messages {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.head.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if self.body_left > 0 {
                let most = usize::try_from(self.body_left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                let read = self.file.read(&mut buffer[..most])?;
                if read == 0 {
                    return Err(invalid("it was cut while it was read"));
                }
                self.body_left -= read as u64;
                return Ok(read);
            }
            if self.ended {
                return Ok(0);
            }
            self.advance()?;
        }
    }
}

/// A message that may be believed.
struct Checked {
    /// Bytes of its body.
    body: u64,
    /// Neither a schema nor a dictionary, which all batches need.
    is_batch: bool,
}

/// Checks what a message says.
fn check(metadata: &[u8]) -> io::Result<Checked> {
    let message = root_as_message(metadata).map_err(|error| invalid(error.to_string()))?;
    let body = u64::try_from(message.bodyLength())
        .ok()
        .filter(|bytes| *bytes <= BODY_BYTES_MAX)
        .ok_or_else(|| {
            invalid(format!(
                "a body has {} bytes; {BODY_BYTES_MAX} are allowed",
                message.bodyLength()
            ))
        })?;
    let batch = match message.header_type() {
        MessageHeader::Schema => {
            return Ok(Checked {
                body,
                is_batch: false,
            });
        }
        MessageHeader::RecordBatch => message.header_as_record_batch(),
        MessageHeader::DictionaryBatch => message
            .header_as_dictionary_batch()
            .and_then(|dictionary| dictionary.data()),
        other => return Err(invalid(format!("a message of kind {other:?}"))),
    };
    let batch = batch.ok_or_else(|| invalid("a message without a batch"))?;
    if batch.compression().is_some() {
        return Err(invalid(
            "its bodies are compressed: write it without compression, or as Parquet",
        ));
    }
    let counted = |count: i64| (0..=VALUES_MAX).contains(&count);
    let nodes = batch.nodes();
    let nodes_fit = nodes
        .iter()
        .flatten()
        .all(|node| counted(node.length()) && (0..=node.length()).contains(&node.null_count()));
    let within = |offset: i64, length: i64| {
        let end = u64::try_from(offset).ok().zip(u64::try_from(length).ok());
        let end = end.and_then(|(offset, length)| offset.checked_add(length));
        end.is_some_and(|end| end <= body) && offset % 8 == 0
    };
    let buffers = batch.buffers();
    let n_buffers = buffers.map_or(0, |buffers| buffers.len());
    let buffers_fit = buffers
        .iter()
        .flatten()
        .all(|buffer| within(buffer.offset(), buffer.length()));
    let variadic = batch.variadicBufferCounts();
    let variadic_fit = variadic
        .iter()
        .flatten()
        .all(|count| usize::try_from(count).is_ok_and(|count| count <= n_buffers));
    if counted(batch.length()) && nodes_fit && buffers_fit && variadic_fit {
        Ok(Checked {
            body,
            is_batch: message.header_type() == MessageHeader::RecordBatch,
        })
    } else {
        Err(invalid(
            "a batch whose lengths or offsets are out of its body",
        ))
    }
}

fn broken(path: &str, error: &dyn std::fmt::Display) -> Problem {
    let detail = format!("`{path}` is not readable Arrow IPC: {error}");
    Problem::new(ErrorCode::BadRecord, detail)
}

fn stream(path: &str, file: File, wanted: Range<u64>) -> Result<StreamReader<Messages>, Problem> {
    let messages =
        Messages::open(file, wanted).map_err(|error| unreadable(path, "Arrow IPC", &error))?;
    let reader = decode(|| StreamReader::try_new(messages, None));
    let reader = reader.map_err(|panic| broken(path, &panic))?;
    reader.map_err(|error| broken(path, &error))
}

/// The columns of a file, in types that functions see.
pub(crate) fn file_schema(path: &str) -> Result<SchemaRef, Problem> {
    let file = File::open(path).map_err(|error| unreadable(path, "", &error))?;
    let schema = stream(path, file, 0..u64::MAX)?.schema();
    let fields: Fields = schema
        .fields()
        .iter()
        .map(weft_sandbox::guest_field)
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Reads one file.
pub(crate) struct ArrowReader {
    path: String,
    reader: StreamReader<Messages>,
    schema: SchemaRef,
    order: Vec<usize>,
    /// What is left of the last batch.
    rest: Option<RecordBatch>,
    pub(super) bytes_read: u64,
}

impl ArrowReader {
    pub(super) fn open(plan: &FilesPlan, split: &FileSplit) -> Result<Self, Problem> {
        let file = File::open(&split.path).map_err(|error| unreadable(&split.path, "", &error))?;
        check_size(split, &file)?;
        let wanted = match split.part {
            Part::Bytes { start, end } => start..end,
            Part::Whole | Part::RowGroups { .. } => 0..split.file_bytes,
        };
        let bytes_read = wanted.end - wanted.start;
        let reader = stream(&split.path, file, wanted)?;
        Ok(Self {
            order: positions(&split.path, &reader.schema(), &plan.schema)?,
            path: split.path.clone(),
            reader,
            schema: Arc::clone(&plan.schema),
            rest: None,
            bytes_read,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        let batch = match self.rest.take() {
            Some(batch) => batch,
            None => {
                let read = decode(|| {
                    let batch = self.reader.next()?;
                    Some(batch.and_then(|batch| conform(batch, &self.order, &self.schema)))
                });
                let read = read.map_err(|panic| broken(&self.path, &panic))?;
                match read
                    .transpose()
                    .map_err(|error| broken(&self.path, &error))?
                {
                    Some(batch) => batch,
                    None => return Ok(None),
                }
            }
        };
        let rows = batch.num_rows();
        if rows > BATCH_ROWS {
            self.rest = Some(batch.slice(BATCH_ROWS, rows - BATCH_ROWS));
        }
        Ok(Some(batch.slice(0, rows.min(BATCH_ROWS))))
    }
}
