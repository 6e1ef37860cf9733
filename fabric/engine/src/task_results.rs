//! Results of task functions as rows: the place of the input, and the bytes that the function returned.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use weft_core::{ErrorCode, LimitKind, Problem};
use weft_sandbox::Reservation;

use crate::edge::out_of_memory;
use crate::environment::TaskEnvironment;
use crate::plan::FunctionPlan;
use crate::problems::internal;
use crate::running_guest::Emitted;

/// Bytes of a result that becomes a row.
const MAX_RESULT_BYTES: usize = 1 << 20;
/// Bytes of results, and their number, that are collected before they go on as rows.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_ROWS: usize = 8_192;
/// Bytes of a row beside its result: the place, and an offset.
const ROW_BYTES: u64 = 16;

/// Name of the column with the number of the task that read a row.
pub(crate) const PARTITION: &str = "partition";
/// Name of the column with the number of a task, or that of a row among those of a task.
pub(crate) const INDEX: &str = "index";
const RESULT: &str = "result";

/// The columns of the results of a set of so many tasks.
pub(crate) fn counted_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![number(INDEX), result()]))
}

/// The columns of the results of tasks that run for rows.
pub(crate) fn placed_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        number(PARTITION),
        number(INDEX),
        result(),
    ]))
}

/// A column of numbers of tasks or rows.
pub(crate) fn number(name: &str) -> Field {
    Field::new(name, DataType::UInt32, false)
}

fn result() -> Field {
    Field::new(RESULT, DataType::Binary, false)
}

/// Place of the input of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The task that read the rows; 0 in a set of so many tasks.
    pub(crate) partition: u32,
    /// Number of the rows among those of that task, or of the task in its set.
    pub(crate) index: u32,
}

/// Results that are about to go on as rows.
pub(crate) struct TaskResults {
    schema: SchemaRef,
    label: String,
    places: Vec<Place>,
    results: BinaryBuilder,
    reserved: Option<Reservation>,
}

impl TaskResults {
    pub(crate) fn new(function: &FunctionPlan) -> Self {
        Self {
            schema: Arc::clone(&function.output),
            label: function.label.clone(),
            places: Vec::new(),
            results: BinaryBuilder::new(),
            reserved: None,
        }
    }

    /// Adds a result. Errors: `LimitExceeded` if it is too large, or memory is short.
    pub(crate) fn push(
        &mut self,
        environment: &TaskEnvironment,
        place: Place,
        result: &[u8],
    ) -> Result<(), Problem> {
        if result.len() > MAX_RESULT_BYTES {
            return Err(self.too_large(result.len()));
        }
        let bytes = result.len() as u64 + ROW_BYTES;
        if !environment.try_hold(&mut self.reserved, bytes) {
            return Err(out_of_memory(&environment.account, "results of tasks"));
        }
        self.places.push(place);
        self.results.append_value(result);
        Ok(())
    }

    fn too_large(&self, bytes: usize) -> Problem {
        let most = MAX_RESULT_BYTES >> 20;
        let detail = format!(
            "`{}` returned {bytes} bytes; a result that becomes a row may have {most} MiB: return less, or use a map \
             function, which emits rows of any number",
            self.label
        );
        Problem::new(ErrorCode::LimitExceeded, detail)
            .of_function(self.label.clone())
            .of_limit(LimitKind::Output, format!("{most} MiB"))
    }

    /// Returns whether the rows should go on before more are added.
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.reserved.as_ref().map_or(0, Reservation::bytes);
        bytes >= BATCH_BYTES || self.places.len() >= BATCH_ROWS
    }

    /// Takes the rows.
    pub(crate) fn take(&mut self) -> Result<Emitted, Problem> {
        let places = std::mem::take(&mut self.places);
        if places.is_empty() {
            return Ok(Emitted::default());
        }
        let numbers = |of: fn(&Place) -> u32| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(places.iter().map(of)))
        };
        let results: ArrayRef = Arc::new(self.results.finish());
        let mut columns = vec![numbers(|place| place.index), results];
        if self.schema.fields().len() > columns.len() {
            columns.insert(0, numbers(|place| place.partition));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        Ok(Emitted {
            batches: vec![batch.map_err(|error| internal(&error))?],
            reserved: self.reserved.take().map(Arc::new).into_iter().collect(),
        })
    }
}
