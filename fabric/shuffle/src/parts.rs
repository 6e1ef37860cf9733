//! Parts of the partitions of edges, one for each task that reads them: several small partitions, or a piece of a large
//! one.
//!
//! ```text
//! partition   0   1   2   3      4 (much larger)        5   6
//! task      └─── 0 ───┴─ 1 ─┘  2 │ 3 │ 4: a piece each  └─ 5 ─┘
//! ```
//!
//! Parts stand in the order of partitions, and pieces in that of writing tasks and segments. They are a pure function
//! of what the indexes of committed objects say and of the number of tasks, so that every attempt of every task finds
//! the same.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::OnceCell;
use weft_protocol::{TaskPart, fair_bytes, is_skewed, piece_bytes};

/// Parts that are computed once for several tasks.
pub type SharedParts = Arc<OnceCell<Arc<Parts>>>;

/// A segment of a partition, by its writing task and position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentBytes {
    /// The task that wrote it.
    pub writer: u32,
    /// Position among the segments of that task and partition.
    pub sequence: u32,
    /// Bytes of the segment when it is decompressed.
    pub raw_bytes: u64,
}

/// A partition that is too large for one task, and that several may share.
#[derive(Debug, Clone)]
pub struct LargePartition {
    /// The partition.
    pub partition: u32,
    /// Position of the edge whose rows are shared; others are read whole by each of the tasks.
    pub edge: usize,
    /// Segments of the partition of that edge, by writing task and then position.
    pub segments: Vec<SegmentBytes>,
}

/// Segments of one edge of one partition that one task reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    edge: usize,
    /// Writing task and position of the first segment.
    start: (u32, u32),
    /// The same of the first one behind; nothing for the last piece.
    end: Option<(u32, u32)>,
    number: u32,
    of: u32,
}

/// The rows of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    partitions: Range<u32>,
    piece: Option<Piece>,
}

impl Part {
    /// The partition `number`, alone.
    fn of_partition(number: u32) -> Self {
        Self {
            partitions: number..number.saturating_add(1),
            piece: None,
        }
    }

    /// The partitions whose rows the task reads.
    pub fn partitions(&self) -> Range<u32> {
        self.partitions.clone()
    }

    /// Returns whether the task reads a segment of one of its partitions.
    pub fn has(&self, edge: usize, writer: u32, sequence: u32) -> bool {
        let Some(piece) = self.piece.as_ref().filter(|piece| piece.edge == edge) else {
            return true;
        };
        let place = (writer, sequence);
        piece.start <= place && piece.end.is_none_or(|end| place < end)
    }

    /// Returns whether what the task reads of an edge counts as read: of what several tasks read whole, the first one's
    /// does.
    pub fn counts(&self, edge: usize) -> bool {
        let piece = self.piece.as_ref();
        piece.is_none_or(|piece| piece.edge == edge || piece.number == 0)
    }

    /// The part for whoever records it.
    pub fn recorded(&self) -> TaskPart {
        let (piece, pieces) = self
            .piece
            .as_ref()
            .map_or((0, 1), |piece| (piece.number, piece.of));
        TaskPart {
            first: self.partitions.start,
            count: self.partitions.end.saturating_sub(self.partitions.start),
            piece,
            pieces,
        }
    }
}

/// Parts of several tasks.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts {
    parts: Vec<Part>,
}

/// A partition, the edge of those that may be split of which it has most, and its bytes there.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    partition: u32,
    edge: usize,
    bytes: u64,
}

