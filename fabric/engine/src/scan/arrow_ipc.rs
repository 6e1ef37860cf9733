//! Arrow IPC, files and streams, read message by message.
//!
//! What a message says of its body is checked before a decoder sees it: decoders believe it. A split's batches are those whose messages begin within
//! it; the others are passed over unread, but for dictionaries. What a file's footer says is needed only where
//! messages cannot be read one after the other.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Fields, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{Endianness, Message, MessageHeader, MetadataVersion, root_as_message};
use weft_core::{ErrorCode, Problem};

use super::file::Failure;
use super::{BATCH_ROWS, InputFile, Inputs, conform, positions, shared, unreadable};
use crate::carrier::carrier;
use crate::plan::{FileSplit, FilesPlan, Part};
use crate::untrusted::decode;

mod footer;

use footer::Footer;

/// How a file begins; a stream begins with its first message.
const FILE_MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// Bytes of what a message says of its body.
const METADATA_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a body.
const BODY_BYTES_MAX: u64 = 1 << 30;
/// The same, of what somebody sends: there is no file whose size bounds it.
const STREAM_BODY_BYTES_MAX: u64 = 64 << 20;
/// Bytes of dictionaries, which are kept until the end, in what somebody sends.
const STREAM_DICTIONARIES_BYTES_MAX: u64 = 64 << 20;
const STREAM_BUFFER_BYTES: usize = 64 << 10;
/// Values of one array.
const VALUES_MAX: i64 = 1 << 31;

/// The messages of a file, each checked before its first byte is given out.
struct Messages {
    file: Box<dyn Input>,
    /// There may be something behind the last message.
    has_footer: bool,
    /// Bytes that have been read.
    position: u64,
    /// Bytes that are still to be read; of a stream nobody knows.
    left: u64,
    /// Bytes of a body.
    body_bytes_max: u64,
    /// Bytes of dictionaries that may still come.
    dictionaries_left: u64,
    /// Where messages of batches begin that are given out.
    wanted: Range<u64>,
    /// Whether the schema was given out.
    has_schema: bool,
    /// Positions of the messages behind the schema, if they cannot be taken as they stand.
    order: Option<VecDeque<u64>>,
    /// What is to be given out before the body.
    head: io::Cursor<Vec<u8>>,
    body_left: u64,
    ended: bool,
}

/// Where messages come from.
trait Input: BufRead + Send {
    /// Passes over bytes that nobody wants.
    fn pass_over(&mut self, bytes: i64) -> io::Result<()>;
    /// Goes to a position in the file.
    fn go_to(&mut self, position: u64) -> io::Result<()>;
    /// True where nothing says how long it is: it ends where nothing more comes.
    fn is_stream(&self) -> bool;
}

impl Input for BufReader<InputFile> {
    fn pass_over(&mut self, bytes: i64) -> io::Result<()> {
        self.seek_relative(bytes)
    }

    fn go_to(&mut self, position: u64) -> io::Result<()> {
        self.seek(io::SeekFrom::Start(position)).map(drop)
    }

    fn is_stream(&self) -> bool {
        false
    }
}

impl Input for BufReader<Box<dyn Read + Send>> {
    fn pass_over(&mut self, _: i64) -> io::Result<()> {
        Err(invalid("all of a stream is wanted"))
    }

    fn go_to(&mut self, _: u64) -> io::Result<()> {
        Err(invalid("a stream is read as it comes"))
    }

