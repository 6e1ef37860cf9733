//! Runs stages one after the other in memory: every task decodes its plan and runs it alone, as in an executor.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Float64Type};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use weft_core::Problem;
use weft_protocol::{ReadMode, TaskRange};
use weft_sql::{
    Functions, HashKeys, LeafPlan, Options, Out, Session, SortKeys, Sources, SqlStage, Table,
    TaskMemory,
};

use crate::data::{Data, block_on};
use crate::filters::may_pass;

/// Rows of a stage: by task, by partition, in order.
type Written = Vec<Vec<Vec<RecordBatch>>>;

pub(crate) fn options(tasks: u32, broadcast: bool) -> Options {
    Options {
        tasks,
        broadcast,
        build_bytes: u64::MAX,
        started_ms: 1_700_000_000_000,
    }
}

/// The same with merge joins only.
pub(crate) fn merging(tasks: u32) -> Options {
    Options {
        build_bytes: 0,
        ..options(tasks, false)
    }
}

/// Tests that call `check` with 1, 3 and 8 tasks, with broadcast and without, and with merge joins.
macro_rules! at_all_widths {
    () => {
        #[test]
        fn one_task() {
            check(options(1, true));
            check(options(1, false));
        }

        #[test]
        fn three_tasks_with_broadcast() {
            check(options(3, true));
        }

        #[test]
        fn three_tasks_without_broadcast() {
            check(options(3, false));
        }

        #[test]
        fn eight_tasks_with_broadcast() {
            check(options(8, true));
        }

        #[test]
        fn eight_tasks_without_broadcast() {
            check(options(8, false));
        }

        #[test]
        fn one_task_that_merges() {
            check(merging(1));
        }

        #[test]
        fn three_tasks_that_merge() {
            check(merging(3));
        }

        #[test]
        fn eight_tasks_that_merge() {
            check(merging(8));
        }
    };
}
pub(crate) use at_all_widths;

/// Plans a statement over the tables that it names.
pub(crate) fn plan(
    session: &Session,
    data: &'static [Data],
    sql: &str,
    options: &Options,
) -> Result<(Vec<&'static Data>, Vec<SqlStage>), Problem> {
    let statement = session.parse(sql)?;
    let names = statement.tables();
    let is_read = |data: &&Data| names.iter().any(|name| name == data.name);
    let read: Vec<&'static Data> = data.iter().filter(is_read).collect();
    let tables: Vec<Table> = read.iter().map(|data| data.table()).collect();
    let stages = block_on(session.plan(statement, tables, options))?;
    Ok((read, stages))
}

/// Runs a statement and returns its rows, by task and then in order.
pub(crate) fn run(
    session: &Session,
    data: &'static [Data],
    sql: &str,
    options: &Options,
) -> Result<Vec<RecordBatch>, Problem> {
    let unbounded = || Arc::new(UnboundedMemoryPool::default()) as Arc<dyn MemoryPool>;
    let (rows, _) = run_within(session, data, sql, options, &unbounded)?;
    Ok(rows)
}

/// The same with functions of components, which the session knows as well.
pub(crate) fn run_with(
    session: &Session,
    data: &'static [Data],
    sql: &str,
    options: &Options,
    functions: Arc<dyn Functions>,
) -> Result<Vec<RecordBatch>, Problem> {
    let unbounded = || Arc::new(UnboundedMemoryPool::default()) as Arc<dyn MemoryPool>;
    let run = Run {
        pool: &unbounded,
        functions: Some(functions),
        adapted: None,
    };
    let (rows, _) = run_all(session, data, sql, options, &run)?;
    Ok(rows)
}

/// Runs a statement whose adaptive tasks are others than planned: the first half of the partitions is one task's, and
/// the next partition is shared by three, of a leaf that may be split; `which` chooses one of several.
pub(crate) fn run_adapted(
    session: &Session,
    data: &'static [Data],
    sql: &str,
    options: &Options,
    which: usize,
) -> Result<Vec<RecordBatch>, Problem> {
    let unbounded = || Arc::new(UnboundedMemoryPool::default()) as Arc<dyn MemoryPool>;
    let run = Run {
        pool: &unbounded,
        functions: None,
        adapted: Some(which),
    };
    let (rows, _) = run_all(session, data, sql, options, &run)?;
    Ok(rows)
}

/// Runs a statement whose tasks have a pool each. Returns its rows, and how often tasks started over.
pub(crate) fn run_within(
    session: &Session,
    data: &'static [Data],
    sql: &str,
    options: &Options,
    pool: &dyn Fn() -> Arc<dyn MemoryPool>,
) -> Result<(Vec<RecordBatch>, usize), Problem> {
    let run = Run {
        pool,
        functions: None,
        adapted: None,
    };
    run_all(session, data, sql, options, &run)
}

