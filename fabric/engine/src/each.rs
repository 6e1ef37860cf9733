//! Task functions that are called for rows: a fresh guest for each row, or for each batch of rows.
//!
//! Rows come sorted by their places, and the rows of a place are the input of one call. Which task makes the call does
//! not matter: input, place and seed are the same.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use weft_core::job::{EachInput, OutputFormat};
use weft_core::{ErrorCode, Problem};
use weft_failpoint as failpoint;
use weft_sandbox::{MemoryAccount, Reservation, batch_bytes};

use crate::edge::out_of_memory;
use crate::encode::Encoder;
use crate::environment::TaskEnvironment;
use crate::grouping::Chunk;
use crate::place::at_place;
use crate::plan::EachPlan;
use crate::problems::internal;
use crate::running_guest::{Emitted, RunningGuest};
use crate::task_results::{Place, TaskResults};

/// One call of the function.
pub(crate) struct Call {
    place: Place,
    rows: RecordBatch,
    /// Memory of rows that came in several chunks and were put together.
    reserved: Option<Reservation>,
}

/// Calls of a task function.
pub(crate) struct Each {
    plan: EachPlan,
    /// Rows of the place that goes on in the next chunk.
    waiting: Vec<(RecordBatch, Reservation)>,
    results: TaskResults,
}

impl Each {
    pub(crate) fn new(plan: &EachPlan) -> Self {
        Self {
            plan: plan.clone(),
            waiting: Vec::new(),
            results: TaskResults::new(&plan.function),
        }
    }

    /// Cuts sorted rows into calls. Rows of a place that goes on wait for the next chunk.
    pub(crate) fn calls(
        &mut self,
        account: &Arc<MemoryAccount>,
        chunk: &Chunk,
    ) -> Result<Vec<Call>, Problem> {
        let (places, rows) =
            split(&chunk.batch, &self.plan.rows).map_err(|error| internal(&error))?;
        let mut calls = Vec::with_capacity(chunk.ends.len());
        let mut start = 0;
        for (position, end) in chunk.ends.iter().enumerate() {
            let end = *end as usize;
            let part = rows.slice(start, end - start);
            let is_last = position + 1 == chunk.ends.len();
            if is_last && chunk.continues {
                self.wait(account, part)?;
                break;
            }
            let (rows, reserved) = self.whole(account, part)?;
            calls.push(Call {
                place: places[start],
                rows,
                reserved,
            });
            start = end;
        }
        Ok(calls)
    }

    /// Keeps rows until the others of their place are there.
    fn wait(&mut self, account: &Arc<MemoryAccount>, rows: RecordBatch) -> Result<(), Problem> {
        // Once as they are, once as they are put together.
        let reserved = reserve(account, 2 * batch_bytes(&rows))?;
        self.waiting.push((rows, reserved));
        Ok(())
    }

    /// The last rows of a place, behind those that wait for them, and the memory of what is put together.
    fn whole(
        &mut self,
        account: &Arc<MemoryAccount>,
        rows: RecordBatch,
    ) -> Result<(RecordBatch, Option<Reservation>), Problem> {
        if self.waiting.is_empty() {
            return Ok((rows, None));
        }
        let last = reserve(account, batch_bytes(&rows))?;
        self.waiting.push((rows, last));
        let waiting = std::mem::take(&mut self.waiting);
        let parts = waiting.iter().map(|(rows, _)| rows);
        let whole = concat_batches(&self.plan.rows, parts).map_err(|error| internal(&error))?;
        drop(waiting);
        let reserved = reserve(account, batch_bytes(&whole))?;
        Ok((whole, Some(reserved)))
    }

    /// Makes one call, in a guest of its own.
    pub(crate) async fn call(
        &mut self,
        environment: &TaskEnvironment,
        call: Call,
    ) -> Result<(), Problem> {
        environment.check_cancel()?;
        failpoint::hit("each");
        let Call {
            place,
            rows,
            reserved: _reserved,
        } = call;
        let called = self.result(environment, place, &rows).await;
        let pushed = called.and_then(|result| self.results.push(environment, place, &result));
        pushed.map_err(|problem| at_place(problem, place))
    }

