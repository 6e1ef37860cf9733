//! Values that the rows of an Arrow batch share, by a dictionary or by views, and that are made for each of them: a few megabytes may
//! stand for terabytes.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// Bytes of shared values that are made at once.
const SHARED_BYTES_MAX: u64 = 1 << 30;
/// Keys of a dictionary that are looked at at once.
const KEYS: usize = 64 << 10;

/// How many rows at the front may be made at once, of the columns at these positions. Errors: not even one.
pub(super) fn rows_at_once(batch: &RecordBatch, columns: &[usize]) -> Result<usize, String> {
    let mut rows = batch.num_rows();
    loop {
        let front = batch.slice(0, rows);
        let columns = columns.iter().map(|at| shared_bytes(front.column(*at)));
        let bytes = columns.fold(0, u64::saturating_add);
        if bytes <= SHARED_BYTES_MAX {
            return Ok(rows);
        }
        if rows <= 1 {
            let most = SHARED_BYTES_MAX >> 20;
            return Err(format!(
                "values that its rows share would take {} MiB once each has its own; {most} are allowed",
                bytes >> 20
            ));
        }
        rows /= 2;
    }
}

/// Bytes of shared values, once they are made. Of a list all items are, whichever rows are asked for.
pub(crate) fn shared_bytes(column: &ArrayRef) -> u64 {
    match column.data_type() {
        DataType::Dictionary(_, _) => of_dictionary(column),
        DataType::Utf8View => viewed(column.as_string_view().views()),
        DataType::BinaryView => viewed(column.as_binary_view().views()),
        DataType::List(_) => shared_bytes(column.as_list::<i32>().values()),
        DataType::LargeList(_) => shared_bytes(column.as_list::<i64>().values()),
        DataType::FixedSizeList(_, _) => shared_bytes(column.as_fixed_size_list().values()),
        DataType::Map(_, _) => {
            let members = column.as_map().entries().columns().iter().map(shared_bytes);
            members.fold(0, u64::saturating_add)
        }
        // Views of lists may show the same items again and again.
        DataType::ListView(_) => listed(
            column
                .as_list_view::<i32>()
                .sizes()
                .iter()
                .map(|size| i64::from(*size)),
            column.as_list_view::<i32>().values(),
        ),
        DataType::LargeListView(_) => listed(
            column.as_list_view::<i64>().sizes().iter().copied(),
            column.as_list_view::<i64>().values(),
        ),
        DataType::Struct(_) => {
            let members = column.as_struct().columns().iter().map(shared_bytes);
            members.fold(0, u64::saturating_add)
        }
        _ => 0,
    }
}

/// Bytes of the items that views of lists show, once each list has its own.
fn listed(sizes: impl Iterator<Item = i64>, items: &ArrayRef) -> u64 {
    let shown = sizes.map(i64::unsigned_abs).fold(0, u64::saturating_add);
    let n_items = items.len().max(1) as u64;
    let bytes = shared_bytes(items).saturating_add(items.get_array_memory_size() as u64);
    shown.saturating_mul(bytes.div_ceil(n_items))
}

/// The length of what a view leads to.
fn view_bytes(view: u128) -> u64 {
    // It stands in the lowest four bytes.
    (view & u128::from(u32::MAX)) as u64
}

fn viewed(views: &[u128]) -> u64 {
    views.iter().map(|view| view_bytes(*view)).sum()
}

/// The lengths of a dictionary's values.
enum Lengths {
    All(u64),
    Each(Vec<u64>),
}

impl Lengths {
    fn of(values: &ArrayRef) -> Self {
        fn steps<O: Copy + Into<i64>>(offsets: &[O]) -> Lengths {
            let steps = offsets.windows(2);
            let steps = steps.map(|pair| pair[1].into().abs_diff(pair[0].into()));
            Lengths::Each(steps.collect())
        }
        let views =
            |views: &[u128]| Lengths::Each(views.iter().map(|view| view_bytes(*view)).collect());
        match values.data_type() {
            DataType::Utf8 => steps(values.as_string::<i32>().value_offsets()),
            DataType::Binary => steps(values.as_binary::<i32>().value_offsets()),
            DataType::LargeUtf8 => steps(values.as_string::<i64>().value_offsets()),
            DataType::LargeBinary => steps(values.as_binary::<i64>().value_offsets()),
            DataType::Utf8View => views(values.as_string_view().views()),
            DataType::BinaryView => views(values.as_binary_view().views()),
            DataType::FixedSizeBinary(width) => Lengths::All(u64::from(width.unsigned_abs())),
            DataType::Boolean => Lengths::All(1),
            kind => match kind.primitive_width() {
                Some(width) => Lengths::All(width as u64),
                // A nested one: none is larger than all of them.
                None => Lengths::All(values.get_array_memory_size() as u64),
            },
        }
    }

