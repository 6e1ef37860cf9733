//! Calls that stream: a map function between a body that comes and an answer that goes, in a sandbox of its own.
//!
//! ```text
//! body ──pieces──▶ Pipe ──▶ reader ──▶ mapper ──▶ encoder ──pieces──▶ answer
//! ```
//!
//! Neither side holds more than [`WINDOW_BYTES`] of what the other has not taken: the server sends input as the call takes it, and
//! the call sends output as the client takes it. A call that streams has a thread of its own, which may wait for both.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, Meters, Problem, lock};
use weft_sandbox::{
    Component, Expressions, Fault, Guest, GuestMeters, MemoryAccount, TaskLog, monotonic_ns,
    thread_cpu_ns, unix_ns,
};

use crate::carrier::inherit;
use crate::encode::{self, Encoder};
use crate::invoke::{InvokeLog, guest_settings};
use crate::place::among_records;
use crate::plan::FileSplit;
use crate::scan::{Reader, Unknown};
use weft_protocol::{
    FromExecutor, InvokeReply, InvokeRequest, PIECE_BYTES_MAX, PIECE_WEIGHT_MIN, StreamFormats,
    WINDOW_BYTES, piece_weight,
};

/// Bytes of encoded output that are held before they are sent, unless a row is longer.
pub(crate) const ENCODED_BYTES: u64 = 4 << 20;
/// What errors call the input.
const BODY: &str = "body";

#[derive(Default)]
struct Flow {
    /// Input that has come and was not read.
    input: VecDeque<Vec<u8>>,
    /// No more input comes.
    ended: bool,
    /// Nobody waits for the call any more.
    closed: bool,
    /// What output may be sent.
    room: usize,
    /// Bytes of input that have been read.
    read: u64,
}

/// What passes between a call's thread and the one that talks to the server.
pub(crate) struct Pipe {
    flow: Mutex<Flow>,
    changed: Condvar,
}

impl Pipe {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            flow: Mutex::new(Flow {
                room: WINDOW_BYTES,
                ..Flow::default()
            }),
            changed: Condvar::new(),
        })
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        lock(&self.flow)
    }

    /// A piece of input has come. Where it is empty, it was the last.
    pub(crate) fn input(&self, piece: Vec<u8>) {
        let mut flow = self.flow();
        match piece.is_empty() {
            true => flow.ended = true,
            false => flow.input.push_back(piece),
        }
        self.changed.notify_all();
    }

    /// The client has taken a piece of output.
    pub(crate) fn taken(&self, bytes: usize) {
        self.flow().room += piece_weight(bytes);
        self.changed.notify_all();
    }

    /// Nobody waits for the call any more.
    pub(crate) fn close(&self) {
        self.flow().closed = true;
        self.changed.notify_all();
    }

    fn wait<T>(&self, mut done: impl FnMut(&mut Flow) -> Option<T>) -> io::Result<T> {
        let mut flow = self.flow();
        loop {
            if flow.closed {
                return Err(io::Error::other("nobody waits for the call any more"));
            }
            if let Some(done) = done(&mut flow) {
                return Ok(done);
            }
            flow = self
                .changed
                .wait(flow)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the next piece of input, or its end.
    fn next_input(&self) -> io::Result<Option<Vec<u8>>> {
        self.wait(|flow| match flow.input.pop_front() {
            Some(piece) => {
                flow.read += piece.len() as u64;
                Some(Some(piece))
            }
            None => flow.ended.then_some(None),
        })
    }

    /// Waits until some of `bytes` may be sent; answers how many.
    fn room(&self, bytes: usize) -> io::Result<usize> {
        self.wait(|flow| {
            if flow.room < PIECE_WEIGHT_MIN {
                return None;
            }
            let now = bytes.min(flow.room).min(PIECE_BYTES_MAX);
            flow.room -= piece_weight(now);
            Some(now)
        })
    }
}

/// Where a call's pieces and answers go.
pub type Outbox = mpsc::Sender<(FromExecutor, Vec<u8>)>;

/// The body as it comes. What has been read makes room for more.
struct Body {
    pipe: Arc<Pipe>,
    request: u64,
    outbox: Outbox,
    piece: io::Cursor<Vec<u8>>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(piece) = self.pipe.next_input()? else {
                return Ok(0);
            };
            let message = FromExecutor::InputRead {
                request: self.request,
                bytes: piece.len(),
            };
            self.piece = io::Cursor::new(piece);
            self.send(message)?;
        }
    }
}

