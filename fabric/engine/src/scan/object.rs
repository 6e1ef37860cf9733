//! Objects that are read in pieces, some of which are fetched ahead.
//!
//! ```text
//! expected:   ├──piece──┼──piece──┼──piece──┤        ├──piece──┤
//!             read now    fetched   fetched            later
//! elsewhere:  windows as large as what is asked for
//! ```

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Mutex;

use bytes::Bytes;
use weft_core::lock;
use weft_store::{Fetch, RemoteFile};

/// Bytes of one request, at most, of those that are expected.
const PIECE_BYTES: u64 = 4 << 20;
/// The same, if many columns are read side by side.
const PIECE_BYTES_MIN: u64 = 256 << 10;
/// Bytes of one request elsewhere, at least.
const WINDOW_BYTES: u64 = 64 << 10;
/// Bytes at the end of a file, where most footers are whole.
const END_BYTES: u64 = 64 << 10;
/// Gap between two ranges that are read as one.
const GAP_BYTES: u64 = 64 << 10;
/// Pieces that are fetched ahead of the one that is read.
const PIECES_AHEAD: usize = 3;
/// Bytes of pieces that are kept of ranges that are read side by side; more if one piece of each needs it.
const KEPT_BYTES: u64 = 32 << 20;

/// One object, and what of it is in memory.
pub(super) struct Object {
    file: RemoteFile,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Expected ranges in the order of the object; none overlaps another.
    pieces: Vec<Range<u64>>,
    /// Pieces that are on their way, by position.
    fetches: BTreeMap<usize, Fetch>,
    /// Pieces that came, with the tick of their last use.
    kept: BTreeMap<usize, (u64, Bytes)>,
    kept_bytes: u64,
    kept_bytes_max: u64,
    ticks: u64,
    /// Pieces that were read, which earn fetches ahead.
    n_read: usize,
    /// The bytes that were read last elsewhere, after the position where they begin.
    window: Option<(u64, Bytes)>,
    /// Why bytes did not come.
    failure: Option<(ErrorKind, String)>,
}

