//! Values that decoders of text would take although something of them is lost: whole numbers with a fraction in JSON, numbers
//! that are no time, and decimals with more digits than their scale. Such columns are decoded as text, and turned into their
//! type here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast_with_options, is_not_null, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::EXACT;

/// The type in which a decoder gives a column.
pub(super) fn decoded_field(field: &Field, whole_numbers_as_text: bool) -> Field {
    field
        .clone()
        .with_data_type(decoded(field.data_type(), whole_numbers_as_text))
}

/// The same for all columns of JSON records. Only where a number may have a fraction are whole numbers decoded as text.
pub(super) fn decoded_json(schema: &SchemaRef, records: &[u8]) -> SchemaRef {
    let as_text = has_fractions(records);
    let fields = schema.fields().iter();
    let fields = fields.map(|field| match field.data_type().is_temporal() {
        // As numbers, too large ones and fractions would be taken.
        true => Arc::new(Field::clone(field).with_data_type(DataType::Utf8)),
        false => Arc::new(decoded_field(field, as_text)),
    });
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

fn decoded(data_type: &DataType, whole_numbers_as_text: bool) -> DataType {
    let inner = |field: &FieldRef| Arc::new(decoded_field(field, whole_numbers_as_text));
    match data_type {
        DataType::Decimal128(_, _) => DataType::Utf8,
        whole if whole.is_integer() && whole_numbers_as_text => DataType::Utf8,
        DataType::List(item) => DataType::List(inner(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    }
}

/// True where a digit is followed by what makes a number a fraction, or may make it one.
fn has_fractions(records: &[u8]) -> bool {
    let is_behind_digit = |at: usize| at > 0 && records[at - 1].is_ascii_digit();
    memchr::memchr3_iter(b'.', b'e', b'E', records).any(is_behind_digit)
}

/// A column in another type. Errors: a value would lose something.
pub(super) fn cast(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), data_type) {
        (DataType::Utf8, DataType::Decimal128(precision, scale)) => {
            let texts = column.as_string::<i32>().iter();
            let values = texts.map(|text| text.map(|text| decimal(text, *precision, *scale)));
            let values = values.map(Option::transpose);
            let decimals = values.collect::<Result<Decimal128Array, ArrowError>>()?;
            let decimals = decimals.with_precision_and_scale(*precision, *scale)?;
            Ok(Arc::new(decimals))
        }
        (DataType::Utf8, time) if time.is_temporal() => times(column, time),
        _ => cast_with_options(column, data_type, &EXACT),
    }
}

/// Times as text, or as the whole number that a column of times holds: microseconds or days since 1970.
fn times(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let numbers: Int64Array = column
        .as_string::<i32>()
        .iter()
        .map(|text| text.and_then(|text| text.parse::<i64>().ok()))
        .collect();
    let is_number = is_not_null(&numbers)?;
    let texts = cast_with_options(&nullif(column, &is_number)?, data_type, &EXACT)?;
    if numbers.null_count() == numbers.len() {
        return Ok(texts);
    }
    let numbers: ArrayRef = match data_type {
        DataType::Date32 => cast_with_options(&numbers, &DataType::Int32, &EXACT)?,
        _ => Arc::new(numbers),
    };
    let numbers = cast_with_options(&numbers, data_type, &EXACT)?;
    zip(&is_number, &numbers, &texts)
}

fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, ArrowError> {
    unscaled(text, precision, scale).ok_or_else(|| {
        let what = format!("`{text}` does not fit into decimal128({precision}, {scale})");
        ArrowError::ParseError(what)
    })
}

/// The value in units of the last digit that a decimal keeps; nothing where it is no number, too large, or has more digits.
fn unscaled(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        let digit = i128::from(digit.to_digit(10)?);
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    let fraction_digits = i64::try_from(fraction.len()).ok()?;
    let mut places = i64::from(scale) - fraction_digits + i64::from(exponent);
    while places != 0 && value != 0 {
        if places > 0 {
            value = value.checked_mul(10)?;
            places -= 1;
        } else if value % 10 == 0 {
            value /= 10;
            places += 1;
        } else {
            return None;
        }
    }
    let is_kept = 10_i128
        .checked_pow(u32::from(precision))
        .is_none_or(|end| value < end);
    let value = if number.starts_with('-') {
        -value
    } else {
        value
    };
    is_kept.then_some(value)
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::{Int64Type, TimeUnit};

    use super::*;

    #[test]
    fn decimals_keep_all_digits_or_are_none() {
        for (text, expected) in [
            ("1.99", Some(199)),
            ("-1.99", Some(-199)),
            ("+7", Some(700)),
            (".5", Some(50)),
            ("5.", Some(500)),
            ("1.990", Some(199)),
            ("1e-2", Some(1)),
            ("12E2", Some(120_000)),
            ("0e999999999", Some(0)),
            ("-0.00", Some(0)),
            ("9999.99", Some(999_999)),
            ("10000", None),
            ("1.999", None),
            ("0.005", None),
            ("1e-3", None),
            ("1e999999999", None),
            ("", None),
            (".", None),
            ("-", None),
            ("1,5", None),
            ("--1", None),
            ("1.2.3", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(unscaled(text, 6, 2), expected, "{text}");
        }
        assert_eq!(unscaled("12300", 6, -2), Some(123));
        assert_eq!(unscaled("12301", 6, -2), None);
        let largest = "9".repeat(38);
        assert_eq!(unscaled(&largest, 38, 0), largest.parse().ok());
    }

    #[test]
    fn times_are_texts_or_whole_numbers() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let check = |data_type: &DataType, text: &str, expected: Option<i64>| {
            let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), None, Some(text)]));
            let alone = cast(&texts.slice(2, 1), data_type).ok();
            let found = cast(&texts, data_type).ok().map(|times| {
                assert!(times.is_null(1) && times.data_type() == data_type);
                assert_eq!(alone.as_ref(), Some(&times.slice(2, 1)), "{text}");
                let days = cast_with_options(&times, &DataType::Int32, &EXACT);
                let numbers = match data_type {
                    DataType::Date32 => {
                        cast_with_options(&days.expect("days"), &DataType::Int64, &EXACT)
                    }
                    _ => cast_with_options(&times, &DataType::Int64, &EXACT),
                };
                let numbers = numbers.expect("numbers");
                let numbers = numbers.as_primitive::<Int64Type>();
                assert_eq!(numbers.value(0), 7);
                numbers.value(2)
            });
            assert_eq!(found, expected, "{text}");
        };
        check(&micros, "1970-01-01T00:00:01Z", Some(1_000_000));
        check(&micros, "-5", Some(-5));
        check(&DataType::Date32, "1970-01-03", Some(2));
        check(&DataType::Date32, "20000", Some(20_000));
        for text in ["1.5", "1e30", "9223372036854775808", "", "soon"] {
            check(&micros, text, None);
            check(&DataType::Date32, text, None);
        }
        check(&DataType::Date32, "3000000000", None);
    }

    #[test]
    fn numbers_may_have_fractions() {
        for (records, expected) in [
            ("{\"a\": 1}", false),
            ("{\"e.g.\": 1}", false),
            ("{\"a\": 1.5}", true),
            ("{\"a\": 1e3}", true),
            ("{\"a\": \"1E\"}", true),
        ] {
            assert_eq!(has_fractions(records.as_bytes()), expected, "{records}");
        }
    }
}
