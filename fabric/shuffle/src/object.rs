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
use crate::ranges::Mark;
use crate::segment;

mod shared;

use self::shared::{PartsOf, RangesOf};

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
    /// The object appears atomically. Not cancel-safe: a dropped future may leave staged parts,
    /// which the job's clean-up removes.
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
        let mut writer = blobs.writer(key);
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
            writer.write_all(&bytes).await.map_err(written)?;
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
        writer.write_all(&index).await.map_err(written)?;
        let footer: Vec<u8> = footer.into_iter().flat_map(u64::to_le_bytes).collect();
        writer.write_all(&footer).await.map_err(written)?;
        writer.shutdown().await.map_err(written)?;
        let bytes = offset + index.len() as u64 + footer.len() as u64;
        let object = ObjectRef {
            key: key.to_owned(),
            bytes,
            index_xxh3,
        };
        Ok((object, sums))
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

/// First keys of an object's segments, in the order of its index; none if the object has no keys.
type FirstKeys = Vec<Vec<u8>>;

/// Reads shuffle objects of a job; each index is read once, whoever asks.
#[derive(Clone)]
pub struct ObjectReader {
    blobs: Blobs,
    indices: Arc<Mutex<HashMap<String, Index>>>,
    ranges: Arc<Mutex<RangesOf>>,
    parts: Arc<Mutex<PartsOf>>,
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
            ranges: Arc::default(),
            parts: Arc::default(),
        }
    }

    async fn index(&self, object: &ObjectRef) -> Result<Index> {
        if let Some(index) = lock(&self.indices).get(&object.key) {
            return Ok(Arc::clone(index));
        }
        let (index, _) = self.read_index(object).await?;
        Ok(self.keep_index(object, index))
    }

    fn keep_index(&self, object: &ObjectRef, index: Vec<Entry>) -> Index {
        let index = Arc::new(index);
        lock(&self.indices).insert(object.key.clone(), Arc::clone(&index));
        index
    }

    async fn read_index(&self, object: &ObjectRef) -> Result<(Vec<Entry>, FirstKeys)> {
        let damaged = |message: &str| Error::Damaged {
            place: format!("object `{}`", object.key),
            message: message.into(),
        };
        if object.bytes < FOOTER_BYTES {
            return Err(damaged("it is shorter than its footer"));
        }
        let footer = object.bytes - object.bytes.min(FOOTER_WITH_KEYS_BYTES)..object.bytes;
        let footer = self.blobs.get_range(&object.key, footer).await?;
        // Words count from the end: what stands before a short footer need not be one.
        let words = words(&footer[footer.len() % 8..]);
        let (entries, key_bytes, footer_bytes) = match words[..] {
            [key_bytes, entries, MAGIC_WITH_KEYS] => (entries, key_bytes, FOOTER_WITH_KEYS_BYTES),
            [.., entries, MAGIC] => (entries, 0, FOOTER_BYTES),
            _ => return Err(damaged("its footer is wrong")),
        };
        let entry_bytes = entries.checked_mul((WORDS * 8) as u64);
        let index_bytes = entry_bytes.and_then(|bytes| bytes.checked_add(key_bytes));
        let end = object.bytes - footer_bytes;
        let start = index_bytes.and_then(|bytes| end.checked_sub(bytes));
        let start = start.ok_or_else(|| damaged("its footer is wrong"))?;
        let index = self.blobs.get_range(&object.key, start..end).await?;
        if xxh3_64(&index) != object.index_xxh3 {
            return Err(damaged(
                "the checksum of its index differs from the commit's",
            ));
        }
        let key_bytes = usize::try_from(key_bytes).ok();
        let entry_bytes = key_bytes.and_then(|bytes| index.len().checked_sub(bytes));
        let entry_bytes = entry_bytes.ok_or_else(|| damaged("it is shorter than its index"))?;
        let (entries, keys) = index.split_at(entry_bytes);
        let entries: Vec<Entry> = self::words(entries)
            .chunks_exact(WORDS)
            .map(entry)
            .collect();
        let keys = match footer_bytes {
            FOOTER_BYTES => Vec::new(),
            _ => first_keys(keys, entries.len()).ok_or_else(|| damaged("its keys are wrong"))?,
        };
        Ok((entries, keys))
    }

    /// The store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The same reader, asking by way of `blobs`.
    pub fn with_blobs(&self, blobs: &Blobs) -> Self {
        Self {
            blobs: blobs.clone(),
            indices: Arc::clone(&self.indices),
            ranges: Arc::clone(&self.ranges),
            parts: Arc::clone(&self.parts),
        }
    }

    /// The first key and the rows of each segment of a sorted edge with one partition, in order. They
    /// are read anew for each call: whoever computes ranges needs them once.
    ///
    /// Errors: `Damaged` if the index is, if it has no keys, or if they are not in order.
    pub async fn marks(&self, object: &ObjectRef, edge: u32) -> Result<Vec<Mark>> {
        let (index, mut keys) = self.read_index(object).await?;
        let index = self.keep_index(object, index);
        keys.resize(index.len(), Vec::new());
        let mut marks: Vec<Mark> = Vec::new();
        for (entry, key) in index.iter().zip(keys) {
            if (entry.edge, entry.partition) != (edge, 0) {
                continue;
            }
            let is_next = marks.last().is_none_or(|last| last.key <= key);
            if key.is_empty() || !is_next || entry.sequence as usize != marks.len() {
                return Err(Error::Damaged {
                    place: format!("object `{}`", object.key),
                    message: "the first keys of its segments are missing or not in order".into(),
                });
            }
            marks.push(Mark {
                key,
                sequence: entry.sequence,
                rows: entry.rows,
            });
        }
        Ok(marks)
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

    /// Partition of its edge.
    pub fn partition(&self) -> u32 {
        self.place.partition
    }

    /// Position among the segments that its task wrote to the partition.
    pub fn sequence(&self) -> u32 {
        self.entry.sequence
    }

    /// Share of the segment in the sums of what was written.
    pub fn sums(&self) -> Sums {
        self.entry.sums()
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

/// Takes keys apart that stand behind their lengths. Nothing if they are not `n` within their bound.
fn first_keys(mut bytes: &[u8], n: usize) -> Option<FirstKeys> {
    let mut keys = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (key, rest) = rest.split_at_checked(length)?;
        if length > FIRST_KEY_BYTES_MAX || keys.len() == n {
            return None;
        }
        keys.push(key.to_vec());
        bytes = rest;
    }
    (bytes.is_empty() && keys.len() == n).then_some(keys)
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
