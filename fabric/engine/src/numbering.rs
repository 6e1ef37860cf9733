//! Places of rows: the task that read them, and their number among the rows of that task.
//!
//! Both follow from inputs and plan alone, so a row has the same place in every attempt, whichever node reads it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use weft_core::{ErrorCode, Problem};

use crate::plan::NumberPlan;
use crate::problems::internal;

/// Writes places behind the rows of a task.
pub(crate) struct Numbering {
    plan: NumberPlan,
    /// Rows before the next one.
    rows: u64,
}

impl Numbering {
    pub(crate) fn new(plan: &NumberPlan) -> Self {
        Self {
            plan: plan.clone(),
            rows: 0,
        }
    }

    /// The rows of a batch of `task`, with two columns more. Errors: `TooLarge` after 2^32 numbers.
    pub(crate) fn number(
        &mut self,
        task: u32,
        batch: &RecordBatch,
    ) -> Result<RecordBatch, Problem> {
        let n = batch.num_rows();
        let each = u64::from(self.plan.rows.max(1));
        let numbers = (self.rows..self.rows + n as u64).map(|row| u32::try_from(row / each));
        let numbers = numbers.collect::<Result<Vec<u32>, _>>();
        let numbers = numbers.map_err(|_| {
            let detail =
                "a task has read more than 4,294,967,296 rows: cut the input into more files";
            Problem::new(ErrorCode::TooLarge, detail)
        })?;
        self.rows += n as u64;
        let task: ArrayRef = Arc::new(UInt32Array::from_value(task, n));
        let numbers: ArrayRef = Arc::new(UInt32Array::from(numbers));
        let columns = batch.columns().iter().cloned();
        let columns = columns.chain([task, numbers]).collect();
        let numbered = RecordBatch::try_new(Arc::clone(&self.plan.schema), columns);
        numbered.map_err(|error| internal(&error))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema, UInt32Type};

    use super::*;
    use crate::task_results::{INDEX, PARTITION, number};

    fn rows(n: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        RecordBatch::try_from_iter([("n", numbers)]).expect("one column")
    }

    /// Numbers of the rows of three batches.
    fn numbers(each: u32) -> Vec<u32> {
        let n = Field::new("n", DataType::Int64, false);
        let schema = Schema::new(vec![n, number(PARTITION), number(INDEX)]);
        let plan = NumberPlan {
            rows: each,
            schema: Arc::new(schema),
        };
        let mut numbering = Numbering::new(&plan);
        let batches = [3, 0, 4].map(|n| numbering.number(7, &rows(n)).expect("it is numbered"));
        let column = |column: usize| -> Vec<u32> {
            let values = batches.iter().map(|batch| batch.column(column));
            let values =
                values.flat_map(|values| values.as_primitive::<UInt32Type>().values().to_vec());
            values.collect()
        };
        assert_eq!(column(1), [7; 7]);
        column(2)
    }

    #[test]
    fn numbers_go_on_over_batches() {
        assert_eq!(numbers(1), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(numbers(3), [0, 0, 0, 1, 1, 1, 2]);
    }
}
