//! Functions of the host that a guest calls: batches, output, log, meter here, state, actors and tasks beside. One
//! struct holds
//! all that a store can reach.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use tokio_util::sync::CancellationToken;
use wasmtime::component::{Resource, ResourceTable};
use weft_core::LimitKind;

use crate::account::{MemoryAccount, Reservation};
use crate::bindings::{data, log, meter, output};
use crate::cpu::CpuMeter;
use crate::expressions::Evaluating;
use crate::fault::Fault;
use crate::fields::FIELDS_MAX;
use crate::guest::ScalarColumn;
use crate::limiter::Limiter;
use crate::log::{Flood, TaskLog};
use crate::outside::{Futures, Turn};
use crate::wasi::Wasi;
use crate::{fields, transfer};

mod actors;
mod asked;
mod state;
mod tasks;

/// Batches that a guest holds at a time.
pub(crate) const HANDLES_MAX: usize = 4096;

/// A record batch that a guest holds; what the host computed for it is reserved from the task's memory.
#[expect(
    unreachable_pub,
    reason = "the generated bindings re-export it inside their private module"
)]
pub struct Batch {
    batch: RecordBatch,
    reserved: Reservation,
}

/// All that a store can reach.
pub(crate) struct Host {
    pub(crate) table: ResourceTable,
    pub(crate) limiter: Limiter,
    pub(crate) account: Arc<MemoryAccount>,
    pub(crate) wasi: Wasi,
    pub(crate) log: Arc<TaskLog>,
    pub(crate) function: String,
    pub(crate) cancel: CancellationToken,
    pub(crate) cpu: CpuMeter,
    pub(crate) output_limit_bytes: u64,
    pub(crate) output_bytes: u64,
    /// The part of it that came before the current turn.
    pub(crate) output_before_bytes: u64,
    pub(crate) output_rows: u64,
    pub(crate) output_schema: Option<SchemaRef>,
    pub(crate) emitted: Vec<RecordBatch>,
    pub(crate) emitted_reserved: Option<Reservation>,
    pub(crate) evaluating: Evaluating,
    /// The turn of the actor, during one.
    pub(crate) turn: Option<Box<dyn Turn>>,
    /// Futures of the invocation, if it may spawn some.
    pub(crate) futures: Option<Box<dyn Futures>>,
    /// Why the host stopped the guest, if it did: it takes precedence over the trap that follows.
    pub(crate) stopped: Option<Fault>,
}

pub(crate) type HostResult<T> = wasmtime::Result<Result<T, String>>;

impl Host {
    /// Looks at the limits that pass with time; called every tick while the guest runs.
    pub(crate) fn check(&mut self) -> Result<(), Fault> {
        if self.cancel.is_cancelled() {
            return Err(Fault::Cancelled);
        }
        if self.cpu.is_over() {
            return Err(self.cpu_fault());
        }
        Ok(())
    }

    pub(crate) fn cpu_fault(&self) -> Fault {
        Fault::limit(
            LimitKind::Cpu,
            format!("{} ms", self.cpu.limit_ns() / 1_000_000),
        )
    }

    pub(crate) fn stop<T>(&mut self, fault: Fault) -> wasmtime::Result<T> {
        let message = fault.to_string();
        self.stopped.get_or_insert(fault);
        Err(wasmtime::Error::msg(message))
    }

    /// Takes in a batch from outside, in types that guests see. A guest that keeps it keeps its memory.
    pub(crate) fn take_in(&mut self, batch: RecordBatch) -> wasmtime::Result<Resource<Batch>> {
        let columns = batch.columns().iter();
        let bytes: u64 = columns.map(transfer::guest_bytes).sum();
        let reserved = self.reserve(bytes + overhead(batch.num_columns()))?;
        match transfer::materialise(batch) {
            Ok(batch) => self.hold(batch, reserved),
            Err(message) => self.stop(Fault::schema(message)),
        }
    }

