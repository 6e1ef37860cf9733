//! The writing side of a shuffle: rows are collected, sorted by key, combined, partitioned, and added to the attempt's object.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::error::ArrowError;
use weft_core::{ErrorCode, LimitKind, Problem, lock};
use weft_sandbox::{MemoryAccount, Reservation};
use weft_shuffle::ObjectWriter;

use crate::canonical::Canonical;
use crate::environment::TaskEnvironment;
use crate::grouping::{Chunk, Keys, Sorted};
use crate::place::among_groups;
use crate::plan::{EdgePlan, FunctionPlan};
use crate::problems::internal;
use crate::running_guest::{Emitted, RunningGuest};

/// Rows of one batch in a segment.
pub(crate) const SEGMENT_BATCH_ROWS: usize = 16 << 10;

/// One edge of a running task.
pub(crate) struct EdgeWriter {
    plan: EdgePlan,
    edge: u32,
    canonical: Canonical,
    keys: Keys,
    batches: Vec<RecordBatch>,
    reserved: Option<Reservation>,
    budget_bytes: u64,
    /// Shared by the edges of the task: they end up in one object.
    segments: Arc<std::sync::Mutex<ObjectWriter>>,
    pub(crate) rows: u64,
}

impl EdgeWriter {
    /// `budget_bytes`: rows that are collected before a run is sorted and written.
    pub(crate) fn new(
        plan: EdgePlan,
        edge: u32,
        budget_bytes: u64,
        segments: Arc<std::sync::Mutex<ObjectWriter>>,
    ) -> Result<Self, Problem> {
        let keys = Keys::new(&plan.schema, &plan.keys).map_err(|error| internal(&error))?;
        Ok(Self {
            canonical: Canonical::new(&plan.schema, &plan.keys),
            plan,
            edge,
            keys,
            batches: Vec::new(),
            reserved: None,
            budget_bytes,
            segments,
            rows: 0,
        })
    }

    /// Takes rows in, whose keys get their canonical form.
    pub(crate) async fn push(
        &mut self,
        environment: &TaskEnvironment,
        batch: RecordBatch,
    ) -> Result<(), Problem> {
        for part in self.canonical.parts(batch)? {
            self.push_part(environment, part).await?;
        }
        Ok(())
    }

    async fn push_part(
        &mut self,
        environment: &TaskEnvironment,
        batch: RecordBatch,
    ) -> Result<(), Problem> {
        // Reserved before keys are made anew.
        let bytes = self.canonical.grouped_bytes(&batch);
        self.rows += batch.num_rows() as u64;
        let held = self.reserved.as_ref().map_or(0, Reservation::bytes);
        if !self.batches.is_empty()
            && (held + bytes > self.budget_bytes
                || !environment.try_hold(&mut self.reserved, bytes))
        {
            self.flush(environment).await?;
            if !environment.try_hold(&mut self.reserved, bytes) {
                return Err(out_of_memory(
                    &environment.account,
                    "a batch on its way to the shuffle",
                ));
            }
        } else if self.batches.is_empty() && !environment.try_hold(&mut self.reserved, bytes) {
            return Err(out_of_memory(
                &environment.account,
                "a batch on its way to the shuffle",
            ));
        }
        let batch = self.canonical.batch(batch);
        self.batches.push(batch.map_err(|error| internal(&error))?);
        Ok(())
    }

    /// Turns what was collected into one segment for each partition.
    pub(crate) async fn flush(&mut self, environment: &TaskEnvironment) -> Result<(), Problem> {
        let batches = std::mem::take(&mut self.batches);
        if batches.is_empty() {
            return Ok(());
        }
        let sorted = Sorted::new(&self.keys, Arc::clone(&self.plan.schema), batches)
            .map_err(|error| internal(&error))?;
        let mut reserved = Vec::new();
        let combined = match &self.plan.combine {
            Some(function) => {
                let emitted = combine(environment, function, &sorted, &self.plan.keys).await?;
                reserved = emitted.reserved;
                Sorted::new(&self.keys, Arc::clone(&self.plan.schema), emitted.batches)
                    .map_err(|error| internal(&error))?
            }
            None => sorted,
        };
        self.write(&combined)?;
        drop(reserved);
        self.reserved = None;
        Ok(())
    }

