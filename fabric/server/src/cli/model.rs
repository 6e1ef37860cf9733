//! What the API tells about jobs and components. Unknown fields are let be, and missing ones are empty.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cli::problem::ApiProblem;

/// A job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) name: String,
    /// `planning`, `running`, `publishing`, and then `succeeded`, `failed` or `cancelled`.
    pub(crate) status: String,
    pub(crate) submitted_at: Option<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) ended_at: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) input_bytes: u64,
    pub(crate) stages: Vec<Stage>,
    pub(crate) problem: Option<ApiProblem>,
    pub(crate) outputs: Vec<JobOutput>,
}

impl Job {
    /// True where nothing will change any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
    }

    /// Tasks that are done, and all of them.
    pub(crate) fn tasks(&self) -> (u64, u64) {
        let sum = |count: fn(&Stage) -> u64| self.stages.iter().map(count).sum();
        (sum(|stage| stage.tasks_done), sum(|stage| stage.tasks_total))
    }
}

/// A stage of a job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stage {
    pub(crate) position: u64,
    pub(crate) name: String,
    /// `waiting`, `running` or `done`.
    pub(crate) status: String,
    pub(crate) tasks_total: u64,
    pub(crate) tasks_done: u64,
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    /// Tasks that were finished twice.
    pub(crate) duplicates: u64,
    pub(crate) retries: u64,
}

/// A folder that a job wrote.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct JobOutput {
    pub(crate) name: String,
    pub(crate) uri: String,
    pub(crate) files: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// A stage's name, or its position where the server tells no more.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "serde_json::Value")]
pub(crate) struct Label(pub(crate) String);

impl From<serde_json::Value> for Label {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::String(name) => Self(name),
            other => Self(other.to_string()),
        }
    }
}

/// A task of a job, as it was committed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Task {
    pub(crate) stage: Label,
    pub(crate) task: u64,
    pub(crate) attempt: u64,
    pub(crate) rows_read: u64,
    pub(crate) rows_written: u64,
    pub(crate) files: Vec<serde_json::Value>,
}

/// A line that a function logged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LogLine {
    pub(crate) stage: Label,
    pub(crate) task: u64,
    pub(crate) attempt: u64,
    pub(crate) level: String,
    pub(crate) function: String,
    pub(crate) message: String,
}

/// A component.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) digest: String,
    pub(crate) size_bytes: u64,
    pub(crate) created_at: Option<String>,
    pub(crate) functions: Vec<Function>,
}

/// A function of a component.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) summary: String,
    pub(crate) deterministic: bool,
}
