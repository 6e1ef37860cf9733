//! Tables and views that a tenant has named. The control plane keeps their definitions; only executors read them.

use serde::{Deserialize, Serialize};
use weft_core::job::OutputSpec;

/// Bytes of the name of a table or view.
pub const MAX_TABLE_NAME_BYTES: usize = 128;
/// Bytes of one definition.
pub const MAX_DEFINITION_BYTES: usize = 1 << 20;

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
