use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::Hasher;
use weft::prelude::*;

/// Distinct texts in the order in which they came first, each with a sum. A text costs no allocation of its own: all lie
/// in one builder, which can be handed over as a column.
#[derive(Default)]
pub(crate) struct Tally {
    texts: Utf8Builder,
    sums: Vec<i64>,
    places: HashTable<Place>,
}

/// Where a text is. Its hash is kept, so that most texts that differ need not be looked at.
struct Place {
    hash: u32,
    index: u32,
}

impl Tally {
    pub(crate) fn add(&mut self, text: &str, n: i64) {
        let hash = hash(text);
        let same =
            |place: &Place| place.hash == hash && self.texts.value(place.index as usize) == text;
        if let Some(place) = self.places.find(hash.into(), same) {
            self.sums[place.index as usize] += n;
            return;
        }
        let place = Place {
            hash,
            index: self.sums.len() as u32,
        };
        self.places
            .insert_unique(hash.into(), place, |place| place.hash.into());
        self.texts.push(text);
        self.sums.push(n);
    }

    pub(crate) fn len(&self) -> usize {
        self.sums.len()
    }

    pub(crate) fn text(&self, index: usize) -> &str {
        self.texts.value(index)
    }

    pub(crate) fn sum(&self, index: usize) -> i64 {
        self.sums[index]
    }

    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.texts.clear();
        self.sums.clear();
    }

    /// The texts and their sums, and forgets them.
    pub(crate) fn take(&mut self) -> (Column, Vec<i64>) {
        self.places.clear();
        (self.texts.take(), std::mem::take(&mut self.sums))
    }
}

fn hash(text: &str) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish() as u32
}
