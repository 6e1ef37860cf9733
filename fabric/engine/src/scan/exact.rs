//! Values that decoders of text would take although something of them is lost: whole numbers with a fraction in JSON, and
//! decimals with more digits than their scale. Such columns are decoded as text, and turned into their type here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast_with_options;
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
    let fields = fields.map(|field| Arc::new(decoded_field(field, as_text)));
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
        _ => cast_with_options(column, data_type, &EXACT),
    }
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
