//! Documents of the API about jobs and components. Unknown fields are ignored; missing ones, and
//! those that are `null`, are empty.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::problem::ApiProblem;

/// Reads a document of the API.
///
/// Errors: `Other` where it is not JSON, or of another shape.
pub(crate) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    let document = serde_json::from_slice(json);
    document.map_err(strange).and_then(read_value)
}

/// Reads a part of a document, such as an entry of a list.
///
/// Errors: `Other` where it has another shape.
pub fn read_value<T: DeserializeOwned>(mut value: Value) -> Result<T, Error> {
    remove_nulls(&mut value);
    serde_json::from_value(value).map_err(strange)
}

fn strange(error: serde_json::Error) -> Error {
    Error::other(format!("the server's answer makes no sense: {error}"))
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
pub struct Job {
    /// The id.
    pub id: String,
    /// The name in its job file.
    pub name: String,
    /// `planning`, `running`, `publishing`, and then `succeeded`, `failed` or `cancelled`.
    pub status: String,
    /// When it was accepted, in RFC 3339.
    pub submitted_at: Option<String>,
    /// When it had been planned and began to run.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// The user's tags.
    pub tags: BTreeMap<String, String>,
    /// Bytes of all inputs.
    pub input_bytes: u64,
    /// Empty for a job in a list, which has `tasks_done` instead.
    pub stages: Vec<Stage>,
    /// Tasks of all stages that are done; only for a job in a list.
    pub tasks_done: u64,
    /// Why it did not succeed.
    pub problem: Option<ApiProblem>,
    /// The outputs that it published.
    pub outputs: Vec<JobOutput>,
}

impl Job {
    /// True where nothing will change any more.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

/// A stage of a job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Stage {
    /// The position in the job, from 0.
    pub position: u64,
    /// The name in the job file.
    pub name: String,
    /// `waiting`, `running`, `done`, or `stopped` where the job has ended before the stage.
    pub status: String,
    /// Tasks of the stage.
    pub tasks_total: u64,
    /// Tasks that are done.
    pub tasks_done: u64,
    /// When the first of these tasks started, in RFC 3339.
    pub started_at: Option<String>,
    /// Time from the first start of these tasks to their last end.
    pub duration_ms: Option<u64>,
    /// Wall time of these tasks together.
    pub task_wall_ms: u64,
    /// Wall time of these tasks in the mean.
    pub task_mean_ms: u64,
    /// The task that took longest.
    pub slowest_task: Option<SlowestTask>,
    /// Rows that the tasks read.
    pub rows_read: u64,
    /// Records that could not be read and were left out.
    pub bad_records: u64,
    /// Values that were passed over, because no column has their key.
    pub unknown_fields: u64,
    /// Rows that the tasks wrote.
    pub rows_written: u64,
    /// Bytes that the tasks read from inputs.
    pub bytes_read: u64,
    /// Bytes that the tasks wrote to outputs.
    pub bytes_written: u64,
    /// Bytes that the tasks read from shuffle objects.
    pub shuffle_bytes_read: u64,
    /// Bytes that the tasks wrote to shuffle objects.
    pub shuffle_bytes_written: u64,
    /// Bytes that the tasks wrote to disk for want of memory.
    pub spilled_bytes: u64,
    /// Tasks that were finished twice.
    pub duplicates: u64,
    /// Attempts that failed.
    pub retries: u64,
    /// How evenly a shuffle dealt rows out to the stage's tasks.
    pub skew: Skew,
}

/// The task of a stage that took longest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SlowestTask {
    /// The position in the stage, from 0.
    pub task: u64,
    /// Wall time of the attempt.
    pub wall_ms: u64,
}

/// The largest partition against the mean.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Skew {
    /// The task that reads it.
    pub task: u64,
    /// Rows of it over the mean of all partitions, in thousandths.
    pub over_mean_milli: u64,
}

/// An output that a job wrote.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct JobOutput {
    /// The name in the job file.
    pub name: String,
    /// The folder; empty for an output that the cluster keeps.
    pub uri: String,
    /// The format of its files; empty if the server does not say.
    pub format: String,
    /// Files of it.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// A stage's name, or its position where the server sends no more.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Value")]
pub struct Label(pub String);

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
pub struct Task {
    /// The stage.
    pub stage: Label,
    /// The position in the stage, from 0.
    pub task: u64,
    /// The attempt that was committed, from 1.
    pub attempt: u64,
    /// When the attempt started, in RFC 3339.
    pub started_at: Option<String>,
    /// Time from the start of the attempt to its end.
    pub wall_ms: u64,
    /// CPU time of its functions and of the fabric's work.
    pub cpu_ms: u64,
    /// Rows that it read.
    pub rows_read: u64,
    /// Rows that it wrote.
    pub rows_written: u64,
    /// Bytes that it read from inputs.
    pub bytes_read: u64,
    /// Bytes that it wrote to outputs.
    pub bytes_written: u64,
    /// Bytes that it read from shuffle objects.
    pub shuffle_bytes_read: u64,
    /// Bytes that it wrote to shuffle objects.
    pub shuffle_bytes_written: u64,
    /// Bytes that it wrote to disk for want of memory.
    pub spilled_bytes: u64,
    /// Files that it wrote.
    pub files: Vec<Value>,
}

/// A line that a function logged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct LogLine {
    /// The stage.
    pub stage: Label,
    /// The task's position in the stage.
    pub task: u64,
    /// The task's attempt.
    pub attempt: u64,
    /// The severity, such as `info`.
    pub level: String,
    /// The function.
    pub function: String,
    /// The text.
    pub message: String,
}

/// A component.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Component {
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
    /// The digest of its bytes, such as `sha256:ab..`.
    pub digest: String,
    /// The size.
    pub size_bytes: u64,
    /// When the version was registered, in RFC 3339.
    pub created_at: Option<String>,
    /// The functions that it exports.
    pub functions: Vec<Function>,
    /// Interfaces that it imports, with their versions.
    pub imports: Vec<String>,
}

/// A function of a component.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Function {
    /// The name.
    pub name: String,
    /// The kind, such as `task`.
    pub kind: String,
    /// A sentence that says what it does.
    pub summary: String,
    /// True where equal input gives equal output.
    pub deterministic: bool,
}

/// An actor.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Actor {
    /// The key.
    pub key: String,
    /// The shard that its state is in.
    pub shard: u64,
    /// True where an instance is in memory.
    pub resident: bool,
    /// When its alarm is due, in RFC 3339.
    pub alarm_at: Option<String>,
    /// Turns that wrote something, of its whole life.
    pub turns: u64,
    /// When it wrote last, in RFC 3339.
    pub changed_at: Option<String>,
    /// Entries of its state; none in a list.
    pub entries: Option<u64>,
    /// Bytes of its keys and values; none in a list.
    pub state_bytes: Option<u64>,
    /// Messages that their receivers refused as often as they were tried.
    pub dead_letters: Vec<DeadLetter>,
}

/// A message that was given up.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DeadLetter {
    /// The receiver: `component/actor/key`.
    pub to: String,
    /// The method.
    pub method: String,
    /// The last refusal.
    pub reason: String,
    /// When it was given up, in RFC 3339.
    pub at: Option<String>,
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