/// Settings that tasks run with.
struct Run<'a> {
    pool: &'a dyn Fn() -> Arc<dyn MemoryPool>,
    functions: Option<Arc<dyn Functions>>,
    /// Adaptive tasks are others than planned; which of the leaves that may be split is.
    adapted: Option<usize>,
}

fn run_all(
    session: &Session,
    data: &'static [Data],
    sql: &str,
    options: &Options,
    run: &Run<'_>,
) -> Result<(Vec<RecordBatch>, usize), Problem> {
    let n_restarts = Arc::new(AtomicUsize::new(0));
    let (tables, stages) = plan(session, data, sql, options)?;
    check(&stages);
    let spill = tempfile::tempdir().expect("a folder for spilling");
    let mut written: Vec<Arc<Written>> = Vec::new();
    for stage in &stages {
        let mut tasks = Written::new();
        for (task, part) in tasks_of(stage, run.adapted) {
            let sources = TaskSources {
                leaves: stage.leaves.clone(),
                task,
                part,
                tables: tables.clone(),
                written: written.clone(),
                functions: run.functions.clone(),
                n_restarts: Arc::clone(&n_restarts),
            };
            let memory = TaskMemory {
                pool: (run.pool)(),
                spill_folder: spill.path().to_owned(),
            };
            tasks.push(block_on(run_task(session, stage, task, sources, memory))?);
        }
        written.push(Arc::new(tasks));
    }
    let result = written.last().expect("a statement has a stage");
    let rows = result.iter().flatten().flatten().cloned().collect();
    Ok((rows, n_restarts.load(Ordering::Relaxed)))
}

/// The partitions of an adaptive task.
#[derive(Debug, Clone)]
struct Part {
    /// Position of the task among those of its variant, and their number.
    place: (usize, usize),
    partitions: Range<usize>,
    /// The leaf of which the task has a piece, the piece's position, and the number of pieces.
    piece: Option<Piece>,
}

/// A piece of the partitions: the leaf that is split, its position, and how many there are.
type Piece = (u32, usize, usize);

/// The tasks of a stage, each with its part if it is adaptive and not as planned.
fn tasks_of(stage: &SqlStage, adapted: Option<usize>) -> Vec<(u32, Option<Part>)> {
    let mut tasks = Vec::new();
    for variant in &stage.variants {
        let TaskRange { first, count } = variant.tasks;
        let adaptive = adapted.zip(variant.adaptive.as_ref());
        let Some((which, adaptive)) = adaptive else {
            tasks.extend((first..first + count).map(|task| (task, None)));
            continue;
        };
        let split = adaptive.split.get(which).or(adaptive.split.last());
        let (n, half) = (count as usize, count as usize / 2);
        let mut parts: Vec<(Range<usize>, Option<Piece>)> = vec![(0..half, None)];
        match split {
            Some(leaf) => parts.extend((0..3).map(|at| (half..half + 1, Some((*leaf, at, 3))))),
            None => parts.push((half..half + 1, None)),
        }
        parts.extend((half + 1..n).map(|partition| (partition..partition + 1, None)));
        let n_tasks = parts.len();
        let part = |(at, (partitions, piece))| Part {
            place: (at, n_tasks),
            partitions,
            piece,
        };
        let parts = parts.into_iter().enumerate().map(part);
        tasks.extend(parts.map(|part| (first, Some(part))));
    }
    tasks
}

/// Checks what the control plane checks: ranges of tasks, and readers that fit what is written.
fn check(stages: &[SqlStage]) {
    let mut is_read = vec![false; stages.len()];
    for (position, stage) in stages.iter().enumerate() {
        let ends = stage.variants.iter().scan(0, |end, variant| {
            assert_eq!(variant.tasks.first, *end, "variants follow each other");
            *end += variant.tasks.count;
            Some(*end)
        });
        assert_eq!(ends.last(), Some(stage.n_tasks), "variants cover the stage");
        for leaf in &stage.leaves {
            let tasks = range(leaf);
            let is_variant = stage.variants.iter().any(|variant| variant.tasks == tasks);
            assert!(is_variant && tasks.count > 0, "{leaf:?}");
            let LeafPlan::Exchange {
                stage: from, mode, ..
            } = leaf
            else {
                continue;
            };
            assert!(*from < position, "a stage stands after those that it reads");
            is_read[*from] = true;
            let partitions = match stages[*from].out {
                Out::Hash { partitions } => partitions,
                Out::Single | Out::Sorted => 1,
                Out::Result => panic!("the result is read by a stage"),
            };
            match mode {
                ReadMode::Partitioned => assert_eq!(partitions, tasks.count, "{leaf:?}"),
                ReadMode::Broadcast => assert_eq!(partitions, 1, "{leaf:?}"),
                ReadMode::Ranged => assert_eq!(stages[*from].out, Out::Sorted, "{leaf:?}"),
                ReadMode::Sliced => panic!("statements slice no stage"),
            }
        }
        let is_last = position + 1 == stages.len();
        assert_eq!(
            stage.out == Out::Result,
            is_last,
            "only the last stage is the result"
        );
    }
    is_read.pop();
    assert!(
        is_read.iter().all(|is_read| *is_read),
        "a stage that nobody reads"
    );
}

