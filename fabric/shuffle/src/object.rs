//! Shuffle objects: one per map attempt, laid out partition by partition, with an index at the end.
//!
//! ```text
//! segment (slot 0, sequence 0) │ segment (0, 1) │ segment (1, 0) │ …
//!     │ index: 7 words a segment │ entries │ magic 1
//!     │ index: 7 words a segment │ first keys │ bytes of first keys │ entries │ magic 2
//! ```
//!
//! A slot is a partition of an edge: edges are laid out one after the other. All words are 64 bit,
//! little endian. An object with segments of sorted rows ends in the second way. It has the key of each
//! segment's first row, cut off after [`FIRST_KEY_BYTES_MAX`], behind its length, a word. Segments
//! of other edges have an empty one. The index and the keys have one checksum.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use weft_protocol::{ObjectRef, Sums};
use weft_store::{Blobs, TierDraft};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::{Error, Result};
use crate::segment;

mod ahead;
mod index;
mod reader;
mod shared;

pub use self::ahead::{FetchRoom, ObjectSegments};
pub use self::reader::{ObjectReader, Segment};

const MAGIC: u64 = u64::from_le_bytes(*b"weftshf1");
const MAGIC_WITH_KEYS: u64 = u64::from_le_bytes(*b"weftshf2");
const WORDS: usize = 7;
/// Bytes of the two words that all objects end in.
const FOOTER_BYTES: u64 = 16;
/// The same of objects with first keys, which have one word more.
const FOOTER_WITH_KEYS_BYTES: u64 = 24;
/// Bytes that an index keeps of the key of a segment's first row.
pub(crate) const FIRST_KEY_BYTES_MAX: usize = 128;
/// Encoded bytes that a writer holds in memory before they go to a file.
const HELD_BYTES_MAX: u64 = 4 << 20;

/// Position of a segment within the stage that wrote it; seeds its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The task that wrote it.
    pub task: u32,
    /// Partition of the edge.
    pub partition: u32,
    /// Position of the edge among the stage's.
    pub edge: u32,
    /// Position among the segments of the slot.
    pub sequence: u32,
}