impl Parts {
    /// Partitions that are too large for one task, the largest first. `sizes`: bytes of each partition, by edge.
    /// `split`: whether tasks may share partitions of the edge.
    pub fn large_partitions(sizes: &[Vec<u64>], split: &[bool]) -> Vec<(u32, usize)> {
        let n = sizes.first().map_or(0, Vec::len);
        let fair: Vec<u64> = sizes.iter().map(|sizes| fair(sizes)).collect();
        let mut found: Vec<Candidate> = Vec::new();
        for partition in 0..n {
            let edges = sizes.iter().zip(split).enumerate();
            let edges = edges.filter(|(_, (_, is_split))| **is_split);
            let bytes = edges.filter_map(|(edge, (sizes, _))| {
                let bytes = sizes[partition];
                is_skewed(bytes, fair[edge]).then_some((bytes, edge))
            });
            // The first one of several.
            let largest = bytes.max_by_key(|(bytes, edge)| (*bytes, std::cmp::Reverse(*edge)));
            if let Some((bytes, edge)) = largest {
                let partition = small(partition);
                found.push(Candidate {
                    partition,
                    edge,
                    bytes,
                });
            }
        }
        found.sort_by_key(|one| (std::cmp::Reverse(one.bytes), one.partition));
        let found = found.into_iter();
        found.map(|one| (one.partition, one.edge)).collect()
    }

    /// Chooses parts of about as many bytes each for at most `n_tasks` tasks. `sizes`: as for
    /// [`large_partitions`](Self::large_partitions); `large`: the segments of what that returned, in its order.
    pub fn new(sizes: &[Vec<u64>], large: &[LargePartition], n_tasks: u32) -> Self {
        let n = sizes.first().map_or(0, Vec::len);
        let mut pieces: Vec<Vec<Piece>> = vec![Vec::new(); n];
        let mut n_left = n_tasks.max(1);
        // Runs of partitions between those that are split: each needs a task.
        let mut n_runs = 1;
        let mut n_whole = small(n);
        for one in large {
            let at = one.partition as usize;
            let is_whole = |at: Option<usize>| {
                let pieces = at.and_then(|at| pieces.get(at));
                pieces.is_some_and(Vec::is_empty)
            };
            let runs = match (is_whole(at.checked_sub(1)), is_whole(at.checked_add(1))) {
                (true, true) => n_runs + 1,
                (false, false) => n_runs - 1,
                _ => n_runs,
            };
            // Each of the other partitions keeps a task of its own, if there are so many.
            let room = match n_left.saturating_sub(n_whole - 1) {
                0 | 1 => n_left.saturating_sub(runs),
                room => room,
            };
            let shared = cut(one, n_pieces(sizes, one).min(room));
            if shared.len() > 1 {
                n_left -= small(shared.len());
                n_runs = runs;
                n_whole -= 1;
                pieces[at] = shared;
            }
        }
        let of_all = |partition: usize| sum(sizes.iter().map(|sizes| &sizes[partition]));
        let sizes: Vec<u64> = (0..n).map(of_all).collect();
        Self {
            parts: parts(&sizes, pieces, n_left),
        }
    }

    /// Bytes that [`new`](Self::new) takes at most for what it finds and on the way to it, beside what it is given.
    pub fn memory_bytes(n_partitions: usize, n_tasks: u32) -> u64 {
        let of_partition = size_of::<Vec<Piece>>() + size_of::<u64>() + size_of::<bool>();
        // Parts lie in a vector that grows, and pieces in ones of their own before that.
        let of_task = 2 * (size_of::<Part>() + size_of::<Piece>());
        let bytes = of_partition as u64 * n_partitions as u64;
        bytes.saturating_add(of_task as u64 * u64::from(n_tasks))
    }

    /// The part of a task. Nothing if the tasks before it read all that there is.
    pub fn of(&self, task: u32) -> Option<&Part> {
        self.parts.get(task as usize)
    }
}

/// Bytes of a partition of an edge if all have as many.
fn fair(sizes: &[u64]) -> u64 {
    fair_bytes(sum(sizes.iter()), small(sizes.len()))
}

