//! One form of every key: equal keys have equal bytes, so that one hash, one order and one way of grouping serve all
//! stages, whoever made the rows.
//!
//! Key columns get this form where rows enter an edge. Of floats, `-0.0` becomes `0.0`, and every NaN the same one. Views
//! and dictionaries, which write equal values in several ways, become plain arrays. Other columns stay as they are.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, MapArray, OffsetSizeTrait,
    RecordBatch, RecordBatchOptions, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{
    ArrowNativeTypeOp, ArrowPrimitiveType, DataType, FieldRef, Fields, Float16Type, Float32Type,
    Float64Type, Schema, SchemaRef,
};
use arrow::error::ArrowError;
use weft_core::{ErrorCode, Problem};

use crate::grouping::grouped_bytes;
use crate::scan::shared_bytes;

type F16 = <Float16Type as ArrowPrimitiveType>::Native;

/// Bytes of plain values that are made at once, unless one row has more.
const MADE_BYTES: u64 = 8 << 20;
/// Bytes of plain values of one row.
const ROW_BYTES_MAX: u64 = 1 << 30;
/// What a plain value takes beside its bytes: an offset, and its share of a bitmap.
const VALUE_BYTES: u64 = 5;

/// The schema of an edge that rows of `schema` enter: the columns of its key have plain types.
pub(crate) fn edge_schema(schema: &SchemaRef, keys: &[usize]) -> SchemaRef {
    let is_plain = |key: &usize| {
        let data_type = schema.field(*key).data_type();
        plain_type(data_type) == *data_type
    };
    if keys.iter().all(is_plain) {
        return Arc::clone(schema);
    }
    let fields = (0..).zip(schema.fields());
    let fields = fields.map(|(column, field)| match keys.contains(&column) {
        true => plain_field(field),
        false => Arc::clone(field),
    });
    let fields: Fields = fields.collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Returns whether values of this type have a canonical form.
pub(crate) fn is_key_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            is_key_type(item.data_type())
        }
        DataType::Map(entries, _) => is_key_type(entries.data_type()),
        DataType::Struct(members) => members.iter().all(|member| is_key_type(member.data_type())),
        DataType::Dictionary(_, values) => is_key_type(values),
        other => !other.is_nested() && !matches!(other, DataType::RunEndEncoded(_, _)),
    }
}

/// The type of a column without views and dictionaries.
fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Map(entries, ordered) => DataType::Map(plain_field(entries), *ordered),
        DataType::Struct(members) => DataType::Struct(members.iter().map(plain_field).collect()),
        other => other.clone(),
    }
}

fn plain_field(field: &FieldRef) -> FieldRef {
    let plain = plain_type(field.data_type());
    match plain == *field.data_type() {
        true => Arc::clone(field),
        false => Arc::new(field.as_ref().clone().with_data_type(plain)),
    }
}

fn has_floats(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_floats(item.data_type()),
        DataType::Struct(members) => members.iter().any(|member| has_floats(member.data_type())),
        other => other.is_floating(),
    }
}

/// Gives the keys of the rows that enter an edge their canonical form.
pub(crate) struct Canonical {
    /// [`edge_schema`] of the rows.
    schema: SchemaRef,
    /// Positions of the key's columns.
    keys: Vec<usize>,
    /// Those whose values are looked at: they hold floats.
    floats: Vec<usize>,
}

impl Canonical {
    /// `schema`: the edge's, whose key columns are plain.
    pub(crate) fn new(schema: &SchemaRef, keys: &[usize]) -> Self {
        let has_floats = |key: &usize| has_floats(schema.field(*key).data_type());
        Self {
            schema: Arc::clone(schema),
            keys: keys.to_vec(),
            floats: keys.iter().copied().filter(has_floats).collect(),
        }
    }

    fn is_plain(&self, batch: &RecordBatch, key: usize) -> bool {
        batch.column(key).data_type() == self.schema.field(key).data_type()
    }

