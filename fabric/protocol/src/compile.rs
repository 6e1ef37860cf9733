//! Answers of compiler processes, and the limits under which they run.

use serde::{Deserialize, Serialize};
use weft_core::Problem;

/// CPU time of one compilation.
pub const COMPILE_CPU_SECONDS_MAX: u64 = 120;
/// Memory of one compilation.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Size of an artefact.
pub const ARTEFACT_BYTES_MAX: u64 = 256 << 20;

/// Outcome that a compiler process writes to its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The artefact is written.
    Compiled {
        /// Interfaces that the component imports.
        imports: Vec<String>,
    },
    /// The component is refused.
    Refused(Problem),
    /// At idle priority there is no time to compile it.
    Starved,
}