    /// Takes a column that a function returned: `field`, with a value for each of `rows`.
    pub(crate) fn take_column(
        &mut self,
        column: data::Column,
        field: &Field,
        rows: usize,
    ) -> Result<ScalarColumn, Fault> {
        let bytes = column_bytes(&column);
        let Some(reserved) = self.account.try_reserve(bytes + overhead(1)) else {
            return Err(Fault::memory(&self.account));
        };
        let wrong = |message: String| Fault::schema(format!("returned a wrong {message}"));
        let column = admit(column, field).map_err(wrong)?;
        let (found, nulls) = (column.len(), column.null_count());
        if found != rows {
            return Err(wrong(format!("number of rows: {found} for {rows}")));
        }
        if nulls > 0 && !field.is_nullable() {
            return Err(wrong(format!("column: {nulls} nulls, bound to none")));
        }
        self.output_bytes += bytes;
        self.output_rows += rows as u64;
        if self.output_bytes > self.output_limit_bytes {
            let limit = format!("{} bytes", self.output_limit_bytes);
            return Err(Fault::limit(LimitKind::Output, limit));
        }
        Ok(ScalarColumn { column, reserved })
    }

    pub(crate) fn hold(
        &mut self,
        batch: RecordBatch,
        reserved: Reservation,
    ) -> wasmtime::Result<Resource<Batch>> {
        match self.table.push(Batch { batch, reserved }) {
            Ok(resource) => Ok(resource),
            Err(_) => self.stop(Fault::limit(
                LimitKind::Handles,
                format!("{HANDLES_MAX} batches"),
            )),
        }
    }

    /// Bytes that count towards the limit: those of the task, or of the turn.
    fn output_used_bytes(&self) -> u64 {
        self.output_bytes - self.output_before_bytes
    }

    fn reserve(&mut self, bytes: u64) -> wasmtime::Result<Reservation> {
        match self.account.try_reserve(bytes) {
            Some(reservation) => Ok(reservation),
            None => {
                let fault = Fault::memory(&self.account);
                self.stop(fault)
            }
        }
    }
}

/// Turns a guest's column into an array.
fn admit(column: data::Column, field: &Field) -> Result<ArrayRef, String> {
    transfer::from_guest(column, field.data_type())
        .map_err(|message| format!("column `{}`: {message}", field.name()))
}

fn column_bytes(column: &data::Column) -> u64 {
    let buffers = column.buffers.iter();
    buffers.map(|buffer| buffer.len() as u64).sum()
}

/// What a batch takes beside its rows: without it, batches of nothing would be free.
pub(crate) fn overhead(columns: usize) -> u64 {
    const BATCH_BYTES: u64 = 256;
    const COLUMN_BYTES: u64 = 256;
    BATCH_BYTES + COLUMN_BYTES * columns as u64
}

fn check_columns(columns: usize) -> Result<(), String> {
    match columns {
        0..=FIELDS_MAX => Ok(()),
        _ => Err(format!("{columns} columns; a batch may have {FIELDS_MAX}")),
    }
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, String> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(|error| error.to_string())
}

impl data::Host for Host {}

impl data::HostBatch for Host {
    fn create(
        &mut self,
        flat: Vec<data::Field>,
        columns: Vec<data::Column>,
    ) -> HostResult<Resource<Batch>> {
        let schema = match fields::from_guest(&flat) {
            Ok(schema) if schema.fields().len() == columns.len() && !columns.is_empty() => schema,
            Ok(schema) => {
                return Ok(Err(format!(
                    "{} fields and {} columns",
                    schema.fields().len(),
                    columns.len()
                )));
            }
            Err(message) => return Ok(Err(message)),
        };
        let bytes: u64 = columns.iter().map(column_bytes).sum();
        let bytes = bytes + fields::schema_bytes(&flat) + overhead(columns.len());
        let reserved = self.reserve(bytes)?;
        let columns = columns.into_iter().zip(schema.fields());
        let arrays: Result<Vec<_>, _> = columns
            .map(|(column, field)| admit(column, field))
            .collect();
        let arrays = match arrays {
            Ok(arrays) => arrays,
            Err(message) => return Ok(Err(message)),
        };
        let rows = arrays.first().map_or(0, |array| array.len());
        match batch(schema, arrays, rows) {
            Ok(batch) => Ok(Ok(self.hold(batch, reserved)?)),
            Err(message) => Ok(Err(message)),
        }
    }

