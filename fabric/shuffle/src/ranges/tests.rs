//! Random rows of several writers, read in ranges: each row once, in the order of one merge.

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};

use super::*;

const N_SEEDS: u64 = 300;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn options(&mut self) -> SortOptions {
        SortOptions {
            descending: self.below(2) == 0,
            nulls_first: self.below(2) == 0,
        }
    }
}

/// Keys of some rows: a text that may be long, null, or the same in most rows, and a number.
fn keys(random: &mut Random, n: u64, converter: &RowConverter) -> Vec<Vec<u8>> {
    let (heat, n_values) = (random.below(10), 1 + random.below(40));
    let text = |random: &mut Random| match random.below(10) {
        0 => None,
        // Long ones begin alike for more bytes than an index keeps.
        1 | 2 => Some("x".repeat(150) + &random.below(n_values).to_string()),
        key if key < heat => Some("hot".to_owned()),
        _ => Some(random.below(n_values).to_string()),
    };
    let texts: Vec<Option<String>> = (0..n).map(|_| text(random)).collect();
    let numbers: Vec<Option<i64>> = (0..n)
        .map(|_| (random.below(4) > 0).then(|| random.below(2) as i64))
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(texts)),
        Arc::new(Int64Array::from(numbers)),
    ];
    let rows = converter.convert_columns(&columns).expect("their types");
    let mut keys: Vec<Vec<u8>> = rows.iter().map(|row| row.data().to_vec()).collect();
    keys.sort();
    keys
}

/// Segments of a writer: the keys of the rows of each.
type Segments = Vec<Vec<Vec<u8>>>;

fn writers(random: &mut Random) -> Vec<Segments> {
    let fields = vec![
        SortField::new_with_options(DataType::Utf8, random.options()),
        SortField::new_with_options(DataType::Int64, random.options()),
    ];
    let converter = RowConverter::new(fields).expect("types that can be compared");
    let n_writers = 1 + random.below(6);
    let rows_max = 1 + random.below(400);
    let segments = |random: &mut Random| {
        let n = match random.below(5) {
            0 => 0,
            _ => random.below(rows_max),
        };
        let mut rows = keys(random, n, &converter);
        let mut segments = Segments::new();
        while !rows.is_empty() {
            let length = 1 + random.below(30) as usize;
            segments.push(rows.drain(..length.min(rows.len())).collect());
        }
        segments
    };
    (0..n_writers).map(|_| segments(random)).collect()
}

fn marks(segments: &Segments) -> Vec<Mark> {
    let mark = |(sequence, rows): (u32, &Vec<Vec<u8>>)| Mark {
        key: rows[0][..rows[0].len().min(FIRST_KEY_BYTES_MAX)].to_vec(),
        sequence,
        rows: rows.len() as u64,
    };
    (0..).zip(segments).map(mark).collect()
}

/// A row: key, writer, segment, position in the segment.
type Row<'a> = (&'a [u8], u32, u32, usize);

/// The rows that a task keeps of the segments that it reads, merged.
fn range<'a>(writers: &'a [Segments], ranges: &Ranges, task: u32) -> Vec<Row<'a>> {
    let (start, end) = ranges.boundaries(task);
    let mut kept: Vec<Row<'a>> = Vec::new();
    for (writer, segments) in (0u32..).zip(writers) {
        for position in ranges.read(writer, task) {
            let sequence = position as u32;
            for (row, key) in segments[position].iter().enumerate() {
                let is_left = |boundary: &Boundary| boundary.is_after(key, writer, sequence);
                if !start.is_some_and(is_left) && end.is_none_or(is_left) {
                    kept.push((&key[..], writer, sequence, row));
                }
            }
        }
    }
    kept.sort();
    kept
}

#[test]
fn every_row_is_in_one_range_and_ranges_follow_each_other() {
    for seed in 7..7 + N_SEEDS {
        let mut random = Random(seed);
        let writers = writers(&mut random);
        let n_tasks = 1 + random.below(9) as u32;
        let of_writers: Vec<Vec<Mark>> = writers.iter().map(marks).collect();
        let ranges = Ranges::new(&of_writers, n_tasks);

        let mut merged: Vec<Row<'_>> = Vec::new();
        for (writer, segments) in (0u32..).zip(&writers) {
            for (sequence, rows) in (0u32..).zip(segments) {
                let rows = rows.iter().enumerate();
                merged.extend(rows.map(|(row, key)| (&key[..], writer, sequence, row)));
            }
        }
        merged.sort();
        let read: Vec<Row<'_>> = (0..n_tasks)
            .flat_map(|task| range(&writers, &ranges, task))
            .collect();
        assert!(read == merged, "seed {seed}");
        for (writer, segments) in (0u32..).zip(&writers) {
            let owned = (0..n_tasks).flat_map(|task| ranges.owned(writer, task));
            let all: Vec<usize> = (0..segments.len()).collect();
            assert_eq!(owned.collect::<Vec<_>>(), all, "seed {seed}");
        }
    }
}

/// Writers with segments of ten rows each, whose keys are given by writer and position.
fn even(n_writers: u32, n_segments: u32, key: impl Fn(u32, u32) -> Vec<u8>) -> Vec<Vec<Mark>> {
    let mark = |writer, sequence| Mark {
        key: key(writer, sequence),
        sequence,
        rows: 10,
    };
    (0..n_writers)
        .map(|writer| (0..n_segments).map(|n| mark(writer, n)).collect())
        .collect()
}

/// Segments that each task owns.
fn shares(writers: &[Vec<Mark>], n_tasks: u32) -> Vec<usize> {
    let ranges = Ranges::new(writers, n_tasks);
    let share = |task| (0..writers.len() as u32).map(move |writer| (writer, task));
    let owned = |(writer, task)| ranges.owned(writer, task).len();
    (0..n_tasks)
        .map(|task| share(task).map(owned).sum())
        .collect()
}

#[test]
fn shares_are_even_for_many_values_and_for_one() {
    let spread = even(4, 100, |_, segment| segment.to_be_bytes().to_vec());
    let hot = even(4, 100, |_, _| b"hot".to_vec());
    for writers in [spread, hot] {
        let shares = shares(&writers, 8);
        assert_eq!(shares.iter().sum::<usize>(), 400);
        let fits = shares.iter().all(|share| (45..=55).contains(share));
        assert!(fits, "{shares:?}");
    }
}

/// Keys that are cut off may differ behind that, so their order is not known.
#[test]
fn keys_that_are_cut_off_stay_together() {
    let cut_off = even(4, 100, |_, _| vec![b'x'; FIRST_KEY_BYTES_MAX]);
    let shares = shares(&cut_off, 8);
    assert_eq!(shares.iter().filter(|share| **share > 0).count(), 1);
}

#[test]
fn ranges_of_no_rows_are_empty() {
    let ranges = Ranges::new(&[Vec::new(), Vec::new()], 3);
    for (writer, task) in [(0, 0), (1, 1), (1, 2)] {
        assert_eq!(ranges.read(writer, task), 0..0);
    }
}
