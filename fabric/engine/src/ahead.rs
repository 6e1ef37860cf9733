//! Objects of the shuffle that a task reads in order: indexes and segments of the next ones are on their way while it
//! works, within a part of its memory.
//!
//! Nothing is fetched ahead if the store is a folder, or of objects that the node's tier has: their bytes are near.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::try_join_all;
use weft_core::Problem;
use weft_protocol::ObjectRef;
use weft_sandbox::{MemoryAccount, Reservation};
use weft_shuffle::{FetchRoom, ObjectReader, ObjectSegments, Segment};

use crate::sql_source::of_writer;

/// Part of a task's memory for what it fetches ahead.
const AHEAD_SHARE: u64 = 16;
/// Bytes of it: more than this brings nothing.
const AHEAD_BYTES_MAX: u64 = 32 << 20;
/// Objects whose indexes are read at a time, and whose segments may be on their way.
const OBJECTS_AHEAD: usize = 16;

/// Room for what a task fetches ahead. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Ahead {
    room: Option<FetchRoom>,
    /// All of the room, from the start: whether a task spills must not follow from what arrives when.
    _reserved: Option<Arc<Reservation>>,
}

impl Ahead {
    /// Takes room from the memory of a task. None if the store is a folder, or if there is no memory left.
    pub(crate) fn new(reader: &ObjectReader, account: &Arc<MemoryAccount>) -> Self {
        let bytes = (account.limit_bytes() / AHEAD_SHARE).min(AHEAD_BYTES_MAX);
        let remote = reader.blobs().remote();
        let Some(reserved) = remote.and_then(|_| account.try_reserve(bytes)) else {
            return Self::default();
        };
        Self {
            room: Some(FetchRoom::new(bytes)),
            _reserved: Some(Arc::new(reserved)),
        }
    }

    fn n_objects(&self) -> usize {
        match self.room {
            Some(_) => OBJECTS_AHEAD,
            None => 1,
        }
    }
}

/// Objects that are read in order, one segment after the other.
pub(crate) struct Upcoming {
    reader: ObjectReader,
    ahead: Ahead,
    /// The writing stage's name, for errors.
    from: String,
    /// Objects whose segments are not looked up, with the tasks that wrote them.
    waiting: VecDeque<(u32, ObjectRef)>,
    /// How many of them have their index read.
    n_prepared: usize,
    known: VecDeque<ObjectSegments>,
}

impl Upcoming {
    pub(crate) fn new(
        reader: &ObjectReader,
        ahead: &Ahead,
        from: &str,
        objects: impl Iterator<Item = (u32, ObjectRef)>,
    ) -> Self {
        Self {
            reader: reader.clone(),
            ahead: ahead.clone(),
            from: from.to_owned(),
            waiting: objects.collect(),
            n_prepared: 0,
            known: VecDeque::new(),
        }
    }

    /// Takes an object whose segments are to be [added](Self::add) now, with the task that wrote it. Nothing if enough
    /// are known.
    pub(crate) async fn unknown(&mut self) -> Result<Option<(u32, ObjectRef)>, Problem> {
        if self.known.len() >= self.ahead.n_objects() {
            return Ok(None);
        }
        if self.n_prepared == 0 && self.ahead.room.is_some() {
            let mut reads = Vec::with_capacity(OBJECTS_AHEAD);
            for (_, object) in self.waiting.iter().take(OBJECTS_AHEAD) {
                reads.push(self.reader.prepare(object));
            }
            let read = try_join_all(reads).await;
            self.n_prepared = read.map_err(|error| of_writer(&self.from, &error))?.len();
        }
        self.n_prepared = self.n_prepared.saturating_sub(1);
        Ok(self.waiting.pop_front())
    }

    /// Adds the segments that are read of an object.
    pub(crate) fn add(
        &mut self,
        (task, object): (u32, ObjectRef),
        segments: impl Into<VecDeque<Segment>>,
    ) {
        let segments = ObjectSegments::new(&self.reader, task, object, segments);
        self.known.push_back(segments);
    }

    /// Returns the segment that is next, with the task that wrote it. Objects before it have come to their end, which
    /// `ended` hears of.
    pub(crate) fn front(&mut self, mut ended: impl FnMut(u32)) -> Option<(u32, Segment)> {
        if let Some(room) = &self.ahead.room {
            for object in &mut self.known {
                if object.fetch_ahead(&self.reader, room) {
                    break;
                }
            }
        }
        while let Some(object) = self.known.front() {
            let task = object.task();
            if let Some(segment) = object.front() {
                return Some((task, *segment));
            }
            ended(task);
            self.known.pop_front();
        }
        None
    }

    /// Returns whether all objects have come to their end.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.waiting.is_empty()
    }

    /// Reads the segment that is next.
    pub(crate) async fn read(&mut self) -> Result<Vec<RecordBatch>, Problem> {
        let Some(object) = self.known.front_mut() else {
            return Ok(Vec::new());
        };
        let read = self.reader.read_next(&self.from, object).await;
        let read = read.map_err(|error| of_writer(&self.from, &error))?;
        Ok(read.map_or_else(Vec::new, |(_, batches)| batches))
    }
}
