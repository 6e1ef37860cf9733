//! Tables and views that a tenant has named. The control plane keeps their definitions; only executors read them.

use serde::{Deserialize, Serialize};
use weft_core::JobId;
use weft_core::job::OutputSpec;

/// Bytes of the name of a table or view.
pub const MAX_TABLE_NAME_BYTES: usize = 128;
/// Bytes of one definition.
pub const MAX_DEFINITION_BYTES: usize = 1 << 20;
/// Jobs whose kept outputs are the rows of one table. Planning reads a manifest of each.
pub const MAX_KEPT_PARTS: usize = 32;

/// Kind of a name in a statement's `FROM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// Files.
    Table,
    /// A query.
    View,
}

impl TableKind {
    /// The kind as messages and the API call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
        }
    }
}

/// Treatment of a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfTaken {
    /// The change is refused.
    Refuse,
    /// The new definition takes the place of the old one, if both are of one kind.
    Replace,
    /// The old definition stays.
    Keep,
}

/// Rows that the cluster keeps for a table, as a statement found them that adds to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extended {
    /// The job that wrote the last of them. The change is refused if it is another one by now: rows would be lost.
    pub last: JobId,
    /// They stay beside the new ones. Otherwise the new ones hold them.
    pub stay: bool,
}

/// Change of a tenant's tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TableChange {
    /// Gives a definition a name.
    Put {
        /// The name; letters keep their case.
        name: String,
        /// The kind.
        kind: TableKind,
        /// The definition: JSON that only executors read.
        definition: String,
        /// Treatment of the name if it is taken.
        if_taken: IfTaken,
        /// Rows that the cluster keeps for the table, and that the new definition goes on from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extends: Option<Extended>,
    },
    /// Forgets a name.
    Drop {
        /// The name.
        name: String,
        /// The kind that it must be of.
        kind: Option<TableKind>,
        /// A name that is not there is no error.
        if_exists: bool,
    },
}

/// Results of planning a statement that is more than a query.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableStatement {
    /// Change of the tenant's tables, once the job's rows are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<TableChange>,
    /// Outputs that the statement names: the job has them from here on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputSpec>,
}
