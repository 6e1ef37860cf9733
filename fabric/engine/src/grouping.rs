//! Rows sorted by key, stably, in memory; and groups cut out of sorted rows for guests.
//!
//! Equal keys keep the order in which they arrived, whatever is spilled when: that is what makes results repeatable.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use weft_sandbox::batch_bytes;

/// Rows that are handed to a guest at a time.
const CHUNK_ROWS: usize = 8192;
/// Bytes that are handed to a guest at a time, unless one row is larger.
const CHUNK_BYTES: usize = 4 << 20;

/// Bytes that sorting takes for each row besides the row itself and its key: offsets, and its place in the order.
const SORT_ROW_BYTES: u64 = 48;

/// Bytes that a batch takes while it is collected and sorted: itself, its keys once more, and their order.
pub(crate) fn grouped_bytes(batch: &RecordBatch, keys: &[usize]) -> u64 {
    let key_bytes = batch.project(keys).map_or(0, |keys| batch_bytes(&keys));
    batch_bytes(batch) + key_bytes + SORT_ROW_BYTES * batch.num_rows() as u64
}

/// The same for a segment that has not been decoded, whose keys are taken for half of it.
pub(crate) fn grouped_segment_bytes(segment: &weft_shuffle::Segment) -> u64 {
    segment.raw_bytes() + segment.raw_bytes() / 2 + SORT_ROW_BYTES * segment.rows()
}

/// Turns key columns into rows of bytes that compare like the keys.
pub(crate) struct Keys {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl Keys {
    pub(crate) fn new(schema: &Schema, columns: &[usize]) -> Result<Self, ArrowError> {
        let fields = columns
            .iter()
            .map(|column| SortField::new(schema.field(*column).data_type().clone()))
            .collect();
        Ok(Self {
            columns: columns.to_vec(),
            converter: RowConverter::new(fields)?,
        })
    }

    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<Rows, ArrowError> {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|column| Arc::clone(batch.column(*column)))
            .collect();
        self.converter.convert_columns(&columns)
    }
}

/// Sorted rows for a guest.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) batch: RecordBatch,
    /// The row after the last one of each group.
    pub(crate) ends: Vec<u32>,
    /// The last group goes on in the next chunk.
    pub(crate) continues: bool,
    /// A hash of each group's key.
    pub(crate) hashes: Vec<u64>,
}

/// A batch and a row in it.
type RowPlace = (u32, u32);

/// Rows of several batches in the order of their keys.
pub(crate) struct Sorted {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    rows: Vec<Rows>,
    /// Batch and row, in order; nothing where the batches are sorted as they are.
    order: Option<Vec<RowPlace>>,
    chunk_rows: usize,
}

fn position(n: usize) -> u32 {
    u32::try_from(n).expect("rows and batches in memory are counted in 32 bits")
}

impl Sorted {
    pub(crate) fn new(
        keys: &Keys,
        schema: SchemaRef,
        batches: Vec<RecordBatch>,
    ) -> Result<Self, ArrowError> {
        let rows = batches
            .iter()
            .map(|batch| keys.rows(batch))
            .collect::<Result<Vec<_>, _>>()?;
        let bytes =
            usize::try_from(batches.iter().map(batch_bytes).sum::<u64>()).unwrap_or(usize::MAX);
        let n: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let chunk_rows = (CHUNK_BYTES / (bytes / n.max(1)).max(1)).clamp(1, CHUNK_ROWS);
        let order = if is_sorted(&rows) {
            None
        } else {
            Some(order(&rows))
        };
        Ok(Self {
            schema,
            batches,
            rows,
            order,
            chunk_rows,
        })
    }

    /// Cuts the rows into chunks, in order.
    pub(crate) fn chunks(&self) -> Result<Chunks<'_>, ArrowError> {
        let places = match &self.order {
            Some(_) => Vec::new(),
            None => {
                let slices = |batch: usize| {
                    let rows = self.batches[batch].num_rows();
                    (0..rows)
                        .step_by(self.chunk_rows)
                        .map(move |start| (batch, start, self.chunk_rows.min(rows - start)))
                };
                (0..self.batches.len()).flat_map(slices).collect()
            }
        };
        Ok(Chunks {
            sorted: self,
            places,
            next: 0,
        })
    }

    fn key(&self, at: RowPlace) -> arrow::row::Row<'_> {
        self.rows[at.0 as usize].row(at.1 as usize)
    }
}

fn is_sorted(rows: &[Rows]) -> bool {
    let within = |rows: &Rows| (1..rows.num_rows()).all(|row| rows.row(row - 1) <= rows.row(row));
    let filled: Vec<&Rows> = rows.iter().filter(|rows| rows.num_rows() > 0).collect();
    filled.iter().all(|rows| within(rows))
        && filled
            .windows(2)
            .all(|pair| pair[0].row(pair[0].num_rows() - 1) <= pair[1].row(0))
}

