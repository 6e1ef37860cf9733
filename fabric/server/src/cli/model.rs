//! What the API tells about jobs and components. Unknown fields are let be; missing ones, and those that are `null`, are
//! empty.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::failure::Failure;
use crate::cli::problem::ApiProblem;

/// Reads a document of the API.
///
/// Errors: `Other` where it is not JSON, or of another shape.
pub(crate) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    let document = serde_json::from_slice(json);
    document.map_err(strange).and_then(read_value)
}

/// Reads a part of a document.
pub(crate) fn read_value<T: DeserializeOwned>(mut value: Value) -> Result<T, Failure> {
    remove_nulls(&mut value);
    serde_json::from_value(value).map_err(strange)
}

fn strange(error: serde_json::Error) -> Failure {
    Failure::other(format!("the server's answer makes no sense: {error}"))
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

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
    /// Empty for a job in a list, which tells `tasks_done` instead.
    pub(crate) stages: Vec<Stage>,
    pub(crate) tasks_done: u64,
    pub(crate) problem: Option<ApiProblem>,
    pub(crate) outputs: Vec<JobOutput>,
}

impl Job {
    /// True where nothing will change any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
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
    /// Records that could not be read and were left out.
    pub(crate) bad_records: u64,
    pub(crate) rows_written: u64,
    /// Tasks that were finished twice.
    pub(crate) duplicates: u64,
    pub(crate) retries: u64,
    /// Of what a shuffle dealt out.
    pub(crate) skew: Skew,
}

/// The largest partition against the mean.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Skew {
    pub(crate) task: u64,
    pub(crate) over_mean_milli: u64,
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
#[serde(from = "Value")]
pub(crate) struct Label(pub(crate) String);

impl From<Value> for Label {
    fn from(value: Value) -> Self {
        match value {
            Value::String(name) => Self(name),
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
    pub(crate) files: Vec<Value>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_may_be_told_of_in_part() {
        let json = br#"{"id":"job-1","input_bytes":null,"new":[null],"stages":[{"name":"a","rows_read":null}]}"#;
        let job: Job = read(json).expect("a job");
        assert_eq!(
            (job.id.as_str(), job.input_bytes, job.stages.len()),
            ("job-1", 0, 1)
        );
        assert!(read::<Job>(b"7").is_err() && read::<Job>(b"").is_err());
    }
}