impl Body {
    /// Sends from within a reader, which knows of no tasks. Where the queue is full, so is the socket: both get free again soon.
    fn send(&self, message: FromExecutor) -> io::Result<()> {
        let mut waiting = (message, Vec::new());
        loop {
            match self.outbox.try_send(waiting) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(back)) => waiting = back,
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    return Err(io::Error::other("the server is gone"));
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Bytes that an encoder has written. Copies share them.
#[derive(Clone, Default)]
pub(crate) struct Encoded(Arc<Mutex<Vec<u8>>>);

impl Encoded {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        lock(&self.0)
    }
}

impl Write for Encoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One call that streams.
pub(crate) struct StreamCall<'a> {
    pub(crate) component: &'a Arc<Component>,
    pub(crate) request: &'a InvokeRequest,
    pub(crate) formats: &'a StreamFormats,
    pub(crate) pipe: Arc<Pipe>,
    pub(crate) cancel: CancellationToken,
    pub(crate) outbox: Outbox,
    pub(crate) expressions: &'a Arc<dyn Expressions>,
}

/// What a call used and did so far.
#[derive(Default)]
struct Progress {
    /// Of the guest that bound, and of the one that ran.
    guests: [GuestMeters; 2],
    rows_in: u64,
    bytes_out: u64,
}

impl StreamCall<'_> {
    /// Runs the call on the calling thread, which may wait. What it used is on the reply, whichever way it ends.
    pub(crate) async fn run(self) -> InvokeReply {
        let (cpu_began, began, began_ns) = (thread_cpu_ns(), monotonic_ns(), unix_ns());
        let log = Arc::new(TaskLog::default());
        let mut progress = Progress::default();
        let result = self.work(&log, &mut progress).await;
        let [bound, ran] = progress.guests;
        let on_thread_ns = bound.thread_cpu_ns + ran.thread_cpu_ns;
        let own_cpu_ns = (thread_cpu_ns() - cpu_began).saturating_sub(on_thread_ns);
        let meters = Meters {
            guest_cpu_ns: bound.cpu_ns + ran.cpu_ns,
            native_cpu_ns: own_cpu_ns + bound.native_cpu_ns + ran.native_cpu_ns,
            wall_ns: monotonic_ns() - began,
            guest_calls: bound.calls + ran.calls,
            memory_byte_ns: bound.memory_byte_ns + ran.memory_byte_ns,
            memory_peak_bytes: bound.memory_peak_bytes.max(ran.memory_peak_bytes),
            rows_in: progress.rows_in,
            rows_out: ran.rows_out,
            bytes_read: self.pipe.flow().read,
            bytes_written: progress.bytes_out,
            ..Meters::default()
        };
        let InvokeLog { lines, dropped } = InvokeLog::of(&log);
        InvokeReply {
            request: self.request.request,
            label: self.request.label.clone(),
            result,
            meters,
            log: lines,
            log_dropped: dropped,
            began_ns,
        }
    }

    async fn work(&self, log: &Arc<TaskLog>, progress: &mut Progress) -> Result<(), Problem> {
        let InvokeRequest {
            label,
            function,
            params,
            ..
        } = self.request;
        let body = Body {
            pipe: Arc::clone(&self.pipe),
            request: self.request.request,
            outbox: self.outbox.clone(),
            piece: io::Cursor::default(),
        };
        let mut reader = Reader::of_stream(&self.formats.input, BODY, Box::new(body))?;
        let account = MemoryAccount::new(self.request.limits.memory_bytes);
        let settings = |cpu_before_ns| {
            let cancel = self.cancel.clone();
            guest_settings(
                self.request,
                &account,
                log,
                cancel,
                cpu_before_ns,
                self.expressions,
            )
        };
        // As in a job, where planning binds: the guest that runs has not been called before.
        let guest = Guest::start(self.component, settings(0)).await;
        let mut guest = guest.map_err(|fault| of_call(fault, label))?;
        let bound = guest.bind(function, reader.schema(), params).await;
        progress.guests[0] = guest.meters();
        drop(guest);
        let output = bound.map_err(|fault| of_call(fault, label))?;
        let output = inherit(output, reader.schema());
        if output.fields().is_empty() {
            let detail = format!("`{label}` was bound to an output without columns");
            return Err(Problem::new(ErrorCode::SchemaMismatch, detail).of_function(label.clone()));
        }
        let (pipe, request) = (Arc::clone(&self.pipe), self.request.request);
        let out = Outgoing::new(pipe, request, self.outbox.clone());
        let encoder = Encoder::stream(self.formats.output, &output, out.encoded.clone());
        let mut answer = Answer {
            encoder: Some(encoder.map_err(|error| unwritten(&error))?),
            out,
        };
        let bound = progress.guests[0];
        let before_ns = bound.cpu_ns + bound.native_cpu_ns;
        let guest = Guest::start(self.component, settings(before_ns)).await;
        let mut guest = guest.map_err(|fault| of_call(fault, label))?;
        let ran = self
            .stream(&mut guest, &output, &mut reader, &mut answer, progress)
            .await;
        progress.guests[1] = guest.meters();
        progress.bytes_out = answer.out.bytes;
        if let Some(keys) = reader.unknown().and_then(Unknown::summary) {
            let what = format!(
                "the input has keys that its first records lack, and their values were passed over: {keys}"
            );
            log.note("warn", &what);
        }
        ran
    }

    async fn stream(
        &self,
        guest: &mut Guest,
        output: &SchemaRef,
        reader: &mut Reader,
        answer: &mut Answer,
        progress: &mut Progress,
    ) -> Result<(), Problem> {
        let label = &self.request.label;
        let InvokeRequest {
            function, params, ..
        } = self.request;
        let opened = guest.open_mapper(function, params, Arc::clone(output));
        opened.await.map_err(|fault| of_call(fault, label))?;
        let body = FileSplit::of_stream(BODY);
        while let Some(batch) = reader.next()? {
            let first = progress.rows_in + 1;
            if batch.num_rows() == 0 {
                continue;
            }
            progress.rows_in += batch.num_rows() as u64;
            let pushed = guest.push_mapper(batch).await;
            let pushed = pushed.map_err(|fault| of_call(fault, label));
            pushed.map_err(|problem| among_records(problem, first, progress.rows_in, &body))?;
            answer.send_output(guest).await?;
        }
        let finished = guest.finish_mapper().await;
        finished.map_err(|fault| of_call(fault, label))?;
        answer.send_output(guest).await?;
        answer.finish().await
    }
}

