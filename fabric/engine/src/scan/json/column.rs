//! Columns that grow value by value, and shrink again where a record turns out to be bad.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Decimal128Array, ListArray, NullArray,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, FieldRef, Fields, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::error::ArrowError;

use super::super::value;

/// Values of one column, null ones included.
pub(super) struct Column {
    pub(super) field: FieldRef,
    validity: BooleanBufferBuilder,
    pub(super) values: Values,
}

pub(super) enum Values {
    Boolean(BooleanBufferBuilder),
    /// Signed whole numbers, days and microseconds.
    Whole(Vec<i64>),
    Unsigned(Vec<u64>),
    Float(Vec<f64>),
    Decimal(Vec<i128>),
    Text {
        offsets: Vec<i32>,
        bytes: Vec<u8>,
    },
    List {
        offsets: Vec<i32>,
        item: Box<Column>,
    },
    Struct(Members),
}

/// Columns by name: of a record, or of an object within one.
pub(super) struct Members {
    pub(super) columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    /// For each column, the last object in which its key stood.
    pub(super) seen: Vec<u64>,
    /// Counts objects.
    pub(super) object: u64,
}

/// A value that is neither object nor list, as it stands in a record.
pub(super) enum Scalar<'a> {
    Null,
    Boolean(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    /// An object or a list.
    Nested,
}

impl<'a> Scalar<'a> {
    /// Reads what a parser has found to be JSON. Errors: a text with half of a surrogate pair.
    pub(super) fn read(json: &'a str) -> Result<Self, String> {
        Ok(match json.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'{' | b'[') | None => Self::Nested,
            Some(b'"') if memchr::memchr(b'\\', json.as_bytes()).is_none() => {
                Self::Text(Cow::Borrowed(&json[1..json.len() - 1]))
            }
            Some(b'"') => match serde_json::from_str::<String>(json) {
                Ok(text) => Self::Text(Cow::Owned(text)),
                Err(_) => return Err("it has half of a surrogate pair".to_owned()),
            },
            Some(_) => Self::Number(json),
        })
    }
}

impl Members {
    pub(super) fn new(fields: &Fields) -> Self {
        let names = fields.iter().enumerate();
        Self {
            columns: fields.iter().map(Column::new).collect(),
            by_name: names
                .map(|(position, field)| (field.name().clone(), position))
                .collect(),
            seen: vec![0; fields.len()],
            object: 0,
        }
    }

    /// The column of a key. Objects mostly have their keys in one order, so `likely` is looked at first.
    pub(super) fn position(&self, key: &str, likely: usize) -> Option<usize> {
        match self.columns.get(likely) {
            Some(column) if column.field.name() == key => Some(likely),
            _ => self.by_name.get(key).copied(),
        }
    }

