//! Files of outputs: staged in a hidden folder beside their final place, published by renaming,
//! listed by a manifest that is written last.
//!
//! ```text
//! staged ──(job's commit is durable)──▶ renamed one by one ──▶ _weft.manifest ──▶ clean-up:
//!                                                                staging folder removed
//! ```
//!
//! Every step can be repeated from the start. The one thing that cannot be repaired is a file that
//! is neither staged nor published.

mod staging;

mod folder;
mod generation;
mod manifest;

mod cleanup;
mod publish;
#[cfg(test)]
mod tests;

pub use cleanup::clean_staging;
pub use folder::{Holding, look_into};
pub use manifest::{MANIFEST, Manifest, ManifestFile, read_manifest};
pub use publish::publish;
pub use staging::{StagedFile, prepare_output};