/// The answer as it goes.
struct Answer {
    /// Until it has finished.
    encoder: Option<Encoder<Encoded>>,
    out: Outgoing,
}

impl Answer {
    /// Encodes and sends what the guest has emitted.
    async fn send_output(&mut self, guest: &mut Guest) -> Result<(), Problem> {
        let (batches, _reserved) = guest.take_output();
        let Some(encoder) = &mut self.encoder else {
            return Ok(());
        };
        for batch in batches {
            for rows in encode::slices(&batch, ENCODED_BYTES) {
                encoder.write(&rows).map_err(|error| unwritten(&error))?;
                self.out.send().await?;
            }
        }
        Ok(())
    }

    /// Sends what ends the answer.
    async fn finish(&mut self) -> Result<(), Problem> {
        if let Some(encoder) = self.encoder.take() {
            let finished = encoder.finish();
            finished.map_err(|error| unwritten(&error))?;
        }
        self.out.send().await
    }
}

/// What has been encoded, on its way.
pub(crate) struct Outgoing {
    pub(crate) pipe: Arc<Pipe>,
    /// The call's number.
    pub(crate) request: u64,
    pub(crate) outbox: Outbox,
    pub(crate) encoded: Encoded,
    /// Bytes that were sent.
    pub(crate) bytes: u64,
}

impl Outgoing {
    /// Nothing has been encoded yet.
    pub(crate) fn new(pipe: Arc<Pipe>, request: u64, outbox: Outbox) -> Self {
        Self {
            pipe,
            request,
            outbox,
            encoded: Encoded::default(),
            bytes: 0,
        }
    }

    /// Sends what has been encoded since the last time, as the client takes it.
    pub(crate) async fn send(&mut self) -> Result<(), Problem> {
        let bytes = std::mem::take(&mut *self.encoded.bytes());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let gone = |what: String| Problem::new(ErrorCode::Internal, what);
            let now = self.pipe.room(rest.len());
            let now = now.map_err(|error| gone(error.to_string()))?;
            let request = self.request;
            let piece = (FromExecutor::Output { request }, rest[..now].to_vec());
            let sent = self.outbox.send(piece).await;
            sent.map_err(|_| gone("the server is gone".into()))?;
            self.bytes += now as u64;
            rest = &rest[now..];
        }
        Ok(())
    }
}

fn of_call(fault: Fault, label: &str) -> Problem {
    fault.of_fixed_limit().problem(label)
}

/// The format of the answer has no place for a value or a column.
pub(crate) fn unwritten(error: &ArrowError) -> Problem {
    Problem::new(
        ErrorCode::SchemaMismatch,
        format!("the answer cannot be written: {error}; ask for another format"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gives_what_comes_and_takes_what_there_is_room_for() {
        let pipe = Pipe::new();
        pipe.input(b"ab".to_vec());
        pipe.input(Vec::new());
        assert_eq!(pipe.next_input().expect("it is open"), Some(b"ab".to_vec()));
        assert_eq!(pipe.next_input().expect("it is open"), None);
        let first = pipe.room(2 * WINDOW_BYTES).expect("it is open");
        assert_eq!(first, PIECE_BYTES_MAX);
        let mut sent = first;
        while sent < WINDOW_BYTES {
            sent += pipe.room(WINDOW_BYTES).expect("it is open");
        }
        assert_eq!(sent, WINDOW_BYTES, "no more than the window");
        pipe.taken(3);
        assert_eq!(pipe.room(10).expect("it is open"), 10);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| pipe.room(1));
            pipe.close();
            let error = waits.join().expect("no panic");
            assert!(error.is_err(), "it waits for nothing any more");
        });
    }
}
