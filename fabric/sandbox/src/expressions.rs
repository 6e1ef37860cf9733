//! Expressions of SQL that the host evaluates over batches of guests: compiled once, in pieces, in reserved memory.
//!
//! Nothing here knows SQL. [`Expressions`] compiles texts, [`PreparedExpressions`] bounds the memory of an evaluation
//! and evaluates; both are given to a guest in its settings.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use wasmtime::component::Resource;

use crate::account::Reservation;
use crate::clock::thread_cpu_ns;
use crate::fault::{Fault, bounded};
use crate::fields;
use crate::host::{Batch, Host, HostResult, batch_bytes, overhead};
use crate::transfer::slice_bytes;

/// Expressions of one list.
const LIST_MAX: usize = 256;
/// Bytes of one expression.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of all expressions of a list.
const LIST_BYTES_MAX: usize = 64 << 10;
/// Compiled lists that a sandbox keeps. The oldest is dropped for the next one.
const LISTS_MAX: usize = 32;
/// Rows that are evaluated at a time. Limits of CPU time and cancellation are looked at in between, and temporary
/// columns are as long.
const PIECE_ROWS: usize = 8192;
/// Bytes of columns that are evaluated at a time, unless one row has more.
const PIECE_BYTES: u64 = 1 << 20;
/// Memory that is reserved for a compiled list, for each byte of its texts.
const PREPARED_BYTES_PER_TEXT_BYTE: u64 = 64;
/// Stack of the thread that compiles: planners recurse, and a guest on a fiber leaves too little.
const PREPARE_STACK_BYTES: usize = 8 << 20;

/// Compiles expressions.
pub trait Expressions: Send + Sync {
    /// Compiles `texts` for batches of `schema`, which has types that guests see. So must the result.
    ///
    /// Runs on a thread of its own with a stack of 8 MiB. Errors are texts for the guest.
    fn prepare(
        &self,
        texts: &[String],
        schema: &SchemaRef,
    ) -> Result<Arc<dyn PreparedExpressions>, String>;
}

/// Compiled expressions.
pub trait PreparedExpressions: Send + Sync {
    /// Columns of the result: one for each expression.
    fn schema(&self) -> SchemaRef;
    /// Bytes that they take themselves, more or less, but for schemas.
    fn held_bytes(&self) -> u64;
    /// Bytes that evaluation over a batch takes at most, its result and all temporary columns included.
    fn bytes_max(&self, batch: &RecordBatch) -> u64;
    /// Evaluates over a batch: the result has as many rows. Errors are texts for the guest.
    ///
    /// `goes_on` is asked before each column. If it does not go on, an error of any text ends the evaluation.
    fn evaluate(
        &self,
        batch: &RecordBatch,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<RecordBatch, String>;
}

/// Expressions of one sandbox.
pub(crate) struct Evaluating {
    expressions: Option<Arc<dyn Expressions>>,
    /// Compiled lists, the oldest first.
    lists: VecDeque<List>,
    /// CPU time of compiling and evaluating.
    native_cpu_ns: u64,
    /// Part of it that other threads spent.
    elsewhere_cpu_ns: u64,
}

struct List {
    texts: Vec<String>,
    schema: SchemaRef,
    prepared: Arc<dyn PreparedExpressions>,
    /// Given back with the list.
    _reserved: Reservation,
}

/// Why there is no result.
enum Unevaluated {
    /// The guest is told.
    Refused(String),
    /// The guest is stopped.
    Stopped(Fault),
}

impl From<Fault> for Unevaluated {
    fn from(fault: Fault) -> Self {
        Unevaluated::Stopped(fault)
    }
}

impl Evaluating {
    pub(crate) fn new(expressions: Option<Arc<dyn Expressions>>) -> Self {
        Self {
            expressions,
            lists: VecDeque::new(),
            native_cpu_ns: 0,
            elsewhere_cpu_ns: 0,
        }
    }

    /// CPU time of expressions, and the part of it that other threads spent.
    pub(crate) fn cpu_ns(&self) -> (u64, u64) {
        (self.native_cpu_ns, self.elsewhere_cpu_ns)
    }

    fn find(&self, texts: &[String], schema: &SchemaRef) -> Option<Arc<dyn PreparedExpressions>> {
        let is_same = |list: &&List| list.texts == texts && list.schema == *schema;
        let found = self.lists.iter().find(is_same);
        found.map(|list| Arc::clone(&list.prepared))
    }

