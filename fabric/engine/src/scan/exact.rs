//! Columns in the types that functions see, every value kept exactly: one that would lose something is an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
    ListArray, StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::cast_with_options;
use arrow::datatypes::{
    DataType, Date64Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Field, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;

use super::{EXACT, value};

const DAY_MS: i64 = 86_400_000;
const DAY_US: i64 = 86_400_000_000;

/// The type in which the decoder of CSV gives a column: text, where it would take values that lose something.
pub(super) fn decoded_field(field: &Field, numbers_as_text: bool) -> Field {
    let as_text = match field.data_type() {
        DataType::Decimal128(_, _) => true,
        time if time.is_temporal() => true,
        number if number.is_numeric() => numbers_as_text,
        _ => false,
    };
    match as_text {
        true => field.clone().with_data_type(DataType::Utf8),
        false => field.clone(),
    }
}

/// Whether a column of floats may have lost digits, or become infinite, when it was decoded.
pub(super) fn may_be_inexact(column: &ArrayRef) -> bool {
    const FLOAT64_EXACT: f64 = 9_007_199_254_740_992.0;
    const FLOAT32_EXACT: f32 = 16_777_216.0;
    match column.data_type() {
        DataType::Float64 => {
            let values = column.as_any().downcast_ref::<Float64Array>();
            values.is_some_and(|values| values.values().iter().any(|v| v.abs() >= FLOAT64_EXACT))
        }
        DataType::Float32 => {
            let values = column.as_any().downcast_ref::<Float32Array>();
            values.is_some_and(|values| values.values().iter().any(|v| v.abs() >= FLOAT32_EXACT))
        }
        _ => false,
    }
}

/// A column in another type. Errors: a value would lose something.
pub(super) fn cast(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    match (column.data_type(), data_type) {
        (DataType::Null, to) => Ok(new_null_array(to, column.len())),
        (DataType::Utf8, to) => of_texts(column, to),
        (DataType::Timestamp(unit, _), DataType::Timestamp(TimeUnit::Microsecond, None)) => {
            let times = microseconds(&units(column)?, *unit)?;
            Ok(Arc::new(
                times.reinterpret_cast::<TimestampMicrosecondType>(),
            ))
        }
        (DataType::Time32(unit) | DataType::Time64(unit), DataType::Int64) => {
            let times = microseconds(&units(column)?, *unit)?;
            match times
                .iter()
                .flatten()
                .find(|time| !(0..DAY_US).contains(time))
            {
                Some(time) => {
                    let what = format!("{time} µs is no time of day");
                    Err(ArrowError::CastError(what))
                }
                None => Ok(Arc::new(times)),
            }
        }
        (DataType::Duration(unit), DataType::Int64) => {
            Ok(Arc::new(microseconds(&units(column)?, *unit)?))
        }
        (DataType::Date64, DataType::Date32) => days(column),
        (_, DataType::List(item)) => list(column, item),
        (DataType::Struct(_), DataType::Struct(members)) => {
            let structs = column.as_struct();
            let member = |field: &Arc<Field>| {
                let found = structs.column_by_name(field.name());
                match found {
                    Some(found) => cast(found, field.data_type()),
                    None => Err(ArrowError::SchemaError(format!(
                        "there is no `{}`",
                        field.name()
                    ))),
                }
            };
            let columns = members.iter().map(member).collect::<Result<Vec<_>, _>>()?;
            let nulls = structs.nulls().cloned();
            Ok(Arc::new(StructArray::try_new(
                members.clone(),
                columns,
                nulls,
            )?))
        }
        // Of the others, arrow's own cast keeps what there is.
        (DataType::Dictionary(_, values), to)
            if **values != *to && (to.is_nested() || values.is_temporal()) =>
        {
            cast(&cast_with_options(column, values, &EXACT)?, to)
        }
        _ => cast_with_options(column, data_type, &EXACT),
    }
}

/// Lists of any kind, and maps as lists of their entries.
fn list(column: &ArrayRef, item: &Arc<Field>) -> Result<ArrayRef, ArrowError> {
    let plain: ArrayRef = match column.data_type() {
        DataType::List(_) => Arc::clone(column),
        DataType::Map(_, _) => {
            let map = column.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let field = Arc::new(Field::new("item", entries.data_type().clone(), false));
            let nulls = map.nulls().cloned();
            Arc::new(ListArray::try_new(
                field,
                map.offsets().clone(),
                entries,
                nulls,
            )?)
        }
        DataType::LargeList(found)
        | DataType::FixedSizeList(found, _)
        | DataType::ListView(found)
        | DataType::LargeListView(found) => {
            cast_with_options(column, &DataType::List(Arc::clone(found)), &EXACT)?
        }
        other => {
            let what = format!("a {other} is no list");
            return Err(ArrowError::CastError(what));
        }
    };
    let lists = plain.as_list::<i32>();
    // Items that no list shows may hold anything.
    let (first, last) = match (lists.offsets().first(), lists.offsets().last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => (0, 0),
    };
    let at = |offset: i32| usize::try_from(offset).unwrap_or_default();
    let shown = lists.values().slice(at(first), at(last - first));
    let items = match item.data_type() {
        // Entries of a map have members of names that writers choose.
        DataType::Struct(members) if matches!(column.data_type(), DataType::Map(_, _)) => {
            let entries = shown.as_struct();
            let columns = members.iter().zip(entries.columns());
            let columns = columns.map(|(field, column)| cast(column, field.data_type()));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            Arc::new(StructArray::try_new(
                members.clone(),
                columns,
                entries.nulls().cloned(),
            )?)
        }
        _ => cast(&shown, item.data_type())?,
    };
    let offsets: Vec<i32> = lists
        .offsets()
        .iter()
        .map(|offset| offset - first)
        .collect();
    let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
    let nulls = lists.nulls().cloned();
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(item),
        offsets,
        items,
        nulls,
    )?))
}

