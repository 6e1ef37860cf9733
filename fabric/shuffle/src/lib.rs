//! Rows on their way from one stage to the next: shuffle objects and the segments in them.
//!
//! ```text
//! map task ──segments──▶ ObjectWriter ──one object──▶ store
//!                                                       │ index, ranges
//! reduce task ◀──batches, sums── ObjectReader ◀─────────┘
//! ```
//!
//! Every segment carries its rows and an xxh3 that is seeded with its place, so that a byte that
//! flips and a segment that is dropped, doubled or swapped are found by whoever reads.
//!
//! Rows that are sorted may be shared by value: an index has the key of each segment's first row, and
//! [`Ranges`] says which rows each of several tasks reads. Rows that are placed by a hash may be shared otherwise than
//! one task for each partition: [`Parts`] says how.

mod error;
mod object;
mod parts;
mod ranges;
mod segment;

pub use error::{Error, Result};
pub use object::{FetchRoom, ObjectReader, ObjectSegments, ObjectWriter, Place, Segment};
pub use parts::{LargePartition, Part, Parts, Piece, SegmentBytes, SharedParts};
pub use ranges::{Boundary, Mark, Ranges, SharedRanges};
pub use segment::FORMAT;
pub use weft_store::ErrorKind;