    fn keep(&mut self, list: List) {
        if self.lists.len() >= LISTS_MAX {
            self.lists.pop_front();
        }
        self.lists.push_back(list);
    }
}

impl Host {
    /// Evaluates expressions over a batch that the guest holds.
    pub(crate) fn evaluate(
        &mut self,
        batch: &RecordBatch,
        texts: Vec<String>,
    ) -> HostResult<Resource<Batch>> {
        let began_ns = thread_cpu_ns();
        let evaluated = self.evaluate_unmetered(batch, texts);
        self.evaluating.native_cpu_ns += thread_cpu_ns().saturating_sub(began_ns);
        match evaluated {
            Ok((batch, reserved)) => Ok(Ok(self.hold(batch, reserved)?)),
            Err(Unevaluated::Refused(message)) => Ok(Err(bounded(message))),
            Err(Unevaluated::Stopped(fault)) => self.stop(fault),
        }
    }

    fn evaluate_unmetered(
        &mut self,
        batch: &RecordBatch,
        texts: Vec<String>,
    ) -> Result<(RecordBatch, Reservation), Unevaluated> {
        let prepared = self.prepared(texts, &batch.schema())?;
        let schema = prepared.schema();
        let overhead = overhead(schema.fields().len());
        let mut reserved = self.try_reserve(overhead)?;
        let mut pieces = Vec::new();
        let (rows, mut next, mut held) = (batch.num_rows(), 0, overhead);
        // A batch without rows is evaluated as well: its result has columns.
        while pieces.is_empty() || next < rows {
            self.check()?;
            let piece = piece(batch, next);
            self.resize(
                &mut reserved,
                held.saturating_add(prepared.bytes_max(&piece)),
            )?;
            let evaluated = self.evaluate_piece(&*prepared, &piece)?;
            held += batch_bytes(&evaluated) + overhead;
            self.resize(&mut reserved, held)?;
            pieces.push(evaluated);
            next += piece.num_rows().max(1);
        }
        let whole = match (pieces.pop(), pieces.is_empty()) {
            (Some(only), true) => only,
            (last, _) => {
                pieces.extend(last);
                self.resize(&mut reserved, held.saturating_mul(2))?;
                let whole = concat_batches(&schema, &pieces);
                whole.map_err(|error| Unevaluated::Refused(error.to_string()))?
            }
        };
        self.resize(&mut reserved, batch_bytes(&whole) + overhead)?;
        Ok((whole, reserved))
    }

    /// Evaluates over a piece, and looks at limits before each column.
    fn evaluate_piece(
        &mut self,
        prepared: &dyn PreparedExpressions,
        piece: &RecordBatch,
    ) -> Result<RecordBatch, Unevaluated> {
        let mut fault = None;
        let evaluated = prepared.evaluate(piece, &mut || {
            fault = self.check().err();
            fault.is_none()
        });
        match fault {
            Some(fault) => Err(Unevaluated::Stopped(fault)),
            None => evaluated.map_err(Unevaluated::Refused),
        }
    }

    /// The compiled list, which is compiled if it is not kept.
    fn prepared(
        &mut self,
        texts: Vec<String>,
        schema: &SchemaRef,
    ) -> Result<Arc<dyn PreparedExpressions>, Unevaluated> {
        if let Some(prepared) = self.evaluating.find(&texts, schema) {
            return Ok(prepared);
        }
        let bytes = check(&texts).map_err(Unevaluated::Refused)?;
        let Some(expressions) = self.evaluating.expressions.clone() else {
            let message =
                "expressions are evaluated in tasks and invocations, not while a job is planned";
            return Err(Unevaluated::Refused(message.into()));
        };
        let bytes = bytes
            .saturating_mul(PREPARED_BYTES_PER_TEXT_BYTE)
            .saturating_add(schema_bytes(schema)?);
        let mut reserved = self.try_reserve(bytes)?;
        let compiled = on_thread(|| expressions.prepare(&texts, schema));
        let (prepared, cpu_ns) = compiled.map_err(|error| {
            Fault::Host(format!("the thread that compiles expressions: {error}"))
        })?;
        self.evaluating.native_cpu_ns += cpu_ns;
        self.evaluating.elsewhere_cpu_ns += cpu_ns;
        // Compiling is under the limit of the function, too.
        self.cpu.add(cpu_ns);
        let prepared = prepared.map_err(Unevaluated::Refused)?;
        let of_result = schema_bytes(&prepared.schema())?;
        let held = of_result.saturating_add(prepared.held_bytes());
        self.resize(&mut reserved, bytes.saturating_add(held))?;
        self.evaluating.keep(List {
            texts,
            schema: Arc::clone(schema),
            prepared: Arc::clone(&prepared),
            _reserved: reserved,
        });
        Ok(prepared)
    }

