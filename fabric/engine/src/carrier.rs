//! Columns that reach functions by a carrier, and are themselves again in outputs.
//!
//! Functions know a small set of types. A time of day reaches them as whole microseconds, a timestamp with a zone as
//! one without. The column's field says what it stands for; a column of the same name and type that a function emits
//! stands for the same, and outputs write it so.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{
    DataType, DurationMicrosecondType, Field, FieldRef, Int64Type, Schema, SchemaRef,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;

/// Key in the metadata of a field.
const STANDS_FOR: &str = "weft:stands-for";
const UTC: &str = "utc";
const TIME_OF_DAY: &str = "time-of-day";
const DURATION: &str = "duration";

/// The field in whose type functions see a column of a file.
pub(crate) fn carrier(field: &FieldRef) -> FieldRef {
    let seen = weft_sandbox::guest_field(field);
    let stands_for = match field.data_type() {
        DataType::Timestamp(_, Some(_)) => UTC,
        DataType::Time32(_) | DataType::Time64(_) => TIME_OF_DAY,
        DataType::Duration(_) => DURATION,
        _ => return seen,
    };
    let metadata = HashMap::from([(STANDS_FOR.to_owned(), stands_for.to_owned())]);
    Arc::new(Field::clone(&seen).with_metadata(metadata))
}

/// Whether a column as functions see it stands for another type.
pub(crate) fn is_carrier(field: &Field) -> bool {
    field.metadata().contains_key(STANDS_FOR)
}

/// Whether values of a column as functions see it and of a column of a file mean the same.
pub(crate) fn stand_for_the_same(seen: &Field, found: &Field) -> bool {
    let meaning = |field: &Field| field.metadata().get(STANDS_FOR).cloned();
    matches!(found.data_type(), DataType::Null)
        || *seen.data_type() != DataType::Int64
        || meaning(seen) == meaning(&carrier(&Arc::new(found.clone())))
}

/// The type of a column, for people: a carrier's is that which it stands for.
pub(crate) fn described(field: &Field) -> String {
    let carried = carrier(&Arc::new(field.clone()));
    let meaning = [field, &*carried]
        .into_iter()
        .find_map(|field| field.metadata().get(STANDS_FOR));
    match meaning.map(String::as_str) {
        Some(meaning @ (TIME_OF_DAY | DURATION)) => meaning.to_owned(),
        _ => weft_sandbox::type_name(field.data_type()),
    }
}

/// The columns that a function emits: one with the name and the type of a column that it is given stands for the same.
pub(crate) fn inherit(output: SchemaRef, input: &Schema) -> SchemaRef {
    let stands_for = |field: &FieldRef| {
        let (_, given) = input.column_with_name(field.name())?;
        let is_same = given.data_type() == field.data_type();
        let metadata = given.metadata();
        (is_same && metadata.contains_key(STANDS_FOR)).then(|| metadata.clone())
    };
    if !output
        .fields()
        .iter()
        .any(|field| stands_for(field).is_some())
    {
        return output;
    }
    let fields = output.fields().iter().map(|field| match stands_for(field) {
        Some(metadata) => Arc::new(Field::clone(field).with_metadata(metadata)),
        None => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The columns of an output, as files have them.
pub(crate) struct Restored {
    pub(crate) schema: SchemaRef,
    /// Whether any column has another type than functions see.
    is_changed: bool,
}

impl Restored {
    /// `schema`: the columns as functions see them.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let fields = schema.fields().iter().map(restored);
        let restored = Schema::new(fields.collect::<Vec<_>>());
        let pairs = restored.fields().iter().zip(schema.fields());
        let is_changed = pairs
            .into_iter()
            .any(|(a, b)| a.data_type() != b.data_type());
        Self {
            schema: match is_changed {
                true => Arc::new(restored),
                false => Arc::clone(schema),
            },
            is_changed,
        }
    }

    /// Rows as files have them. Errors: a time of day that is none.
    pub(crate) fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        if !self.is_changed {
            return Ok(batch.clone());
        }
        let fields = self.schema.fields().iter();
        let columns = fields.zip(batch.columns());
        let columns = columns.map(|(field, column)| restore(field, column));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema = Arc::clone(&self.schema);
        RecordBatch::try_new_with_options(schema, columns.collect::<Result<_, _>>()?, &options)
    }
}

fn restored(field: &FieldRef) -> FieldRef {
    let stands_for = field.metadata().get(STANDS_FOR).map(String::as_str);
    let data_type = match (stands_for, field.data_type()) {
        (Some(UTC), DataType::Timestamp(TimeUnit::Microsecond, None)) => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        (Some(TIME_OF_DAY), DataType::Int64) => DataType::Time64(TimeUnit::Microsecond),
        (Some(DURATION), DataType::Int64) => DataType::Duration(TimeUnit::Microsecond),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()))
}