/// The whole numbers of a column of times or durations.
fn units(column: &ArrayRef) -> Result<Int64Array, ArrowError> {
    fn raw<T: arrow::array::ArrowPrimitiveType<Native = i64>>(column: &ArrayRef) -> Int64Array {
        column.as_primitive::<T>().reinterpret_cast::<Int64Type>()
    }
    fn wide<T: arrow::array::ArrowPrimitiveType<Native = i32>>(column: &ArrayRef) -> Int64Array {
        column.as_primitive::<T>().unary(i64::from)
    }
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => raw::<TimestampSecondType>(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => raw::<TimestampMillisecondType>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => raw::<TimestampMicrosecondType>(column),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => raw::<TimestampNanosecondType>(column),
        DataType::Time32(TimeUnit::Second) => wide::<Time32SecondType>(column),
        DataType::Time32(_) => wide::<Time32MillisecondType>(column),
        DataType::Time64(TimeUnit::Microsecond) => raw::<Time64MicrosecondType>(column),
        DataType::Time64(_) => raw::<Time64NanosecondType>(column),
        DataType::Duration(TimeUnit::Second) => raw::<DurationSecondType>(column),
        DataType::Duration(TimeUnit::Millisecond) => raw::<DurationMillisecondType>(column),
        DataType::Duration(TimeUnit::Microsecond) => raw::<DurationMicrosecondType>(column),
        DataType::Duration(TimeUnit::Nanosecond) => raw::<DurationNanosecondType>(column),
        other => return Err(ArrowError::CastError(format!("a {other} is no time"))),
    })
}

/// Microseconds. Errors: a value between two of them, or beyond their range.
fn microseconds(units: &Int64Array, unit: TimeUnit) -> Result<Int64Array, ArrowError> {
    if unit == TimeUnit::Microsecond {
        return Ok(units.clone());
    }
    units.try_unary(|value| {
        value::microseconds(value, unit).ok_or_else(|| {
            let why = match unit {
                TimeUnit::Nanosecond => "has more digits than microseconds keep",
                _ => "is beyond the range of microseconds",
            };
            let unit = match unit {
                TimeUnit::Second => "s",
                TimeUnit::Millisecond => "ms",
                TimeUnit::Microsecond => "µs",
                TimeUnit::Nanosecond => "ns",
            };
            ArrowError::CastError(format!("the time {value} {unit} {why}"))
        })
    })
}

fn days(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let days: Date32Array = column.as_primitive::<Date64Type>().try_unary(|ms| {
        let days = (ms % DAY_MS == 0).then_some(ms / DAY_MS);
        days.and_then(|days| i32::try_from(days).ok())
            .ok_or_else(|| ArrowError::CastError(format!("{ms} ms is no date")))
    })?;
    Ok(Arc::new(days))
}

