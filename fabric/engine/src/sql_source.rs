//! Rows of a SQL stage's task: its slice of a plan, pulled, over files and over what other stages wrote.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use datafusion_execution::SendableRecordBatchStream;
use datafusion_physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use tokio_util::sync::CancellationToken;
use weft_core::{ErrorCode, Problem, lock};
use weft_protocol::{ObjectRef, ReadMode, StageContext, TaskPart, TaskRange, settled_tasks};
use weft_sandbox::{MemoryAccount, Reservation};
use weft_shuffle::{ObjectReader, Segment};
use weft_sql::{Functions, SortKeys, Sources, carried};

use self::files::FileRows;
use crate::ahead::{Ahead, Upcoming};
use crate::edge::out_of_memory;
use crate::environment::TaskEnvironment;
use crate::keyed::{KeyedRows, KeyedShare};
use crate::plan::{EdgeLeaf, Leaf, Source, StagePlan};
use crate::ranged::{RangedRows, RangedShare};
use crate::scan::Inputs;
use crate::sql_functions::SqlFunctions;

mod files;
mod finish;

/// Files that a task warns of by name.
const WARNED_FILES_MAX: usize = 20;

/// Counts of what a task of SQL has read.
#[derive(Default)]
pub(crate) struct SqlRead {
    pub(crate) shuffle_bytes: u64,
    pub(crate) file_bytes: u64,
    pub(crate) rows: u64,
    pub(crate) bad_records: u64,
    pub(crate) unknown_fields: u64,
}

/// A segment that was read: leaf, writing task, partition, sequence.
type SegmentRead = (u32, u32, u32, u32);

#[derive(Default)]
struct Counts {
    read: BTreeSet<SegmentRead>,
    /// Rows in the task's range, of segments that are read in ranges.
    kept: BTreeMap<SegmentRead, u64>,
    shuffle_bytes: u64,
    rows: u64,
    /// Objects that a stream of a leaf has read to their end, by leaf and writing task.
    ended: BTreeSet<(u32, u32)>,
    /// By leaf and split, as far as they are read.
    files: BTreeMap<(u32, usize), FileCounts>,
}

#[derive(Default)]
struct FileCounts {
    bytes: u64,
    bad_records: u64,
    unknown_fields: u64,
    /// Names of the unknown fields, once the split is read.
    unknown: Option<String>,
}

impl FileCounts {
    fn warnings(&self, path: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.bad_records > 0 {
            let n = self.bad_records;
            let what = format!("{n} records of `{path}` could not be read and were left out");
            warnings.push(what);
        }
        match &self.unknown {
            Some(keys) => warnings.push(format!(
                "`{path}` has keys or columns that the input does not have; their values were passed over: {keys}"
            )),
            None if self.unknown_fields > 0 => {
                let n = self.unknown_fields;
                let what = format!("{n} values of `{path}` that no column has were passed over");
                warnings.push(what);
            }
            None => {}
        }
        warnings
    }
}

/// The leaves of a task's plan.
pub(crate) struct SqlSources {
    plan: Arc<StagePlan>,
    task: u32,
    context: Arc<StageContext>,
    reader: ObjectReader,
    account: Arc<MemoryAccount>,
    inputs: Inputs,
    cancel: CancellationToken,
    counts: Arc<Mutex<Counts>>,
    functions: Arc<SqlFunctions>,
    /// Partitions that the task shares with those beside it, if their number is settled.
    keyed: Option<Arc<KeyedShare>>,
    /// Shared by all streams of the task.
    ahead: Ahead,
}

impl std::fmt::Debug for SqlSources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "leaves of task {} of `{}`", self.task, self.plan.name)
    }
}

