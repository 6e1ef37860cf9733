//! Where bytes lie between and after tasks: blobs in the object store, shuffle objects, and the files of outputs.
//!
//! ```text
//! map task ──segments──▶ ObjectWriter ──one object──▶ store ──index, ranges──▶ ObjectReader ──▶ reduce task
//! any task ──StagedFile──▶ <output>/.weft-<job>/… ──publish──▶ <output>/part-… , then <output>/_weft.json
//! ```
//!
//! Every segment carries its rows and an xxh3 that is seeded with its place, so that a byte that flips and a segment that is
//! dropped, doubled or swapped are found by whoever reads.

mod blobs;
mod error;
mod object;
mod segment;
mod sink;

pub use blobs::Blobs;
pub use error::{Error, ErrorKind, Result};
pub use object::{ObjectReader, ObjectWriter, Place, Segment};
pub use segment::FORMAT;
pub use sink::{
    Holding, MANIFEST, Manifest, ManifestFile, ManifestOutput, StagedFile, clean_staging,
    look_into, prepare_output, publish, read_manifest,
};