    /// Gives null to columns whose keys did not stand in the object.
    pub(super) fn fill(&mut self) {
        for (column, seen) in self.columns.iter_mut().zip(&self.seen) {
            if *seen != self.object {
                column.push_null();
            }
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.columns
            .iter_mut()
            .for_each(|column| column.truncate(rows));
    }

    pub(super) fn take(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.columns.iter_mut().map(Column::take).collect()
    }
}

impl Column {
    pub(super) fn new(field: &FieldRef) -> Self {
        Self {
            field: Arc::clone(field),
            validity: BooleanBufferBuilder::new(0),
            values: Values::new(field.data_type()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.validity.len()
    }

    pub(super) fn push_null(&mut self) {
        self.validity.append(false);
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Whole(values) => values.push(0),
            Values::Unsigned(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Decimal(values) => values.push(0),
            Values::Text { offsets, .. } | Values::List { offsets, .. } => {
                offsets.push(*offsets.last().expect("offsets begin with 0"));
            }
            Values::Struct(members) => members.columns.iter_mut().for_each(Column::push_null),
        }
    }

    /// Ends a list whose items have been pushed, or an object whose members have.
    ///
    /// Errors: a list whose items outgrow what offsets can name.
    pub(super) fn end_nested(&mut self) -> Result<(), String> {
        if let Values::List { offsets, item } = &mut self.values {
            let end = i32::try_from(item.len()).map_err(|_| "the list is too long".to_owned())?;
            offsets.push(end);
        }
        self.validity.append(true);
        Ok(())
    }

    /// Pushes a value that is no object and no list. `text_is_number`: a text may stand for a number, because the
    /// column was declared as one.
    ///
    /// Returns whether the value fits; otherwise nothing was pushed.
    pub(super) fn push(&mut self, scalar: &Scalar<'_>, text_is_number: bool) -> bool {
        if matches!(scalar, Scalar::Null) {
            self.push_null();
            return true;
        }
        let fits = match &mut self.values {
            Values::Boolean(values) => match scalar {
                Scalar::Boolean(value) => {
                    values.append(*value);
                    true
                }
                _ => false,
            },
            Values::Whole(values) => append(
                values,
                whole(self.field.data_type(), scalar, text_is_number),
            ),
            Values::Unsigned(values) => append(
                values,
                whole_number(scalar, text_is_number)
                    .and_then(|value| u64::try_from(value).ok())
                    .filter(|value| *value <= most(self.field.data_type())),
            ),
            Values::Float(values) => append(
                values,
                number(scalar, text_is_number).and_then(|text| match self.field.data_type() {
                    DataType::Float32 => value::float32(text).map(f64::from),
                    _ => value::float64(text),
                }),
            ),
            Values::Decimal(values) => append(
                values,
                number(scalar, text_is_number).and_then(|text| match self.field.data_type() {
                    DataType::Decimal128(precision, scale) => {
                        value::decimal(text, *precision, *scale)
                    }
                    _ => None,
                }),
            ),
            Values::Text { offsets, bytes } => {
                let text = match scalar {
                    Scalar::Text(text) => text.as_ref(),
                    Scalar::Number(text) => text,
                    Scalar::Boolean(true) => "true",
                    Scalar::Boolean(false) => "false",
                    Scalar::Null | Scalar::Nested => return false,
                };
                bytes.extend_from_slice(text.as_bytes());
                // A block's texts are shorter than the block, which is far below 2 GiB.
                offsets.push(i32::try_from(bytes.len()).expect("a block is small"));
                true
            }
            Values::List { .. } | Values::Struct(_) => false,
        };
        if fits {
            self.validity.append(true);
        }
        fits
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.validity.truncate(rows);
        match &mut self.values {
            Values::Boolean(values) => values.truncate(rows),
            Values::Whole(values) => values.truncate(rows),
            Values::Unsigned(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Decimal(values) => values.truncate(rows),
            Values::Text { offsets, bytes } => {
                offsets.truncate(rows + 1);
                bytes.truncate(end(offsets));
            }
            Values::List { offsets, item } => {
                offsets.truncate(rows + 1);
                item.truncate(end(offsets));
            }
            Values::Struct(members) => members.truncate(rows),
        }
    }

    /// The values as an array; none are left.
    pub(super) fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let validity = self.validity.finish();
        let nulls = Some(NullBuffer::new(validity)).filter(|nulls| nulls.null_count() > 0);
        let data_type = self.field.data_type();
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Whole(values) => whole_array(data_type, std::mem::take(values), nulls),
            Values::Unsigned(values) => unsigned_array(data_type, std::mem::take(values), nulls),
            Values::Float(values) => float_array(data_type, std::mem::take(values), nulls),
            Values::Decimal(values) => {
                let decimals = Decimal128Array::new(std::mem::take(values).into(), nulls);
                match data_type {
                    DataType::Decimal128(precision, scale) => {
                        Arc::new(decimals.with_precision_and_scale(*precision, *scale)?)
                    }
                    _ => Arc::new(NullArray::new(0)),
                }
            }
            Values::Text { offsets, bytes } => {
                let offsets = std::mem::replace(offsets, vec![0]);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let bytes = std::mem::take(bytes).into();
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
            Values::List { offsets, item } => {
                let offsets = std::mem::replace(offsets, vec![0]);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let field = Arc::clone(&item.field);
                Arc::new(ListArray::try_new(field, offsets, item.take()?, nulls)?)
            }
            Values::Struct(members) => {
                let DataType::Struct(fields) = data_type else {
                    return Err(ArrowError::SchemaError("a struct is none".to_owned()));
                };
                Arc::new(StructArray::try_new(
                    fields.clone(),
                    members.take()?,
                    nulls,
                )?)
            }
        })
    }
}

impl Values {
    fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBufferBuilder::new(0)),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Self::Unsigned(Vec::new())
            }
            DataType::Float32 | DataType::Float64 => Self::Float(Vec::new()),
            DataType::Decimal128(_, _) => Self::Decimal(Vec::new()),
            DataType::Utf8 => Self::Text {
                offsets: vec![0],
                bytes: Vec::new(),
            },
            DataType::List(item) => Self::List {
                offsets: vec![0],
                item: Box::new(Column::new(item)),
            },
            DataType::Struct(fields) => Self::Struct(Members::new(fields)),
            _ => Self::Whole(Vec::new()),
        }
    }
}