impl SqlSources {
    pub(crate) fn new(
        environment: &TaskEnvironment,
        context: &Arc<StageContext>,
        reader: &ObjectReader,
        functions: &Arc<SqlFunctions>,
    ) -> Arc<Self> {
        let leaves = leaves(&environment.plan);
        let keyed = KeyedShare::of(context, leaves, environment.task);
        let ahead = match leaves.iter().any(|leaf| matches!(leaf, Leaf::Edge(_))) {
            true => Ahead::new(reader, &environment.account),
            false => Ahead::default(),
        };
        Arc::new(Self {
            plan: Arc::clone(&environment.plan),
            task: environment.task,
            context: Arc::clone(context),
            reader: reader.clone(),
            account: Arc::clone(&environment.account),
            inputs: Inputs::new(reader.blobs().grants()),
            cancel: environment.cancel.clone(),
            counts: Arc::default(),
            functions: Arc::clone(functions),
            keyed: keyed.map(Arc::new),
            ahead,
        })
    }

    fn leaves(&self) -> &[Leaf] {
        leaves(&self.plan)
    }

    fn leaf(&self, leaf: u32) -> Result<&Leaf, Problem> {
        self.leaves().get(leaf as usize).ok_or_else(|| {
            let detail = format!("the plan of `{}` has no leaf {leaf}", self.plan.name);
            Problem::new(ErrorCode::Internal, detail)
        })
    }

    /// The task as it was planned, if it is one of a range. Tasks that read files are as many as planned.
    fn planned(&self, planned: TaskRange) -> u32 {
        let range = settled_tasks(&self.context.adaptive, planned);
        let position = range.position(self.task);
        position.map_or(u32::MAX, |position| planned.first + position)
    }

