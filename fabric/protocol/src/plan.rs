//! A job's plan as the control plane sees it: shapes, references, and the reports of finished attempts.

use serde::{Deserialize, Serialize};
use weft_core::{AttemptId, Epoch, FunctionUsage, Limits, PackedUsage, Problem};

use crate::adaptive::{AdaptiveTasks, EdgeBytes, TaskPart};

/// Stages of a plan. A job file has fewer, but SQL makes several out of one.
pub const MAX_PLAN_STAGES: usize = 1_000;
/// Tasks of all stages of a plan.
pub const MAX_PLAN_TASKS: u64 = 1_000_000;
/// Edges that a stage may write.
pub const MAX_EDGES: usize = 1_000;
/// Edges that a stage may read.
pub const MAX_READS: usize = 64;

/// What a slot offers and a task asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotVector {
    /// Thousandths of a core.
    pub milli_cpu: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Thousandths of a GPU.
    pub milli_gpu: u32,
    /// Memory of that GPU.
    pub vram_bytes: u64,
    /// What the node must carry.
    pub labels: Vec<String>,
}

/// How rows get from one stage to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeKind {
    /// By way of shuffle objects; the reader starts when the writer has ended.
    #[default]
    Materialised,
}

/// Names an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EdgeRef {
    /// Position of the writing stage in the plan.
    pub stage: u32,
    /// Position of the edge among that stage's.
    pub edge: u32,
}

/// Tasks of a stage that stand side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRange {
    /// Position of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl TaskRange {
    /// The position of a task of the stage within the range, if it is in there.
    pub fn position(&self, task: u32) -> Option<u32> {
        let position = task.checked_sub(self.first);
        position.filter(|position| *position < self.count)
    }
}

/// How the tasks that read an edge share its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadMode {
    /// The task at position `p` of the range reads partition `p` of every writer. The edge has as many
    /// partitions as the range has tasks.
    #[default]
    Partitioned,
    /// Every task of the range reads all rows. The edge has one partition.
    Broadcast,
    /// The writers' objects are dealt out to the range in order, each to one task. The edge has one
    /// partition.
    Sliced,
    /// The writers' rows are sorted, and each task of the range reads those between two boundaries. A
    /// segment counts for the task in whose part its first row is, a row for the task that keeps it. The
    /// edge has one partition.
    Ranged,
}

impl ReadMode {
    /// Returns whether each task reads a partition of its own.
    pub fn is_partitioned(&self) -> bool {
        matches!(self, ReadMode::Partitioned)
    }
}

/// Edge that a stage reads, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeRead {
    /// Position of the writing stage in the plan.
    pub stage: u32,
    /// Position of the edge among that stage's.
    pub edge: u32,
    /// How its rows are shared.
    #[serde(default, skip_serializing_if = "ReadMode::is_partitioned")]
    pub mode: ReadMode,
    /// The tasks that read it; all of the stage's without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TaskRange>,
}

impl From<EdgeRef> for EdgeRead {
    /// A read of one partition by each task of the stage.
    fn from(EdgeRef { stage, edge }: EdgeRef) -> Self {
        Self {
            stage,
            edge,
            mode: ReadMode::Partitioned,
            tasks: None,
        }
    }
}

impl EdgeRead {
    /// The edge.
    pub fn edge_ref(&self) -> EdgeRef {
        EdgeRef {
            stage: self.stage,
            edge: self.edge,
        }
    }

    /// The tasks of `stage`, whose read this is, that read the edge.
    pub fn readers(&self, stage: &StageShape) -> TaskRange {
        self.tasks.unwrap_or(TaskRange {
            first: 0,
            count: stage.n_tasks,
        })
    }
}

/// One edge that a stage writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeShape {
    /// How.
    #[serde(default)]
    pub kind: EdgeKind,
    /// Number of partitions: one for each task that reads it, or a single one ([`ReadMode`]).
    pub partitions: u32,
}

/// The shape of one stage; what it does lies in the store, opaque, under `plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageShape {
    /// For people: the job file's stages that run in it, joined by `+`.
    pub name: String,
    /// Number of tasks: of adaptive ones as planned, until it is settled.
    pub n_tasks: u32,
    /// Key of the plan's blob.
    pub plan: String,
    /// The edges it reads, none for stages that read inputs or nothing. Edges that are materialised
    /// are complete before the stage starts.
    pub reads: Vec<EdgeRead>,
    /// Tasks whose number is settled when all that the stage reads is committed: ranges in order. Ranges of reads are
    /// changed with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adaptive: Vec<AdaptiveTasks>,
    /// The edges it writes.
    pub edges: Vec<EdgeShape>,
    /// Limits of a task.
    pub limits: Limits,
    /// What a task needs.
    #[serde(default)]
    pub slot: SlotVector,
    /// Tasks that never end by themselves.
    #[serde(default)]
    pub resident: bool,
    /// Every function in the stage is deterministic, so that two attempts must agree.
    pub deterministic: bool,
}

/// A job's stages, in an order in which each stands after those it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The stages.
    pub stages: Vec<StageShape>,
    /// Partition hash, plan encoding and segment format that all executors of the job must share.
    pub fingerprint: String,
    /// Bytes of all inputs.
    pub input_bytes: u64,
}

/// Order-independent sums over shuffle segments: what was written must be what is read. They wrap, so that no report of an
/// executor can overflow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sums {
    /// Rows.
    pub rows: u64,
    /// Segments.
    pub segments: u64,
    /// Sum of the segments' xxh3, each seeded with its place.
    pub xxh3: u64,
}