/// Values that CSV writes.
fn of_texts(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let texts = column.as_string::<i32>();
    macro_rules! each {
        ($array:ty, $read:expr) => {{
            let values = texts
                .iter()
                .map(|text| text.map(|text| read(text, data_type, $read)));
            let values = values.map(Option::transpose);
            values.collect::<Result<$array, ArrowError>>()?
        }};
    }
    Ok(match data_type {
        DataType::Decimal128(precision, scale) => {
            let decimals = each!(Decimal128Array, |text| value::decimal(
                text, *precision, *scale
            ));
            Arc::new(decimals.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Date32 => Arc::new(each!(Date32Array, value::date32)),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Arc::new(each!(TimestampMicrosecondArray, value::timestamp_us))
        }
        DataType::Float64 => Arc::new(each!(Float64Array, value::float64)),
        DataType::Float32 => Arc::new(each!(Float32Array, value::float32)),
        whole if whole.is_integer() => {
            // In what holds all of them, from where the cast refuses what is beyond the type's range.
            let wide = each!(Decimal128Array, value::whole).with_precision_and_scale(38, 0)?;
            cast_with_options(&(Arc::new(wide) as ArrayRef), data_type, &EXACT)?
        }
        _ => cast_with_options(column, data_type, &EXACT)?,
    })
}

fn read<T>(
    text: &str,
    data_type: &DataType,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, ArrowError> {
    read(text).ok_or_else(|| {
        let data_type = weft_sandbox::type_name(data_type);
        ArrowError::ParseError(format!("`{text}` is not a valid {data_type}"))
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Int32Array, MapBuilder, StringArray, StringBuilder, Time32SecondArray,
        TimestampNanosecondArray,
    };
    use arrow::buffer::OffsetBuffer;

    use super::*;

    fn micros() -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, None)
    }

    #[test]
    fn texts_are_read_exactly_or_refused() {
        let check = |data_type: &DataType, text: &str, fits: bool| {
            let texts: ArrayRef = Arc::new(StringArray::from(vec![None, Some(text)]));
            let found = cast(&texts, data_type);
            assert_eq!(found.is_ok(), fits, "{text} as {data_type}");
            assert!(found.is_err() || found.is_ok_and(|found| found.is_null(0)));
        };
        check(&micros(), "1970-01-01T00:00:01Z", true);
        check(&micros(), "1970-01-01T00:00:01.0000001", false);
        check(&micros(), "5", false);
        check(&DataType::Date32, "1970-01-03", true);
        check(&DataType::Date32, "1970-01-03 00:00:00", false);
        check(&DataType::Decimal128(6, 2), "1.99", true);
        check(&DataType::Decimal128(6, 2), "1.999", false);
        check(&DataType::Float64, "9007199254740993", false);
    }

    #[test]
    fn times_are_microseconds_or_refused() {
        let times = |value| -> ArrayRef { Arc::new(TimestampNanosecondArray::from(vec![value])) };
        cast(&times(1_000), &micros()).expect("no digit is lost");
        cast(&times(1_001), &micros()).expect_err("a digit is lost");
        let time: ArrayRef = Arc::new(Time32SecondArray::from(vec![2]));
        let kind = DataType::Dictionary(
            Box::new(DataType::Int32),
            Box::new(time.data_type().clone()),
        );
        let shared = cast_with_options(&time, &kind, &EXACT).expect("a dictionary of times");
        let shared = cast(&shared, &DataType::Int64).expect("a time of day");
        assert_eq!(shared.as_primitive::<Int64Type>().value(0), 2_000_000);
        let time = cast(&time, &DataType::Int64).expect("a time of day");
        assert_eq!(time.as_primitive::<Int64Type>().value(0), 2_000_000);
    }

    #[test]
    fn members_go_by_name_and_items_by_position() {
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
        let structs: ArrayRef = Arc::new(StructArray::from(vec![
            (field("b", DataType::Utf8), texts),
            (field("a", DataType::Int32), numbers),
        ]));
        let lists: ArrayRef = Arc::new(ListArray::new(
            field("element", structs.data_type().clone()),
            OffsetBuffer::from_lengths([2]),
            structs,
            None,
        ));
        let members = vec![field("a", DataType::Int32), field("b", DataType::Utf8)];
        let wanted = DataType::List(field("item", DataType::Struct(members.into())));
        let found = cast(&lists, &wanted).expect("it fits");
        assert_eq!(found.data_type(), &wanted);
        let items = found.as_list::<i32>().value(0);
        assert_eq!(items.as_struct().column(1).as_string::<i32>().value(1), "y");
    }

    #[test]
    fn maps_are_lists_of_their_entries() {
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        map.keys().append_value("k");
        map.values().append_value("v");
        map.append(true).expect("one entry");
        let map: ArrayRef = Arc::new(map.finish());
        let wanted = weft_sandbox::guest_type(map.data_type());
        let lists = cast(&map, &wanted).expect("it fits");
        let entries = lists.as_list::<i32>().value(0);
        assert_eq!(
            entries.as_struct().column(1).as_string::<i32>().value(0),
            "v"
        );
    }
}
