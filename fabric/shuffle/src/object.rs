//! Shuffle objects: one per map attempt, laid out partition by partition, with an index at the end.
//!
//! ```text
//! segment (slot 0, sequence 0) │ segment (0, 1) │ segment (1, 0) │ …
//!     │ index: 7 words a segment │ entries │ magic
//! ```
//!
//! A slot is a partition of an edge: edges are laid out one after the other. All words are 64 bit,
//! little endian.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use weft_core::lock;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use weft_protocol::{ObjectRef, Sums};
use weft_store::Blobs;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::{Error, Result};
use crate::segment;

const MAGIC: u64 = u64::from_le_bytes(*b"weftshf1");
const WORDS: usize = 7;
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

enum Encoded {
    Held(Vec<u8>),
    Spilled { offset: u64, length: u64 },
}

/// Collects the segments of one attempt; past a bound they wait in an unnamed file.
pub struct ObjectWriter {
    task: u32,
    segments: Vec<(Entry, Encoded)>,
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
        let bytes = if self.held_bytes + length > HELD_BYTES_MAX {
            self.spill(&encoded.bytes)?
        } else {
            self.held_bytes += length;
            Encoded::Held(encoded.bytes)
        };
        self.segments.push((entry, bytes));
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
    /// The object appears atomically. Not cancel-safe: a dropped future may leave staged parts,
    /// which the job's clean-up removes.
    pub async fn finish(
        mut self,
        blobs: &Blobs,
        key: &str,
        n_edges: usize,
    ) -> Result<(ObjectRef, Vec<Sums>)> {
        self.segments
            .sort_by_key(|(entry, _)| (entry.edge, entry.partition, entry.sequence));
        let mut sums = vec![Sums::default(); n_edges];
        let mut index = Vec::with_capacity(self.segments.len() * WORDS);
        let mut writer = blobs.writer(key);
        let mut offset = 0;
        let written = |error| Error::file(std::path::Path::new(key), error);
        for (mut entry, bytes) in std::mem::take(&mut self.segments) {
            let bytes = match bytes {
                Encoded::Held(bytes) => bytes,
                Encoded::Spilled { offset, length } => self.unspill(offset, length)?,
            };
            entry.offset = offset;
            offset += entry.length;
            writer.write_all(&bytes).await.map_err(written)?;
            sums[entry.edge as usize].add(&Sums {
                rows: entry.rows,
                segments: 1,
                xxh3: entry.xxh3,
            });
            let slot = u64::from(entry.edge) << 32 | u64::from(entry.partition);
            index.extend([
                slot,
                u64::from(entry.sequence),
                entry.offset,
                entry.length,
                entry.raw_bytes,
                entry.rows,
                entry.xxh3,
            ]);
        }
        let index: Vec<u8> = index
            .iter()
            .flat_map(|word: &u64| word.to_le_bytes())
            .collect();
        let index_xxh3 = xxh3_64(&index);
        writer.write_all(&index).await.map_err(written)?;
        let footer = [(index.len() / (WORDS * 8)) as u64, MAGIC]
            .map(u64::to_le_bytes)
            .concat();
        writer.write_all(&footer).await.map_err(written)?;
        writer.shutdown().await.map_err(written)?;
        let bytes = offset + index.len() as u64 + footer.len() as u64;
        Ok((
            ObjectRef {
                key: key.to_owned(),
                bytes,
                index_xxh3,
            },
            sums,
        ))
    }

    fn unspill(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let file = self.spill.as_ref().expect("what was spilled has a file");
        let mut bytes = vec![0; usize::try_from(length).expect("segments fit in memory")];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|error| Error::file(&self.spill_folder, error))?;
        Ok(bytes)
    }
}

type Index = Arc<Vec<Entry>>;

/// Reads shuffle objects of a job; each index is read once, whoever asks.
#[derive(Clone)]
pub struct ObjectReader {
    blobs: Blobs,
    indices: Arc<Mutex<HashMap<String, Index>>>,
}

/// Bytes of one segment as they lie in the store, with what its index says of them.
struct Raw {
    entry: Entry,
    place: Place,
    bytes: Bytes,
}