    fn is_stream(&self) -> bool {
        true
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Messages {
    fn open(file: InputFile, wanted: Range<u64>) -> io::Result<Self> {
        let bytes = file.size()?;
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
        let footer = match magic == FILE_MAGIC {
            true => Footer::read(file.get_ref(), bytes),
            false => None,
        };
        let mut head = io::Cursor::default();
        let mut order = None;
        if let Some(footer) = footer {
            if let Some(schema) = footer.schema_without_length(&mut file, bytes - left)? {
                left -= schema.len() as u64;
                file.seek_relative(i64::try_from(schema.len()).map_err(|_| invalid("a schema"))?)?;
                check(&schema, BODY_BYTES_MAX)?;
                let length = u32::try_from(schema.len()).map_err(|_| invalid("a schema"))?;
                head = io::Cursor::new([&[0xff; 4], &length.to_le_bytes()[..], &schema].concat());
            }
            order = footer.order(&wanted);
        }
        Ok(Self {
            file: Box::new(file),
            has_footer: true,
            position: bytes - left,
            left,
            body_bytes_max: BODY_BYTES_MAX,
            dictionaries_left: u64::MAX,
            wanted,
            has_schema: !head.get_ref().is_empty(),
            order,
            head,
            body_left: 0,
            ended: false,
        })
    }

    /// Of what somebody sends: a stream, or a file, whose messages are one.
    fn of_stream(mut bytes: Box<dyn Read + Send>) -> io::Result<Self> {
        let mut magic = Vec::new();
        (&mut bytes).take(8).read_to_end(&mut magic)?;
        let has_footer = magic == FILE_MAGIC;
        if !has_footer {
            bytes = Box::new(io::Cursor::new(magic).chain(bytes));
        }
        let mut file: Box<dyn Input> =
            Box::new(BufReader::with_capacity(STREAM_BUFFER_BYTES, bytes));
        while has_footer && file.fill_buf()?.starts_with(&[0; 8]) {
            file.consume(8);
        }
        Ok(Self {
            file,
            has_footer,
            position: 0,
            left: u64::MAX,
            body_bytes_max: STREAM_BODY_BYTES_MAX,
            dictionaries_left: STREAM_DICTIONARIES_BYTES_MAX,
            wanted: 0..u64::MAX,
            has_schema: false,
            order: None,
            head: io::Cursor::default(),
            body_left: 0,
            ended: false,
        })
    }

    fn take(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        if bytes > self.left {
            return Err(invalid("it ends within a message"));
        }
        self.count(bytes);
        let mut taken = Vec::new();
        (&mut self.file).take(bytes).read_to_end(&mut taken)?;
        if taken.len() as u64 != bytes {
            return Err(invalid("it was cut while it was read"));
        }
        Ok(taken)
    }

    fn count(&mut self, bytes: u64) {
        self.position += bytes;
        self.left -= bytes;
    }

    /// Reads and checks the head of the next message that is wanted.
    fn advance(&mut self) -> io::Result<()> {
        while !self.advance_one()? {}
        Ok(())
    }

    /// Fails where the footer names a message, and there is none.
    fn check_order(&self) -> io::Result<()> {
        match self.order {
            Some(_) => Err(invalid("its footer names what is no message")),
            None => Ok(()),
        }
    }

    /// Goes to the message that comes next, if that is not the one that stands next. Answers whether there is one.
    fn go_to_next(&mut self) -> io::Result<bool> {
        if !std::mem::replace(&mut self.has_schema, true) {
            return Ok(true);
        }
        let Some(order) = &mut self.order else {
            return Ok(true);
        };
        let Some(offset) = order.pop_front() else {
            return Ok(false);
        };
        let file_bytes = self.position + self.left;
        self.left = file_bytes
            .checked_sub(offset)
            .ok_or_else(|| invalid("its footer names what is not in the file"))?;
        self.position = offset;
        self.file.go_to(offset)?;
        Ok(true)
    }

    /// Reads and checks the next message's head. Answers whether it is wanted, or the last one was.
    fn advance_one(&mut self) -> io::Result<bool> {
        if !self.go_to_next()? {
            self.ended = true;
            return Ok(true);
        }
        let begins = self.position;
        let is_at_end =
            self.left == 0 || (self.file.is_stream() && self.file.fill_buf()?.is_empty());
        if is_at_end {
            self.check_order()?;
            self.ended = true;
            return Ok(true);
        }
        let mut head = self.take(4)?;
        if head == [0xff; 4] {
            head.extend(self.take(4)?);
        }
        let length: [u8; 4] = head[head.len() - 4..].try_into().expect("four bytes");
        let length = u64::from(u32::from_le_bytes(length));
        if length > METADATA_BYTES_MAX && begins == 0 {
            return Err(invalid("it does not begin as Arrow does"));
        }
        if length > METADATA_BYTES_MAX {
            return Err(invalid(format!(
                "a message's head has {length} bytes; {METADATA_BYTES_MAX} are allowed"
            )));
        }
        if length == 0 {
            self.check_order()?;
            if !self.has_footer && !self.file.fill_buf()?.is_empty() {
                return Err(invalid("there is more behind the end of the stream"));
            }
            self.ended = true;
        } else {
            let metadata = self.take(length)?;
            let checked = check(&metadata, self.body_bytes_max)?;
            if checked.body > self.left {
                return Err(invalid("it ends within a message"));
            }
            self.count(checked.body);
            if !checked.is_batch {
                self.dictionaries_left = self
                    .dictionaries_left
                    .checked_sub(checked.body)
                    .ok_or_else(|| {
                        let most = STREAM_DICTIONARIES_BYTES_MAX >> 20;
                        invalid(format!(
                            "its dictionaries have more than the {most} MiB that are allowed: send values as they are"
                        ))
                    })?;
            }
            if checked.is_batch && begins >= self.wanted.end {
                self.ended = true;
                return Ok(true);
            }
            if checked.is_batch && begins < self.wanted.start {
                let body = i64::try_from(checked.body).map_err(|_| invalid("a body"))?;
                self.file.pass_over(body)?;
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

/// Refuses values whose bytes stand in another order than ours.
fn check_endianness(message: &Message<'_>) -> io::Result<()> {
    let schema = message.header_as_schema();
    match schema.is_some_and(|schema| schema.endianness() != Endianness::Little) {
        true => Err(invalid(
            "its values are big-endian: write it again on a machine that is not",
        )),
        false => Ok(()),
    }
}

/// Checks what a message says.
fn check(metadata: &[u8], body_bytes_max: u64) -> io::Result<Checked> {
    let message = root_as_message(metadata).map_err(|error| invalid(error.to_string()))?;
    if message.version() > MetadataVersion::V5 {
        let version = message.version();
        return Err(invalid(format!(
            "its format {version:?} is newer than `V5`"
        )));
    }
    let body = u64::try_from(message.bodyLength())
        .ok()
        .filter(|bytes| *bytes <= body_bytes_max)
        .ok_or_else(|| {
            invalid(format!(
                "a body has {} bytes; {body_bytes_max} are allowed",
                message.bodyLength()
            ))
        })?;
    let batch = match message.header_type() {
        MessageHeader::Schema => {
            check_endianness(&message)?;
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
        // Buffers that are not aligned are copied to where they are.
        end.is_some_and(|end| end <= body)
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
    if !(counted(batch.length()) && nodes_fit && buffers_fit && variadic_fit) {
        let what = "a batch whose lengths or offsets are out of its body";
        return Err(invalid(what));
    }
    Ok(Checked {
        body,
        is_batch: message.header_type() == MessageHeader::RecordBatch,
    })
}

fn broken(path: &str, error: &dyn std::fmt::Display) -> Problem {
    let detail = format!("`{path}` is not readable Arrow IPC: {error}");
    Problem::new(ErrorCode::BadRecord, detail)
}

fn stream(
    path: &str,
    file: InputFile,
    wanted: Range<u64>,
) -> Result<StreamReader<Messages>, Problem> {
    let failure = file.failure();
    let messages = Messages::open(file, wanted);
    let messages = messages.map_err(|error| unreadable(path, "Arrow IPC", &error));
    let reader = messages.and_then(|messages| reader(path, messages));
    reader.map_err(|problem| failure.or(path, || problem))
}

fn reader(path: &str, messages: Messages) -> Result<StreamReader<Messages>, Problem> {
    let reader = decode(|| StreamReader::try_new(messages, None));
    let reader = reader.map_err(|panic| broken(path, &panic))?;
    reader.map_err(|error| broken(path, &error))
}

/// The columns of a file.
pub(crate) fn file_schema(inputs: &Inputs, path: &str, bytes: u64) -> Result<SchemaRef, Problem> {
    let file = inputs.open(path, bytes)?;
    Ok(stream(path, file, 0..u64::MAX)?.schema())
}

fn seen_by_functions(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().map(carrier);
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

/// Reads one file.
pub(crate) struct ArrowReader {
    path: String,
    reader: StreamReader<Messages>,
    pub(super) schema: SchemaRef,
    order: Vec<usize>,
    /// What is left of the last batch.
    rest: Option<RecordBatch>,
    /// What is left of it that was not made yet.
    unconformed: Option<RecordBatch>,
    /// Tells what the store failed at from what the file is broken at.
    failure: Failure,
    pub(super) bytes_read: u64,
}

impl ArrowReader {
    pub(super) fn open(
        inputs: &Inputs,
        plan: &FilesPlan,
        split: &FileSplit,
    ) -> Result<Self, Problem> {
        let file = inputs.open_split(split)?;
        let wanted = match split.part {
            Part::Bytes { start, end } => start..end,
            Part::Whole | Part::RowGroups { .. } => 0..split.file_bytes,
        };
        let bytes_read = wanted.end - wanted.start;
        file.expect_in_order(wanted.clone());
        let failure = file.failure();
        let reader = stream(&split.path, file, wanted)?;
        Ok(Self {
            order: positions(&split.path, &reader.schema(), &plan.schema)?,
            path: split.path.clone(),
            reader,
            schema: Arc::clone(&plan.schema),
            rest: None,
            unconformed: None,
            failure,
            bytes_read,
        })
    }

    /// Reads what somebody sends, a stream of messages.
    pub(super) fn of_stream(name: &str, bytes: Box<dyn Read + Send>) -> Result<Self, Problem> {
        let messages = Messages::of_stream(bytes);
        let messages = messages.map_err(|error| unreadable(name, "Arrow IPC", &error))?;
        let reader = reader(name, messages)?;
        let schema = seen_by_functions(&reader.schema());
        Ok(Self {
            order: (0..schema.fields().len()).collect(),
            path: name.to_owned(),
            reader,
            schema,
            rest: None,
            unconformed: None,
            failure: Failure::default(),
            bytes_read: 0,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        if self.rest.is_none() {
            self.rest = self.conformed()?;
        }
        let Some(batch) = self.rest.take() else {
            return Ok(None);
        };
        let rows = batch.num_rows();
        if rows > BATCH_ROWS {
            self.rest = Some(batch.slice(BATCH_ROWS, rows - BATCH_ROWS));
        }
        Ok(Some(batch.slice(0, rows.min(BATCH_ROWS))))
    }

    /// The next batch, or as many of its rows as may be made at once, in types that functions see.
    fn conformed(&mut self) -> Result<Option<RecordBatch>, Problem> {
        let failed = |error: &dyn std::fmt::Display| {
            self.failure.or(&self.path, || broken(&self.path, error))
        };
        let read = match self.unconformed.take() {
            Some(batch) => Some(batch),
            None => {
                let read = decode(|| self.reader.next()).map_err(|panic| failed(&panic))?;
                read.transpose().map_err(|error| failed(&error))?
            }
        };
        let Some(batch) = read else {
            return Ok(None);
        };
        let made = decode(|| {
            let rows = shared::rows_at_once(&batch, &self.order)?;
            let made = conform(batch.slice(0, rows), &self.order, &self.schema);
            made.map_err(|error| error.to_string())
        });
        let made = made.flatten().map_err(|what| failed(&what))?;
        let (rows, all) = (made.num_rows(), batch.num_rows());
        if rows < all {
            self.unconformed = Some(batch.slice(rows, all - rows));
        }
        Ok(Some(made))
    }
}
