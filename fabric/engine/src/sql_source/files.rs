//! Rows of a leaf over files.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use datafusion_common::DataFusionError;
use tokio_util::sync::CancellationToken;
use weft_core::{Problem, lock};
use weft_sql::carried;

use super::{Counts, FileCounts, check_cancel};
use crate::plan::{FilesLeaf, Leaf, Source, StagePlan};
use crate::problems::internal;
use crate::scan::{Inputs, Reader, Unknown};

/// Rows of files, read on the task's own thread: it has nothing else to do.
pub(super) struct FileRows {
    pub(super) leaf: u32,
    pub(super) plan: Arc<StagePlan>,
    pub(super) inputs: Inputs,
    pub(super) splits: Range<usize>,
    pub(super) open: Option<(usize, Reader)>,
    pub(super) rows_left: Option<u64>,
    pub(super) is_done: bool,
    pub(super) cancel: CancellationToken,
    pub(super) counts: Arc<Mutex<Counts>>,
}

impl Iterator for FileRows {
    type Item = Result<RecordBatch, DataFusionError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done || self.rows_left == Some(0) {
            self.open = None;
            return None;
        }
        let next = self.next_batch();
        self.is_done = !matches!(next, Ok(Some(_)));
        next.map_err(carried).transpose()
    }
}

impl FileRows {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, Problem> {
        let plan = Arc::clone(&self.plan);
        let Source::Sql(sql) = &plan.source else {
            return Ok(None);
        };
        let Some(Leaf::Files(leaf)) = sql.leaves.get(self.leaf as usize) else {
            return Ok(None);
        };
        loop {
            check_cancel(&self.cancel)?;
            let Some((split, reader)) = &mut self.open else {
                let Some(split) = self.splits.next() else {
                    return Ok(None);
                };
                let reader = Reader::open(&self.inputs, &leaf.files, &leaf.files.splits[split])?;
                self.open = Some((split, reader));
                continue;
            };
            let batch = reader.next()?;
            let bad_records = reader.left_out().map_or(0, |left_out| left_out.count);
            let unknown_fields = reader.unknown().map_or(0, Unknown::count);
            let so_far = FileCounts {
                bytes: reader.bytes_read(),
                bad_records,
                unknown_fields,
                unknown: match batch {
                    None => reader.unknown().and_then(Unknown::summary),
                    Some(_) => None,
                },
            };
            lock(&self.counts).files.insert((self.leaf, *split), so_far);
            match batch {
                None => self.open = None,
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => {
                    let split = *split;
                    return self.shown(leaf, split, batch).map(Some);
                }
            }
        }
    }

    /// The columns and rows that the plan wants of a batch.
    fn shown(
        &mut self,
        leaf: &FilesLeaf,
        split: usize,
        mut batch: RecordBatch,
    ) -> Result<RecordBatch, Problem> {
        if let Some(folders) = &leaf.folders {
            let whole = folders.append(&batch, split);
            batch = whole.map_err(|error| internal(&error))?;
        }
        if let Some(columns) = &leaf.columns {
            batch = batch.project(columns).map_err(|error| internal(&error))?;
        }
        if let Some(left) = &mut self.rows_left {
            let n = batch
                .num_rows()
                .min(usize::try_from(*left).unwrap_or(usize::MAX));
            batch = batch.slice(0, n);
            *left -= n as u64;
        }
        lock(&self.counts).rows += batch.num_rows() as u64;
        Ok(batch)
    }
}