    fn try_reserve(&self, bytes: u64) -> Result<Reservation, Fault> {
        let reserved = self.account.try_reserve(bytes);
        reserved.ok_or_else(|| Fault::memory(&self.account))
    }

    fn resize(&self, reserved: &mut Reservation, bytes: u64) -> Result<(), Fault> {
        match reserved.try_resize(bytes) {
            true => Ok(()),
            false => Err(Fault::memory(&self.account)),
        }
    }
}

/// The rows from `next` on that are evaluated at a time.
fn piece(batch: &RecordBatch, next: usize) -> RecordBatch {
    let mut rows = PIECE_ROWS.min(batch.num_rows() - next);
    loop {
        let piece = batch.slice(next, rows);
        let bytes: u64 = piece.columns().iter().map(plain_bytes).sum();
        if rows <= 1 || bytes <= PIECE_BYTES {
            return piece;
        }
        rows /= 2;
    }
}

/// Bytes of the rows of a column but for lists: nothing is computed of those, and a slice of one has all its items.
fn plain_bytes(column: &ArrayRef) -> u64 {
    match column.data_type() {
        DataType::List(_) => 0,
        DataType::Struct(_) => column.as_struct().columns().iter().map(plain_bytes).sum(),
        _ => slice_bytes(column),
    }
}

/// Bytes of a schema that a list keeps. Errors: a type that no guest sees.
fn schema_bytes(schema: &SchemaRef) -> Result<u64, Unevaluated> {
    let flat = fields::to_guest(schema).map_err(Unevaluated::Refused)?;
    Ok(fields::schema_bytes(&flat))
}

/// Checks the bounds of a list. Returns the bytes of its texts.
fn check(texts: &[String]) -> Result<u64, String> {
    let n = texts.len();
    if n == 0 || n > LIST_MAX {
        return Err(format!("{n} expressions; 1 to {LIST_MAX} are allowed"));
    }
    if let Some(long) = texts.iter().find(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(format!(
            "an expression of {} bytes; {TEXT_BYTES_MAX} are allowed: evaluate a part of it first",
            long.len()
        ));
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > LIST_BYTES_MAX {
        return Err(format!(
            "expressions of {bytes} bytes in all; {LIST_BYTES_MAX} are allowed: evaluate fewer at a time"
        ));
    }
    Ok(bytes as u64)
}

/// Compiles on a thread with a deep stack. Returns the CPU time of the thread as well.
fn on_thread<T: Send>(
    compile: impl FnOnce() -> Result<T, String> + Send,
) -> io::Result<(Result<T, String>, u64)> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("weft-expressions".into())
            .stack_size(PREPARE_STACK_BYTES);
        // The CPU clock of a thread begins with it.
        let thread = thread.spawn_scoped(scope, || (compile(), thread_cpu_ns()))?;
        Ok(thread.join().unwrap_or_else(|_| {
            // The same texts would do so again, so it is the guest's to change them.
            let message = "the expressions confuse the planner: write them in another way";
            (Err(message.into()), 0)
        }))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    /// Rows of the pieces of a batch.
    fn pieces(batch: &RecordBatch) -> Vec<usize> {
        let (mut next, mut rows) = (0, Vec::new());
        while next < batch.num_rows() {
            rows.push(piece(batch, next).num_rows());
            next += rows.last().expect("a piece");
        }
        rows
    }

    #[test]
    fn pieces_are_bounded_by_rows_and_by_bytes() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..20_000));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("a batch");
        assert_eq!(pieces(&batch), [8192, 8192, 3616]);
        let long = "x".repeat(300 << 10);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(); 8]));
        let batch = RecordBatch::try_from_iter([("text", texts)]).expect("a batch");
        assert_eq!(pieces(&batch), [2, 3, 3]);
        // A row is not cut.
        let longer = "x".repeat(3 << 20);
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["", longer.as_str(), ""]));
        let batch = RecordBatch::try_from_iter([("text", texts)]).expect("a batch");
        assert_eq!(pieces(&batch), [1, 1, 1]);
    }
}
