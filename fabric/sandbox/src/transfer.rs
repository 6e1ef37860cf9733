//! Columns across the boundary, in Arrow layout: one copy each way, and full validation of what a guest hands over.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, GenericByteArray, RecordBatch,
    RecordBatchOptions, downcast_primitive_array, make_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::{ByteArrayType, DataType, FieldRef, Schema};

use crate::bindings::data::{Column, Node};
use crate::fields::{guest_field, guest_type};

/// Rows of one batch.
const ROWS_MAX: u32 = 1 << 24;

/// Copies `array` out for a guest. Errors: a type that does not cross the boundary.
pub(crate) fn to_guest(array: &ArrayRef) -> Result<Column, String> {
    let mut column = Column {
        nodes: Vec::new(),
        buffers: Vec::new(),
    };
    push(array, &mut column)?;
    Ok(column)
}

fn push(array: &ArrayRef, column: &mut Column) -> Result<(), String> {
    let rows = u32::try_from(array.len()).map_err(|_| "the batch has too many rows")?;
    let nulls = u32::try_from(array.null_count()).map_err(|_| "the batch has too many rows")?;
    column.nodes.push(Node { rows, nulls });
    column.buffers.push(match array.nulls() {
        Some(validity) if nulls > 0 => bits(validity),
        _ => Vec::new(),
    });
    match array.data_type() {
        DataType::Boolean => column
            .buffers
            .push(array.as_boolean().values().sliced().to_vec()),
        DataType::Utf8 => push_bytes(array.as_string::<i32>(), column),
        DataType::Binary => push_bytes(array.as_binary::<i32>(), column),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, last) = ends(list.offsets());
            column.buffers.push(rebased(list.offsets()));
            push(&list.values().slice(first, last - first), column)?;
        }
        DataType::Struct(_) => {
            for child in array.as_struct().columns() {
                push(child, column)?;
            }
        }
        primitive if primitive.is_primitive() => column.buffers.push(values(array)),
        other => return Err(format!("type {other} does not cross the boundary")),
    }
    Ok(())
}

fn values(array: &ArrayRef) -> Vec<u8> {
    downcast_primitive_array!(
        array => array.values().inner().as_slice().to_vec(),
        other => unreachable!("{other} is not primitive")
    )
}

fn bits(validity: &NullBuffer) -> Vec<u8> {
    validity.inner().sliced().to_vec()
}

fn ends(offsets: &OffsetBuffer<i32>) -> (usize, usize) {
    let at =
        |position: Option<&i32>| position.map_or(0, |offset| usize::try_from(*offset).unwrap_or(0));
    (at(offsets.first()), at(offsets.last()))
}

fn rebased(offsets: &OffsetBuffer<i32>) -> Vec<u8> {
    match offsets.first() {
        Some(0) | None => offsets.inner().inner().as_slice().to_vec(),
        Some(first) => offsets
            .iter()
            .flat_map(|offset| (offset - first).to_le_bytes())
            .collect(),
    }
}

fn push_bytes<T: ByteArrayType<Offset = i32>>(array: &GenericByteArray<T>, column: &mut Column) {
    let (first, last) = ends(array.offsets());
    column.buffers.push(rebased(array.offsets()));
    column
        .buffers
        .push(array.values().as_slice()[first..last].to_vec());
}

/// Turns what a guest handed over into an array of `data_type`, after checking all of it.
///
/// Errors: missing or left-over nodes or buffers, lengths that do not fit, offsets that go backwards or past the end, text
/// that is not UTF-8, values outside a decimal's precision.
pub(crate) fn from_guest(column: Column, data_type: &DataType) -> Result<ArrayRef, String> {
    let mut nodes = column.nodes.into_iter();
    let mut buffers = column.buffers.into_iter();
    let data = pull(data_type, &mut nodes, &mut buffers)?;
    if nodes.next().is_some() || buffers.next().is_some() {
        return Err("the column has more nodes or buffers than its type needs".into());
    }
    Ok(make_array(data))
}