    fn longest(&self) -> u64 {
        match self {
            Lengths::All(length) => *length,
            Lengths::Each(lengths) => lengths.iter().copied().max().unwrap_or(0),
        }
    }
}

fn of_dictionary(column: &ArrayRef) -> u64 {
    let Some(dictionary) = column.as_any_dictionary_opt() else {
        return 0;
    };
    let values = dictionary.values();
    let made = shared_bytes(values);
    let lengths = Lengths::of(values);
    let most = lengths.longest().saturating_mul(column.len() as u64);
    let Lengths::Each(lengths) = lengths else {
        return made.saturating_add(most);
    };
    if most <= SHARED_BYTES_MAX || lengths.is_empty() {
        return made.saturating_add(most);
    }
    let mut bytes = made;
    for first in (0..column.len()).step_by(KEYS) {
        let keys = column.slice(first, KEYS.min(column.len() - first));
        let keys = keys.as_any_dictionary().normalized_keys();
        let these = keys
            .iter()
            .map(|key| lengths.get(*key).copied().unwrap_or(0));
        bytes = these.fold(bytes, u64::saturating_add);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int32Array, ListArray, StringArray, StringViewArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    /// A short value and one of a megabyte, of which `shared` rows have the long one, and as many the short.
    fn dictionary(shared: usize) -> ArrayRef {
        let values = StringArray::from(vec!["x".repeat(1 << 20), "y".into()]);
        let keys = Int32Array::from([vec![0; shared], vec![1; shared]].concat());
        Arc::new(DictionaryArray::new(keys, Arc::new(values)))
    }

    /// Views that all lead to one text of a megabyte.
    fn views(rows: usize) -> ArrayRef {
        let one = StringViewArray::from(vec!["z".repeat(1 << 20)]);
        let views = vec![one.views()[0]; rows];
        let buffers: Vec<_> = one.data_buffers().to_vec();
        Arc::new(StringViewArray::try_new(views.into(), buffers, None).expect("views of one text"))
    }

    fn in_lists(items: ArrayRef) -> ArrayRef {
        let item = Arc::new(Field::new("item", items.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(vec![1; items.len()]);
        Arc::new(ListArray::new(item, offsets, items, None))
    }

    fn at_once(column: ArrayRef) -> Result<usize, String> {
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["plain"; column.len()]));
        let batch = RecordBatch::try_from_iter([("plain", plain), ("c", column)]);
        let batch = batch.expect("of one length");
        assert_eq!(
            rows_at_once(&batch, &[0]),
            Ok(batch.num_rows()),
            "nobody reads it"
        );
        rows_at_once(&batch, &[1])
    }

    #[test]
    fn values_that_rows_share_are_made_for_some_rows_at_a_time() {
        assert_eq!(at_once(dictionary(500)), Ok(1000));
        // 3,000 MiB, of which the first half is too much, too.
        assert_eq!(at_once(dictionary(3000)), Ok(750));
        assert_eq!(at_once(views(1000)), Ok(1000));
        assert_eq!(at_once(views(3000)), Ok(750));
        let plain = StringArray::from(vec!["p".repeat(1 << 20); 100]);
        assert_eq!(at_once(Arc::new(plain)), Ok(100));
    }

    /// All items are made whichever rows are asked for.
    #[test]
    fn lists_that_share_too_much_are_refused() {
        for items in [dictionary(500), views(1000)] {
            let rows = items.len();
            assert_eq!(at_once(in_lists(items)), Ok(rows));
        }
        for items in [dictionary(3000), views(3000)] {
            let refused = at_once(in_lists(items)).expect_err("gigabytes");
            assert!(refused.contains("1024 are allowed"), "{refused}");
        }
    }
}