fn range(leaf: &LeafPlan) -> TaskRange {
    match leaf {
        LeafPlan::Exchange { tasks, .. } | LeafPlan::Scan { tasks, .. } => *tasks,
    }
}

async fn run_task(
    session: &Session,
    stage: &SqlStage,
    task: u32,
    sources: TaskSources,
    memory: TaskMemory,
) -> Result<Vec<Vec<RecordBatch>>, Problem> {
    let holds = |tasks: &TaskRange| (tasks.first..tasks.first + tasks.count).contains(&task);
    let mut variants = stage.variants.iter();
    let variant = variants.find(|variant| holds(&variant.tasks));
    let variant = variant.expect("every task has a plan");
    let mut rows = session.open(&variant.plan, Arc::new(sources), memory)?;
    let keys = rows.keys();
    let n = match stage.out {
        Out::Hash { partitions } => partitions as usize,
        Out::Single | Out::Sorted | Out::Result => 1,
    };
    assert_eq!(keys.is_some(), matches!(stage.out, Out::Hash { .. }));
    assert_eq!(rows.order().is_some(), stage.out == Out::Sorted);
    let mut partitions = vec![Vec::new(); n];
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        assert_eq!(
            batch.schema(),
            stage.schema,
            "rows have the schema of the stage"
        );
        match &keys {
            Some(keys) => place(&batch, keys, &mut partitions)?,
            None => partitions[0].push(batch),
        }
    }
    Ok(partitions)
}

