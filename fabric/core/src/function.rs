//! Functions as components describe them.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Which interface a function belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FunctionKind {
    /// `mapper`: batches in, batches out.
    MapBatches,
    /// `reducer`, at the end of a stage.
    ReduceGroups,
    /// `reducer`, before and after a shuffle.
    CombineGroups,
    /// `task`: bytes in, bytes out.
    Task,
    /// `scalars`: a column out, with a row for each row in. SQL statements call it.
    Scalar,
    /// `actor`: one instance for each key, with state.
    Actor,
}

impl FunctionKind {
    /// The word of job files for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::MapBatches => "map",
            Self::ReduceGroups => "reduce",
            Self::CombineGroups => "combine",
            Self::Task => "task",
            Self::Scalar => "scalar",
            Self::Actor => "actor",
        }
    }
}

/// One function as `describe` told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// Its name in the component.
    pub name: String,
    /// Which interface it belongs to.
    pub kind: FunctionKind,
    /// One line for people.
    pub summary: String,
    /// Equal inputs give equal outputs.
    pub deterministic: bool,
}

/// Description that a component gives of itself: checked, bounded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its functions.
    pub functions: Vec<FunctionRecord>,
}

/// Function that a job names, fixed to the bytes that it meant when the job was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFunction {
    /// As the job file says it.
    pub reference: String,
    /// The component.
    pub component: String,
    /// The version that was the newest, or the one asked for.
    pub version: String,
    /// The component's bytes.
    pub digest: Digest,
    /// The function.
    pub function: FunctionRecord,
}

impl PinnedFunction {
    /// `component@version/function`, as it stands on receipts and in errors.
    pub fn label(&self) -> String {
        format!("{}@{}/{}", self.component, self.version, self.function.name)
    }
}