    /// The part of an edge that is this task's. Nothing if the leaf is for other tasks of the stage.
    fn share(&self, edge: &EdgeLeaf) -> Result<Share<'_>, Problem> {
        let n_readers = self.readers_of(edge).map_or(u32::MAX, |range| range.count);
        let Some(reader) = self.reader_of(edge) else {
            return Ok(Share::default());
        };
        let input = &self.context.inputs[self.input(edge)?];
        let n = input.objects.len();
        let (writers, partition) = match edge.read.mode {
            ReadMode::Partitioned => (0..n, reader),
            ReadMode::Broadcast | ReadMode::Ranged => (0..n, 0),
            ReadMode::Sliced => {
                let at = |reader: u64| (n as u64 * reader / u64::from(n_readers)) as usize;
                (at(u64::from(reader))..at(u64::from(reader) + 1), 0)
            }
        };
        Ok(Share {
            first: writers.start as u32,
            objects: &input.objects[writers],
            partition,
        })
    }

    /// Position of the task among those that read an edge, if it is one of them.
    fn reader_of(&self, edge: &EdgeLeaf) -> Option<u32> {
        match self.readers_of(edge) {
            Some(range) => range.position(self.task),
            None => Some(self.task),
        }
    }

    /// The tasks that read an edge, if they are not all of the stage's: those that run for the planned ones.
    fn readers_of(&self, edge: &EdgeLeaf) -> Option<TaskRange> {
        let planned = edge.read.tasks?;
        Some(settled_tasks(&self.context.adaptive, planned))
    }

    /// The share of an edge of which the task reads partitions with those beside it, and the edge's position there.
    fn keyed(&self, edge: &EdgeLeaf) -> Option<(Arc<KeyedShare>, usize)> {
        let keyed = self.keyed.as_ref()?;
        let is_keyed = edge.read.mode == ReadMode::Partitioned && self.reader_of(edge).is_some();
        let position = keyed.position(edge).filter(|_| is_keyed)?;
        Some((Arc::clone(keyed), position))
    }

    /// The partitions that the task read, if it shares them with those beside it.
    pub(crate) async fn part(&self) -> Result<Option<TaskPart>, Problem> {
        match &self.keyed {
            Some(keyed) => keyed.recorded(&self.reader, &self.account).await,
            None => Ok(None),
        }
    }

    /// Returns whether other tasks read all of the partitions that this one shares with them: more tasks may be settled
    /// than there are parts.
    pub(crate) async fn is_idle(&self) -> Result<bool, Problem> {
        match &self.keyed {
            Some(keyed) => Ok(keyed.part(&self.reader, &self.account).await?.is_none()),
            None => Ok(false),
        }
    }

    /// Position of an edge among what the stage was told was written.
    fn input(&self, edge: &EdgeLeaf) -> Result<usize, Problem> {
        let mut inputs = self.context.inputs.iter();
        let wanted = edge.read.edge_ref();
        let input = inputs.position(|input| input.edge == wanted);
        input.ok_or_else(|| {
            let detail = format!(
                "stage `{}` reads edge {} of stage `{}`, and was not told what was written to it",
                self.plan.name, wanted.edge, edge.from
            );
            Problem::new(ErrorCode::Internal, detail)
        })
    }

    /// The range of an edge that is this task's. Nothing if other tasks of the stage read it.
    fn ranged_share(&self, edge: &EdgeLeaf) -> Result<Option<RangedShare>, Problem> {
        let (Some(reader), Some(tasks)) = (self.reader_of(edge), self.readers_of(edge)) else {
            return Ok(None);
        };
        Ok(Some(RangedShare {
            context: Arc::clone(&self.context),
            input: self.input(edge)?,
            from: edge.from.clone(),
            reader,
            n_readers: tasks.count,
        }))
    }

    /// Opens a stream of an edge. `keys`: the order, if the task reads a range of it.
    fn open_edge(
        &self,
        leaf: u32,
        edge: &EdgeLeaf,
        stream: usize,
        keys: Option<&SortKeys>,
    ) -> Result<SendableRecordBatchStream, Problem> {
        let share = self.share(edge)?;
        let ranged = match edge.read.mode {
            ReadMode::Ranged => self.ranged_share(edge)?,
            ReadMode::Partitioned | ReadMode::Broadcast | ReadMode::Sliced => None,
        };
        if ranged.is_some() != keys.is_some() {
            let detail = format!("the plan of `{}` and leaf {leaf} differ", self.plan.name);
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        let writers = match edge.per_writer {
            true => stream..stream + 1,
            false => 0..share.objects.len(),
        };
        let objects = share.of_writers(writers);
        let rows = EdgeStream {
            leaf,
            edge: edge.read.edge,
            partition: share.partition,
            keyed: self.keyed(edge).map(|(share, edge)| KeyedRows {
                share,
                edge,
                part: None,
            }),
            from: edge.from.clone(),
            upcoming: Upcoming::new(
                &self.reader,
                &self.ahead,
                &edge.from,
                objects.map(|(task, one)| (task, one.clone())),
            ),
            batches: VecDeque::new(),
            columns: edge.columns.clone(),
            ranged: ranged.zip(keys).map(|(share, keys)| RangedRows {
                share,
                keys: keys.clone(),
                ranges: None,
            }),
            reserved: None,
            reader: self.reader.clone(),
            account: Arc::clone(&self.account),
            cancel: self.cancel.clone(),
            counts: Arc::clone(&self.counts),
        };
        let rows = stream::try_unfold(rows, EdgeStream::next);
        let schema = Arc::clone(&edge.schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Counts what was read so far.
    pub(crate) fn counted(&self) -> SqlRead {
        let counts = lock(&self.counts);
        let mut read = SqlRead {
            shuffle_bytes: counts.shuffle_bytes,
            rows: counts.rows,
            ..SqlRead::default()
        };
        for file in counts.files.values() {
            read.file_bytes += file.bytes;
            read.bad_records += file.bad_records;
            read.unknown_fields += file.unknown_fields;
        }
        read
    }

    /// Says of which files records were left out, and fields passed over.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let counts = lock(&self.counts);
        let mut of_files: BTreeMap<&str, FileCounts> = BTreeMap::new();
        for ((leaf, split), found) in &counts.files {
            let Some(Leaf::Files(leaf)) = self.leaves().get(*leaf as usize) else {
                continue;
            };
            let of_file = of_files.entry(&leaf.files.splits[*split].path).or_default();
            of_file.bad_records += found.bad_records;
            of_file.unknown_fields += found.unknown_fields;
            of_file.unknown = of_file.unknown.take().or_else(|| found.unknown.clone());
        }
        of_files.retain(|_, found| found.bad_records > 0 || found.unknown_fields > 0);
        let n_more = of_files.len().saturating_sub(WARNED_FILES_MAX);
        let mut warnings = Vec::new();
        for (path, found) in of_files.into_iter().take(WARNED_FILES_MAX) {
            warnings.extend(found.warnings(path));
        }
        if n_more > 0 {
            let more = format!("{n_more} more files have records that were left out, or fields");
            warnings.push(more + " that no column has");
        }
        warnings
    }
}

impl Sources for SqlSources {
    fn check(&self) -> Result<(), Problem> {
        check_cancel(&self.cancel)
    }

    fn functions(&self) -> Option<Arc<dyn Functions>> {
        Some(Arc::clone(&self.functions) as Arc<dyn Functions>)
    }

    fn streams(&self, leaf: u32) -> usize {
        match self.leaf(leaf) {
            // A failure comes again when a stream is opened.
            Ok(Leaf::Edge(edge)) if edge.per_writer => {
                self.share(edge).map_or(1, |share| share.objects.len())
            }
            _ => 1,
        }
    }

    fn start_over(&self) {
        // Bytes are counted by segment and by split, once each.
        lock(&self.counts).rows = 0;
    }

    fn open(&self, leaf: u32, stream: usize) -> Result<SendableRecordBatchStream, Problem> {
        match self.leaf(leaf)? {
            Leaf::Edge(edge) => self.open_edge(leaf, edge, stream, None),
            Leaf::Files(files) => {
                let rows = FileRows {
                    leaf,
                    plan: Arc::clone(&self.plan),
                    inputs: match files.is_kept {
                        true => Inputs::new(&self.reader.blobs().kept_grants()),
                        false => self.inputs.clone(),
                    },
                    splits: files.splits_of(self.planned(files.tasks)),
                    open: None,
                    rows_left: files.limit,
                    is_done: false,
                    cancel: self.cancel.clone(),
                    counts: Arc::clone(&self.counts),
                };
                let schema = Arc::clone(&files.schema);
                Ok(Box::pin(RecordBatchStreamAdapter::new(
                    schema,
                    stream::iter(rows),
                )))
            }
        }
    }

    fn open_range(
        &self,
        leaf: u32,
        stream: usize,
        keys: &SortKeys,
    ) -> Result<SendableRecordBatchStream, Problem> {
        match self.leaf(leaf)? {
            Leaf::Edge(edge) => self.open_edge(leaf, edge, stream, Some(keys)),
            Leaf::Files(_) => {
                let detail = format!("leaf {leaf} of `{}` has no ranges", self.plan.name);
                Err(Problem::new(ErrorCode::Internal, detail))
            }
        }
    }
}

fn leaves(plan: &StagePlan) -> &[Leaf] {
    match &plan.source {
        Source::Sql(sql) => &sql.leaves,
        Source::Files(_) | Source::Shuffle { .. } | Source::Nothing => &[],
    }
}

/// A task's part of an edge: what writers wrote that stand side by side.
#[derive(Default)]
struct Share<'a> {
    /// Position of the first writer in its stage.
    first: u32,
    objects: &'a [Option<ObjectRef>],
    partition: u32,
}

