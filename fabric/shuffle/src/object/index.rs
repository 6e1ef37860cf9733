//! The end of a shuffle object, decoded: where its segments lie, and the keys of their first rows.

use weft_protocol::ObjectRef;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Entry, FIRST_KEY_BYTES_MAX, FOOTER_BYTES, FOOTER_WITH_KEYS_BYTES, MAGIC, MAGIC_WITH_KEYS, WORDS,
};
use crate::error::{Error, Result};

/// First keys of an object's segments, in the order of its index; none if the object has no keys.
pub(super) type FirstKeys = Vec<Vec<u8>>;

/// The place of an index, as the footer tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// First byte of the index.
    pub(super) start: u64,
    /// The byte after it and its keys.
    pub(super) end: u64,
    key_bytes: u64,
    has_keys: bool,
}

pub(super) fn damaged(object: &ObjectRef, message: impl Into<String>) -> Error {
    Error::Damaged {
        place: format!("object `{}`", object.key),
        message: message.into(),
    }
}

impl Layout {
    /// Reads the footer at the end of `tail`, the last bytes of the object: 24 or more, unless the object is shorter.
    pub(super) fn of(object: &ObjectRef, tail: &[u8]) -> Result<Self> {
        let wrong = || damaged(object, "its footer is wrong");
        let footer = FOOTER_WITH_KEYS_BYTES as usize;
        let footer = &tail[tail.len().saturating_sub(footer)..];
        // Words count from the end: what stands before a short footer need not be one.
        let words = words(&footer[footer.len() % 8..]);
        let (entries, key_bytes, footer_bytes) = match words[..] {
            [key_bytes, entries, MAGIC_WITH_KEYS] => (entries, key_bytes, FOOTER_WITH_KEYS_BYTES),
            [.., entries, MAGIC] => (entries, 0, FOOTER_BYTES),
            _ => return Err(wrong()),
        };
        let entry_bytes = entries.checked_mul((WORDS * 8) as u64);
        let index_bytes = entry_bytes.and_then(|bytes| bytes.checked_add(key_bytes));
        let end = object.bytes.checked_sub(footer_bytes).ok_or_else(wrong)?;
        let start = index_bytes.and_then(|bytes| end.checked_sub(bytes));
        Ok(Self {
            start: start.ok_or_else(wrong)?,
            end,
            key_bytes,
            has_keys: footer_bytes == FOOTER_WITH_KEYS_BYTES,
        })
    }

    /// Decodes the index and its keys, once their checksum was found right.
    pub(super) fn decode(
        &self,
        object: &ObjectRef,
        index: &[u8],
    ) -> Result<(Vec<Entry>, FirstKeys)> {
        let damaged = |message: &str| damaged(object, message);
        if xxh3_64(index) != object.index_xxh3 {
            return Err(damaged(
                "the checksum of its index differs from the commit's",
            ));
        }
        let key_bytes = usize::try_from(self.key_bytes).ok();
        let entry_bytes = key_bytes.and_then(|bytes| index.len().checked_sub(bytes));
        let entry_bytes = entry_bytes.ok_or_else(|| damaged("it is shorter than its index"))?;
        let (entries, keys) = index.split_at(entry_bytes);
        let entries: Vec<Entry> = words(entries).chunks_exact(WORDS).map(entry).collect();
        let keys = match self.has_keys {
            false => Vec::new(),
            true => first_keys(keys, entries.len()).ok_or_else(|| damaged("its keys are wrong"))?,
        };
        Ok((entries, keys))
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("chunks are 8 bytes")))
        .collect()
}

/// Takes keys apart that stand behind their lengths. Nothing if they are not `n` within their bound.
pub(super) fn first_keys(mut bytes: &[u8], n: usize) -> Option<FirstKeys> {
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