impl Object {
    pub(super) fn new(file: RemoteFile) -> Self {
        Self {
            file,
            state: Mutex::default(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    pub(super) fn expect_in_order(&self, range: Range<u64>) {
        // One piece at a time is read, and none again.
        self.expect(vec![range], PIECE_BYTES, 0);
    }

    pub(super) fn expect_end(&self) {
        let bytes = self.bytes();
        let end = bytes.saturating_sub(END_BYTES)..bytes;
        self.expect(vec![end], PIECE_BYTES, END_BYTES);
        let mut state = lock(&self.state);
        self.fetch_ahead(&mut state, 0, 1);
    }

    pub(super) fn expect_side_by_side(&self, ranges: Vec<Range<u64>>) {
        let n = u64::try_from(ranges.len()).unwrap_or(u64::MAX).max(1);
        let piece = (KEPT_BYTES / n).clamp(PIECE_BYTES_MIN, PIECE_BYTES);
        self.expect(ranges, piece, KEPT_BYTES.max(n.saturating_mul(piece)));
    }

    fn expect(&self, ranges: Vec<Range<u64>>, piece_bytes: u64, kept_bytes_max: u64) {
        let pieces = pieces(ranges, self.bytes(), piece_bytes);
        // What was on its way for earlier expectations stops.
        let mut state = lock(&self.state);
        *state = State {
            pieces,
            kept_bytes_max,
            failure: state.failure.take(),
            ..State::default()
        };
    }

    pub(super) fn failure(&self) -> Option<io::Error> {
        let failure = lock(&self.state).failure.clone();
        failure.map(|(kind, text)| io::Error::new(kind, text))
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if buffer.is_empty() || offset >= self.bytes() {
            return Ok(0);
        }
        let (start, bytes) = self.around(offset, buffer.len())?;
        let from = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let there = bytes.get(from..).unwrap_or_default();
        let read = there.len().min(buffer.len());
        buffer[..read].copy_from_slice(&there[..read]);
        Ok(read)
    }

    /// Bytes of a range, copied if it lies in several pieces. Errors: `UnexpectedEof` if the object ends before.
    pub(super) fn slice(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.bytes()) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let (start, bytes) = self.around(offset, length)?;
        let from = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let to = from.saturating_add(length);
        if to <= bytes.len() {
            return Ok(bytes.slice(from..to));
        }
        let mut whole = vec![0; length];
        let mut filled = 0;
        while filled < length {
            filled += self.read_at(&mut whole[filled..], offset + filled as u64)?;
        }
        Ok(whole.into())
    }

    /// The piece or window that holds a position, and where it begins.
    fn around(&self, offset: u64, wanted: usize) -> io::Result<(u64, Bytes)> {
        let mut state = lock(&self.state);
        let found = match state.piece_of(offset) {
            Some(piece) => self.piece(&mut state, piece),
            None => self.window(&mut state, offset, wanted),
        };
        found.inspect_err(|error| state.failure = Some((error.kind(), error.to_string())))
    }

    fn piece(&self, state: &mut State, piece: usize) -> io::Result<(u64, Bytes)> {
        let start = state.pieces[piece].start;
        state.ticks += 1;
        let tick = state.ticks;
        if let Some((used, bytes)) = state.kept.get_mut(&piece) {
            *used = tick;
            return Ok((start, bytes.clone()));
        }
        // Whoever reads one piece of a file may want no more.
        let ahead = state.n_read.min(PIECES_AHEAD);
        self.fetch_ahead(state, piece, 1 + ahead);
        state.n_read += 1;
        let fetch = state.fetches.remove(&piece);
        let fetch = fetch.ok_or_else(|| io::Error::from(ErrorKind::TimedOut))?;
        let bytes = fetch.wait()?;
        state.keep(piece, tick, bytes.clone());
        Ok((start, bytes))
    }

    /// Begins to fetch pieces that are neither there nor on their way.
    fn fetch_ahead(&self, state: &mut State, first: usize, n: usize) {
        let last = first.saturating_add(n).min(state.pieces.len());
        for piece in first..last {
            if !state.kept.contains_key(&piece) && !state.fetches.contains_key(&piece) {
                let fetch = self.file.fetch(state.pieces[piece].clone());
                state.fetches.insert(piece, fetch);
            }
        }
    }

    fn window(&self, state: &mut State, offset: u64, wanted: usize) -> io::Result<(u64, Bytes)> {
        if let Some((start, bytes)) = &state.window
            && (*start..*start + bytes.len() as u64).contains(&offset)
        {
            return Ok((*start, bytes.clone()));
        }
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        let end = offset.saturating_add(wanted.max(WINDOW_BYTES));
        let end = end.min(self.bytes());
        // Behind it lies what is fetched anyway.
        let end = end.min(state.next_piece(offset));
        let bytes = self.file.fetch(offset..end).wait()?;
        state.window = Some((offset, bytes.clone()));
        Ok((offset, bytes))
    }
}

impl State {
    /// The expected piece that holds a position.
    fn piece_of(&self, offset: u64) -> Option<usize> {
        let behind = self.pieces.partition_point(|piece| piece.start <= offset);
        let piece = behind.checked_sub(1)?;
        self.pieces[piece].contains(&offset).then_some(piece)
    }

    /// Returns where the next expected piece begins.
    fn next_piece(&self, offset: u64) -> u64 {
        let behind = self.pieces.partition_point(|piece| piece.start <= offset);
        self.pieces
            .get(behind)
            .map_or(u64::MAX, |piece| piece.start)
    }

    /// Keeps a piece; others go if they are too large together, those first that were not used for longest.
    fn keep(&mut self, piece: usize, tick: u64, bytes: Bytes) {
        self.kept_bytes += bytes.len() as u64;
        self.kept.insert(piece, (tick, bytes));
        while self.kept.len() > 1 && self.kept_bytes > self.kept_bytes_max {
            let by_use = self.kept.iter().min_by_key(|(_, (used, _))| *used);
            let Some(oldest) = by_use.map(|(piece, _)| *piece) else {
                return;
            };
            if let Some((_, bytes)) = self.kept.remove(&oldest) {
                self.kept_bytes -= bytes.len() as u64;
            }
        }
    }
}

/// Ranges in the order of the object, within it, near ones together and large ones cut.
fn pieces(mut ranges: Vec<Range<u64>>, bytes: u64, piece_bytes: u64) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let (mut start, end) = (range.start, range.end.min(bytes));
        if let Some(last) = pieces.last_mut() {
            start = start.max(last.end);
            let is_near = start - last.end <= GAP_BYTES;
            if start < end && is_near && end - last.start <= piece_bytes {
                last.end = end;
                continue;
            }
        }
        while start < end {
            let cut = start.saturating_add(piece_bytes).min(end);
            pieces.push(start..cut);
            start = cut;
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