impl<'a> Share<'a> {
    /// Objects of some of the writers, by position in the share; each with the position of its writer in the stage.
    fn of_writers(&self, writers: Range<usize>) -> impl Iterator<Item = (u32, &'a ObjectRef)> {
        let numbered = (self.first..).zip(self.objects);
        let wanted = numbered.skip(writers.start).take(writers.len());
        wanted.filter_map(|(task, object)| Some((task, object.as_ref()?)))
    }
}

/// Rows that other tasks wrote, in the order of tasks and segments.
struct EdgeStream {
    leaf: u32,
    edge: u32,
    partition: u32,
    /// The partitions that are wanted, if tasks share them otherwise than one each.
    keyed: Option<KeyedRows>,
    /// The writing stage's name, for errors.
    from: String,
    upcoming: Upcoming,
    batches: VecDeque<RecordBatch>,
    /// Positions of the columns that are wanted; all where there is no list.
    columns: Option<Vec<usize>>,
    /// The rows that are wanted, if it is a range of them.
    ranged: Option<RangedRows>,
    /// For the segment whose batches are given out.
    reserved: Option<Reservation>,
    reader: ObjectReader,
    account: Arc<MemoryAccount>,
    cancel: CancellationToken,
    counts: Arc<Mutex<Counts>>,
}

