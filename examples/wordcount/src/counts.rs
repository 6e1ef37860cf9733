use std::collections::HashMap;

use weft::BATCH_ROWS;
use weft::prelude::*;

use crate::split::bytes_at;

/// Words that a table holds before it must be drained, unless it is told: at most 8 MiB of slots, up to seven eighths of
/// which are taken.
pub(crate) const WORDS_MAX: usize = 1 << 18;

/// Bytes of long words that a table holds before it must be drained, give or take a word.
const LONG_BYTES_MAX: usize = 16 << 20;

/// Words that may be counted before a table must be drained: no count exceeds what a slot can hold.
const COUNTED_MAX: u32 = u32::MAX;

/// Slots of a table that has seen no word yet.
const SLOTS_MIN: usize = 1 << 12;

pub(crate) fn schema() -> Schema {
    Schema::new().utf8("word").i64("n")
}

/// How often each word occurred so far, in bounded memory: a hash table with open addressing for words of up to
/// [`Slot::BYTES_MAX`] bytes, which are most, and a map for longer ones.
///
/// Looking up a word costs what it takes to get its slot from memory: slots are as small as they can be.
pub(crate) struct Counts {
    /// As many as a power of two. A word is in the slot that its hash says, or in the next ones up to a free one.
    slots: Vec<Slot>,
    n_words: usize,
    words_max: usize,
    long: HashMap<Box<[u8]>, u32>,
    long_bytes: usize,
    n_counted: u32,
    /// Occurrences of words that were not UTF-8, as far as they have been drained.
    n_not_utf8: i64,
}

/// A short word and its count; all zeros where there is none.
#[derive(Clone, Copy, Default)]
#[repr(align(16))]
struct Slot {
    /// The first eight bytes, the first one lowest; 0 after the end of shorter words.
    head: u64,
    /// From the lowest: three more bytes, one more than the number of bytes, and four bytes of count.
    rest: u64,
}

impl Slot {
    const BYTES_MAX: usize = 11;

    /// Of a number of bytes, which of sixteen bytes are not beyond it.
    const MASKS: [[u64; 2]; Slot::BYTES_MAX + 1] = {
        let mut masks = [[0; 2]; Slot::BYTES_MAX + 1];
        let mut len = 1;
        while len <= Slot::BYTES_MAX {
            masks[len] = masks[len - 1];
            masks[len][(len - 1) / 8] |= 0xff << (8 * ((len - 1) % 8));
            len += 1;
        }
        masks
    };

    /// The slot of this word of the text, with no count. `None` for words that are too long.
    #[inline(always)]
    fn of(text: &[u8], start: usize, end: usize) -> Option<Slot> {
        let masks = Slot::MASKS.get(end - start)?;
        let sixteen = u128::from_le_bytes(bytes_at(text, start));
        Some(Slot {
            head: sixteen as u64 & masks[0],
            rest: (sixteen >> 64) as u64 & masks[1] | ((end - start + 1) as u64) << 24,
        })
    }

    fn is_free(self) -> bool {
        self.rest == 0
    }

    #[inline(always)]
    fn is_of_same_word(self, other: Slot) -> bool {
        self.head == other.head && self.rest as u32 == other.rest as u32
    }

    fn count(self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// The word and zeros, and how many bytes it has.
    fn word(self) -> ([u8; 16], usize) {
        let bytes = u128::from(self.head) | u128::from(self.rest & 0xff_ffff) << 64;
        (bytes.to_le_bytes(), (self.rest as u32 >> 24) as usize - 1)
    }

    /// Greater for words that come later.
    fn rank(self) -> (u64, u32) {
        (self.head.swap_bytes(), (self.rest as u32).swap_bytes())
    }

    /// A hash whose highest bits depend on all of the word. It is no shield against those who choose words to collide; what
    /// they slow down is their own task, up to its limit.
    #[inline(always)]
    fn hash(self) -> u64 {
        // 2 to the power of 64, divided by the golden ratio.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let hash = self.head.wrapping_mul(FACTOR) ^ u64::from(self.rest as u32);
        hash.wrapping_mul(FACTOR)
    }
}

impl Counts {
    pub(crate) fn new(words_max: usize) -> Counts {
        Counts {
            slots: vec![Slot::default(); SLOTS_MIN],
            n_words: 0,
            words_max,
            long: HashMap::new(),
            long_bytes: 0,
            n_counted: 0,
            n_not_utf8: 0,
        }
    }