    /// Cuts rows into parts whose keys may be made plain at once. Errors: `TooLarge` if those of a single row may not.
    pub(crate) fn parts(&self, batch: RecordBatch) -> Result<Vec<RecordBatch>, Problem> {
        let (mut todo, mut parts) = (vec![batch], Vec::new());
        while let Some(part) = todo.pop() {
            let (rows, bytes) = (part.num_rows(), self.made_bytes(&part));
            if bytes > MADE_BYTES && rows > 1 {
                let half = rows / 2;
                todo.push(part.slice(half, rows - half));
                todo.push(part.slice(0, half));
            } else if bytes > ROW_BYTES_MAX {
                let detail = format!(
                    "the key of a row takes {} MiB; {} are allowed",
                    bytes >> 20,
                    ROW_BYTES_MAX >> 20
                );
                return Err(Problem::new(ErrorCode::TooLarge, detail));
            } else {
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// Bytes of the values that become plain.
    fn made_bytes(&self, batch: &RecordBatch) -> u64 {
        let keys = self.keys.iter().filter(|key| !self.is_plain(batch, **key));
        keys.map(|key| made_bytes(batch.column(*key)))
            .fold(0, u64::saturating_add)
    }

    /// Bytes that a batch takes, at most, while it is collected and sorted in its canonical form.
    pub(crate) fn grouped_bytes(&self, batch: &RecordBatch) -> u64 {
        // In the batch, and once more as keys.
        let made = self.made_bytes(batch).saturating_mul(2);
        grouped_bytes(batch, &self.keys).saturating_add(made)
    }

    /// Gives the keys of a batch their canonical form. Columns that have it are shared, not copied.
    pub(crate) fn batch(&self, batch: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut changed: Option<Vec<ArrayRef>> = None;
        for key in &self.keys {
            // Whatever column it is, comparing types takes no time to speak of.
            if !self.floats.contains(key) && self.is_plain(&batch, *key) {
                continue;
            }
            if let Some(column) = canonical(batch.column(*key))? {
                changed.get_or_insert_with(|| batch.columns().to_vec())[*key] = column;
            }
        }
        let Some(columns) = changed else {
            return Ok(batch);
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
    }

    /// The same for several batches.
    pub(crate) fn batches(
        &self,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        batches.into_iter().map(|batch| self.batch(batch)).collect()
    }
}

/// Bytes of the values of an array that become plain, once they are.
fn made_bytes(array: &ArrayRef) -> u64 {
    match array.data_type() {
        DataType::List(_) => made_bytes(&items(array.as_list::<i32>())),
        DataType::LargeList(_) => made_bytes(&items(array.as_list::<i64>())),
        DataType::FixedSizeList(_, _) => made_bytes(array.as_fixed_size_list().values()),
        DataType::Map(_, _) => made_bytes(&entries(array.as_map())),
        DataType::Struct(_) => {
            let members = array.as_struct().columns().iter().map(made_bytes);
            members.fold(0, u64::saturating_add)
        }
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(_, _) => {
            shared_bytes(array).saturating_add(VALUE_BYTES * array.len() as u64)
        }
        _ => 0,
    }
}

/// The canonical form of an array.
pub(crate) fn canonical_form(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(canonical(array)?.unwrap_or_else(|| Arc::clone(array)))
}

/// The canonical form of an array, or nothing if it has it.
fn canonical(array: &ArrayRef) -> Result<Option<ArrayRef>, ArrowError> {
    Ok(match array.data_type() {
        // Not the constants for NaN: their bits may differ from machine to machine.
        DataType::Float16 => floats::<Float16Type>(array, F16::from_bits(0x7e00), F16::is_nan),
        DataType::Float32 => floats::<Float32Type>(array, f32::from_bits(0x7fc0_0000), f32::is_nan),
        DataType::Float64 => {
            floats::<Float64Type>(array, f64::from_bits(0x7ff8_0000_0000_0000), f64::is_nan)
        }
        DataType::Utf8View => Some(cast(array, &DataType::Utf8)?),
        DataType::BinaryView => Some(cast(array, &DataType::Binary)?),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let values = take(dictionary.values(), dictionary.keys(), None)?;
            Some(canonical(&values)?.unwrap_or(values))
        }
        DataType::List(item) => list(array.as_list::<i32>(), item)?,
        DataType::LargeList(item) => list(array.as_list::<i64>(), item)?,
        DataType::FixedSizeList(item, size) => fixed_size_list(array, item, *size)?,
        DataType::Map(entries, ordered) => map(array.as_map(), entries, *ordered)?,
        DataType::Struct(members) => structs(array.as_struct(), members)?,
        _ => None,
    })
}

fn floats<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    nan: T::Native,
    is_nan: fn(T::Native) -> bool,
) -> Option<ArrayRef> {
    let array = array.as_primitive::<T>();
    let canonical = |value: T::Native| match is_nan(value) {
        true => nan,
        false if value.is_zero() => <T::Native as ArrowNativeTypeOp>::ZERO,
        false => value,
    };
    // Compares bits: zeros and NaNs differ.
    let has_form = |value: &T::Native| canonical(*value).is_eq(*value);
    if array.values().iter().all(has_form) {
        return None;
    }
    Some(Arc::new(array.unary::<_, T>(canonical)))
}

/// The items that the rows of an array of lists show.
fn items<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> ArrayRef {
    let (first, n) = shown(lists.offsets());
    lists.values().slice(first, n)
}

fn entries(maps: &MapArray) -> ArrayRef {
    let (first, n) = shown(maps.offsets());
    Arc::new(maps.entries().slice(first, n))
}

/// Where the values begin that offsets lead to, and how many there are.
fn shown<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (usize, usize) {
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    (first, last - first)
}

/// The offsets that lead to those values alone.
fn rebased<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> OffsetBuffer<O> {
    OffsetBuffer::from_lengths(offsets.lengths())
}

fn list<O: OffsetSizeTrait>(
    lists: &GenericListArray<O>,
    item: &FieldRef,
) -> Result<Option<ArrayRef>, ArrowError> {
    let Some(items) = canonical(&items(lists))? else {
        return Ok(None);
    };
    let (offsets, nulls) = (rebased(lists.offsets()), lists.nulls().cloned());
    let lists = GenericListArray::<O>::try_new(plain_field(item), offsets, items, nulls)?;
    Ok(Some(Arc::new(lists)))
}

fn fixed_size_list(
    array: &ArrayRef,
    item: &FieldRef,
    size: i32,
) -> Result<Option<ArrayRef>, ArrowError> {
    let lists = array.as_fixed_size_list();
    let Some(items) = canonical(lists.values())? else {
        return Ok(None);
    };
    let nulls = lists.nulls().cloned();
    let item = plain_field(item);
    let lists = FixedSizeListArray::try_new_with_length(item, size, items, nulls, lists.len())?;
    Ok(Some(Arc::new(lists)))
}

fn map(maps: &MapArray, field: &FieldRef, ordered: bool) -> Result<Option<ArrayRef>, ArrowError> {
    let Some(entries) = canonical(&entries(maps))? else {
        return Ok(None);
    };
    let entries = entries.as_struct().clone();
    let (offsets, nulls) = (rebased(maps.offsets()), maps.nulls().cloned());
    let maps = MapArray::try_new(plain_field(field), offsets, entries, nulls, ordered)?;
    Ok(Some(Arc::new(maps)))
}

fn structs(structs: &StructArray, members: &Fields) -> Result<Option<ArrayRef>, ArrowError> {
    let changed = structs.columns().iter().map(canonical);
    let changed = changed.collect::<Result<Vec<_>, _>>()?;
    if changed.iter().all(Option::is_none) {
        return Ok(None);
    }
    let columns = changed.into_iter().zip(structs.columns());
    let columns = columns.map(|(changed, column)| changed.unwrap_or_else(|| Arc::clone(column)));
    let members = members.iter().map(plain_field).collect();
    let nulls = structs.nulls().cloned();
    let structs =
        StructArray::try_new_with_length(members, columns.collect(), nulls, structs.len())?;
    Ok(Some(Arc::new(structs)))
}

#[cfg(test)]
mod tests;