    fn rows(&mut self, this: Resource<Batch>) -> wasmtime::Result<u32> {
        Ok(u32::try_from(self.table.get(&this)?.batch.num_rows())?)
    }

    fn fields(&mut self, this: Resource<Batch>) -> wasmtime::Result<Vec<data::Field>> {
        fields::to_guest(&self.table.get(&this)?.batch.schema()).map_err(wasmtime::Error::msg)
    }

    fn column(&mut self, this: Resource<Batch>, index: u32) -> HostResult<data::Column> {
        let batch = &self.table.get(&this)?.batch;
        let Some(array) = batch.columns().get(index as usize) else {
            return Ok(Err(format!(
                "there is no column {index}; the batch has {}",
                batch.num_columns()
            )));
        };
        Ok(transfer::to_guest(array))
    }

    fn project(&mut self, this: Resource<Batch>, columns: Vec<u32>) -> HostResult<Resource<Batch>> {
        if let Err(message) = check_columns(columns.len()) {
            return Ok(Err(message));
        }
        let reserved = self.reserve(overhead(columns.len()))?;
        let columns: Vec<usize> = columns.iter().map(|column| *column as usize).collect();
        match self.table.get(&this)?.batch.project(&columns) {
            Ok(batch) => Ok(Ok(self.hold(batch, reserved)?)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn with_column(
        &mut self,
        this: Resource<Batch>,
        flat: Vec<data::Field>,
        column: data::Column,
    ) -> HostResult<Resource<Batch>> {
        let old = self.table.get(&this)?.batch.clone();
        let field = match fields::from_guest(&flat) {
            Ok(schema) if schema.fields().len() == 1 => Arc::clone(&schema.fields()[0]),
            Ok(schema) => {
                return Ok(Err(format!(
                    "{} fields for one column",
                    schema.fields().len()
                )));
            }
            Err(message) => return Ok(Err(message)),
        };
        let n_columns = old.num_columns() + 1;
        if let Err(message) = check_columns(n_columns) {
            return Ok(Err(message));
        }
        let bytes = column_bytes(&column) + fields::schema_bytes(&flat) + overhead(n_columns);
        let reserved = self.reserve(bytes)?;
        let array = match admit(column, &field) {
            Ok(array) => array,
            Err(message) => return Ok(Err(message)),
        };
        let fields: Vec<_> = old
            .schema()
            .fields()
            .iter()
            .cloned()
            .chain([field])
            .collect();
        let columns = old.columns().iter().cloned().chain([array]).collect();
        match batch(Arc::new(Schema::new(fields)), columns, old.num_rows()) {
            Ok(batch) => Ok(Ok(self.hold(batch, reserved)?)),
            Err(message) => Ok(Err(message)),
        }
    }

    fn filter(&mut self, this: Resource<Batch>, keep: Vec<u8>) -> HostResult<Resource<Batch>> {
        let old = self.table.get(&this)?.batch.clone();
        let mask = match transfer::mask(keep, old.num_rows()) {
            Ok(mask) => mask,
            Err(message) => return Ok(Err(message)),
        };
        let reserved = self.reserve(batch_bytes(&old) + overhead(old.num_columns()))?;
        match arrow::compute::filter_record_batch(&old, &mask) {
            Ok(batch) => Ok(Ok(self.hold(batch, reserved)?)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn take(&mut self, this: Resource<Batch>, rows: Vec<u32>) -> HostResult<Resource<Batch>> {
        let old = self.table.get(&this)?.batch.clone();
        if let Some(row) = rows.iter().find(|row| **row as usize >= old.num_rows()) {
            return Ok(Err(format!(
                "there is no row {row}; the batch has {}",
                old.num_rows()
            )));
        }
        let bytes = old
            .columns()
            .iter()
            .map(|column| transfer::taken_bytes(column, &rows))
            .fold(0, u64::saturating_add);
        let reserved = self.reserve(bytes.saturating_add(overhead(old.num_columns())))?;
        match arrow::compute::take_record_batch(&old, &UInt32Array::from(rows)) {
            Ok(batch) => Ok(Ok(self.hold(batch, reserved)?)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn eval(
        &mut self,
        this: Resource<Batch>,
        expressions: Vec<String>,
    ) -> HostResult<Resource<Batch>> {
        let batch = self.table.get(&this)?.batch.clone();
        self.evaluate(&batch, expressions)
    }

    fn drop(&mut self, this: Resource<Batch>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// Bytes that the rows of a batch take, slices counted as what they show.
pub fn batch_bytes(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(transfer::slice_bytes).sum()
}

impl output::Host for Host {
    fn emit(&mut self, this: Resource<Batch>) -> HostResult<()> {
        let Batch {
            batch,
            mut reserved,
        } = self.table.delete(this)?;
        let Some(bound) = self.output_schema.clone() else {
            return Ok(Err("this call has no output".into()));
        };
        if !fields::fits(&batch.schema(), &bound) {
            let fault = Fault::schema(format!(
                "emitted a batch with {}, bound to {}",
                describe(&batch.schema()),
                describe(&bound)
            ));
            return self.stop(fault);
        }
        let bytes = batch_bytes(&batch);
        let (_, columns, rows) = batch.into_parts();
        let batch = match self::batch(bound, columns, rows) {
            Ok(batch) => batch,
            Err(message) => return self.stop(Fault::schema(message)),
        };
        self.output_bytes += bytes;
        self.output_rows += rows as u64;
        if self.output_bytes > self.output_limit_bytes {
            let fault = Fault::limit(
                LimitKind::Output,
                format!("{} bytes", self.output_limit_bytes),
            );
            return self.stop(fault);
        }
        if !reserved.try_resize(bytes + overhead(batch.num_columns())) {
            let fault = Fault::memory(&self.account);
            return self.stop(fault);
        }
        if rows > 0 {
            self.emitted.push(batch);
            match &mut self.emitted_reserved {
                Some(all) => all.merge(reserved),
                none => *none = Some(reserved),
            }
        }
        Ok(Ok(()))
    }
}

/// A schema as people read it.
pub(crate) fn describe(schema: &Schema) -> String {
    let fields: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), fields::type_name(field.data_type())))
        .collect();
    format!("({})", fields.join(", "))
}

impl log::Host for Host {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Error => "error",
            log::Level::Warn => "warn",
            log::Level::Info => "info",
            log::Level::Debug => "debug",
        };
        match self.log.write(level, &self.function, &message) {
            Ok(()) => Ok(()),
            Err(Flood) => self.stop(Fault::flood()),
        }
    }
}

impl meter::Host for Host {
    fn spent(&mut self) -> wasmtime::Result<meter::Usage> {
        Ok(meter::Usage {
            cpu_ns: self.cpu.used_ns(),
            memory_bytes: self.account.used_bytes(),
            output_bytes: self.output_used_bytes(),
        })
    }

    fn remaining(&mut self) -> wasmtime::Result<meter::Usage> {
        let left = |limit: u64, spent: u64| limit.saturating_sub(spent);
        Ok(meter::Usage {
            cpu_ns: left(self.cpu.limit_ns(), self.cpu.used_ns()),
            memory_bytes: left(self.account.limit_bytes(), self.account.used_bytes()),
            output_bytes: left(self.output_limit_bytes, self.output_used_bytes()),
        })
    }
}
