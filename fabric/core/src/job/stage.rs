//! Stages of a job: where their rows come from, and what is done with them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Input of the tasks that run for the rows of an input or a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EachInput {
    /// A row, as a JSON object.
    Row,
    /// Rows, as an Arrow IPC stream.
    Batch {
        /// How many; the last batch of a task that reads rows may have fewer.
        rows: u32,
    },
}

impl EachInput {
    /// Rows of each input.
    pub fn rows(self) -> u32 {
        match self {
            EachInput::Row => 1,
            EachInput::Batch { rows } => rows,
        }
    }
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Unique among inputs and stages.
    pub name: String,
    /// The input or stage it reads; none for a set of so many tasks, and for SQL and unions, whose list is in `work`.
    pub from: Option<String>,
    /// The work of each task.
    pub work: Work,
    /// Params of the stage over the job's.
    pub params: BTreeMap<String, String>,
    /// Limits of a task, already narrowed to the job's.
    pub limits: Limits,
}

/// Work of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Each batch goes through a function.
    Map {
        /// `component/function` or `component@version/function`.
        function: String,
    },
    /// Rows are repartitioned by key, sorted, and each group goes through a function.
    Reduce {
        /// Columns that make the key.
        keys: Vec<String>,
        /// Number of partitions; chosen from the input's size where none is given.
        partitions: Option<u32>,
        /// Runs before and after the shuffle.
        combine: Option<String>,
        /// Ends the stage; without it the rows are only repartitioned and sorted by key.
        reduce: Option<String>,
    },
    /// A set of so many tasks. The result of each is a row.
    Tasks {
        /// The task function.
        function: String,
        /// How many.
        count: u32,
        /// Input of each.
        #[serde(
            default,
            skip_serializing_if = "Vec::is_empty",
            with = "super::task_input"
        )]
        input: Vec<u8>,
    },
    /// Rows of several, one after the other.
    Union {
        /// The inputs and stages, all with the same columns.
        from: Vec<String>,
        /// Number of tasks for each of them; chosen from the size of what is read where none is given.
        partitions: Option<u32>,
    },
    /// One statement over inputs, stages and files.
    Sql {
        /// The statement, which only executors parse.
        sql: String,
        /// The inputs and stages that it may name.
        from: Vec<String>,
        /// The folder that relative paths in the statement begin in: an absolute path.
        folder: Option<String>,
        /// Number of tasks that share the work; chosen from the size of what is read where none is given.
        partitions: Option<u32>,
        /// The functions of components that the statement calls, as references, sorted.
        #[serde(default)]
        functions: Vec<String>,
    },
    /// A task for each row, or for each batch of rows. The result of each is a row.
    ForEach {
        /// The task function.
        function: String,
        /// Input of a task.
        each: EachInput,
        /// Number of partitions that the rows are dealt out to; chosen from the size of what is read where none is
        /// given.
        partitions: Option<u32>,
    },
}

impl StageSpec {
    /// The inputs and stages that it reads, in the order of the document.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        let tables: &[String] = match &self.work {
            Work::Sql { from, .. } | Work::Union { from, .. } => from,
            Work::Map { .. } | Work::Reduce { .. } | Work::Tasks { .. } | Work::ForEach { .. } => {
                &[]
            }
        };
        self.from.iter().chain(tables).map(String::as_str)
    }

    /// The document's key that names what it reads.
    pub(super) fn reads_key(&self) -> &'static str {
        match self.work {
            Work::Union { .. } => "union",
            Work::ForEach { .. } => "for_each",
            Work::Sql { .. } | Work::Map { .. } | Work::Reduce { .. } | Work::Tasks { .. } => {
                "from"
            }
        }
    }
}

impl Work {
    /// The functions that the stage names, in the order in which rows meet them; those of a statement by name.
    pub fn functions(&self) -> Vec<&str> {
        match self {
            Work::Map { function }
            | Work::Tasks { function, .. }
            | Work::ForEach { function, .. } => vec![function],
            Work::Reduce {
                combine, reduce, ..
            } => combine.iter().chain(reduce).map(String::as_str).collect(),
            Work::Sql { functions, .. } => functions.iter().map(String::as_str).collect(),
            Work::Union { .. } => Vec::new(),
        }
    }
}