fn order(rows: &[Rows]) -> Vec<RowPlace> {
    let places = |(batch, rows): (usize, &Rows)| {
        (0..rows.num_rows())
            .map(move |row| (position(batch), position(row)))
            .collect::<Vec<_>>()
    };
    let mut order: Vec<RowPlace> = rows.iter().enumerate().flat_map(places).collect();
    // Stable, and near linear where the rows come in sorted stretches, as segments of a shuffle do.
    order.sort_by(|a, b| {
        rows[a.0 as usize]
            .row(a.1 as usize)
            .cmp(&rows[b.0 as usize].row(b.1 as usize))
    });
    order
}

/// Chunks of sorted rows, one after the other.
pub(crate) struct Chunks<'a> {
    sorted: &'a Sorted,
    /// Batch, first row and number of rows of each chunk, where the batches are sorted as they are.
    places: Vec<(usize, usize, usize)>,
    next: usize,
}

impl Chunks<'_> {
    pub(crate) fn next(&mut self) -> Result<Option<Chunk>, ArrowError> {
        let sorted = self.sorted;
        let (batch, at, following) = match &sorted.order {
            Some(order) => {
                let rest = &order[self.next.min(order.len())..];
                if rest.is_empty() {
                    return Ok(None);
                }
                let n = rest.len().min(sorted.chunk_rows);
                self.next += n;
                let indices: Vec<(usize, usize)> = rest[..n]
                    .iter()
                    .map(|(batch, row)| (*batch as usize, *row as usize))
                    .collect();
                let batches: Vec<&RecordBatch> = sorted.batches.iter().collect();
                (
                    interleave_record_batch(&batches, &indices)?,
                    rest[..n].to_vec(),
                    rest.get(n).copied(),
                )
            }
            None => {
                let Some((batch, start, n)) = self.places.get(self.next).copied() else {
                    return Ok(None);
                };
                self.next += 1;
                let following = self
                    .places
                    .get(self.next)
                    .map(|(batch, start, _)| (position(*batch), position(*start)));
                let at: Vec<RowPlace> = (start..start + n)
                    .map(|row| (position(batch), position(row)))
                    .collect();
                (sorted.batches[batch].slice(start, n), at, following)
            }
        };
        debug_assert_eq!(
            batch.schema().fields(),
            sorted.schema.fields(),
            "all batches have one schema"
        );
        let mut ends = Vec::new();
        let mut hashes = Vec::new();
        for (row, place) in at.iter().enumerate() {
            let last = row + 1 == at.len();
            if last || sorted.key(*place) != sorted.key(at[row + 1]) {
                ends.push(position(row + 1));
                hashes.push(xxhash_rust::xxh3::xxh3_64(sorted.key(*place).as_ref()));
            }
        }
        let last = *at.last().expect("a chunk has rows");
        let continues =
            following.is_some_and(|following| sorted.key(following) == sorted.key(last));
        Ok(Some(Chunk {
            batch,
            ends,
            continues,
            hashes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type};

    use super::*;

    fn batch(rows: &[(&str, i64)]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("n", DataType::Int64, false),
        ]);
        let keys = StringArray::from_iter_values(rows.iter().map(|row| row.0));
        let numbers = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(numbers)])
            .expect("it is a batch")
    }

    fn groups(batches: Vec<RecordBatch>, chunk_rows: usize) -> Vec<(String, Vec<i64>)> {
        let schema = batches[0].schema();
        let keys = Keys::new(&schema, &[0]).expect("keys");
        let mut sorted = Sorted::new(&keys, schema, batches).expect("it sorts");
        sorted.chunk_rows = chunk_rows;
        let mut chunks = sorted.chunks().expect("chunks");
        let mut groups: Vec<(String, Vec<i64>)> = Vec::new();
        let mut open = false;
        while let Some(chunk) = chunks.next().expect("a chunk") {
            let mut start = 0;
            for end in &chunk.ends {
                let key = chunk
                    .batch
                    .column(0)
                    .as_string::<i32>()
                    .value(start)
                    .to_owned();
                let values = &chunk.batch.column(1).as_primitive::<Int64Type>().values()
                    [start..*end as usize];
                match groups.last_mut() {
                    Some((last, group)) if open => {
                        assert_eq!(*last, key);
                        group.extend(values);
                    }
                    _ => groups.push((key, values.to_vec())),
                }
                open = false;
                start = *end as usize;
            }
            open = chunk.continues;
        }
        groups
    }

    #[test]
    fn groups_are_whole_stable_and_independent_of_chunks() {
        let batches = || {
            vec![
                batch(&[("b", 1), ("a", 2), ("b", 3)]),
                batch(&[]),
                batch(&[("a", 4), ("c", 5), ("b", 6)]),
            ]
        };
        let expected = vec![
            ("a".to_owned(), vec![2, 4]),
            ("b".to_owned(), vec![1, 3, 6]),
            ("c".to_owned(), vec![5]),
        ];
        for chunk_rows in 1..8 {
            assert_eq!(groups(batches(), chunk_rows), expected);
        }
        let sorted = || vec![batch(&[("a", 1), ("a", 2)]), batch(&[("a", 3), ("b", 4)])];
        for chunk_rows in 1..5 {
            assert_eq!(
                groups(sorted(), chunk_rows),
                [("a".to_owned(), vec![1, 2, 3]), ("b".to_owned(), vec![4])]
            );
        }
    }
}