impl EdgeStream {
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>, DataFusionError> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                lock(&self.counts).rows += batch.num_rows() as u64;
                let batch = match &self.columns {
                    Some(columns) => batch.project(columns)?,
                    None => batch,
                };
                let batch = owned(&batch)?;
                if self.batches.is_empty() {
                    self.reserved = None;
                }
                return Ok(Some((batch, self)));
            }
            check_cancel(&self.cancel).map_err(carried)?;
            if !self.read().await.map_err(carried)? {
                return Ok(None);
            }
        }
    }

    /// Reads the next segment; false if there is none.
    async fn read(&mut self) -> Result<bool, Problem> {
        self.reserved = None;
        let Some((task, segment)) = self.next_segment().await? else {
            return Ok(false);
        };
        self.reserved = self.account.try_reserve(segment.raw_bytes());
        if self.reserved.is_none() {
            return Err(out_of_memory(&self.account, "a segment of the shuffle"));
        }
        let mut batches = self.upcoming.read().await?;
        let place = (self.leaf, task, segment.partition(), segment.sequence());
        let mut counts = lock(&self.counts);
        if counts.read.insert(place) {
            counts.shuffle_bytes += segment.bytes();
        }
        if let Some(ranged) = &self.ranged {
            batches = ranged.kept(task, &segment, batches)?;
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            counts.kept.insert(place, rows);
        }
        self.batches = batches.into();
        Ok(true)
    }

    /// Finds the segment that is next, and the task that wrote it.
    async fn next_segment(&mut self) -> Result<Option<(u32, Segment)>, Problem> {
        loop {
            while let Some((task, object)) = self.upcoming.unknown().await? {
                let segments = self.segments(task, &object).await?;
                self.upcoming.add((task, object), segments);
            }
            let (leaf, counts) = (self.leaf, &self.counts);
            let ended = |task| {
                lock(counts).ended.insert((leaf, task));
            };
            if let Some(next) = self.upcoming.front(ended) {
                return Ok(Some(next));
            }
            if self.upcoming.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The segments of an object that are wanted.
    async fn segments(
        &mut self,
        task: u32,
        object: &ObjectRef,
    ) -> Result<VecDeque<Segment>, Problem> {
        if let Some(ranged) = &mut self.ranged {
            ranged.find(&self.reader, &self.account).await?;
        }
        let segments = match &mut self.keyed {
            Some(keyed) => {
                let of = (task, object);
                keyed.segments(&self.reader, &self.account, of).await?
            }
            None => {
                let (edge, partition) = (self.edge, self.partition);
                let segments = self.reader.segments(object, task, edge, partition);
                let segments = segments.await;
                segments.map_err(|error| of_writer(&self.from, &error))?
            }
        };
        match &self.ranged {
            Some(ranged) => ranged.segments(task, segments),
            None => Ok(segments.into()),
        }
    }
}

/// The same rows in memory of their own: a segment's batches share one buffer, which operators would count whole for
/// each.
fn owned(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    match u32::try_from(batch.num_rows()) {
        Ok(n) if batch.num_columns() > 0 => {
            take_record_batch(batch, &UInt32Array::from_iter_values(0..n))
        }
        _ => Ok(batch.clone()),
    }
}

/// An error of the store, said to be about what the writing stage left.
pub(crate) fn of_writer(from: &str, error: &weft_shuffle::Error) -> Problem {
    let mut problem = error.problem();
    problem.detail = format!("reading what stage `{from}` wrote: {}", problem.detail);
    problem
}

fn check_cancel(cancel: &CancellationToken) -> Result<(), Problem> {
    match cancel.is_cancelled() {
        true => Err(Problem::new(ErrorCode::Internal, "the task was cancelled")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