/// Number of pieces that a partition is worth: none of them is smaller than what its task reads of other edges.
fn n_pieces(sizes: &[Vec<u64>], large: &LargePartition) -> u32 {
    let at = large.partition as usize;
    let others = sizes.iter().enumerate();
    let others = others.filter(|(edge, _)| *edge != large.edge);
    let whole = sum(others.map(|(_, sizes)| &sizes[at]));
    let sizes = &sizes[large.edge];
    let n = sizes[at].div_ceil(piece_bytes(fair(sizes)).max(whole));
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Cuts a partition into at most `n` pieces of about as many bytes each.
fn cut(large: &LargePartition, n: u32) -> Vec<Piece> {
    let total = u128::from(sum(large.segments.iter().map(|segment| &segment.raw_bytes)));
    let mut starts: Vec<(u32, u32)> = vec![(0, 0)];
    let mut left: u128 = 0;
    for segment in &large.segments {
        let due = starts.len() as u128;
        if due < u128::from(n) && left > 0 && left * u128::from(n) >= total * due {
            starts.push((segment.writer, segment.sequence));
        }
        left += u128::from(segment.raw_bytes);
    }
    let of = small(starts.len());
    let piece = |(number, start): (u32, &(u32, u32))| Piece {
        edge: large.edge,
        start: *start,
        end: starts.get(number as usize + 1).copied(),
        number,
        of,
    };
    (0..).zip(&starts).map(piece).collect()
}

/// The parts in order: pieces, and between them runs of whole partitions for `n_left` tasks.
fn parts(sizes: &[u64], pieces: Vec<Vec<Piece>>, n_left: u32) -> Vec<Part> {
    let is_whole: Vec<bool> = pieces.iter().map(Vec::is_empty).collect();
    let bytes_max = joined_bytes_max(sizes, &is_whole, n_left);
    let mut parts: Vec<Part> = Vec::new();
    // Bytes of the last part, if another partition may join it.
    let mut open: Option<u64> = None;
    for ((partition, pieces), bytes) in (0..).zip(pieces).zip(sizes) {
        if !pieces.is_empty() {
            open = None;
            parts.extend(pieces.into_iter().map(|piece| Part {
                piece: Some(piece),
                ..Part::of_partition(partition)
            }));
            continue;
        }
        let joined = open.map(|open| open.saturating_add(*bytes));
        open = joined.filter(|joined| bytes_max.is_some_and(|max| *joined <= max));
        match parts.last_mut().filter(|_| open.is_some()) {
            Some(part) => part.partitions.end = partition + 1,
            None => {
                parts.push(Part::of_partition(partition));
                open = Some(*bytes);
            }
        }
    }
    parts
}

/// The fewest bytes that a part of several partitions may have so that there are at most `n` parts of whole ones.
/// Nothing if each partition has a part of its own.
fn joined_bytes_max(sizes: &[u64], is_whole: &[bool], n: u32) -> Option<u64> {
    let whole = || {
        sizes
            .iter()
            .zip(is_whole)
            .filter(|(_, is_whole)| **is_whole)
    };
    if whole().count() <= n as usize {
        return None;
    }
    let largest = whole().map(|(bytes, _)| *bytes).max().unwrap_or_default();
    let (mut low, mut high) = (largest, sum(whole().map(|(bytes, _)| bytes)));
    while low < high {
        let middle = low + (high - low) / 2;
        match n_parts(sizes, is_whole, middle) <= n as usize {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    Some(low)
}

/// Number of parts of whole partitions, if each has at most so many bytes.
fn n_parts(sizes: &[u64], is_whole: &[bool], bytes_max: u64) -> usize {
    let mut n = 0;
    let mut open: Option<u64> = None;
    for (bytes, is_whole) in sizes.iter().zip(is_whole) {
        if !is_whole {
            open = None;
            continue;
        }
        let joined = open.map(|open| open.saturating_add(*bytes));
        open = joined.filter(|joined| *joined <= bytes_max).or_else(|| {
            n += 1;
            Some(*bytes)
        });
    }
    n
}

fn sum<'a>(bytes: impl Iterator<Item = &'a u64>) -> u64 {
    bytes.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
