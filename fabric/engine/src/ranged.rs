//! Ranges of sorted rows that several tasks merge: which segments a task reads, and which rows of them it keeps.
//!
//! A segment in which a range begins or ends is read by all tasks whose rows are in it. All of them find the row at a
//! boundary by one search, so no row is lost or kept twice between them, and the sums of the rows that they kept say
//! so.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::try_join_all;
use weft_core::{ErrorCode, Problem};
use weft_protocol::{EdgeRef, ObjectRef, StageContext};
use weft_sandbox::MemoryAccount;
use weft_shuffle::{Boundary, Mark, ObjectReader, Ranges, Segment};
use weft_sql::SortKeys;

use crate::edge::out_of_memory;
use crate::sql_source::of_writer;
use crate::sql_task::gave_up;
use crate::untrusted::evaluated;

/// Indexes that a task reads at a time.
const INDEX_READS: usize = 16;

/// A task's range of an edge.
pub(crate) struct RangedShare {
    pub(crate) context: Arc<StageContext>,
    /// Position of the edge among those that the stage reads.
    pub(crate) input: usize,
    /// The writing stage's name, for errors.
    pub(crate) from: String,
    /// Position of the task among those that share the edge.
    pub(crate) reader: u32,
    /// Number of tasks that share it.
    pub(crate) n_readers: u32,
}

impl RangedShare {
    fn edge(&self) -> EdgeRef {
        self.context.inputs[self.input].edge
    }

    /// The ranges of all tasks: those that every other task of the stage finds, as only what was committed counts.
    pub(crate) async fn ranges(
        &self,
        reader: &ObjectReader,
        account: &Arc<MemoryAccount>,
    ) -> Result<Arc<Ranges>, Problem> {
        let shared = reader.shared_ranges(self.edge(), self.n_readers);
        let ranges = shared.get_or_try_init(|| self.chosen(reader, account));
        Ok(Arc::clone(ranges.await?))
    }

    async fn chosen(
        &self,
        reader: &ObjectReader,
        account: &Arc<MemoryAccount>,
    ) -> Result<Arc<Ranges>, Problem> {
        let no_room = || out_of_memory(account, "the keys of sorted segments");
        let mut reserved = account.try_reserve(0).ok_or_else(no_room)?;
        let mut writers = Vec::new();
        for objects in self.context.inputs[self.input].objects.chunks(INDEX_READS) {
            let mut reads = Vec::with_capacity(objects.len());
            for object in objects {
                reads.push(self.marks(reader, object.as_ref()));
            }
            for marks in try_join_all(reads).await? {
                if !reserved.try_grow(marks.iter().map(Mark::bytes).sum()) {
                    return Err(no_room());
                }
                writers.push(marks);
            }
        }
        Ok(Arc::new(Ranges::new(&writers, self.n_readers)))
    }

    async fn marks(
        &self,
        reader: &ObjectReader,
        object: Option<&ObjectRef>,
    ) -> Result<Vec<Mark>, Problem> {
        let Some(object) = object else {
            return Ok(Vec::new());
        };
        let marks = reader.marks(object, self.edge().edge).await;
        marks.map_err(|error| of_writer(&self.from, &error))
    }
}

/// A share whose rows a stream gives out.
pub(crate) struct RangedRows {
    pub(crate) share: RangedShare,
    pub(crate) keys: SortKeys,
    /// The ranges, once a stream asked for them.
    pub(crate) ranges: Option<Arc<Ranges>>,
}

impl RangedRows {
    /// Finds the ranges, before anything is read.
    pub(crate) async fn find(
        &mut self,
        reader: &ObjectReader,
        account: &Arc<MemoryAccount>,
    ) -> Result<(), Problem> {
        if self.ranges.is_none() {
            self.ranges = Some(self.share.ranges(reader, account).await?);
        }
        Ok(())
    }

    /// Returns the segments of a writer that may have rows of the range.
    pub(crate) fn segments(
        &self,
        writer: u32,
        mut segments: Vec<Segment>,
    ) -> Result<VecDeque<Segment>, Problem> {
        let ranges = self.ranges()?;
        let read = ranges.read(writer, self.share.reader);
        if read.end > segments.len() {
            let detail = format!(
                "task {writer} of stage `{}` wrote {} segments, and {} are in its ranges",
                self.share.from,
                segments.len(),
                read.end
            );
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        segments.truncate(read.end);
        Ok(segments.split_off(read.start).into())
    }

    fn ranges(&self) -> Result<&Ranges, Problem> {
        self.ranges.as_deref().ok_or_else(|| {
            let detail = "rows of a range were asked for before it was known";
            Problem::new(ErrorCode::Internal, detail)
        })
    }

    /// The rows of a segment that are in the range.
    pub(crate) fn kept(
        &self,
        writer: u32,
        segment: &Segment,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>, Problem> {
        let ranges = self.ranges()?;
        let n: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let owned = ranges.owned(writer, self.share.reader);
        let (start, end) = ranges.boundaries(self.share.reader);
        let sequence = segment.sequence();
        // Segments between the first and the last one begin and end within the range.
        let is_first = (sequence as usize) < owned.start;
        let is_last = sequence as usize + 1 == owned.end;
        let left_of = |boundary: Option<&Boundary>| {
            boundary.map(|one| self.rows_left_of(one, writer, sequence, &batches))
        };
        let start = left_of(start.filter(|_| is_first)).transpose()?;
        let end = left_of(end.filter(|_| is_last)).transpose()?;
        let (start, end) = (start.unwrap_or(0), end.unwrap_or(n));
        if start > end {
            let detail = format!(
                "rows of task {writer} of stage `{}` are not in order",
                self.share.from
            );
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        Ok(sliced(batches, start, end))
    }

    /// Rows of a segment before a boundary.
    fn rows_left_of(
        &self,
        boundary: &Boundary,
        writer: u32,
        sequence: u32,
        batches: &[RecordBatch],
    ) -> Result<usize, Problem> {
        let mut before = 0;
        for batch in batches {
            let (mut start, mut end) = (0, batch.num_rows());
            while start < end {
                let middle = start + (end - start) / 2;
                let key = evaluated(|| self.keys.key(batch, middle));
                let key = key.map_err(gave_up).flatten()?;
                match boundary.is_after(&key, writer, sequence) {
                    true => start = middle + 1,
                    false => end = middle,
                }
            }
            before += start;
            if start < batch.num_rows() {
                break;
            }
        }
        Ok(before)
    }
}

/// Rows from `start` to `end` of batches that stand one after the other.
fn sliced(batches: Vec<RecordBatch>, start: usize, end: usize) -> Vec<RecordBatch> {
    let mut before = 0;
    let mut kept = Vec::new();
    for batch in batches {
        let n = batch.num_rows();
        let from = start.saturating_sub(before).min(n);
        let to = end.saturating_sub(before).min(n);
        if from < to {
            kept.push(batch.slice(from, to - from));
        }
        before += n;
    }
    kept
}
