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
    /// The same of the record that is being read, which counts once it is whole.
    record: BTreeMap<String, u64>,
    record_others: u64,
}

impl Unknown {
    pub(in crate::scan) fn new(policy: UnknownFields) -> Self {
        Self {
            policy,
            by_path: BTreeMap::new(),
            others: 0,
            record: BTreeMap::new(),
            record_others: 0,
        }
    }

    pub(super) fn add(&mut self, path: String) {
        add_to(&mut self.record, &mut self.record_others, path, 1);
    }

    /// Counts values of a column that is passed over.
    pub(in crate::scan) fn add_values(&mut self, name: &str, values: u64) {
        add_to(&mut self.by_path, &mut self.others, name.to_owned(), values);
    }

    /// Counts what the record added, or forgets it where the record is bad.
    pub(super) fn end_record(&mut self, is_kept: bool) {
        let record = std::mem::take(&mut self.record);
        let others = std::mem::take(&mut self.record_others);
        if is_kept {
            self.others += others;
            for (path, count) in record {
                add_to(&mut self.by_path, &mut self.others, path, count);
            }
        }
    }

    /// Number of values that were passed over.
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

/// Counts values by path, as long as there is room for another path.
fn add_to(by_path: &mut BTreeMap<String, u64>, others: &mut u64, path: String, count: u64) {
    let has_room = by_path.len() < MAX_NAMED_KEYS;
    match by_path.get_mut(&path) {
        Some(known) => *known += count,
        None if has_room => {
            by_path.insert(path, count);
        }
        None => *others += count,
    }
}
