//! Files of outputs: staged in a hidden folder beside their final place, published by renaming,
//! listed by a manifest that is written last.
//!
//! ```text
//! staged ──(job's commit is durable)──▶ renamed one by one ──▶ _weft.manifest ──▶ clean-up:
//!                                                                staging folder removed
//! ```
//!
//! Object stores have no rename: there files are uploads that are completed ([`objects`]). [`place`] tells the two
//! apart.
//!
//! Every step can be repeated from the start. The one thing that cannot be repaired is a file that
//! is neither staged nor published.

mod staging;

mod folder;
mod generation;
mod manifest;

mod cleanup;
mod publish;

mod objects;
mod place;
mod staged;
#[cfg(test)]
mod tests;

pub use folder::Holding;
pub use manifest::{MANIFEST, Manifest, ManifestFile, read_manifest};
pub use objects::{Ended, Ledger, ObjectFolder, UPLOAD_FAILED, UPLOAD_FORBIDDEN};
pub use place::OutputPlace;
pub use staged::{StagedFile, Staging};
pub(crate) use staging::{PART, is_staging};