fn pull(
    data_type: &DataType,
    nodes: &mut impl Iterator<Item = Node>,
    buffers: &mut impl Iterator<Item = Vec<u8>>,
) -> Result<ArrayData, String> {
    let node = nodes
        .next()
        .ok_or("the column has fewer nodes than its type needs")?;
    if node.rows > ROWS_MAX {
        return Err(format!("{} rows; a batch may have {ROWS_MAX}", node.rows));
    }
    let rows = node.rows as usize;
    let mut next = || {
        buffers
            .next()
            .ok_or("the column has fewer buffers than its type needs")
    };
    let validity = next()?;
    let mut builder = ArrayData::builder(data_type.clone())
        .len(rows)
        .align_buffers(true);
    if !validity.is_empty() {
        if validity.len() < rows.div_ceil(8) {
            return Err(format!(
                "the validity bitmap has {} bytes for {rows} rows",
                validity.len()
            ));
        }
        builder = builder.null_bit_buffer(Some(Buffer::from_vec(validity)));
    }
    match data_type {
        DataType::Utf8 | DataType::Binary => {
            let offsets = offsets(next()?, rows)?;
            builder = builder
                .add_buffer(offsets)
                .add_buffer(Buffer::from_vec(next()?));
        }
        DataType::List(child) => {
            builder = builder.add_buffer(offsets(next()?, rows)?);
            builder = builder.add_child_data(pull(child.data_type(), nodes, buffers)?);
        }
        DataType::Struct(fields) => {
            for field in fields {
                builder = builder.add_child_data(pull(field.data_type(), nodes, buffers)?);
            }
        }
        _ => builder = builder.add_buffer(Buffer::from_vec(next()?)),
    }
    // `build` validates in full: lengths, offsets, UTF-8, children, decimals.
    let data = builder.build().map_err(|error| error.to_string())?;
    if let DataType::Decimal128(precision, _) = data_type {
        let array = make_array(data.clone());
        array
            .as_primitive::<arrow::datatypes::Decimal128Type>()
            .validate_decimal_precision(*precision)
            .map_err(|error| error.to_string())?;
    }
    Ok(data)
}

fn offsets(bytes: Vec<u8>, rows: usize) -> Result<Buffer, String> {
    let needed = (rows + 1) * size_of::<i32>();
    if bytes.len() < needed {
        return Err(format!(
            "the offsets have {} bytes for {rows} rows; {needed} are needed",
            bytes.len()
        ));
    }
    Ok(Buffer::from_vec(bytes))
}

/// Bits that a guest packed, as a mask of `rows`.
pub(crate) fn mask(keep: Vec<u8>, rows: usize) -> Result<BooleanArray, String> {
    if keep.len() < rows.div_ceil(8) {
        return Err(format!("the mask has {} bytes for {rows} rows", keep.len()));
    }
    Ok(BooleanArray::new(
        arrow::buffer::BooleanBuffer::new(Buffer::from_vec(keep), 0, rows),
        None,
    ))
}

/// Bytes that `array` takes in the type in which a guest sees it, at most.
pub(crate) fn guest_bytes(array: &ArrayRef) -> u64 {
    let rows = array.len() as u64;
    let between = |first, last, values: &ArrayRef| guest_bytes(&values.slice(first, last - first));
    match array.data_type() {
        same if guest_type(same) == *same => slice_bytes(array),
        DataType::Utf8View => lengths(array.as_string_view().lengths()),
        DataType::BinaryView => lengths(array.as_binary_view().lengths()),
        DataType::Dictionary(_, _) => {
            let values = array.as_any_dictionary().values();
            let value = |row| guest_bytes(&values.slice(row, 1));
            rows.saturating_mul((0..values.len()).map(value).max().unwrap_or(0))
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, last) = ends(list.offsets());
            between(first, last, list.values()).saturating_add(5 * rows)
        }
        DataType::Struct(_) => {
            let members = array.as_struct().columns().iter().map(guest_bytes);
            members.fold(rows, u64::saturating_add)
        }
        // Large offsets shrink, fixed sizes get offsets, narrow values widen at most fourfold.
        _ => slice_bytes(array)
            .saturating_mul(4)
            .saturating_add(8 * rows + 8),
    }
}