impl Place {
    fn seed(self) -> u64 {
        let mut bytes = [0u8; 16];
        for (slot, word) in
            bytes
                .chunks_exact_mut(4)
                .zip([self.task, self.partition, self.edge, self.sequence])
        {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        xxh3_64(&bytes)
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    edge: u32,
    partition: u32,
    sequence: u32,
    offset: u64,
    length: u64,
    raw_bytes: u64,
    rows: u64,
    xxh3: u64,
}

impl Entry {
    fn sums(&self) -> Sums {
        Sums {
            rows: self.rows,
            segments: 1,
            xxh3: self.xxh3,
        }
    }

    fn words(&self) -> [u64; WORDS] {
        [
            u64::from(self.edge) << 32 | u64::from(self.partition),
            u64::from(self.sequence),
            self.offset,
            self.length,
            self.raw_bytes,
            self.rows,
            self.xxh3,
        ]
    }
}

enum Encoded {
    Held(Vec<u8>),
    Spilled { offset: u64, length: u64 },
}

/// A segment that was added.
struct Added {
    entry: Entry,
    /// Key of its first row, as far as the index keeps it; empty if its rows are not sorted.
    first_key: Vec<u8>,
    encoded: Encoded,
}

/// Collects the segments of one attempt; past a bound they wait in an unnamed file.
pub struct ObjectWriter {
    task: u32,
    segments: Vec<Added>,
    sequences: HashMap<(u32, u32), u32>,
    held_bytes: u64,
    spill: Option<File>,
    spilled_bytes: u64,
    spill_folder: std::path::PathBuf,
}

impl ObjectWriter {
    /// A writer for the attempt of `task`. Segments that do not fit in memory go to an unnamed file
    /// in `spill_folder`.
    pub fn new(task: u32, spill_folder: &std::path::Path) -> Self {
        Self {
            task,
            segments: Vec::new(),
            sequences: HashMap::new(),
            held_bytes: 0,
            spill: None,
            spilled_bytes: 0,
            spill_folder: spill_folder.to_owned(),
        }
    }

    /// Adds the next segment of a partition: `batches`, all with `schema`, in order. No rows, no
    /// segment.
    pub fn add(
        &mut self,
        edge: u32,
        partition: u32,
        schema: &Schema,
        batches: &[RecordBatch],
    ) -> Result<()> {
        self.add_sorted(edge, partition, schema, batches, &[])
    }

    /// Adds a segment as [`add`](Self::add) does, of rows that are sorted, also from one segment to the
    /// next. `first_key`: the key of the first row, as bytes that compare as keys do.
    pub fn add_sorted(
        &mut self,
        edge: u32,
        partition: u32,
        schema: &Schema,
        batches: &[RecordBatch],
        first_key: &[u8],
    ) -> Result<()> {
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        let sequence = self.sequences.entry((edge, partition)).or_default();
        let place = Place {
            task: self.task,
            partition,
            edge,
            sequence: *sequence,
        };
        *sequence += 1;
        let encoded = segment::encode(schema, batches)?;
        let xxh3 = xxh3_64_with_seed(&encoded.bytes, place.seed());
        let length = encoded.bytes.len() as u64;
        let entry = Entry {
            edge,
            partition,
            sequence: place.sequence,
            offset: 0,
            length,
            raw_bytes: encoded.raw_bytes,
            rows: encoded.rows,
            xxh3,
        };
        let encoded = if self.held_bytes + length > HELD_BYTES_MAX {
            self.spill(&encoded.bytes)?
        } else {
            self.held_bytes += length;
            Encoded::Held(encoded.bytes)
        };
        let kept = first_key.len().min(FIRST_KEY_BYTES_MAX);
        self.segments.push(Added {
            entry,
            first_key: first_key[..kept].to_vec(),
            encoded,
        });
        Ok(())
    }

    fn spill(&mut self, bytes: &[u8]) -> Result<Encoded> {
        let failed = |error| Error::file(&self.spill_folder, error);
        if self.spill.is_none() {
            self.spill = Some(tempfile::tempfile_in(&self.spill_folder).map_err(failed)?);
        }
        let file = self.spill.as_ref().expect("it was opened above");
        file.write_all_at(bytes, self.spilled_bytes)
            .map_err(failed)?;
        let offset = self.spilled_bytes;
        self.spilled_bytes += bytes.len() as u64;
        Ok(Encoded::Spilled {
            offset,
            length: bytes.len() as u64,
        })
    }

    /// Bytes that went to the spill file.
    pub fn spilled_bytes(&self) -> u64 {
        self.spilled_bytes
    }

    /// Writes the object and returns its reference, and the sums of what it holds for each of
    /// `n_edges` edges.
    ///
    /// The object appears atomically, and on a bucket a copy of it in the tier after that. Not
    /// cancel-safe: a dropped future may leave staged parts, which the job's clean-up removes.
    pub async fn finish(
        mut self,
        blobs: &Blobs,
        key: &str,
        n_edges: usize,
    ) -> Result<(ObjectRef, Vec<Sums>)> {
        self.segments.sort_by_key(|added| {
            let entry = &added.entry;
            (entry.edge, entry.partition, entry.sequence)
        });
        let mut sums = vec![Sums::default(); n_edges];
        let mut index: Vec<u8> = Vec::with_capacity(self.segments.len() * WORDS * 8);
        let mut keys: Vec<u8> = Vec::new();
        let mut has_keys = false;
        let copy = blobs.tier();
        let mut writer = WriteThrough {
            store: blobs.writer(key),
            copy: copy.and_then(|tier| tier.begin(key, self.object_bytes())),
        };
        let mut offset = 0;
        let written = |error| Error::from(blobs.write_error(key, error));
        for added in std::mem::take(&mut self.segments) {
            let mut entry = added.entry;
            let bytes = match added.encoded {
                Encoded::Held(bytes) => bytes,
                Encoded::Spilled { offset, length } => self.unspill(offset, length)?,
            };
            entry.offset = offset;
            offset += entry.length;
            writer.write(&bytes).await.map_err(written)?;
            sums[entry.edge as usize].add(&entry.sums());
            index.extend(entry.words().into_iter().flat_map(u64::to_le_bytes));
            keys.extend((added.first_key.len() as u64).to_le_bytes());
            keys.extend(&added.first_key);
            has_keys |= !added.first_key.is_empty();
        }
        let entries = (index.len() / (WORDS * 8)) as u64;
        let footer = match has_keys {
            true => vec![keys.len() as u64, entries, MAGIC_WITH_KEYS],
            false => vec![entries, MAGIC],
        };
        if has_keys {
            index.append(&mut keys);
        }
        let index_xxh3 = xxh3_64(&index);
        writer.write(&index).await.map_err(written)?;
        let footer: Vec<u8> = footer.into_iter().flat_map(u64::to_le_bytes).collect();
        writer.write(&footer).await.map_err(written)?;
        writer.finish().await.map_err(written)?;
        let bytes = offset + index.len() as u64 + footer.len() as u64;
        blobs.count_parts(bytes);
        let object = ObjectRef {
            key: key.to_owned(),
            bytes,
            index_xxh3,
        };
        Ok((object, sums))
    }

    /// Bytes of the object with the segments so far.
    fn object_bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|one| one.entry.length).sum();
        let entries = (self.segments.len() * WORDS * 8) as u64;
        let keys = self.segments.iter().map(|one| one.first_key.len() as u64);
        match keys.clone().any(|bytes| bytes > 0) {
            true => {
                let keys: u64 = keys.map(|bytes| 8 + bytes).sum();
                segments + entries + keys + FOOTER_WITH_KEYS_BYTES
            }
            false => segments + entries + FOOTER_BYTES,
        }
    }

    fn unspill(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let file = self.spill.as_ref().expect("what was spilled has a file");
        let mut bytes = vec![0; usize::try_from(length).expect("segments fit in memory")];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|error| Error::file(&self.spill_folder, error))?;
        Ok(bytes)
    }
}

/// Writes to the store, and the same to a copy in the tier.
struct WriteThrough<W> {
    store: W,
    copy: Option<TierDraft>,
}

impl<W: AsyncWrite + Unpin> WriteThrough<W> {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(copy) = &mut self.copy {
            copy.write(bytes);
        }
        self.store.write_all(bytes).await
    }

    /// Shows the object, and its copy once the store has it.
    async fn finish(mut self) -> std::io::Result<()> {
        self.store.shutdown().await?;
        if let Some(copy) = self.copy {
            copy.keep();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