    async fn result(
        &self,
        environment: &TaskEnvironment,
        place: Place,
        rows: &RecordBatch,
    ) -> Result<Vec<u8>, Problem> {
        let input = self.encoded(rows)?;
        let held = environment.account.try_reserve(input.len() as u64);
        let Some(_held) = held else {
            return Err(out_of_memory(&environment.account, "the input of a task"));
        };
        let (function, n) = (&self.plan.function, rows.num_rows() as u64);
        let guest = RunningGuest::of_call(environment, function, place, n);
        // Large, and as nothing to a call.
        let guest = Box::pin(guest).await?;
        Box::pin(guest.run(environment, place.index, &input)).await
    }

    /// Rows as the function gets them.
    fn encoded(&self, rows: &RecordBatch) -> Result<Vec<u8>, Problem> {
        let encoded = match self.plan.input {
            EachInput::Row => json(rows),
            EachInput::Batch { .. } => arrow_stream(rows),
        };
        encoded.map_err(|error| {
            let detail = format!("a row cannot be handed to a task: {error}");
            Problem::new(ErrorCode::SchemaMismatch, detail)
        })
    }

    /// Returns whether results should go on before the next call.
    pub(crate) fn is_full(&self) -> bool {
        self.results.is_full()
    }

    /// Takes the results, as rows.
    pub(crate) fn take(&mut self) -> Result<Emitted, Problem> {
        self.results.take()
    }
}

fn reserve(account: &Arc<MemoryAccount>, bytes: u64) -> Result<Reservation, Problem> {
    let reserved = account.try_reserve(bytes);
    reserved.ok_or_else(|| out_of_memory(account, "a batch for a task"))
}

/// Rows without their places, and the places.
fn split(batch: &RecordBatch, schema: &SchemaRef) -> Result<(Vec<Place>, RecordBatch), ArrowError> {
    let n_columns = schema.fields().len();
    let partitions = numbers(batch, n_columns).iter();
    let places = partitions.zip(numbers(batch, n_columns + 1).iter());
    let places = places.map(|(partition, index)| Place {
        partition: *partition,
        index: *index,
    });
    let columns = batch.columns()[..n_columns].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
    Ok((places.collect(), rows))
}

fn numbers(batch: &RecordBatch, column: usize) -> &[u32] {
    batch.column(column).as_primitive::<UInt32Type>().values()
}

/// One row as a JSON object, as outputs write it, without a line break.
fn json(row: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut encoder = Encoder::file(OutputFormat::Json, row.schema_ref(), Vec::new())?;
    encoder.write(row)?;
    let mut text = encoder.finish()?;
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    Ok(text)
}

