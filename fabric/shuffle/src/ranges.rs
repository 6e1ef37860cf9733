//! Ranges of the rows that the tasks of a stage wrote in order, one range for each task that reads them.
//!
//! Rows stand in the order of their *points*: key, writing task, position of the segment. That is the order in which
//! a merge puts them out that deals out ties by writer, so that the ranges one after the other are what one merge of
//! everything makes. A boundary is a point too, and a row belongs to the right of all boundaries that are not behind
//! it. Any points do as boundaries as long as rows are compared by their whole keys: each row is in one range.
//!
//! Boundaries are chosen among the first rows of segments, of which an index may have only the beginning of the key.
//! The index must say which segments begin on the left, though it cannot compare whole keys:
//!
//! - Bytes that are cut off decide only between keys that begin alike. A boundary whose key may be cut off stands
//!   before all keys that begin so, task and position 0, and thus left of every segment that begins with its bytes.
//! - A boundary with a whole key is shorter than what was cut off, and differs from it within its own length: no key
//!   is the beginning of another one.
//!
//! So a hot key is split among tasks by writer and position, unless it is longer than what an index keeps.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::object::FIRST_KEY_BYTES_MAX;

/// Ranges that are computed once for several tasks.
pub type SharedRanges = Arc<OnceCell<Arc<Ranges>>>;

/// First row of a segment and number of its rows. A writer's marks stand in the order of its segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub(crate) key: Vec<u8>,
    pub(crate) sequence: u32,
    pub(crate) rows: u64,
}

impl Mark {
    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        (size_of::<Self>() + self.key.capacity()) as u64
    }
}

/// A point between two ranges.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boundary {
    key: Vec<u8>,
    task: u32,
    sequence: u32,
}

impl Boundary {
    /// The boundary at the first row of a segment.
    fn at(mark: &Mark, task: u32) -> Self {
        let is_whole = mark.key.len() < FIRST_KEY_BYTES_MAX;
        let (task, sequence) = match is_whole {
            true => (task, mark.sequence),
            false => (0, 0),
        };
        Self {
            key: mark.key.clone(),
            task,
            sequence,
        }
    }

    /// Returns whether the boundary is the first row of this segment itself.
    fn is_at(&self, mark: &Mark, task: u32) -> bool {
        let is_whole = self.key.len() < FIRST_KEY_BYTES_MAX;
        is_whole && self.task == task && self.sequence == mark.sequence && self.key == mark.key
    }

    /// Returns whether a row with the whole key `key` of a segment is left of the boundary.
    pub fn is_after(&self, key: &[u8], task: u32, sequence: u32) -> bool {
        (key, task, sequence) < (self.key.as_slice(), self.task, self.sequence)
    }
}

/// First segment of a writer on the right of a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    segment: usize,
    /// The segment before it may have rows on the right as well.
    straddles: bool,
}

/// Ranges of several tasks: a pure function of what the writers' indexes say.
#[derive(Debug, PartialEq, Eq)]
pub struct Ranges {
    /// The first tasks' ends; tasks behind the last boundary's have no rows.
    boundaries: Vec<Boundary>,
    /// By writer: a cut for each boundary.
    cuts: Vec<Vec<Cut>>,
    /// By writer: number of segments.
    n_segments: Vec<usize>,
}

impl Ranges {
    /// Chooses ranges of about as many rows each for `n_tasks` tasks. `writers`: the marks of all writing tasks, in
    /// the order of tasks.
    pub fn new(writers: &[Vec<Mark>], n_tasks: u32) -> Self {
        let boundaries = boundaries(writers, n_tasks);
        let cuts = (0..).zip(writers).map(|(task, marks)| {
            let cut = |boundary: &Boundary| {
                let is_left = |mark: &Mark| boundary.is_after(&mark.key, task, mark.sequence);
                let segment = marks.partition_point(is_left);
                let next = marks.get(segment);
                let is_between = next.is_some_and(|next| boundary.is_at(next, task));
                let straddles = segment > 0 && !is_between;
                Cut { segment, straddles }
            };
            boundaries.iter().map(cut).collect::<Vec<Cut>>()
        });
        Self {
            cuts: cuts.collect(),
            n_segments: writers.iter().map(Vec::len).collect(),
            boundaries,
        }
    }

    /// The boundaries of a task's range; none where the range has no end.
    pub fn boundaries(&self, task: u32) -> (Option<&Boundary>, Option<&Boundary>) {
        let end = task as usize;
        let start = end.checked_sub(1);
        let start = start.and_then(|start| self.boundaries.get(start));
        (start, self.boundaries.get(end))
    }

    /// Segments of a writer whose first rows are in a task's range: each segment is one task's.
    pub fn owned(&self, writer: u32, task: u32) -> Range<usize> {
        let cut = |position: usize| self.cut(writer, position).segment;
        let end = task as usize;
        end.checked_sub(1).map_or(0, cut)..cut(end)
    }

    /// Segments of a writer that a task must read: its own, and the one before them if its last rows are in the
    /// range.
    pub fn read(&self, writer: u32, task: u32) -> Range<usize> {
        let Range { start, end } = self.owned(writer, task);
        let before = (task as usize).checked_sub(1);
        let straddles = before.is_some_and(|before| self.cut(writer, before).straddles);
        start - usize::from(straddles)..end
    }

    /// The cut at a boundary. Boundaries that there are not are behind all rows.
    fn cut(&self, writer: u32, boundary: usize) -> Cut {
        let writer = writer as usize;
        let cut = self.cuts.get(writer).and_then(|cuts| cuts.get(boundary));
        cut.copied().unwrap_or_else(|| Cut {
            segment: self.n_segments.get(writer).copied().unwrap_or_default(),
            straddles: false,
        })
    }
}

/// Chooses boundaries at which the shares of rows to the left are those that the tasks should have. Fewer than there
/// are tasks where there are few segments.
fn boundaries(writers: &[Vec<Mark>], n_tasks: u32) -> Vec<Boundary> {
    let mut points: Vec<(&[u8], u32, &Mark, u128)> = Vec::new();
    // Of rows, twice as many as there are.
    let mut total: u128 = 0;
    for (task, marks) in (0u32..).zip(writers) {
        let mut before: u128 = 0;
        for mark in marks {
            // Nobody knows where between its first row and the next segment's a segment's rows are: half of them
            // count at either.
            let rows = u128::from(mark.rows);
            points.push((mark.key.as_slice(), task, mark, before + rows));
            before = rows;
            total += 2 * rows;
        }
    }
    points.sort_unstable_by_key(|(key, task, mark, _)| (*key, *task, mark.sequence));
    let mut chosen: Vec<Boundary> = Vec::new();
    let mut left: u128 = 0;
    for (_, task, mark, rows) in points {
        let due = chosen.len() as u128 + 1;
        if due < u128::from(n_tasks) && left > 0 && left * u128::from(n_tasks) >= total * due {
            let boundary = Boundary::at(mark, task);
            if chosen.last() != Some(&boundary) {
                chosen.push(boundary);
            }
        }
        left += rows;
    }
    chosen
}

#[cfg(test)]
mod tests;
