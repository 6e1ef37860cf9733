//! Keys of JSON records that no column has.

use weft_core::job::UnknownFields;

/// Keys that are counted by name; further ones are counted together.
const MAX_NAMED_KEYS: usize = 64;
/// Keys that a summary names.
const MAX_SHOWN_KEYS: usize = 8;

/// Values that were passed over, by the path of their key.
pub(crate) struct Unknown {
    pub(super) policy: UnknownFields,
    /// Paths and the values that count, in the order in which they were found.
    by_path: Vec<(String, u64)>,
    others: u64,
    /// Positions among them of the keys of the record that is being read, which count once it is whole.
    record: Vec<usize>,
    record_others: u64,
}

impl Unknown {
    pub(in crate::scan) fn new(policy: UnknownFields) -> Self {
        Self {
            policy,
            by_path: Vec::new(),
            others: 0,
            record: Vec::new(),
            record_others: 0,
        }
    }

    /// Adds a value of the record that is being read.
    pub(super) fn add(&mut self, path: &str) {
        let likely = self.record.last().map_or(0, |last| last + 1);
        match self.position(path, likely) {
            Some(position) => self.record.push(position),
            None => self.record_others += 1,
        }
    }

    /// Counts values of a column that is passed over.
    pub(in crate::scan) fn add_values(&mut self, name: &str, values: u64) {
        if values == 0 {
            return;
        }
        match self.position(name, 0) {
            Some(position) => self.by_path[position].1 += values,
            None => self.others += values,
        }
    }

    /// The position of a path, which gets one if there is room. Records mostly have their keys in one order, so
    /// `likely` is looked at first.
    fn position(&mut self, path: &str, likely: usize) -> Option<usize> {
        let is_it = |(known, _): &(String, u64)| known == path;
        if self.by_path.get(likely).is_some_and(is_it) {
            return Some(likely);
        }
        let known = self.by_path.iter().position(is_it);
        if known.is_none() && self.by_path.len() < MAX_NAMED_KEYS {
            self.by_path.push((path.to_owned(), 0));
            return Some(self.by_path.len() - 1);
        }
        known
    }

    /// Counts what the record added, or forgets it where the record is bad.
    pub(super) fn end_record(&mut self, is_kept: bool) {
        let others = std::mem::take(&mut self.record_others);
        if is_kept {
            self.others += others;
            for position in &self.record {
                self.by_path[*position].1 += 1;
            }
        }
        self.record.clear();
        // Paths that a bad record was the first to have make room again.
        while self.by_path.pop_if(|(_, count)| *count == 0).is_some() {}
    }

    /// Number of values that were passed over.
    pub(crate) fn count(&self) -> u64 {
        let named = self.by_path.iter().map(|(_, count)| count);
        named.sum::<u64>() + self.others
    }

    /// The keys that stood most often, for people; nothing where there are none.
    pub(crate) fn summary(&self) -> Option<String> {
        let mut keys: Vec<_> = self.by_path.iter().collect();
        keys.sort_by_key(|(path, count)| (std::cmp::Reverse(*count), path));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_bad_records_take_up_no_room() {
        let mut unknown = Unknown::new(UnknownFields::Ignore);
        let mut record = |prefix: &str, keys: usize, is_kept: bool| {
            (0..keys).for_each(|key| unknown.add(&format!("{prefix}{key}")));
            unknown.end_record(is_kept);
            (unknown.count(), unknown.summary())
        };
        assert_eq!(record("bad", MAX_NAMED_KEYS + 1, false), (0, None));
        assert_eq!(record("a", 2, true), (2, Some("`a0` (1), `a1` (1)".into())));
        let (count, summary) = record("a", MAX_NAMED_KEYS + 1, true);
        assert_eq!(count, 2 + MAX_NAMED_KEYS as u64 + 1);
        let summary = summary.expect("there are some");
        assert!(
            summary.starts_with("`a0` (2), `a1` (2), `a10` (1)") && summary.ends_with(", .."),
            "{summary}"
        );
    }
}