fn arrow_stream(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut encoder = Encoder::stream(OutputFormat::Arrow, rows.schema_ref(), Vec::new())?;
    encoder.write(rows)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray, UInt32Array};
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::ipc::reader::StreamReader;
    use weft_core::{Digest, Limits};

    use super::*;
    use crate::plan::FunctionPlan;
    use crate::task_results::{INDEX, PARTITION, number, placed_schema};

    fn fields() -> Vec<Field> {
        vec![
            Field::new("n", DataType::Int64, false),
            Field::new("text", DataType::Utf8, true),
        ]
    }

    fn each(input: EachInput) -> Each {
        let function = FunctionPlan {
            stage: "each".into(),
            label: "component@1.0.0/task".into(),
            digest: Digest::from_sha256(&[1; 32]),
            function: "task".into(),
            params: Vec::new(),
            limits: Limits::default(),
            output: placed_schema(),
        };
        Each::new(&EachPlan {
            function,
            input,
            rows: Arc::new(Schema::new(fields())),
        })
    }

    /// Rows of partition 3 with these numbers, which go on after them or not.
    fn chunk(first: i64, numbers: &[u32], continues: bool) -> Chunk {
        let n = numbers.len();
        let values = first..first + i64::try_from(n).expect("few");
        let texts = values
            .clone()
            .map(|n| (n % 2 == 0).then(|| format!("line\n{n}")));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(values)),
            Arc::new(StringArray::from_iter(texts)),
            Arc::new(UInt32Array::from_value(3, n)),
            Arc::new(UInt32Array::from(numbers.to_vec())),
        ];
        let mut schema = fields();
        schema.extend([PARTITION, INDEX].map(number));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(schema)), columns);
        let ends = (1..=n).filter(|end| numbers.get(*end) != Some(&numbers[end - 1]));
        let ends: Vec<u32> = ends.map(|end| u32::try_from(end).expect("few")).collect();
        Chunk {
            batch: batch.expect("of one length"),
            hashes: vec![0; ends.len()],
            ends,
            continues,
        }
    }

    /// Number of each call, and the values of `n` in its rows.
    fn calls(each: &mut Each, chunk: &Chunk) -> Vec<(u32, Vec<i64>)> {
        let account = MemoryAccount::new(1 << 20);
        let calls = each.calls(&account, chunk).expect("there is room");
        let call = |call: Call| {
            assert_eq!(call.place.partition, 3);
            let input = each.encoded(&call.rows).expect("it is written");
            let values = match each.plan.input {
                EachInput::Row => {
                    let row: serde_json::Value = serde_json::from_slice(&input).expect("JSON");
                    vec![row["n"].as_i64().expect("a number")]
                }
                EachInput::Batch { .. } => {
                    let reader = StreamReader::try_new(&input[..], None).expect("a stream");
                    let batches: Vec<_> = reader.map(|batch| batch.expect("whole")).collect();
                    let [batch] = &batches[..] else {
                        panic!("{} batches", batches.len())
                    };
                    assert_eq!(batch.num_columns(), 2);
                    let n = batch
                        .column(0)
                        .as_primitive::<arrow::datatypes::Int64Type>();
                    n.values().to_vec()
                }
            };
            (call.place.index, values)
        };
        calls.into_iter().map(call).collect()
    }

    #[test]
    fn a_row_is_one_json_object() {
        let mut each = each(EachInput::Row);
        let account = MemoryAccount::new(1 << 20);
        let calls = each.calls(&account, &chunk(0, &[8, 9], false));
        let calls = calls.expect("there is room");
        let inputs = calls
            .iter()
            .map(|call| each.encoded(&call.rows).expect("JSON"));
        let inputs: Vec<String> = inputs
            .map(|input| String::from_utf8(input).expect("text"))
            .collect();
        assert_eq!(inputs, [r#"{"n":0,"text":"line\n0"}"#, r#"{"n":1}"#]);
    }

    #[test]
    fn each_row_is_a_call() {
        let mut each = each(EachInput::Row);
        let found = calls(&mut each, &chunk(5, &[0, 4, 7], false));
        assert_eq!(found, [(0, vec![5]), (4, vec![6]), (7, vec![7])]);
    }

    #[test]
    fn a_batch_is_one_call_wherever_it_is_cut() {
        let mut each = each(EachInput::Batch { rows: 3 });
        let first = calls(&mut each, &chunk(0, &[0, 0, 0, 2], true));
        assert_eq!(first, [(0, vec![0, 1, 2])]);
        let none = calls(&mut each, &chunk(4, &[2], true));
        assert!(none.is_empty());
        let rest = calls(&mut each, &chunk(5, &[2, 3], false));
        assert_eq!(rest, [(2, vec![3, 4, 5]), (3, vec![6])]);
        assert!(each.waiting.is_empty());
    }

    /// The rows of a call that came in several chunks are on the task's account until it was made.
    #[test]
    fn calls_hold_the_memory_of_their_rows() {
        let mut each = each(EachInput::Batch { rows: 3 });
        let account = MemoryAccount::new(1 << 20);
        for (first, continues) in [(0, true), (2, false)] {
            let calls = each.calls(&account, &chunk(first, &[0, 0], continues));
            let calls = calls.expect("there is room");
            let rows = calls.first().map_or(0, |call| batch_bytes(&call.rows));
            assert!(account.used_bytes() >= rows.max(1), "{rows} bytes");
        }
        assert_eq!(account.used_bytes(), 0, "the call is gone");
    }

    #[test]
    fn batches_that_do_not_fit_are_refused() {
        let mut each = each(EachInput::Batch { rows: 3 });
        let account = MemoryAccount::new(8);
        let refused = each.calls(&account, &chunk(0, &[0, 0], true));
        let refused = refused
            .map(|calls| calls.len())
            .expect_err("it is too much");
        assert_eq!(refused.code, ErrorCode::LimitExceeded);
    }
}