    fn write(&self, sorted: &Sorted) -> Result<(), Problem> {
        let mut partitions: Vec<Vec<RecordBatch>> = vec![Vec::new(); self.plan.partitions as usize];
        let mut chunks = sorted.chunks().map_err(|error| internal(&error))?;
        while let Some(chunk) = chunks.next().map_err(|error| internal(&error))? {
            partition(&chunk, &mut partitions).map_err(|error| internal(&error))?;
        }
        let mut segments = lock(&self.segments);
        for (partition, batches) in (0..).zip(partitions) {
            let batches = coalesce(&self.plan, batches).map_err(|error| internal(&error))?;
            segments
                .add(self.edge, partition, &self.plan.schema, &batches)
                .map_err(|error| error.problem())?;
        }
        Ok(())
    }
}

/// Runs sorted rows through a combiner of their own: its memory is given back with it. The keys of what it emits get their
/// canonical form, as if the rows had just entered the edge.
pub(crate) async fn combine(
    environment: &TaskEnvironment,
    function: &FunctionPlan,
    sorted: &Sorted,
    keys: &[usize],
) -> Result<Emitted, Problem> {
    let mut guest = RunningGuest::reducer(environment, function).await?;
    let mut output = Emitted::default();
    let mut chunks = sorted.chunks().map_err(|error| internal(&error))?;
    loop {
        environment.check_cancel()?;
        let Some(chunk) = chunks.next().map_err(|error| internal(&error))? else {
            break;
        };
        let (rows, n_groups) = (chunk.batch.clone(), chunk.ends.len());
        let pushed = guest.push_chunk(environment, chunk).await;
        output.add(pushed.map_err(|problem| among_groups(problem, &rows, n_groups, keys))?);
    }
    output.add(guest.finish_reducer(environment).await?);
    let canonical = Canonical::new(&function.output, keys);
    let batches = canonical.batches(std::mem::take(&mut output.batches));
    output.batches = batches.map_err(|error| internal(&error))?;
    Ok(output)
}

pub(crate) fn out_of_memory(account: &MemoryAccount, what: &str) -> Problem {
    let limit = account.limit_bytes() >> 20;
    Problem::new(
        ErrorCode::LimitExceeded,
        format!(
            "the `{}` limit of {limit} MiB was reached by {what}; raise `limits.memory` or make batches smaller",
            LimitKind::Memory
        ),
    ).of_limit(LimitKind::Memory, format!("{limit} MiB"))
}

/// Deals the groups of a chunk out to partitions by the hash of their key.
fn partition(chunk: &Chunk, partitions: &mut [Vec<RecordBatch>]) -> Result<(), ArrowError> {
    if partitions.len() == 1 {
        partitions[0].push(chunk.batch.clone());
        return Ok(());
    }
    if let [hash] = chunk.hashes[..] {
        partitions[place(hash, partitions.len())].push(chunk.batch.clone());
        return Ok(());
    }
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); partitions.len()];
    let mut start = 0;
    for (end, hash) in chunk.ends.iter().zip(&chunk.hashes) {
        rows[place(*hash, partitions.len())].extend(start..*end);
        start = *end;
    }
    for (rows, partition) in rows.into_iter().zip(partitions) {
        if !rows.is_empty() {
            partition.push(take_record_batch(&chunk.batch, &UInt32Array::from(rows))?);
        }
    }
    Ok(())
}

/// The partition of a key.
pub(crate) fn place(hash: u64, partitions: usize) -> usize {
    usize::try_from(hash % partitions as u64).expect("a partition is a small number")
}

/// Many small batches make long segments: each carries its own header.
fn coalesce(plan: &EdgePlan, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut coalesced = Vec::new();
    let mut waiting: Vec<RecordBatch> = Vec::new();
    let mut rows = 0;
    for batch in batches {
        if rows + batch.num_rows() > SEGMENT_BATCH_ROWS && !waiting.is_empty() {
            coalesced.push(concat_batches(&plan.schema, &std::mem::take(&mut waiting))?);
            rows = 0;
        }
        rows += batch.num_rows();
        waiting.push(batch);
    }
    if !waiting.is_empty() {
        coalesced.push(concat_batches(&plan.schema, &waiting)?);
    }
    Ok(coalesced)
}

#[cfg(test)]
mod tests;
