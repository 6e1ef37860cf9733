//! The plan of one stage, as it lies in the store: only executors open it.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use weft_core::job::{BadRecords, EachInput, InputFormat, OutputFormat};
use weft_core::{Digest, JobId, Limits};
use weft_protocol::{EdgeRead, EdgeRef, TaskRange};

use crate::folders::FolderColumns;
use crate::task_results::Place;

/// What the tasks of one stage do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StagePlan {
    /// [`FINGERPRINT`](weft_protocol::FINGERPRINT) of the executor that planned.
    pub(crate) fingerprint: String,
    pub(crate) job: JobId,
    pub(crate) stage: u32,
    /// For errors and receipts.
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) started_ms: u64,
    pub(crate) limits: Limits,
    pub(crate) source: Source,
    /// The operators, each after the one that feeds it; the first is fed by the source.
    pub(crate) nodes: Vec<Node>,
    /// Partition counts of the edges that the stage writes.
    pub(crate) edges: Vec<EdgePlan>,
    pub(crate) sinks: Vec<SinkPlan>,
}

/// Where a task's rows come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Source {
    /// Files; task `i` reads split `i`.
    Files(FilesPlan),
    /// Partition `i` of an edge, sorted by key.
    Shuffle {
        edge: EdgeRef,
        /// The writing stage's name, for errors.
        from: String,
        keys: Vec<usize>,
        combine: Option<FunctionPlan>,
        #[serde(with = "crate::schema")]
        schema: SchemaRef,
    },
    /// Rows of a SQL statement.
    Sql(SqlPlan),
    /// Nothing: a set of tasks.
    Nothing,
}

/// A stage of a SQL statement: plans, and where the rows of their leaves come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SqlPlan {
    /// A plan for each range of tasks: tasks of their own work on each branch of a union.
    pub(crate) variants: Vec<SqlVariant>,
    /// The leaves of all plans, which refer to them by position.
    pub(crate) leaves: Vec<Leaf>,
    /// The columns that come out.
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
    /// Rows go on to functions, outputs and other stages, in types that those know.
    pub(crate) is_last: bool,
    /// Functions of components that the plans call, by the positions that plans have of them.
    #[serde(default)]
    pub(crate) functions: BTreeMap<u32, FunctionPlan>,
}

/// A plan, as [`weft_sql::Session::open`] takes it, and the tasks that run it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SqlVariant {
    pub(crate) tasks: TaskRange,
    #[serde(with = "crate::hex")]
    pub(crate) plan: Vec<u8>,
    /// Ways in which the tasks may be more or fewer. The control plane keeps them, and tasks are told what it settled.
    #[serde(skip)]
    pub(crate) adaptive: Option<AdaptivePlan>,
}

/// Ways in which the tasks of a variant may be more or fewer than planned.
#[derive(Debug, Clone)]
pub(crate) struct AdaptivePlan {
    /// Fewer may run: nobody asked for their number.
    pub(crate) coalesce: bool,
    /// Positions of the leaves of which several tasks may share a partition.
    pub(crate) split: Vec<u32>,
}

/// Origin of the rows of a leaf.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Leaf {
    /// Another stage.
    Edge(EdgeLeaf),
    /// Files.
    Files(FilesLeaf),
}

impl Leaf {
    /// The edge that it reads, if it is one.
    pub(crate) fn read(&self) -> Option<EdgeRead> {
        match self {
            Leaf::Edge(edge) => Some(edge.read),
            Leaf::Files(_) => None,
        }
    }
}

/// Rows that another stage wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EdgeLeaf {
    pub(crate) read: EdgeRead,
    /// The writing stage's name, for errors.
    pub(crate) from: String,
    /// The columns that come out, after some were chosen.
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
    /// Positions of the columns that are wanted; all where there is no list.
    pub(crate) columns: Option<Vec<usize>>,
    /// Each writing task's rows are a stream of their own, for a merge.
    pub(crate) per_writer: bool,
}

/// Files, dealt out to tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FilesLeaf {
    pub(crate) files: FilesPlan,
    /// The files are an output that the cluster keeps, which no job names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_kept: bool,
    /// Task `tasks.first + i` reads the splits from `slices[i]` to `slices[i + 1]`.
    pub(crate) slices: Vec<u32>,
    pub(crate) tasks: TaskRange,
    /// Columns that the names of folders give, behind those of the files.
    #[serde(default)]
    pub(crate) folders: Option<FolderColumns>,
    /// Positions of the columns that are wanted, where the files are read with others; all where there is no list.
    pub(crate) columns: Option<Vec<usize>>,
    /// Rows after which a task may stop.
    pub(crate) limit: Option<u64>,
    /// The columns that come out.
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
}

impl FilesLeaf {
    /// Positions of the splits that a task reads.
    pub(crate) fn splits_of(&self, task: u32) -> Range<usize> {
        let place = task.checked_sub(self.tasks.first).unwrap_or(u32::MAX) as usize;
        match self.slices.get(place..).unwrap_or_default() {
            [start, end, ..] => *start as usize..*end as usize,
            _ => 0..0,
        }
    }
}

/// The files of an input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FilesPlan {
    /// The input's name in the job file.
    pub(crate) input: String,
    pub(crate) format: InputFormat,
    /// What comes out of them.
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
    pub(crate) splits: Vec<FileSplit>,
    pub(crate) bad_records: BadRecords,
    /// The sink of records that cannot be read, by position.
    pub(crate) dead_letters: Option<usize>,
}

