//! Times that are to be written as text.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Date32Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};

/// Finds times that no calendar has.
pub(crate) fn check_times(batch: &RecordBatch) -> Result<(), ArrowError> {
    let names = batch.schema_ref().fields().iter().map(|field| field.name());
    names
        .zip(batch.columns())
        .try_for_each(|(name, column)| match no_time(column) {
            Some(value) => {
                let what = format!("`{name}` holds {value}, which is no time");
                Err(ArrowError::CastError(what))
            }
            None => Ok(()),
        })
}

/// A value of a time, in the column or inside its values, that cannot be written as one.
fn no_time(column: &ArrayRef) -> Option<i64> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let times = column.as_primitive::<TimestampMicrosecondType>();
            let mut ends = [min(times), max(times)].into_iter().flatten();
            ends.find(|time| timestamp_us_to_datetime(*time).is_none())
        }
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>();
            let mut ends = [min(days), max(days)].into_iter().flatten();
            ends.find(|day| date32_to_datetime(*day).is_none())
                .map(i64::from)
        }
        DataType::List(_) => no_time(column.as_list::<i32>().values()),
        DataType::Struct(_) => column.as_struct().columns().iter().find_map(no_time),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, StructArray, TimestampMicrosecondArray};
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn times_are_written_or_refused() {
        let check = |micros: i64, days: i32| {
            let time: ArrayRef =
                Arc::new(TimestampMicrosecondArray::from(vec![None, Some(micros)]));
            let day: ArrayRef = Arc::new(Date32Array::from(vec![Some(days), None]));
            let parts = [("time", time), ("day", day)].map(|(name, column)| {
                let field = Field::new(name, column.data_type().clone(), true);
                (Arc::new(field), column)
            });
            let nested: ArrayRef = Arc::new(StructArray::from(parts.to_vec()));
            check_times(&RecordBatch::try_from_iter([("nested", nested)]).expect("a batch"))
        };
        check(1_795_176_000_000_000, 20_000).expect("is a time");
        check(9_000_000_000_000_000_000, 20_000).expect_err("is none");
        check(0, i32::MAX).expect_err("is none");
    }
}