fn restore(field: &Field, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    const DAY_US: i64 = 86_400_000_000;
    Ok(match (field.data_type(), column.data_type()) {
        (DataType::Timestamp(_, Some(zone)), DataType::Timestamp(_, None)) => {
            let times = column.as_primitive::<TimestampMicrosecondType>().clone();
            Arc::new(times.with_timezone(Arc::clone(zone)))
        }
        (DataType::Time64(_), DataType::Int64) => {
            let times = column.as_primitive::<Int64Type>();
            if let Some(time) = times
                .iter()
                .flatten()
                .find(|time| !(0..DAY_US).contains(time))
            {
                let what = format!(
                    "`{}` holds {time} µs, which is no time of day",
                    field.name()
                );
                return Err(ArrowError::CastError(what));
            }
            Arc::new(times.reinterpret_cast::<Time64MicrosecondType>())
        }
        (DataType::Duration(_), DataType::Int64) => {
            let durations = column.as_primitive::<Int64Type>();
            Arc::new(durations.reinterpret_cast::<DurationMicrosecondType>())
        }
        _ => Arc::clone(column),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn columns_come_back_as_what_they_stand_for() {
        let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into()));
        let types = [
            ("at", utc),
            ("t", DataType::Time32(TimeUnit::Second)),
            ("d", DataType::Duration(TimeUnit::Second)),
            ("n", DataType::Int64),
        ];
        let fields = types.map(|(name, data_type)| Arc::new(Field::new(name, data_type, true)));
        let seen = Arc::new(Schema::new(fields.iter().map(carrier).collect::<Vec<_>>()));
        let plain = |field: &FieldRef| Field::new(field.name(), field.data_type().clone(), true);
        let emitted = Schema::new(seen.fields().iter().map(plain).collect::<Vec<_>>());
        let bound = inherit(Arc::new(emitted), &seen);
        let restored = Restored::new(&bound);
        let whole = || -> ArrayRef { Arc::new(Int64Array::from(vec![Some(5), None])) };
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None]));
        let batch = RecordBatch::try_new(bound, vec![at, whole(), whole(), whole()]);
        let files = restored.batch(&batch.expect("of the types that functions see"));
        let files = files.expect("times of day");
        let types: Vec<String> = files
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.data_type().to_string())
            .collect();
        assert_eq!(
            types,
            [
                "Timestamp(µs, \"UTC\")",
                "Time64(µs)",
                "Duration(µs)",
                "Int64"
            ]
        );
        let other = Schema::new(vec![Field::new("t", DataType::Utf8, true)]);
        let other = inherit(Arc::new(other), &seen);
        assert_eq!(
            Restored::new(&other).schema.field(0).data_type(),
            &DataType::Utf8
        );
    }

    #[test]
    fn no_other_number_is_a_time_of_day() {
        let time = Arc::new(Field::new(
            "t",
            DataType::Time64(TimeUnit::Microsecond),
            true,
        ));
        let seen = Arc::new(Schema::new(vec![carrier(&time)]));
        let late: ArrayRef = Arc::new(Int64Array::from(vec![86_400_000_000]));
        let batch = RecordBatch::try_new(Arc::clone(&seen), vec![late]).expect("one column");
        let refused = Restored::new(&seen)
            .batch(&batch)
            .expect_err("it is tomorrow");
        assert!(
            refused.to_string().contains("`t` holds 86400000000 µs"),
            "{refused}"
        );
    }
}
