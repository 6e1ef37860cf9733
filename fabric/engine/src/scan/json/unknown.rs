//! Keys of JSON records that no column has.

use std::collections::BTreeMap;

use weft_core::job::UnknownFields;

/// Keys that are counted by name; further ones are counted together.
const MAX_NAMED_KEYS: usize = 64;
/// Keys that a summary names.
const MAX_SHOWN_KEYS: usize = 8;

/// Values that were passed over, by the path of their key.
pub(crate) struct Unknown {
    pub(super) policy: UnknownFields,
    by_path: BTreeMap<String, u64>,
    others: u64,
    /// Paths in the record that is being read, which count once it is whole.
    record: Vec<String>,
}

impl Unknown {
    pub(super) fn new(policy: UnknownFields) -> Self {
        Self {
            policy,
            by_path: BTreeMap::new(),
            others: 0,
            record: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, path: String) {
        self.record.push(path);
    }

    /// Counts what the record added, or forgets it where the record is bad.
    pub(super) fn end_record(&mut self, is_kept: bool) {
        for path in self.record.drain(..) {
            if !is_kept {
                continue;
            }
            let has_room = self.by_path.len() < MAX_NAMED_KEYS;
            match self.by_path.get_mut(&path) {
                Some(count) => *count += 1,
                None if has_room => {
                    self.by_path.insert(path, 1);
                }
                None => self.others += 1,
            }
        }
    }

    /// Values that were passed over.
    pub(crate) fn count(&self) -> u64 {
        self.by_path.values().sum::<u64>() + self.others
    }

    /// The keys that stood most often, for people; nothing where there are none.
    pub(crate) fn summary(&self) -> Option<String> {
        let mut keys: Vec<_> = self.by_path.iter().collect();
        keys.sort_by_key(|(path, count)| (std::cmp::Reverse(**count), *path));
        let shown = keys.iter().take(MAX_SHOWN_KEYS);
        let shown: Vec<String> = shown
            .map(|(path, count)| format!("`{}` ({count})", super::super::reason::shown(path)))
            .collect();
        let more = match keys.len() > MAX_SHOWN_KEYS || self.others > 0 {
            true => ", ..",
            false => "",
        };
        (!keys.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
    }
}
