//! The writing side of an exchange between stages of SQL: rows in the order in which they come, dealt out by a hash of
//! expressions, or all to one partition. What merges below and above rely on is that order. Of rows that several tasks
//! merge in ranges, the index has the key with which each segment begins.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use weft_core::{ErrorCode, Problem, lock};
use weft_sandbox::{Reservation, batch_bytes};
use weft_shuffle::ObjectWriter;
use weft_sql::{HashKeys, SortKeys};

use crate::canonical::canonical_form;
use crate::edge::{EdgeWriter, SEGMENT_BATCH_ROWS, out_of_memory, place};
use crate::environment::TaskEnvironment;
use crate::plan::EdgePlan;
use crate::problems::internal;
use crate::sql_task::gave_up;
use crate::untrusted::evaluated;

/// Writers whose segments a merge holds at a time, as far as the size of segments goes.
const MERGED_WRITERS: u64 = 256;
/// Bytes of a segment of an edge with one partition: a merge of many writers holds one of each.
const ARRIVING_BYTES_MIN: u64 = 64 << 10;
const ARRIVING_BYTES_MAX: u64 = 1 << 20;
/// The same of sorted rows: each boundary of a range is within a segment of each writer, which two tasks read.
const ORDERED_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a row's place in the order of its partition.
const PLACE_BYTES: u64 = 16;

/// An edge of a running task.
pub(crate) enum EdgeOut {
    /// Rows are sorted by key, and grouped.
    Sorted(Box<EdgeWriter>),
    /// Rows keep their order.
    Exchange(ExchangeWriter),
}

impl EdgeOut {
    pub(crate) async fn push(
        &mut self,
        environment: &TaskEnvironment,
        batch: RecordBatch,
    ) -> Result<(), Problem> {
        match self {
            Self::Sorted(edge) => edge.push(environment, batch).await,
            Self::Exchange(edge) => edge.push(environment, &batch),
        }
    }

    pub(crate) async fn flush(&mut self, environment: &TaskEnvironment) -> Result<(), Problem> {
        match self {
            Self::Sorted(edge) => edge.flush(environment).await,
            Self::Exchange(edge) => edge.flush(),
        }
    }

    /// Rows that were taken in.
    pub(crate) fn rows(&self) -> u64 {
        match self {
            Self::Sorted(edge) => edge.rows,
            Self::Exchange(edge) => edge.rows,
        }
    }
}

/// Partition of rows, and what is known of their order.
pub(crate) enum Placing {
    /// By the hash of these expressions.
    ByHash(HashKeys),
    /// All in one partition.
    AsTheyCome,
    /// The same, and rows are sorted by these expressions.
    InOrder(SortKeys),
}

/// One exchange of a running task.
pub(crate) struct ExchangeWriter {
    schema: SchemaRef,
    edge: u32,
    partitions: usize,
    placing: Placing,
    /// Key of the last row that was written, if rows are sorted.
    last_key: Vec<u8>,
    batches: Vec<RecordBatch>,
    reserved: Option<Reservation>,
    budget_bytes: u64,
    segments: Arc<Mutex<ObjectWriter>>,
    rows: u64,
}

impl ExchangeWriter {
    /// `budget_bytes`: rows that are collected before segments are written.
    pub(crate) fn new(
        plan: &EdgePlan,
        edge: u32,
        placing: Placing,
        budget_bytes: u64,
        segments: Arc<Mutex<ObjectWriter>>,
    ) -> Self {
        let merged_bytes = budget_bytes / MERGED_WRITERS;
        let budget_bytes = match placing {
            Placing::ByHash(_) => budget_bytes,
            Placing::AsTheyCome => merged_bytes.clamp(ARRIVING_BYTES_MIN, ARRIVING_BYTES_MAX),
            Placing::InOrder(_) => merged_bytes.clamp(ARRIVING_BYTES_MIN, ORDERED_BYTES_MAX),
        };
        Self {
            schema: Arc::clone(&plan.schema),
            edge,
            partitions: plan.partitions as usize,
            placing,
            last_key: Vec::new(),
            batches: Vec::new(),
            reserved: None,
            budget_bytes,
            segments,
            rows: 0,
        }
    }