impl ObjectReader {
    /// A reader on `blobs`.
    pub fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            indices: Arc::default(),
        }
    }

    async fn index(&self, object: &ObjectRef) -> Result<Index> {
        if let Some(index) = lock(&self.indices).get(&object.key) {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(self.read_index(object).await?);
        lock(&self.indices).insert(object.key.clone(), Arc::clone(&index));
        Ok(index)
    }

    async fn read_index(&self, object: &ObjectRef) -> Result<Vec<Entry>> {
        let damaged = |message: &str| Error::Damaged {
            place: format!("object `{}`", object.key),
            message: message.into(),
        };
        if object.bytes < 16 {
            return Err(damaged("it is shorter than its footer"));
        }
        let footer = self
            .blobs
            .get_range(&object.key, object.bytes - 16..object.bytes)
            .await?;
        let words = words(&footer);
        let [entries, MAGIC] = words[..] else {
            return Err(damaged("its footer is wrong"));
        };
        let index_bytes = entries
            .checked_mul((WORDS * 8) as u64)
            .filter(|bytes| bytes + 16 <= object.bytes)
            .ok_or_else(|| damaged("its footer is wrong"))?;
        let start = object.bytes - 16 - index_bytes;
        let index = self
            .blobs
            .get_range(&object.key, start..object.bytes - 16)
            .await?;
        if xxh3_64(&index) != object.index_xxh3 {
            return Err(damaged(
                "the checksum of its index differs from the commit's",
            ));
        }
        Ok(self::words(&index).chunks_exact(WORDS).map(entry).collect())
    }

    /// The same reader, asking by way of `blobs`.
    pub fn with_blobs(&self, blobs: &Blobs) -> Self {
        Self {
            blobs: blobs.clone(),
            indices: Arc::clone(&self.indices),
        }
    }

    /// The segments of `partition` of `edge` in the object that `task` wrote, in order.
    ///
    /// Errors: `Damaged` if the index is.
    pub async fn segments(
        &self,
        object: &ObjectRef,
        task: u32,
        edge: u32,
        partition: u32,
    ) -> Result<Vec<Segment>> {
        let index = self.index(object).await?;
        let start =
            index.partition_point(|entry| (entry.edge, entry.partition) < (edge, partition));
        let same = index[start..]
            .iter()
            .take_while(|entry| (entry.edge, entry.partition) == (edge, partition));
        let segment = |entry: &Entry| Segment {
            entry: *entry,
            place: Place {
                task,
                partition,
                edge,
                sequence: entry.sequence,
            },
        };
        Ok(same.map(segment).collect())
    }

    /// The batches of a segment and its sums. `stage` names the writing stage in errors.
    ///
    /// Errors: `Damaged` if lengths or checksums differ from what was written; nothing is
    /// decompressed before they were found right.
    pub async fn read(
        &self,
        object: &ObjectRef,
        stage: &str,
        segment: &Segment,
    ) -> Result<(Vec<RecordBatch>, Sums)> {
        let Segment { entry, place } = *segment;
        let range = entry.offset..entry.offset.saturating_add(entry.length);
        let raw = Raw {
            entry,
            place,
            bytes: self.blobs.get_range(&object.key, range).await?,
        };
        raw.check(stage)?;
        Ok((raw.decode(stage)?, segment.sums()))
    }
}

/// One segment, as the index of its object tells it.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    entry: Entry,
    place: Place,
}

impl Segment {
    /// Bytes in the store.
    pub fn bytes(&self) -> u64 {
        self.entry.length
    }

    /// Bytes when it is decompressed.
    pub fn raw_bytes(&self) -> u64 {
        self.entry.raw_bytes
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.entry.rows
    }

    /// Position among the segments that its task wrote to the partition.
    pub fn sequence(&self) -> u32 {
        self.entry.sequence
    }

    /// Share of the segment in the sums of what was written.
    pub fn sums(&self) -> Sums {
        Sums {
            rows: self.entry.rows,
            segments: 1,
            xxh3: self.entry.xxh3,
        }
    }
}

impl Raw {
    fn damaged(&self, stage: &str, message: String) -> Error {
        let Place {
            task,
            partition,
            sequence,
            ..
        } = self.place;
        Error::Damaged {
            place: format!(
                "partition `{partition}` of stage `{stage}`, task {task}, segment {sequence}"
            ),
            message,
        }
    }

    fn check(&self, stage: &str) -> Result<()> {
        if self.bytes.len() as u64 != self.entry.length {
            return Err(self.damaged(
                stage,
                format!(
                    "{} bytes where {} were written",
                    self.bytes.len(),
                    self.entry.length
                ),
            ));
        }
        if xxh3_64_with_seed(&self.bytes, self.place.seed()) != self.entry.xxh3 {
            return Err(self.damaged(stage, "its checksum differs".into()));
        }
        Ok(())
    }

    fn decode(&self, stage: &str) -> Result<Vec<RecordBatch>> {
        let batches = segment::decode(&self.bytes, self.entry.raw_bytes)?;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        if rows != self.entry.rows {
            return Err(self.damaged(
                stage,
                format!("{rows} rows where {} were written", self.entry.rows),
            ));
        }
        Ok(batches)
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("chunks are 8 bytes")))
        .collect()
}

fn entry(words: &[u64]) -> Entry {
    Entry {
        edge: (words[0] >> 32) as u32,
        partition: (words[0] & u64::from(u32::MAX)) as u32,
        sequence: words[1] as u32,
        offset: words[2],
        length: words[3],
        raw_bytes: words[4],
        rows: words[5],
        xxh3: words[6],
    }
}

#[cfg(test)]
mod tests;
