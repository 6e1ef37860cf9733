//! Sizes of a table's columns, as the footers of its Parquet files have them.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::Type;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use weft_sql::TableColumn;

/// Bytes of a value in memory whose type has no fixed width: its offset, or its parts.
const OFFSET_BYTES: u64 = 4;
/// Bytes of a decimal.
const DECIMAL_BYTES: u64 = 16;

/// Sums over the row groups that are read.
#[derive(Debug, Default)]
pub(super) struct Footers {
    pub(super) rows: u64,
    columns: BTreeMap<String, Column>,
}

#[derive(Debug)]
struct Column {
    bytes: u64,
    /// Nothing once a row group does not tell.
    nulls: Option<u64>,
    range: Option<(i64, i64)>,
    is_nested: bool,
}

impl Footers {
    /// Adds the footer of a file. `wanted`: for each row group, whether it is read.
    pub(super) fn add(&mut self, metadata: &ArrowReaderMetadata, wanted: &[bool]) {
        let groups = metadata.metadata().row_groups().iter();
        for (group, _) in groups.zip(wanted).filter(|(_, wanted)| **wanted) {
            self.rows = self.rows.saturating_add(positive(group.num_rows()));
            self.add_columns(metadata, group);
        }
    }

    fn add_columns(&mut self, metadata: &ArrowReaderMetadata, group: &RowGroupMetaData) {
        for chunk in group.columns() {
            let path = chunk.column_path().parts();
            let Some(name) = path.first() else { continue };
            let field = metadata.schema().field_with_name(name);
            let found = Column::of(chunk, field.ok().map(|field| field.data_type()));
            match self.columns.get_mut(name) {
                Some(column) => column.add(&found),
                None => drop(self.columns.insert(name.clone(), found)),
            }
        }
    }

    /// Estimates for a column.
    pub(super) fn column(&self, name: &str) -> TableColumn {
        let Some(column) = self.columns.get(name) else {
            return TableColumn::default();
        };
        let distinct = column.range.map(|(least, most)| {
            let values = i128::from(most) - i128::from(least) + 1;
            u64::try_from(values).map_or(self.rows, |values| values.min(self.rows))
        });
        TableColumn {
            bytes: Some(column.bytes),
            nulls: column.nulls,
            distinct,
            prunes: !column.is_nested,
        }
    }
}

impl Column {
    fn of(chunk: &ColumnChunkMetaData, data_type: Option<&DataType>) -> Self {
        let is_nested = data_type.is_none_or(DataType::is_nested);
        let statistics = chunk.statistics().filter(|_| !is_nested);
        Self {
            bytes: bytes_in_memory(chunk, data_type),
            nulls: statistics.and_then(Statistics::null_count_opt),
            range: statistics
                .filter(|_| data_type.is_some_and(|of| !of.is_unsigned_integer()))
                .and_then(range),
            is_nested,
        }
    }

    fn add(&mut self, other: &Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        let nulls = self.nulls.zip(other.nulls);
        self.nulls = nulls.map(|(one, other)| one.saturating_add(other));
        let ranges = self.range.zip(other.range);
        self.range = ranges.map(|(one, other)| (one.0.min(other.0), one.1.max(other.1)));
        self.is_nested |= other.is_nested;
    }
}

/// The least and the largest value of a column of whole numbers, or of what Parquet keeps as such.
fn range(statistics: &Statistics) -> Option<(i64, i64)> {
    let (least, most) = match statistics {
        Statistics::Boolean(_) => (0, 1),
        Statistics::Int32(found) => (i64::from(*found.min_opt()?), i64::from(*found.max_opt()?)),
        Statistics::Int64(found) => (*found.min_opt()?, *found.max_opt()?),
        _ => return None,
    };
    (least <= most).then_some((least, most))
}

/// Bytes that the values of a column chunk take once they are decoded.
fn bytes_in_memory(chunk: &ColumnChunkMetaData, data_type: Option<&DataType>) -> u64 {
    let values = positive(chunk.num_values());
    let width = data_type.and_then(DataType::primitive_width);
    if let Some(width) = width.and_then(|width| u64::try_from(width).ok()) {
        return values.saturating_mul(width);
    }
    let width = match chunk.column_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE | Type::INT96 => 8,
        Type::FIXED_LEN_BYTE_ARRAY => DECIMAL_BYTES,
        Type::BYTE_ARRAY => {
            // Without the sizes of the texts, those of their dictionaries and codes have to do.
            let texts = chunk.unencoded_byte_array_data_bytes();
            let texts = positive(texts.unwrap_or(chunk.uncompressed_size()));
            return texts.saturating_add(values.saturating_mul(OFFSET_BYTES));
        }
    };
    values.saturating_mul(width)
}

fn positive(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, UInt64Array};
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ArrowReaderOptions;
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// Footers of a file with two row groups of 100 rows.
    fn footers(wanted: [bool; 2]) -> Footers {
        let numbers = (0..200).map(|n| (n % 4 > 0).then_some(n % 50 - 20));
        let texts = (0..200).map(|n| format!("text-{}", n % 2));
        let columns: [(&str, ArrayRef); 4] = [
            ("n", Arc::new(numbers.collect::<Int32Array>())),
            ("t", Arc::new(StringArray::from_iter_values(texts))),
            ("u", Arc::new(UInt64Array::from_iter_values(0..200))),
            ("f", Arc::new(Float64Array::from(vec![0.5; 200]))),
        ];
        let columns = columns.map(|(name, column)| (name, column, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("one length");
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(100))
            .build();
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("it writes");
        writer.close().expect("it ends");
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let bytes = bytes::Bytes::from(bytes);
        let metadata = ArrowReaderMetadata::load(&bytes, options).expect("a footer");
        let mut footers = Footers::default();
        footers.add(&metadata, &wanted);
        footers
    }

    #[test]
    fn columns_have_the_sizes_that_footers_tell() {
        let footers = footers([true, true]);
        assert_eq!(footers.rows, 200);
        let n = footers.column("n");
        assert_eq!(
            (n.bytes, n.nulls, n.distinct),
            (Some(800), Some(50), Some(50))
        );
        assert_eq!((n.prunes, footers.column("f").distinct), (true, None));
        // Six letters each, though the file has a dictionary of two texts.
        assert_eq!(footers.column("t").bytes, Some(200 * (6 + 4)));
        assert_eq!(footers.column("u").distinct, None);
        assert_eq!(footers.column("none"), TableColumn::default());
    }

    #[test]
    fn row_groups_that_are_not_read_do_not_count() {
        let footers = footers([false, true]);
        assert_eq!((footers.rows, footers.column("n").bytes), (100, Some(400)));
    }
}
