//! The reading side of a shuffle: one partition, from all objects of the edge, sorted by key in bounded memory.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use futures::StreamExt;
use weft_core::{ErrorCode, LimitKind, Problem};
use weft_protocol::{ObjectRef, Sums};
use weft_sandbox::Reservation;
use weft_shuffle::{ObjectReader, Segment};

use crate::ahead::{Ahead, Upcoming};
use crate::edge::{combine, out_of_memory};
use crate::environment::TaskEnvironment;
use crate::flow::Flow;
use crate::grouping::{Chunk, Keys, Sorted, grouped_segment_bytes};
use crate::merge::{RUNS_MAX, Run, RunWriter, fan_in, merge};
use crate::place::among_groups;
use crate::plan::FunctionPlan;
use crate::problems::internal;
use crate::sql_source::of_writer;

/// What reading a partition told.
#[derive(Default)]
pub(crate) struct PartitionRead {
    pub(crate) sums: Sums,
    pub(crate) bytes: u64,
    pub(crate) spilled_runs: u64,
    /// Bytes of all runs, merged ones included.
    pub(crate) spilled_bytes: u64,
}

/// Which partition to read, and how.
pub(crate) struct ShuffleSource<'a> {
    pub(crate) reader: &'a ObjectReader,
    /// Objects of the writing stage's tasks, by task.
    pub(crate) objects: &'a [Option<ObjectRef>],
    pub(crate) from: &'a str,
    pub(crate) edge: u32,
    pub(crate) keys: &'a [usize],
    pub(crate) combine: Option<&'a FunctionPlan>,
    pub(crate) schema: &'a SchemaRef,
}

fn merge_failed(environment: &TaskEnvironment, error: &DataFusionError) -> Problem {
    match error {
        DataFusionError::ResourcesExhausted(text) => {
            let detail = format!(
                "the `{}` limit was reached while spilled runs were merged: {text}; raise `limits.memory`",
                LimitKind::Memory
            );
            let limit = environment.account.limit_bytes() >> 20;
            Problem::new(ErrorCode::LimitExceeded, detail)
                .of_limit(LimitKind::Memory, format!("{limit} MiB"))
        }
        other => Problem::new(ErrorCode::Internal, other.to_string()),
    }
}