fn lengths(lengths: impl ExactSizeIterator<Item = u32>) -> u64 {
    let rows = lengths.len() as u64;
    lengths.map(u64::from).sum::<u64>() + 5 * rows + 4
}

/// Bytes that an array takes, a slice counted as what it shows.
pub(crate) fn slice_bytes(array: &ArrayRef) -> u64 {
    if let Some(width) = array.data_type().primitive_width() {
        // What `to_data` would say as well, in a fraction of the time.
        let validity = array.nulls().map_or(0, |_| array.len().div_ceil(8));
        return (array.len() * width + validity) as u64;
    }
    array
        .to_data()
        .get_slice_memory_size()
        .unwrap_or_else(|_| array.get_array_memory_size()) as u64
}

/// The batch in types that guests see: views and dictionaries become plain columns. Errors: text that is too long.
pub(crate) fn materialise(batch: RecordBatch) -> Result<RecordBatch, String> {
    let schema = batch.schema();
    let is_plain = |field: &FieldRef| guest_type(field.data_type()) == *field.data_type();
    if schema.fields().iter().all(is_plain) {
        return Ok(batch);
    }
    let fields: Vec<FieldRef> = schema.fields().iter().map(guest_field).collect();
    let columns = batch.columns().iter().zip(&fields);
    let columns: Result<Vec<_>, _> = columns
        .map(|(column, field)| cast(column, field.data_type()))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::new(Schema::new(fields));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(schema, columns, &options))
        .map_err(|error| error.to_string())
}

/// An upper bound of what `take` makes of `array`, in bytes, so that it can be reserved before it is computed.
pub(crate) fn taken_bytes(array: &ArrayRef, rows: &[u32]) -> u64 {
    fn longest(offsets: &OffsetBuffer<i32>) -> u64 {
        offsets
            .windows(2)
            .map(|pair| u64::try_from(pair[1] - pair[0]).unwrap_or(0))
            .max()
            .unwrap_or(0)
    }
    fn bound(array: &ArrayRef, rows: u64) -> u64 {
        let values = match array.data_type() {
            DataType::Utf8 => rows.saturating_mul(longest(array.as_string::<i32>().offsets()) + 4),
            DataType::Binary => {
                rows.saturating_mul(longest(array.as_binary::<i32>().offsets()) + 4)
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                bound(list.values(), rows.saturating_mul(longest(list.offsets())))
                    .saturating_add(rows.saturating_mul(4))
            }
            DataType::Struct(_) => array
                .as_struct()
                .columns()
                .iter()
                .map(|child| bound(child, rows))
                .fold(0, u64::saturating_add),
            // Batches that guests hold have no other types.
            other => rows.saturating_mul(other.primitive_width().unwrap_or(1) as u64),
        };
        values.saturating_add(rows / 8 + 64)
    }
    fn exact<T: ByteArrayType<Offset = i32>>(array: &GenericByteArray<T>, rows: &[u32]) -> u64 {
        let offsets = array.offsets();
        let length = |row: &u32| {
            offsets.get(*row as usize + 1).map_or(0, |end| {
                u64::try_from(end - offsets[*row as usize]).unwrap_or(0)
            })
        };
        rows.iter().map(length).sum::<u64>() + 5 * rows.len() as u64 + 64
    }
    match array.data_type() {
        DataType::Utf8 => exact(array.as_string::<i32>(), rows),
        DataType::Binary => exact(array.as_binary::<i32>(), rows),
        _ => bound(array, rows.len() as u64),
    }
}