/// A part of a file that one task reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FileSplit {
    pub(crate) path: String,
    /// The file's size when the job was planned: a file that changes under a job fails it.
    pub(crate) file_bytes: u64,
    /// The version that it was listed with, of an object: tasks read no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) e_tag: Option<String>,
    pub(crate) part: Part,
}

impl FileSplit {
    /// All that comes of what is no file.
    pub(crate) fn of_stream(name: &str) -> Self {
        Self {
            path: name.to_owned(),
            file_bytes: 0,
            e_tag: None,
            part: Part::Whole,
        }
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        let path = &self.path;
        match self.part {
            Part::Whole | Part::Bytes { start: 0, .. } | Part::RowGroups { first: 0, .. } => {
                format!("`{path}`")
            }
            Part::Bytes { start, .. } => format!("`{path}` from byte {start} on"),
            Part::RowGroups { first, .. } => format!("`{path}` from row group {first} on"),
        }
    }
}

/// Which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    Whole,
    /// Records that begin in `start..end`.
    Bytes {
        start: u64,
        end: u64,
    },
    RowGroups {
        first: usize,
        count: usize,
    },
}

/// One operator and where its rows go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) work: NodeWork,
    /// Operators that it feeds, by position.
    pub(crate) children: Vec<usize>,
    /// Edges that it feeds, by position.
    pub(crate) edges: Vec<usize>,
    /// Sinks that it feeds, by position.
    pub(crate) sinks: Vec<usize>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeWork {
    /// Rows as they are.
    Pass,
    Map(FunctionPlan),
    /// Fed with groups.
    Reduce(FunctionPlan),
    /// Called once for each task of a set.
    Task(TaskPlan),
    /// Rows behind which their places are written.
    Number(NumberPlan),
    /// Called for each group of rows, whose key is their place.
    Each(EachPlan),
}

/// The function of a set of tasks, and what each gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TaskPlan {
    #[serde(flatten)]
    pub(crate) function: FunctionPlan,
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::hex")]
    pub(crate) input: Vec<u8>,
}

/// Numbers the rows of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NumberPlan {
    /// Rows that have a number in common.
    pub(crate) rows: u32,
    /// The columns that come out: those that go in, the task and the number.
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
}

/// A task function that is called for rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EachPlan {
    pub(crate) function: FunctionPlan,
    pub(crate) input: EachInput,
    /// The columns of the rows. Behind them are two with their place.
    #[serde(with = "crate::schema")]
    pub(crate) rows: SchemaRef,
}

/// A function in its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FunctionPlan {
    /// The job file's stage.
    pub(crate) stage: String,
    /// `component@version/function`.
    pub(crate) label: String,
    pub(crate) digest: Digest,
    pub(crate) function: String,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) limits: Limits,
    #[serde(with = "crate::schema")]
    pub(crate) output: SchemaRef,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EdgePlan {
    pub(crate) partitions: u32,
    /// Positions of the key's columns.
    pub(crate) keys: Vec<usize>,
    pub(crate) combine: Option<FunctionPlan>,
    /// Order and place of the rows.
    #[serde(default)]
    pub(crate) rows: EdgeRows,
    /// Columns on the edge: those of the key are plain, see [`edge_schema`](crate::canonical::edge_schema).
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
}

/// Order and place of the rows of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EdgeRows {
    /// Sorted by the edge's keys, placed by the hash of them.
    #[default]
    Sorted,
    /// As they come, placed by the hash of the keys that the SQL plan has.
    Hashed,
    /// As they come, in one partition.
    Arriving,
    /// As they come, in one partition. They are sorted by the order that the SQL plan has, and the index says with
    /// which key each segment begins.
    Ordered,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SinkPlan {
    /// The output's name in the job file.
    pub(crate) output: String,
    /// The user's folder; empty for an output that the cluster keeps.
    pub(crate) folder: String,
    /// Most bytes of an output that the cluster keeps.
    #[serde(default)]
    pub(crate) max_kept_bytes: Option<u64>,
    /// The job file's stage, for names of files.
    pub(crate) stage: String,
    pub(crate) format: OutputFormat,
    /// Positions of the columns whose values name folders.
    pub(crate) partition_by: Vec<usize>,
    #[serde(with = "crate::schema")]
    pub(crate) schema: SchemaRef,
}

impl StagePlan {
    /// Seeds what a task's guests see as random: the same for every attempt.
    pub(crate) fn task_seed(&self, task: u32) -> u64 {
        let place = (u64::from(self.stage) << 32) | u64::from(task);
        xxhash_rust::xxh3::xxh3_64_with_seed(&place.to_le_bytes(), self.seed)
    }

    /// Seeds what the guest of a call for rows sees as random: the same for every attempt, in whichever task it runs.
    pub(crate) fn call_seed(&self, place: Place) -> u64 {
        let Place { partition, index } = place;
        let place = (u64::from(partition) << 32) | u64::from(index);
        // No task has that number.
        let of_stage = self.task_seed(u32::MAX);
        xxhash_rust::xxh3::xxh3_64_with_seed(&place.to_le_bytes(), of_stage)
    }

    /// Returns whether nothing takes the rows of the first operator.
    pub(crate) fn has_no_readers(&self) -> bool {
        self.nodes.len() == 1 && self.edges.is_empty() && self.sinks.is_empty()
    }
}