    /// Counts a word of a text. Answers whether the table is full, and must be drained before the next word.
    #[inline(always)]
    pub(crate) fn add(&mut self, text: &[u8], start: usize, end: usize) -> bool {
        let Some(word) = Slot::of(text, start, end) else {
            return self.add_long(&text[start..end]);
        };
        let mut at = self.place(word);
        loop {
            let slot = &mut self.slots[at];
            if slot.is_of_same_word(word) {
                slot.rest += 1 << 32;
                break;
            }
            if slot.is_free() {
                return self.insert(at, word);
            }
            at = self.after(at);
        }
        self.n_counted += 1;
        self.n_counted == COUNTED_MAX
    }

    /// Puts a word where a slot is free. Answers whether the table is full then.
    #[cold]
    #[inline(never)]
    fn insert(&mut self, at: usize, word: Slot) -> bool {
        self.slots[at] = Slot {
            rest: word.rest | 1 << 32,
            ..word
        };
        self.n_words += 1;
        // Fuller tables are smaller, and what fits into the processor's cache is faster than fewer steps.
        if 8 * self.n_words >= 7 * self.slots.len() {
            self.grow();
        }
        self.n_counted += 1;
        self.n_counted == COUNTED_MAX || self.n_words + self.long.len() >= self.words_max
    }

    #[cold]
    #[inline(never)]
    fn add_long(&mut self, word: &[u8]) -> bool {
        if let Some(n) = self.long.get_mut(word) {
            *n += 1;
        } else {
            self.long.insert(word.into(), 1);
            self.long_bytes += word.len();
        }
        self.n_counted += 1;
        self.n_counted == COUNTED_MAX
            || self.n_words + self.long.len() >= self.words_max
            || self.long_bytes >= LONG_BYTES_MAX
    }

    fn grow(&mut self) {
        let twice = vec![Slot::default(); 2 * self.slots.len()];
        for slot in std::mem::replace(&mut self.slots, twice) {
            if slot.is_free() {
                continue;
            }
            let mut at = self.place(slot);
            while !self.slots[at].is_free() {
                at = self.after(at);
            }
            self.slots[at] = slot;
        }
    }

    #[inline(always)]
    fn place(&self, word: Slot) -> usize {
        (word.hash() >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    #[inline(always)]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Emits all words with their counts, and forgets them. They come in order, so that the host, which sorts what is
    /// shuffled, finds it sorted: comparing eight bytes at a time is cheaper here.
    pub(crate) fn drain(&mut self, out: &mut Output) -> Result<()> {
        let mut short: Vec<Slot> = self
            .slots
            .iter()
            .copied()
            .filter(|slot| !slot.is_free())
            .collect();
        short.sort_unstable_by_key(|slot| slot.rank());
        self.slots.fill(Slot::default());
        self.n_words = 0;
        self.n_counted = 0;
        self.long_bytes = 0;
        let mut long: Vec<_> = self.long.drain().collect();
        long.sort_unstable();
        let mut long = long.into_iter().peekable();
        let mut rows = Counted::default();
        for slot in short {
            let (bytes, len) = slot.word();
            while let Some((word, n)) = long.next_if(|(word, _)| word[..] < bytes[..len]) {
                rows.push(&word, n, out)?;
            }
            rows.push(&bytes[..len], slot.count(), out)?;
        }
        for (word, n) in long {
            rows.push(&word, n, out)?;
        }
        rows.emit(out)?;
        self.n_not_utf8 += rows.n_not_utf8;
        Ok(())
    }

    /// Occurrences of words that were not UTF-8, as far as they have been drained.
    pub(crate) fn n_not_utf8(&self) -> i64 {
        self.n_not_utf8
    }
}

/// Rows that go out.
#[derive(Default)]
struct Counted {
    words: Utf8Builder,
    counts: Vec<i64>,
    n_not_utf8: i64,
}

impl Counted {
    fn push(&mut self, word: &[u8], n: u32, out: &mut Output) -> Result<()> {
        match str::from_utf8(word) {
            Ok(word) => self.words.push(word),
            Err(_) => {
                self.n_not_utf8 += i64::from(n);
                self.words.push(&String::from_utf8_lossy(word));
            }
        }
        self.counts.push(n.into());
        if self.counts.len() >= BATCH_ROWS {
            self.emit(out)?;
        }
        Ok(())
    }

    fn emit(&mut self, out: &mut Output) -> Result<()> {
        if self.counts.is_empty() {
            return Ok(());
        }
        let counts = std::mem::take(&mut self.counts);
        out.emit(Batch::new(&schema(), [self.words.take(), counts.into()])?)
    }
}
