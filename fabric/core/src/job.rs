//! Job specifications: what a job document says once it has been checked.
//!
//! [`decode`] takes the JSON form (the CLI turns TOML into it) and answers with a [`JobSpec`] or with everything that is
//! wrong. What comes out is consistent: names are unique, every `from` exists, stages form a graph without cycles.

mod decode;
mod document;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use decode::decode;

use crate::limits::Limits;

/// Most stages in a job.
pub const STAGES_MAX: usize = 64;
/// Most tasks in a task set, and most partitions of a shuffle.
pub const TASKS_MAX: u32 = 100_000;
/// Most partitions of a shuffle.
pub const PARTITIONS_MAX: u32 = 10_000;

/// A checked job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// For people.
    pub name: String,
    /// Seeds the randomness of guests.
    #[serde(default)]
    pub seed: u64,
    /// Free labels that usage is summed by.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Given to every function's `bind` and `open`.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Limits of every task.
    #[serde(default)]
    pub limits: Limits,
    /// What is read.
    pub inputs: Vec<InputSpec>,
    /// What is done, in the order of the document.
    pub stages: Vec<StageSpec>,
    /// What is written.
    pub outputs: Vec<OutputSpec>,
}

/// A set of text files, one row a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Unique among inputs and stages.
    pub name: String,
    /// How the files are read.
    pub format: InputFormat,
    /// Globs: absolute paths, or `file://` URIs.
    pub uris: Vec<String>,
    /// Checks that each line is UTF-8 and types the column `utf8` rather than `binary`.
    pub utf8: bool,
    /// What happens to lines that are not UTF-8 where that is asked for.
    pub bad_records: BadRecords,
}

/// Formats of inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputFormat {
    /// One column, `line`; files that end in `.gz` are decompressed.
    Text,
}

/// What happens to a record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadRecords {
    /// The job fails and names file and position.
    Fail,
    /// The record is left out and counted.
    Skip,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Unique among inputs and stages.
    pub name: String,
    /// The input or stage it reads; none for a task set.
    pub from: Option<String>,
    /// What it does.
    pub work: Work,
    /// Its own params over the job's.
    pub params: BTreeMap<String, String>,
    /// Its limits, already narrowed to the job's.
    pub limits: Limits,
}

/// What a stage does.
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
    /// A set of tasks without input.
    Tasks {
        /// The task function.
        function: String,
        /// How many.
        count: u32,
    },
}

impl Work {
    /// The functions that the stage names, in the order in which rows meet them.
    pub fn functions(&self) -> Vec<&str> {
        match self {
            Work::Map { function } | Work::Tasks { function, .. } => vec![function],
            Work::Reduce {
                combine, reduce, ..
            } => combine.iter().chain(reduce).map(String::as_str).collect(),
        }
    }
}

/// A folder of files that a stage's rows go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Free, unique among outputs.
    pub name: String,
    /// The stage.
    pub from: String,
    /// How the files are written.
    pub format: OutputFormat,
    /// The folder: an absolute path.
    pub path: String,
    /// What happens when the folder holds files.
    pub mode: OutputMode,
}

/// Formats of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputFormat {
    /// Parquet, Snappy-compressed.
    Parquet,
}

/// What happens when the output folder already holds files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMode {
    /// The job is refused.
    Error,
}

impl JobSpec {
    /// The params that a stage's functions get: the job's, overlaid with the stage's own.
    pub fn params_of(&self, stage: &StageSpec) -> Vec<(String, String)> {
        let mut params = self.params.clone();
        params.extend(stage.params.clone());
        params.into_iter().collect()
    }

    /// Every function that the job names, without repeats, in the order of the document.
    pub fn functions(&self) -> Vec<&str> {
        let mut functions = Vec::new();
        for function in self.stages.iter().flat_map(|stage| stage.work.functions()) {
            if !functions.contains(&function) {
                functions.push(function);
            }
        }
        functions
    }
}

/// A function's reference, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionRef {
    /// The component.
    pub component: String,
    /// Its version; the newest one where none is given.
    pub version: Option<String>,
    /// The function.
    pub function: String,
}

impl FunctionRef {
    /// Parses `component/function` and `component@version/function`.
    pub fn parse(text: &str) -> Option<Self> {
        let (component, function) = text.split_once('/')?;
        let (component, version) = component
            .split_once('@')
            .map_or((component, None), |(name, version)| (name, Some(version)));
        let version_fits = version.is_none_or(crate::is_semver);
        let fits = crate::is_component_name(component)
            && version_fits
            && crate::is_component_name(function);
        fits.then(|| Self {
            component: component.into(),
            version: version.map(Into::into),
            function: function.into(),
        })
    }
}
