//! Outputs of jobs, as they are handed to whoever publishes them.

use serde::{Deserialize, Serialize};
use weft_core::job::{OutputMode, OutputSpec};

use crate::plan::SinkFile;

/// Says that an output has more bytes than the cluster keeps of one.
pub fn kept_too_large(output: &str, max_bytes: u64) -> String {
    format!(
        "the output `{output}` has more than the {max_bytes} bytes that the cluster keeps of one: give it a `uri` (`weft sql --output`, a table's LOCATION), or fewer rows"
    )
}

/// One output of a job, to be published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestOutput {
    /// The output's name in the job file.
    pub name: String,
    /// The folder that it goes to, or its location on an object store. The executor fills it in for an output that the
    /// cluster keeps.
    pub folder: String,
    /// The cluster keeps the files in its store: users see no folder.
    #[serde(default)]
    pub is_kept: bool,
    /// Format of its files.
    pub format: String,
    /// Names and types of its columns, as text.
    pub schema: Vec<(String, String)>,
    /// The staged files.
    pub files: Vec<SinkFile>,
    /// Columns whose values name folders.
    pub partition_by: Vec<String>,
    /// Treatment of files that the folder's manifest lists already.
    pub mode: OutputMode,
}

impl ManifestOutput {
    /// These files of an output, with these columns.
    pub fn new(output: &OutputSpec, schema: Vec<(String, String)>, files: Vec<SinkFile>) -> Self {
        Self {
            name: output.name.clone(),
            folder: output.path().unwrap_or_default().to_owned(),
            is_kept: output.path().is_none(),
            format: output.format.name().into(),
            schema,
            files,
            partition_by: output.partition_by.clone(),
            mode: output.mode,
        }
    }
}
