use std::borrow::Cow;

use weft::BATCH_ROWS;
use weft::prelude::*;

use crate::split::number;

/// Words that a table holds before it must be drained, unless it is told: at most 16 MiB of slots, up to seven eighths of which are taken.
pub(crate) const WORDS_MAX: usize = 1 << 18;

/// Bytes of text that a table holds before it must be drained, give or take a word.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// Slots of a table that has seen no word yet.
const SLOTS_MIN: usize = 1 << 12;

pub(crate) fn schema() -> Schema {
    Schema::new().utf8("word").i64("n")
}

/// How often each word occurred so far: a hash table with open addressing, in bounded memory.
///
/// A slot holds the first and the last eight bytes of its word, which together with the length tell words of up to 16
/// bytes apart: of most words the text is never read.
pub(crate) struct Counts {
    /// As many as a power of two. A word is in the slot that its hash says, or in the next ones up to a free one.
    slots: Vec<Slot>,
    n_words: usize,
    words_max: usize,
    /// All words, one after the other.
    text: Vec<u8>,
    /// Occurrences of words that were not UTF-8, as far as they have been drained.
    n_not_utf8: i64,
}

/// A word and its count.
#[derive(Clone, Copy)]
struct Slot {
    /// The first eight bytes, the first one lowest; 0 after the end of shorter words.
    head: u64,
    /// The last eight bytes; 0 for shorter words.
    tail: u64,
    n: i64,
    /// Where the word is in the text.
    start: u32,
    len: u32,
}

/// No word is as long: a line is shorter.
const FREE: Slot = Slot {
    head: 0,
    tail: 0,
    n: 0,
    start: 0,
    len: u32::MAX,
};

impl Slot {
    fn is_free(&self) -> bool {
        self.len == FREE.len
    }

    fn text<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start as usize..][..self.len as usize]
    }
}

/// A word that is looked for.
struct Word<'a> {
    bytes: &'a [u8],
    head: u64,
    tail: u64,
}

impl<'a> Word<'a> {
    #[inline(always)]
    fn of(line: &'a [u8], start: usize, end: usize) -> Word<'a> {
        let bytes = &line[start..end];
        let (head, tail) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
            _ => (number(line, start, end), 0),
        };
        Word { bytes, head, tail }
    }

    #[inline(always)]
    fn is_in(&self, slot: &Slot, text: &[u8]) -> bool {
        slot.head == self.head
            && slot.tail == self.tail
            && slot.len as usize == self.bytes.len()
            && (self.bytes.len() <= 16 || slot.text(text) == self.bytes)
    }
}

/// A hash whose highest bits depend on all of the word. It is no shield against those who choose words to collide; what
/// they slow down is their own task, up to its limit.
#[inline(always)]
fn hash(head: u64, tail: u64, word: &[u8]) -> u64 {
    // 2 to the power of 64, divided by the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = head.wrapping_mul(FACTOR) ^ tail;
    hash = hash.wrapping_add(word.len() as u64).wrapping_mul(FACTOR);
    if word.len() > 16 {
        let (eights, _) = word[8..].as_chunks::<8>();
        for eight in eights {
            hash = (hash.rotate_left(32) ^ u64::from_le_bytes(*eight)).wrapping_mul(FACTOR);
        }
    }
    hash
}

impl Counts {
    pub(crate) fn new(words_max: usize) -> Counts {
        Counts {
            slots: vec![FREE; SLOTS_MIN],
            n_words: 0,
            words_max,
            text: vec![],
            n_not_utf8: 0,
        }
    }

    /// Counts a word of a line. Answers whether the table is full, and must be drained before the next word.
    #[inline(always)]
    pub(crate) fn add(&mut self, line: &[u8], start: usize, end: usize) -> bool {
        let word = Word::of(line, start, end);
        let mut at = self.place(hash(word.head, word.tail, word.bytes));
        loop {
            let slot = &mut self.slots[at];
            if word.is_in(slot, &self.text) {
                slot.n += 1;
                return false;
            }
            if slot.is_free() {
                return self.insert(at, &word);
            }
            at = self.after(at);
        }
    }

    /// Emits all words with their counts, and forgets them. They come in order, so that the host, which sorts what is
    /// shuffled, finds it sorted: comparing eight bytes at a time is cheaper here.
    pub(crate) fn drain(&mut self, out: &mut Output) -> Result<()> {
        for places in self.in_order().chunks(BATCH_ROWS) {
            let mut words = Utf8Builder::with_capacity(places.len(), 8 * places.len());
            let mut counts = Vec::with_capacity(places.len());
            for (_, at) in places {
                let slot = &self.slots[*at as usize];
                let word = String::from_utf8_lossy(slot.text(&self.text));
                if let Cow::Owned(_) = word {
                    self.n_not_utf8 += slot.n;
                }
                words.push(&word);
                counts.push(slot.n);
            }
            out.emit(Batch::new(&schema(), [words.into(), counts.into()])?)?;
        }
        self.slots.fill(FREE);
        self.n_words = 0;
        self.text.clear();
        Ok(())
    }

    /// Occurrences of words that were not UTF-8, as far as they have been drained.
    pub(crate) fn n_not_utf8(&self) -> i64 {
        self.n_not_utf8
    }

    /// The words' first eight bytes and slots, in the order of the words.
    fn in_order(&self) -> Vec<(u64, u32)> {
        let taken = (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| !slot.is_free());
        let mut order: Vec<_> = taken
            .map(|(at, slot)| (slot.head.swap_bytes(), at))
            .collect();
        let text = |at: u32| self.slots[at as usize].text(&self.text);
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| text(a.1).cmp(text(b.1))));
        order
    }

    /// Puts a word where a slot is free. Answers whether the table is full then.
    #[cold]
    #[inline(never)]
    fn insert(&mut self, at: usize, word: &Word<'_>) -> bool {
        self.slots[at] = Slot {
            head: word.head,
            tail: word.tail,
            n: 1,
            start: self.text.len() as u32,
            len: word.bytes.len() as u32,
        };
        self.text.extend_from_slice(word.bytes);
        self.n_words += 1;
        if self.n_words >= self.words_max || self.text.len() >= TEXT_BYTES_MAX {
            return true;
        }
        // Fuller tables are smaller, and what fits into the processor's cache is faster than fewer steps.
        if 8 * self.n_words >= 7 * self.slots.len() {
            self.grow();
        }
        false
    }

    fn grow(&mut self) {
        let twice = vec![FREE; 2 * self.slots.len()];
        for slot in std::mem::replace(&mut self.slots, twice) {
            if slot.is_free() {
                continue;
            }
            let mut at = self.place(hash(slot.head, slot.tail, slot.text(&self.text)));
            while !self.slots[at].is_free() {
                at = self.after(at);
            }
            self.slots[at] = slot;
        }
    }

    #[inline(always)]
    fn place(&self, hash: u64) -> usize {
        (hash >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    #[inline(always)]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}
