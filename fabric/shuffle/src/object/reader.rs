//! The reading side of shuffle objects: indexes, read once, and segments, checked before they are decoded.
//!
//! A bucket's object is read from its copy in the node's tier first. A damaged copy is forgotten, and the store asked.
//! The store is asked twice before an object counts as damaged.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use bytes::Bytes;
use tokio::sync::OnceCell;
use weft_core::lock;
use weft_protocol::{ObjectRef, Sums};
use weft_store::Blobs;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ahead::ObjectSegments;
use super::index::{FirstKeys, Layout, damaged};
use super::shared::{PartsOf, RangesOf};
use super::{Entry, Place};
use crate::error::{Error, Result};
use crate::ranges::Mark;
use crate::segment;

/// Bytes of an object that is copied into the tier whole when its index is read: one request serves all readers of the
/// node.
const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// Bytes at the end of an object that are asked for at once: most indexes are within.
const TAIL_BYTES: u64 = 64 << 10;

type Index = Arc<Vec<Entry>>;

/// Indexes by object. Whoever comes while one is read waits for it.
type Indices = HashMap<String, Arc<OnceCell<Index>>>;

/// The side that bytes are read from.
#[derive(Clone, Copy)]
enum Side {
    Tier,
    Store,
}

/// Reads shuffle objects of a job; each index is read once, whoever asks.
#[derive(Clone)]
pub struct ObjectReader {
    pub(super) blobs: Blobs,
    indices: Arc<Mutex<Indices>>,
    pub(super) ranges: Arc<Mutex<RangesOf>>,
    pub(super) parts: Arc<Mutex<PartsOf>>,
    /// Key of an object that the store does not have as it was written, the first that was found.
    lost: Arc<Mutex<Option<String>>>,
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
            lost: Arc::default(),
        }
    }

    /// Reads the index of an object, unless it was read before.
    ///
    /// Errors: `Damaged` if the index is.
    pub async fn prepare(&self, object: &ObjectRef) -> Result<()> {
        self.index(object).await.map(drop)
    }

    /// The index of an object.
    pub(super) async fn index(&self, object: &ObjectRef) -> Result<Index> {
        let cell = self.cell(object);
        if let Some(index) = cell.get() {
            return Ok(Arc::clone(index));
        }
        // In the background: streams of one task are pulled in turn, and one that is not pulled must not keep others
        // waiting for the same index.
        let (reader, wanted) = (self.clone(), object.clone());
        let reading = self
            .blobs
            .in_background(async move { reader.index_once(&wanted).await });
        match reading {
            Some(reading) => reading.wait().await?,
            None => self.index_once(object).await,
        }
    }

    async fn index_once(&self, object: &ObjectRef) -> Result<Index> {
        let cell = self.cell(object);
        let read = || async {
            let read = self.read_index(object).await;
            read.map(|(index, _)| Arc::new(index))
        };
        cell.get_or_try_init(read).await.cloned()
    }

    fn cell(&self, object: &ObjectRef) -> Arc<OnceCell<Index>> {
        let mut indices = lock(&self.indices);
        Arc::clone(indices.entry(object.key.clone()).or_default())
    }

    /// Reads an index with its keys.
    pub(super) async fn read_index(&self, object: &ObjectRef) -> Result<(Vec<Entry>, FirstKeys)> {
        if let Some(tier) = self.blobs.tier() {
            let is_there = tier.has(&object.key)
                || (object.bytes <= WHOLE_BYTES_MAX && self.copied(object).await?);
            if is_there {
                match self.index_from(Side::Tier, object).await {
                    Ok(read) => return Ok(read),
                    Err(_) => tier.forget(&object.key),
                }
            }
        }
        match self.index_from(Side::Store, object).await {
            Err(Error::Damaged { .. }) => {}
            Ok(read) => return Ok(read),
            Err(error) => return Err(self.of_store(object, error).await),
        }
        match self.index_from(Side::Store, object).await {
            Ok(read) => Ok(read),
            Err(error) => Err(self.of_store(object, error).await),
        }
    }

    async fn copied(&self, object: &ObjectRef) -> Result<bool> {
        match self.blobs.copy_to_tier(&object.key, object.bytes).await {
            Ok(copied) => Ok(copied),
            Err(error) => Err(self.of_store(object, error.into()).await),
        }
    }

    async fn index_from(&self, from: Side, object: &ObjectRef) -> Result<(Vec<Entry>, FirstKeys)> {
        let tail = object.bytes.saturating_sub(TAIL_BYTES)..object.bytes;
        let first = tail.start;
        let tail = self.bytes(from, object, tail).await?;
        let layout = Layout::of(object, &tail)?;
        let index = match layout.start.checked_sub(first) {
            // Both lie within the tail, whose length was checked.
            Some(start) => tail.slice(start as usize..(layout.end - first) as usize),
            None => self.bytes(from, object, layout.start..layout.end).await?,
        };
        layout.decode(object, &index)
    }

    /// A range of an object, as many bytes as it has.
    async fn bytes(&self, from: Side, object: &ObjectRef, range: Range<u64>) -> Result<Bytes> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = match from {
            Side::Tier => {
                let tier = self.blobs.tier();
                let read = tier.and_then(|tier| tier.read(&object.key, range));
                read.ok_or_else(|| damaged(object, "its copy is gone"))?
            }
            Side::Store => self.blobs.get_range(&object.key, range).await?,
        };
        match bytes.len() as u64 {
            n if n == wanted => Ok(bytes),
            n => Err(damaged(object, format!("it has {n} of {wanted} bytes"))),
        }
    }

    /// The error of what was read from the store. If the object is not there as it was written, it is recorded as lost.
    async fn of_store(&self, object: &ObjectRef, error: Error) -> Error {
        let error = match error {
            // Ranges past the end of an object are refused in many ways.
            Error::Store(source) => match self.blobs.size(&object.key).await {
                Ok(None) => damaged(object, "the store does not have it"),
                Ok(Some(n)) if n != object.bytes => {
                    let written = object.bytes;
                    damaged(
                        object,
                        format!("it has {n} bytes where {written} were written"),
                    )
                }
                Ok(Some(_)) | Err(_) => Error::Store(source),
            },
            error => error,
        };
        if let Error::Damaged { .. } = error {
            lock(&self.lost).get_or_insert_with(|| object.key.clone());
        }
        error
    }

    /// The key of an object that the store does not have as it was written, if this reader has met one.
    pub fn lost(&self) -> Option<String> {
        lock(&self.lost).clone()
    }

    /// The store.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// The same reader, asking by way of `blobs`, with losses of its own.
    pub fn with_blobs(&self, blobs: &Blobs) -> Self {
        Self {
            blobs: blobs.clone(),
            indices: Arc::clone(&self.indices),
            ranges: Arc::clone(&self.ranges),
            parts: Arc::clone(&self.parts),
            lost: Arc::default(),
        }
    }

    /// The first key and the rows of each segment of a sorted edge with one partition, in order. They
    /// are read anew for each call: whoever computes ranges needs them once.
    ///
    /// Errors: `Damaged` if the index is, if it has no keys, or if they are not in order.
    pub async fn marks(&self, object: &ObjectRef, edge: u32) -> Result<Vec<Mark>> {
        let (index, mut keys) = self.read_index(object).await?;
        let index = Arc::new(index);
        // Another reader may have been first, and has read the same.
        let _ = self.cell(object).set(Arc::clone(&index));
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
        let raw = self.checked(object, stage, segment, None).await?;
        Ok((raw.decode(stage)?, segment.sums()))
    }

    /// The next segment of an object with its batches, as [`read`](Self::read) gives them. Nothing if all were read.
    pub async fn read_next(
        &self,
        stage: &str,
        of: &mut ObjectSegments,
    ) -> Result<Option<(Segment, Vec<RecordBatch>)>> {
        let Some((segment, fetched)) = of.take().await else {
            return Ok(None);
        };
        let raw = self.checked(of.object(), stage, &segment, fetched);
        let raw = raw.await?;
        Ok(Some((segment, raw.decode(stage)?)))
    }

    /// The bytes of a segment, found right: those that were `fetched`, those of the tier, or those of the store.
    async fn checked(
        &self,
        object: &ObjectRef,
        stage: &str,
        segment: &Segment,
        fetched: Option<Bytes>,
    ) -> Result<Raw> {
        let Segment { entry, place } = *segment;
        let raw = |bytes| Raw {
            entry,
            place,
            bytes,
        };
        if let Some(found) = fetched.map(raw).filter(|raw| raw.check(stage).is_ok()) {
            return Ok(found);
        }
        let tier = self.blobs.tier().filter(|tier| tier.has(&object.key));
        if let Some(tier) = tier {
            let read = self.bytes(Side::Tier, object, segment.range()).await;
            match read.ok().map(raw) {
                Some(found) if found.check(stage).is_ok() => return Ok(found),
                _ => tier.forget(&object.key),
            }
        }
        let range = segment.range();
        match self.blobs.get_range(&object.key, range.clone()).await {
            Ok(bytes) => {
                let found = raw(bytes);
                if found.check(stage).is_ok() {
                    return Ok(found);
                }
            }
            Err(error) => return Err(self.of_store(object, error.into()).await),
        }
        // What was damaged on the way is right this time.
        let again = self.blobs.get_range(&object.key, range).await;
        let again = again.map_err(Error::from).map(raw);
        match again.and_then(|found| found.check(stage).map(|()| found)) {
            Ok(found) => Ok(found),
            Err(error) => Err(self.of_store(object, error).await),
        }
    }
}

/// One segment, as the index of its object tells it.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    entry: Entry,
    place: Place,
}

impl Segment {
    /// Returns the range of the segment in its object.
    pub(super) fn range(&self) -> Range<u64> {
        self.entry.offset..self.entry.offset.saturating_add(self.entry.length)
    }

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