    fn push(&mut self, environment: &TaskEnvironment, batch: &RecordBatch) -> Result<(), Problem> {
        let n = batch.num_rows();
        if n == 0 {
            return Ok(());
        }
        // Once as it is, once as it is written.
        let bytes = batch_bytes(batch) * 2 + PLACE_BYTES * n as u64;
        let is_by_hash = matches!(self.placing, Placing::ByHash(_));
        if !is_by_hash && bytes > self.budget_bytes && n > 1 {
            // A segment of its own would be too large for a merge.
            self.push(environment, &batch.slice(0, n / 2))?;
            return self.push(environment, &batch.slice(n / 2, n - n / 2));
        }
        self.rows += n as u64;
        let held = self.reserved.as_ref().map_or(0, Reservation::bytes);
        if held > 0
            && (held + bytes > self.budget_bytes
                || !environment.try_hold(&mut self.reserved, bytes))
        {
            self.flush()?;
        }
        if self.batches.is_empty() && !environment.try_hold(&mut self.reserved, bytes) {
            return Err(out_of_memory(
                &environment.account,
                "a batch on its way to the exchange",
            ));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        self.batches.push(batch.map_err(|error| internal(&error))?);
        Ok(())
    }

    /// Writes what was collected: a segment for each partition that has rows.
    fn flush(&mut self) -> Result<(), Problem> {
        let batches = std::mem::take(&mut self.batches);
        if batches.is_empty() {
            return Ok(());
        }
        match &self.placing {
            Placing::ByHash(keys) if self.partitions > 1 => {
                let places = self.places(keys, &batches)?;
                for (partition, places) in (0..).zip(&places) {
                    let written = self.gathered(&batches, places);
                    self.add(partition, &written.map_err(|error| internal(&error))?)?;
                }
            }
            Placing::ByHash(_) => self.add(0, &batches)?,
            Placing::AsTheyCome => self.add(0, &[self.joined(&batches)?])?,
            Placing::InOrder(order) => {
                let rows = self.joined(&batches)?;
                self.last_key = self.add_sorted(order, rows)?;
            }
        }
        self.reserved = None;
        Ok(())
    }

    fn joined(&self, batches: &[RecordBatch]) -> Result<RecordBatch, Problem> {
        concat_batches(&self.schema, batches).map_err(|error| internal(&error))
    }

    /// Adds sorted rows, and returns the key of the last one.
    fn add_sorted(&self, order: &SortKeys, rows: RecordBatch) -> Result<Vec<u8>, Problem> {
        let key = |row| {
            evaluated(|| order.key(&rows, row))
                .map_err(gave_up)
                .flatten()
        };
        let (first, last) = (key(0)?, key(rows.num_rows() - 1)?);
        if first < self.last_key || last < first {
            // Those who read ranges would look for rows in the wrong segments.
            let detail = "rows that are read in ranges were not put out in order";
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        let mut segments = lock(&self.segments);
        let added = segments.add_sorted(self.edge, 0, &self.schema, &[rows], &first);
        added.map_err(|error| error.problem())?;
        Ok(last)
    }

    /// Rows of each partition, as positions of batch and row, in the order in which they came.
    fn places(
        &self,
        keys: &HashKeys,
        batches: &[RecordBatch],
    ) -> Result<Vec<Vec<(usize, usize)>>, Problem> {
        let mut places = vec![Vec::new(); self.partitions];
        for (position, batch) in batches.iter().enumerate() {
            let values = evaluated(|| keys.evaluate(batch))
                .map_err(gave_up)
                .flatten()?;
            let hashes = hashes(&values).map_err(|error| internal(&error))?;
            for (row, hash) in hashes.into_iter().enumerate() {
                places[place(hash, self.partitions)].push((position, row));
            }
        }
        Ok(places)
    }

    fn gathered(
        &self,
        batches: &[RecordBatch],
        places: &[(usize, usize)],
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let chunks = places.chunks(SEGMENT_BATCH_ROWS);
        if self.schema.fields().is_empty() {
            let options = |chunk: &[_]| RecordBatchOptions::new().with_row_count(Some(chunk.len()));
            let empty = |chunk| {
                let schema = Arc::clone(&self.schema);
                RecordBatch::try_new_with_options(schema, Vec::new(), &options(chunk))
            };
            return chunks.map(empty).collect();
        }
        chunks
            .map(|chunk| interleave_record_batch(&batches, chunk))
            .collect()
    }

    fn add(&self, partition: u32, batches: &[RecordBatch]) -> Result<(), Problem> {
        let mut segments = lock(&self.segments);
        let added = segments.add(self.edge, partition, &self.schema, batches);
        added.map_err(|error| error.problem())
    }
}

/// One hash for each row of some columns: the one by which shuffles deal out keys.
fn hashes(columns: &[ArrayRef]) -> Result<Vec<u64>, ArrowError> {
    let columns = columns.iter().map(canonical_form);
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let fields = columns
        .iter()
        .map(|column| SortField::new(column.data_type().clone()));
    let converter = RowConverter::new(fields.collect())?;
    let rows = converter.convert_columns(&columns)?;
    let hash = |row: arrow::row::Row<'_>| xxhash_rust::xxh3::xxh3_64(row.as_ref());
    Ok(rows.iter().map(hash).collect())
}
