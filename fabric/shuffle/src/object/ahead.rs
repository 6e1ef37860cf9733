//! Segments that a task reads out of one object, whose bytes may be on their way before they are used.
//!
//! ```text
//! segments │ 0 │ 1 │ 2 │   gap   │ 3 │ …
//!          └─ one request ─┘     └─ another one: a gap may be as long as a request is worth
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_protocol::ObjectRef;
use weft_store::{Background, Result};

use super::reader::{ObjectReader, Segment};

/// Bytes between two segments that are fetched with them: they take no longer than another request.
const GAP_BYTES_MAX: u64 = 128 << 10;
/// Bytes of one request for several segments.
const FETCH_BYTES_MAX: u64 = 2 << 20;
/// Unit of a room's bytes: semaphores count in 32 bits.
const ROOM_UNIT: u64 = 1 << 10;

/// Room for bytes that are fetched before they are used. Clones share it.
#[derive(Clone)]
pub struct FetchRoom(Arc<Semaphore>);

impl FetchRoom {
    /// Room for so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / ROOM_UNIT).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

/// The segments of one object that a task reads, in order, and the requests for the first of them.
pub struct ObjectSegments {
    task: u32,
    object: ObjectRef,
    segments: VecDeque<Segment>,
    fetches: VecDeque<Fetch>,
    /// Segments that the requests are for.
    n_fetched: usize,
    /// The tier has the object: nothing is fetched ahead.
    is_near: bool,
}

/// A request for segments that stand side by side.
struct Fetch {
    range: Range<u64>,
    n_segments: usize,
    arriving: Option<Background<Result<Bytes>>>,
    bytes: Option<Bytes>,
    _room: OwnedSemaphorePermit,
}

impl Fetch {
    /// The bytes of a segment. Nothing if the request failed: whoever asks by itself is told why.
    async fn bytes_of(&mut self, segment: &Segment) -> Option<Bytes> {
        if let Some(arriving) = self.arriving.take() {
            self.bytes = arriving.wait().await.flatten().ok();
        }
        let bytes = self.bytes.as_ref()?;
        let Range { start, end } = segment.range();
        let start = usize::try_from(start.checked_sub(self.range.start)?).ok()?;
        let end = usize::try_from(end.checked_sub(self.range.start)?).ok()?;
        (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
    }
}

impl ObjectSegments {
    /// The segments that are read of the object that `task` wrote.
    pub fn new(
        reader: &ObjectReader,
        task: u32,
        object: ObjectRef,
        segments: impl Into<VecDeque<Segment>>,
    ) -> Self {
        let tier = reader.blobs().tier();
        Self {
            task,
            is_near: tier.is_some_and(|tier| tier.has(&object.key)),
            object,
            segments: segments.into(),
            fetches: VecDeque::new(),
            n_fetched: 0,
        }
    }

    /// The task that wrote the object.
    pub fn task(&self) -> u32 {
        self.task
    }

    /// The object.
    pub fn object(&self) -> &ObjectRef {
        &self.object
    }

    /// The segment that is next.
    pub fn front(&self) -> Option<&Segment> {
        self.segments.front()
    }

    /// Asks for the next segments, as far as there is room. Returns whether more room would be used.
    pub fn fetch_ahead(&mut self, reader: &ObjectReader, room: &FetchRoom) -> bool {
        while !self.is_near && self.n_fetched < self.segments.len() {
            let (range, n_segments) = next_run(self.segments.iter().skip(self.n_fetched));
            let Some(permit) = room.take(range.end - range.start) else {
                return true;
            };
            let (blobs, key) = (reader.blobs().clone(), self.object.key.clone());
            let wanted = range.clone();
            let fetching = async move { blobs.get_range(&key, wanted).await };
            let Some(arriving) = reader.blobs().in_background(fetching) else {
                return false;
            };
            self.fetches.push_back(Fetch {
                range,
                n_segments,
                arriving: Some(arriving),
                bytes: None,
                _room: permit,
            });
            self.n_fetched += n_segments;
        }
        false
    }

    /// Takes the next segment, with its bytes if they were asked for.
    pub(super) async fn take(&mut self) -> Option<(Segment, Option<Bytes>)> {
        let segment = self.segments.pop_front()?;
        let Some(fetch) = self.fetches.front_mut() else {
            return Some((segment, None));
        };
        let bytes = fetch.bytes_of(&segment).await;
        fetch.n_segments -= 1;
        self.n_fetched -= 1;
        if fetch.n_segments == 0 {
            self.fetches.pop_front();
        }
        Some((segment, bytes))
    }
}

/// The range of the first segment and of those that are fetched with it, and how many they are.
fn next_run<'a>(mut segments: impl Iterator<Item = &'a Segment>) -> (Range<u64>, usize) {
    let Some(first) = segments.next() else {
        return (0..0, 0);
    };
    let (mut run, mut n) = (first.range(), 1);
    for segment in segments {
        let range = segment.range();
        let is_close = range.start >= run.end && range.start - run.end <= GAP_BYTES_MAX;
        if !is_close || range.end.saturating_sub(run.start) > FETCH_BYTES_MAX {
            break;
        }
        (run.end, n) = (range.end, n + 1);
    }
    (run, n)
}