fn end(offsets: &[i32]) -> usize {
    let end = offsets.last().copied().unwrap_or_default();
    usize::try_from(end).expect("offsets are not negative")
}

/// Pushes a value that is there.
fn append<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let is_there = value.is_some();
    values.extend(value);
    is_there
}

/// The digits of a number.
fn number<'a>(scalar: &'a Scalar<'_>, text_is_number: bool) -> Option<&'a str> {
    match scalar {
        Scalar::Number(text) => Some(text),
        Scalar::Text(text) if text_is_number && value::is_json_number(text) => Some(text),
        _ => None,
    }
}

fn whole_number(scalar: &Scalar<'_>, text_is_number: bool) -> Option<i128> {
    match scalar {
        Scalar::Number(text) => value::whole(text),
        Scalar::Text(text) if text_is_number && value::is_canonical_whole(text) => {
            value::whole(text)
        }
        _ => None,
    }
}

/// A signed whole number or a time, within the range of its type.
fn whole(data_type: &DataType, scalar: &Scalar<'_>, text_is_number: bool) -> Option<i64> {
    let within = |least: i64, most: i64| {
        whole_number(scalar, text_is_number)
            .and_then(|value| i64::try_from(value).ok())
            .filter(|value| (least..=most).contains(value))
    };
    match (data_type, scalar) {
        (DataType::Date32, Scalar::Text(text)) => value::date32(text).map(i64::from),
        (DataType::Date32, _) => None,
        (DataType::Timestamp(_, _), Scalar::Text(text)) => value::timestamp_us(text),
        (DataType::Int8, _) => within(i8::MIN.into(), i8::MAX.into()),
        (DataType::Int16, _) => within(i16::MIN.into(), i16::MAX.into()),
        (DataType::Int32, _) => within(i32::MIN.into(), i32::MAX.into()),
        _ => within(i64::MIN, i64::MAX),
    }
}

fn most(data_type: &DataType) -> u64 {
    match data_type {
        DataType::UInt8 => u8::MAX.into(),
        DataType::UInt16 => u16::MAX.into(),
        DataType::UInt32 => u32::MAX.into(),
        _ => u64::MAX,
    }
}

fn whole_array(data_type: &DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    match data_type {
        DataType::Int8 => narrowed::<Int8Type, _>(values, nulls),
        DataType::Int16 => narrowed::<Int16Type, _>(values, nulls),
        DataType::Int32 => narrowed::<Int32Type, _>(values, nulls),
        DataType::Date32 => narrowed::<Date32Type, _>(values, nulls),
        DataType::Timestamp(_, _) => array::<TimestampMicrosecondType>(values, nulls),
        _ => array::<Int64Type>(values, nulls),
    }
}

fn unsigned_array(data_type: &DataType, values: Vec<u64>, nulls: Option<NullBuffer>) -> ArrayRef {
    match data_type {
        DataType::UInt8 => narrowed::<UInt8Type, _>(values, nulls),
        DataType::UInt16 => narrowed::<UInt16Type, _>(values, nulls),
        DataType::UInt32 => narrowed::<UInt32Type, _>(values, nulls),
        _ => array::<UInt64Type>(values, nulls),
    }
}

fn float_array(data_type: &DataType, values: Vec<f64>, nulls: Option<NullBuffer>) -> ArrayRef {
    match data_type {
        #[expect(clippy::cast_possible_truncation, reason = "they were read as float32")]
        DataType::Float32 => array::<Float32Type>(
            values.into_iter().map(|value| value as f32).collect(),
            nulls,
        ),
        _ => array::<Float64Type>(values, nulls),
    }
}

fn array<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
}

/// An array of a type that is narrower than what its values were gathered in.
fn narrowed<T: ArrowPrimitiveType, V>(values: Vec<V>, nulls: Option<NullBuffer>) -> ArrayRef
where
    T::Native: TryFrom<V>,
{
    let narrow = |value| {
        let narrow = T::Native::try_from(value).ok();
        narrow.expect("it was held against the range of its type")
    };
    array::<T>(values.into_iter().map(narrow).collect(), nulls)
}