impl Sums {
    /// Adds the sums of other segments.
    pub fn add(&mut self, other: &Sums) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.segments = self.segments.wrapping_add(other.segments);
        self.xxh3 = self.xxh3.wrapping_add(other.xxh3);
    }

    /// The sums of `n` readings of the same segments.
    #[must_use]
    pub fn times(&self, n: u32) -> Sums {
        let n = u64::from(n);
        Sums {
            rows: self.rows.wrapping_mul(n),
            segments: self.segments.wrapping_mul(n),
            xxh3: self.xxh3.wrapping_mul(n),
        }
    }
}

/// A shuffle object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its key in the store.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Checksum of its index.
    pub index_xxh3: u64,
}

/// A shuffle object that the store does not have as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostObject {
    /// Position of the stage that wrote it in the plan.
    pub stage: u32,
    /// Position of the task that wrote it in the stage.
    pub task: u32,
    /// The object's key, which tells the attempt.
    pub key: String,
}

/// A file that waits for the job to be published: in a hidden staging folder, or as an upload that is not completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkFile {
    /// The output's name in the job file.
    pub output: String,
    /// The file's name in the staging folder; on an object store, key of the attempt's list of uploads.
    pub staged: String,
    /// The name under which it is published, but for the number that keeps it apart where jobs share a folder.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// xxh3 of its bytes, 16 hex digits.
    pub xxh3: String,
}

/// Where a task's log lines lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRef {
    /// Key of the object with the lines, absent where nothing was logged.
    pub key: Option<String>,
    /// Lines kept.
    pub lines: u64,
    /// Lines above the limit, which were dropped.
    pub dropped: u64,
}

/// The log of an attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLog {
    /// Name of the stage.
    pub stage: String,
    /// Position of the task in the stage.
    pub task: u32,
    /// Which attempt of the task.
    pub attempt: u32,
    /// Where its lines lie.
    pub log: LogRef,
}

/// A finished attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCommit {
    /// Position of the stage in the plan.
    pub stage: u32,
    /// Position of the task in the stage.
    pub task: u32,
    /// Number of the attempt, for people: attempts before it failed or run beside it.
    pub attempt: u32,
    /// Lease that it ran under.
    pub epoch: Epoch,
    /// Number that the agent gave the attempt under its lease.
    pub sequence: u64,
    /// When the attempt started, in Unix milliseconds; 0 in commits of earlier versions.
    #[serde(default)]
    pub started_ms: u64,
    /// Position in a stream; 0 in batch jobs.
    #[serde(default)]
    pub stream_epoch: u64,
    /// Input positions that the commit covers, opaque; empty in batch jobs.
    #[serde(default)]
    pub positions: Vec<u8>,
    /// Its shuffle object, if the stage writes edges.
    pub object: Option<ObjectRef>,
    /// Sums over what it wrote, by edge.
    pub written: Vec<Sums>,
    /// Decompressed bytes of what it wrote, by edge; nothing in commits of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<EdgeBytes>,
    /// The partitions that it read, of an adaptive task that read any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<TaskPart>,
    /// Sums over rows that it read from the shuffle, by edge that the stage reads.
    pub read: Vec<Sums>,
    /// Files it staged.
    pub files: Vec<SinkFile>,
    /// What it used.
    pub usage: PackedUsage,
    /// Its log.
    pub log: LogRef,
}

impl TaskCommit {
    /// The attempt.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId {
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }

    /// Sums over all rows that it read from the shuffle.
    pub fn read_total(&self) -> Sums {
        let mut total = Sums::default();
        self.read.iter().for_each(|sums| total.add(sums));
        total
    }

    /// Drops spare capacity: decoded lists have room for more than they hold, and a state keeps a
    /// hundred thousand commits.
    #[must_use]
    pub fn shrunk(mut self) -> TaskCommit {
        self.written.shrink_to_fit();
        self.bytes.shrink_to_fit();
        self.read.shrink_to_fit();
        self.files.shrink_to_fit();
        self
    }

    /// Returns whether two attempts wrote the same, as attempts of deterministic functions must
    /// (invariant 13).
    pub fn agrees_with(&self, other: &TaskCommit) -> bool {
        let files = |commit: &TaskCommit| {
            commit
                .files
                .iter()
                .map(|file| (file.name.clone(), file.rows, file.xxh3.clone()))
                .collect::<Vec<_>>()
        };
        self.written == other.written && files(self) == files(other)
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// Position of the stage in the plan.
    pub stage: u32,
    /// Position of the task in the stage.
    pub task: u32,
    /// Number of the attempt, for people: attempts before it failed or run beside it.
    pub attempt: u32,
    /// Lease that it ran under.
    pub epoch: Epoch,
    /// Number that the agent gave the attempt under its lease.
    pub sequence: u64,
    /// What went wrong; the code says whose fault it is.
    pub problem: Problem,
    /// It was stopped because its job has ended.
    #[serde(default)]
    pub cancelled: bool,
    /// The object without which it could not go on: whoever wrote it has to run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostObject>,
    /// What it used.
    pub usage: Vec<FunctionUsage>,
    /// Its log.
    pub log: Option<LogRef>,
}

impl TaskFailure {
    /// The attempt.
    pub fn attempt_id(&self) -> AttemptId {
        AttemptId {
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }
}

/// An output as its manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedOutput {
    /// The output's name in the job file.
    pub name: String,
    /// The folder; nothing for an output that the cluster keeps.
    pub uri: Option<String>,
    /// Number of files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}