impl ShuffleSource<'_> {
    /// Pushes the partition into `flow`, sorted, group by group.
    ///
    /// Objects are read in the order of the tasks that wrote them. Rows are collected up to a third of the task's memory, then
    /// sorted, combined where a combiner is there, and spilled as a run; runs are merged at the end.
    pub(crate) async fn run(
        &self,
        environment: &TaskEnvironment,
        flow: &mut Flow,
    ) -> Result<PartitionRead, Problem> {
        let keys = Keys::new(self.schema, self.keys).map_err(|error| internal(&error))?;
        let budget_bytes = environment.account.limit_bytes() / 3;
        let mut read = PartitionRead::default();
        let mut runs: Vec<Run> = Vec::new();
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut reserved: Option<Reservation> = None;
        let mut upcoming = self.upcoming(environment);
        while let Some(segment) = self.next_segment(environment, &mut upcoming).await? {
            environment.check_cancel()?;
            // Reserved before it is decoded; past the budget, what is there goes to a run first.
            let size = grouped_segment_bytes(&segment);
            let held = reserved.as_ref().map_or(0, Reservation::bytes);
            let fits = held + size <= budget_bytes && environment.try_hold(&mut reserved, size);
            if !fits {
                if !batches.is_empty() {
                    let batches = std::mem::take(&mut batches);
                    let run = self.spill(environment, &keys, batches).await?;
                    read.spilled_bytes += run.bytes;
                    runs.push(run);
                    reserved = None;
                }
                // While nothing else is held.
                if runs.len() == RUNS_MAX {
                    runs = self.merge_pass(environment, runs, &mut read).await?;
                }
                if !environment.try_hold(&mut reserved, size) {
                    return Err(out_of_memory(
                        &environment.account,
                        "a segment of the shuffle",
                    ));
                }
            }
            batches.extend(upcoming.read().await?);
            read.sums.add(&segment.sums());
            read.bytes += segment.bytes();
        }
        drop(upcoming);
        read.spilled_runs = runs.len() as u64;
        if runs.is_empty() {
            self.push_sorted(environment, flow, &keys, batches).await?;
        } else {
            let run = self.spill(environment, &keys, batches).await?;
            read.spilled_bytes += run.bytes;
            runs.push(run);
            drop(reserved);
            while runs.len() > fan_in(&runs, environment.account.limit_bytes()) {
                runs = self.merge_pass(environment, runs, &mut read).await?;
            }
            self.push_merged(environment, flow, &keys, runs).await?;
        }
        Ok(read)
    }

    /// The objects, in the order of the tasks that wrote them.
    fn upcoming(&self, environment: &TaskEnvironment) -> Upcoming {
        let ahead = Ahead::new(self.reader, &environment.account);
        let objects = (0u32..).zip(self.objects);
        let objects = objects.filter_map(|(task, object)| Some((task, object.clone()?)));
        Upcoming::new(self.reader, &ahead, self.from, objects)
    }

    /// Finds the segment that is next.
    async fn next_segment(
        &self,
        environment: &TaskEnvironment,
        upcoming: &mut Upcoming,
    ) -> Result<Option<Segment>, Problem> {
        loop {
            while let Some((task, object)) = upcoming.unknown().await? {
                let (edge, partition) = (self.edge, environment.task);
                let segments = self.reader.segments(&object, task, edge, partition);
                let segments = segments.await;
                let segments = segments.map_err(|error| of_writer(self.from, &error))?;
                upcoming.add((task, object), segments);
            }
            if let Some((_, segment)) = upcoming.front(|_| ()) {
                return Ok(Some(segment));
            }
            if upcoming.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Pushes a chunk; where a function fails over it, the error names the groups.
    async fn push(
        &self,
        environment: &TaskEnvironment,
        flow: &mut Flow,
        chunk: Chunk,
    ) -> Result<(), Problem> {
        let (rows, n_groups) = (chunk.batch.clone(), chunk.ends.len());
        let pushed = flow.push_chunk(environment, chunk).await;
        pushed.map_err(|problem| among_groups(problem, &rows, n_groups, self.keys))
    }

    async fn push_sorted(
        &self,
        environment: &TaskEnvironment,
        flow: &mut Flow,
        keys: &Keys,
        batches: Vec<RecordBatch>,
    ) -> Result<(), Problem> {
        let sorted = Sorted::new(keys, Arc::clone(self.schema), batches)
            .map_err(|error| internal(&error))?;
        let mut chunks = sorted.chunks().map_err(|error| internal(&error))?;
        while let Some(chunk) = chunks.next().map_err(|error| internal(&error))? {
            self.push(environment, flow, chunk).await?;
        }
        Ok(())
    }

    async fn spill(
        &self,
        environment: &TaskEnvironment,
        keys: &Keys,
        batches: Vec<RecordBatch>,
    ) -> Result<Run, Problem> {
        let sort = |batches| {
            Sorted::new(keys, Arc::clone(self.schema), batches).map_err(|error| internal(&error))
        };
        let mut sorted = sort(batches)?;
        let mut reserved = Vec::new();
        if let Some(function) = self.combine {
            let emitted = combine(environment, function, &sorted, self.keys).await?;
            reserved = emitted.reserved;
            sorted = sort(emitted.batches)?;
        }
        let write = || {
            let mut writer = self.run_writer(environment)?;
            let mut chunks = sorted.chunks()?;
            while let Some(chunk) = chunks.next()? {
                writer.write(&chunk.batch)?;
            }
            writer.finish()
        };
        let run = write().map_err(|error| internal(&error));
        drop(reserved);
        run
    }

    fn run_writer(&self, environment: &TaskEnvironment) -> Result<RunWriter, ArrowError> {
        let memory_bytes = environment.account.limit_bytes();
        RunWriter::new(self.schema, &environment.spill_folder, memory_bytes)
    }

    /// Merges runs that stand side by side, as many at a time as there is memory for.
    async fn merge_pass(
        &self,
        environment: &TaskEnvironment,
        mut runs: Vec<Run>,
        read: &mut PartitionRead,
    ) -> Result<Vec<Run>, Problem> {
        let fan_in = fan_in(&runs, environment.account.limit_bytes());
        let mut merged = Vec::with_capacity(runs.len().div_ceil(fan_in));
        while !runs.is_empty() {
            let rest = runs.split_off(fan_in.min(runs.len()));
            let group = std::mem::replace(&mut runs, rest);
            environment.check_cancel()?;
            merged.push(match <[Run; 1]>::try_from(group) {
                Ok([alone]) => alone,
                Err(group) => {
                    let run = self.merge_runs(environment, group).await?;
                    read.spilled_bytes += run.bytes;
                    run
                }
            });
        }
        Ok(merged)
    }

    async fn merge_runs(
        &self,
        environment: &TaskEnvironment,
        runs: Vec<Run>,
    ) -> Result<Run, Problem> {
        let mut writer = self
            .run_writer(environment)
            .map_err(|error| internal(&error))?;
        let mut merged = merge(runs, self.schema, self.keys, &environment.account)
            .map_err(|error| merge_failed(environment, &error))?;
        while let Some(batch) = merged.next().await {
            writer
                .write(&batch.map_err(|error| merge_failed(environment, &error))?)
                .map_err(|error| internal(&error))?;
        }
        writer.finish().map_err(|error| internal(&error))
    }

    async fn push_merged(
        &self,
        environment: &TaskEnvironment,
        flow: &mut Flow,
        keys: &Keys,
        runs: Vec<Run>,
    ) -> Result<(), Problem> {
        let mut merged = merge(runs, self.schema, self.keys, &environment.account)
            .map_err(|error| merge_failed(environment, &error))?;
        // One batch is held back: only the next one tells whether its last group goes on.
        let mut held: Option<(Chunk, Vec<u8>)> = None;
        while let Some(batch) = merged.next().await {
            let batch = batch.map_err(|error| merge_failed(environment, &error))?;
            if batch.num_rows() == 0 {
                continue;
            }
            let rows = keys.rows(&batch).map_err(|error| internal(&error))?;
            if let Some((mut chunk, last)) = held.take() {
                chunk.continues = rows.row(0).as_ref() == last;
                self.push(environment, flow, chunk).await?;
            }
            let last = rows.row(rows.num_rows() - 1).as_ref().to_vec();
            let ends = (1..=rows.num_rows())
                .filter(|end| *end == rows.num_rows() || rows.row(*end) != rows.row(*end - 1));
            let ends = ends
                .map(|end| u32::try_from(end).expect("a batch is counted in 32 bits"))
                .collect();
            held = Some((
                Chunk {
                    batch,
                    ends,
                    continues: false,
                    hashes: Vec::new(),
                },
                last,
            ));
        }
        match held {
            Some((chunk, _)) => self.push(environment, flow, chunk).await,
            None => Ok(()),
        }
    }
}
