//! Functions as components describe them.

use serde::{Deserialize, Serialize};

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
}

impl FunctionKind {
    /// The word of job files for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::MapBatches => "map",
            Self::ReduceGroups => "reduce",
            Self::CombineGroups => "combine",
            Self::Task => "task",
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