/// Deals rows out by hash, as shuffles do.
fn place(
    batch: &RecordBatch,
    keys: &HashKeys,
    partitions: &mut [Vec<RecordBatch>],
) -> Result<(), Problem> {
    let columns: Vec<ArrayRef> = keys.evaluate(batch)?.into_iter().map(canonical).collect();
    let fields = columns
        .iter()
        .map(|column| SortField::new(column.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).expect("types that can be compared");
    let rows = converter
        .convert_columns(&columns)
        .expect("columns of those types");
    let mut dealt = vec![Vec::new(); partitions.len()];
    for (position, row) in rows.iter().enumerate() {
        let hash = xxhash_rust::xxh3::xxh3_64(row.as_ref());
        dealt[(hash % partitions.len() as u64) as usize].push(position as u32);
    }
    for (partition, rows) in partitions.iter_mut().zip(dealt) {
        if !rows.is_empty() {
            let rows = take_record_batch(batch, &UInt32Array::from(rows));
            partition.push(rows.expect("rows of the batch"));
        }
    }
    Ok(())
}

/// One zero and one NaN, so that equal values meet in one partition.
fn canonical(column: ArrayRef) -> ArrayRef {
    if column.data_type() != &DataType::Float64 {
        return column;
    }
    let one = |value: f64| {
        if value.is_nan() {
            f64::NAN
        } else {
            value + 0.0
        }
    };
    let values = column.as_primitive::<Float64Type>().iter();
    Arc::new(values.map(|value| value.map(one)).collect::<Float64Array>())
}

/// Rows of one task's leaves.
#[derive(Debug)]
struct TaskSources {
    leaves: Vec<LeafPlan>,
    task: u32,
    part: Option<Part>,
    tables: Vec<&'static Data>,
    written: Vec<Arc<Written>>,
    functions: Option<Arc<dyn Functions>>,
    n_restarts: Arc<AtomicUsize>,
}

impl TaskSources {
    /// The task's place among those that read a leaf.
    fn place(&self, leaf: u32) -> (&LeafPlan, usize, usize) {
        let leaf = &self.leaves[leaf as usize];
        let tasks = range(leaf);
        let place = self.task.checked_sub(tasks.first);
        let place = place.filter(|place| *place < tasks.count);
        let place = place.expect("a task opens leaves of its own variant");
        match &self.part {
            Some(Part { place, .. }) => (leaf, place.0, place.1),
            None => (leaf, place as usize, tasks.count as usize),
        }
    }

    fn scan(&self, leaf: &LeafPlan, place: usize, n: usize) -> Vec<RecordBatch> {
        let LeafPlan::Scan {
            table,
            columns,
            filters,
            limit,
            ..
        } = leaf
        else {
            panic!("not a scan");
        };
        let batches = &self.tables[*table].batches;
        let slice = &batches[batches.len() * place / n..batches.len() * (place + 1) / n];
        let mut left = limit.unwrap_or(usize::MAX);
        let mut read = Vec::new();
        let wanted = |batch: &&RecordBatch| filters.iter().all(|filter| may_pass(batch, filter));
        for batch in slice.iter().filter(wanted) {
            let batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
            read.push(match columns {
                Some(columns) => batch.project(columns).expect("columns of the table"),
                None => batch,
            });
        }
        read
    }
}

impl Sources for TaskSources {
    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }

    fn functions(&self) -> Option<Arc<dyn Functions>> {
        self.functions.clone()
    }

    fn streams(&self, leaf: u32) -> usize {
        match self.place(leaf).0 {
            LeafPlan::Exchange {
                stage,
                per_writer: true,
                ..
            } => self.written[*stage].len(),
            _ => 1,
        }
    }

    fn start_over(&self) {
        self.n_restarts.fetch_add(1, Ordering::Relaxed);
    }

    fn open(&self, leaf: u32, stream: usize) -> Result<SendableRecordBatchStream, Problem> {
        let number = leaf;
        let (leaf, place, n) = self.place(leaf);
        let batches: Vec<RecordBatch> = match leaf {
            LeafPlan::Scan { .. } => self.scan(leaf, place, n),
            LeafPlan::Exchange {
                stage,
                mode,
                per_writer,
                ..
            } => {
                let partitions = match (mode, &self.part) {
                    (ReadMode::Partitioned, Some(part)) => part.partitions.clone(),
                    (ReadMode::Partitioned, None) => place..place + 1,
                    (ReadMode::Broadcast | ReadMode::Sliced, _) => 0..1,
                    (ReadMode::Ranged, _) => panic!("{leaf:?} is read in ranges"),
                };
                let writers = &self.written[*stage];
                let read = if *per_writer {
                    &writers[stream..=stream]
                } else {
                    &writers[..]
                };
                let read = read.iter().flat_map(|task| &task[partitions.clone()]);
                let read: Vec<RecordBatch> = read.flatten().cloned().collect();
                let piece = self.part.as_ref().and_then(|part| part.piece);
                match piece.filter(|(of, _, _)| *of == number) {
                    Some((_, at, n)) => {
                        read[read.len() * at / n..read.len() * (at + 1) / n].to_vec()
                    }
                    None => read,
                }
            }
        };
        Ok(streamed(batches))
    }

    fn open_range(
        &self,
        leaf: u32,
        stream: usize,
        keys: &SortKeys,
    ) -> Result<SendableRecordBatchStream, Problem> {
        let (leaf, place, n) = self.place(leaf);
        let LeafPlan::Exchange {
            stage,
            mode: ReadMode::Ranged,
            per_writer: true,
            ..
        } = leaf
        else {
            panic!("{leaf:?} is not read in ranges");
        };
        let writers = &self.written[*stage];
        let mut rows = Vec::new();
        for (writer, partitions) in writers.iter().enumerate() {
            let start = rows.len();
            for (position, batch) in partitions[0].iter().enumerate() {
                for row in 0..batch.num_rows() {
                    rows.push((keys.key(batch, row)?, writer, position, row));
                }
            }
            assert!(rows[start..].is_sorted(), "what a task writes is sorted");
        }
        rows.sort();
        let range = &rows[rows.len() * place / n..rows.len() * (place + 1) / n];
        let of_writer = range.iter().filter(|(_, writer, _, _)| *writer == stream);
        let kept = of_writer
            .map(|(_, _, position, row)| writers[stream][0][*position].slice(*row, 1))
            .collect();
        Ok(streamed(kept))
    }
}

fn streamed(batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    // The leaf gives rows its own schema; where there is no batch, nobody asks for one.
    let schema = batches.first().map(RecordBatch::schema);
    let schema = schema.unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty()));
    let rows = futures::stream::iter(batches.into_iter().map(Ok));
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Rows as text, floats to seven digits: the order of additions is not that of one process.
pub(crate) fn text(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    const FORMAT: FormatOptions<'static> = FormatOptions::new().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter();
        let formatters: Vec<ArrayFormatter<'_>> = columns
            .map(|column| ArrayFormatter::try_new(column, &FORMAT).expect("a type with text"))
            .collect();
        let cell = |row: usize, column: &ArrayRef, formatter: &ArrayFormatter<'_>| match column
            .data_type()
        {
            DataType::Float64 if column.is_valid(row) => {
                let value = column.as_primitive::<Float64Type>().value(row);
                format!("{:.6e}", value + 0.0)
            }
            _ => formatter.value(row).to_string(),
        };
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(&formatters);
            rows.push(
                cells
                    .map(|(column, format)| cell(row, column, format))
                    .collect(),
            );
        }
    }
    rows
}

/// The same in an order of its own.
pub(crate) fn sorted(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut rows = text(batches);
    rows.sort();
    rows
}
