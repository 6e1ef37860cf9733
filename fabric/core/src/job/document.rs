//! A JSON object that is read key by key, remembers which keys are known, and collects everything that is wrong.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::problem::FieldError;

/// Errors that are told of one document; what comes after is counted.
const ERRORS_MAX: usize = 100;
/// Bytes of an error's path, and of its message: both quote what the document says.
const TEXT_BYTES_MAX: usize = 512;

/// Everything that is wrong so far.
#[derive(Default)]
pub(super) struct Errors {
    pub(super) told: Vec<FieldError>,
    pub(super) untold: usize,
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    text
}

impl Errors {
    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Returns whether further errors are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.told.len() == ERRORS_MAX
    }

    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        self.add_with(path, message, None);
    }

    pub(super) fn add_with(
        &mut self,
        path: &str,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        if self.is_full() {
            self.untold += 1;
            return;
        }
        self.told.push(FieldError {
            path: cut(path.to_owned()),
            message: cut(message.into()),
            suggestion,
        });
    }
}

/// The candidate that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // Nobody mistypes a name of this length, and the distance takes time that grows with its square.
    const WORD_BYTES_MAX: usize = 64;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let candidates = candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= WORD_BYTES_MAX);
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let (best, away) = candidates
        .into_iter()
        .map(|candidate| (candidate, distance(candidate)))
        .min_by_key(|(_, away)| *away)?;
    (away <= 2.max(word.len() / 3)).then(|| best.to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// One table of the document.
pub(super) struct Table<'a> {
    pub(super) path: String,
    values: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// `value` as a table at `path`; says so when it is something else.
    pub(super) fn open(path: &str, value: &'a Value, errors: &mut Errors) -> Option<Self> {
        let Value::Object(values) = value else {
            errors.add(path, format!("must be a table, not {}", kind(value)));
            return None;
        };
        Some(Self {
            path: path.to_owned(),
            values,
            known: Vec::new(),
        })
    }

    /// The path of a key in this table.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.values.get(key)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.values.iter()
    }

    pub(super) fn text(&mut self, key: &'static str, errors: &mut Errors) -> Option<&'a str> {
        match self.get(key)? {
            Value::String(text) => Some(text),
            other => {
                errors.add(&self.at(key), format!("must be text, not {}", kind(other)));
                None
            }
        }
    }

    pub(super) fn required_text(
        &mut self,
        key: &'static str,
        errors: &mut Errors,
    ) -> Option<&'a str> {
        if !self.values.contains_key(key) {
            self.known.push(key);
            errors.add(&self.at(key), "is missing");
            return None;
        }
        self.text(key, errors)
    }

    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        errors: &mut Errors,
    ) -> Option<u64> {
        let value = self.get(key)?;
        let number = value.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            errors.add(
                &self.at(key),
                format!(
                    "must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                ),
            );
        }
        number
    }

    /// One text or a list of texts.
    pub(super) fn texts(&mut self, key: &'static str, errors: &mut Errors) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let texts = match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        };
        if texts.is_none() {
            errors.add(&self.at(key), "must be text or a list of texts");
        }
        texts
    }

    /// Names of columns, each once.
    pub(super) fn column_names(&mut self, key: &'static str, errors: &mut Errors) -> Vec<String> {
        let names = self.texts(key, errors).unwrap_or_default();
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(name.as_str())) {
            let what = format!("the column `{}` is there twice", name.escape_debug());
            errors.add(&self.at(key), what);
        }
        names
    }

    /// Text to text.
    pub(super) fn text_map(
        &mut self,
        key: &'static str,
        errors: &mut Errors,
    ) -> std::collections::BTreeMap<String, String> {
        let mut map = std::collections::BTreeMap::new();
        let Some(value) = self.get(key) else {
            return map;
        };
        let Some(table) = Table::open(&self.at(key), value, errors) else {
            return map;
        };
        for (name, value) in table.entries() {
            match value {
                Value::String(text) => {
                    map.insert(name.clone(), text.clone());
                }
                other => errors.add(
                    &table.at(name),
                    format!("must be text, not {}", kind(other)),
                ),
            }
        }
        map
    }

    /// The one of `choices` that `key` names.
    pub(super) fn choice(
        &mut self,
        key: &'static str,
        choices: &[&'static str],
        errors: &mut Errors,
    ) -> Option<&'static str> {
        let text = self.text(key, errors)?;
        if let Some(choice) = choices.iter().find(|choice| **choice == text) {
            return Some(choice);
        }
        let offered = choices.join("`, `");
        let message = format!("`{}` is not one of `{offered}`", text.escape_debug());
        errors.add_with(
            &self.at(key),
            message,
            nearest(text, choices.iter().copied()),
        );
        None
    }

    /// As [`Table::choice`], and reports a key that is missing.
    pub(super) fn required_choice(
        &mut self,
        key: &'static str,
        choices: &[&'static str],
        errors: &mut Errors,
    ) -> Option<&'static str> {
        self.required_text(key, errors)?;
        self.choice(key, choices, errors)
    }

    pub(super) fn flag(&mut self, key: &'static str, errors: &mut Errors) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.as_bool();
        if flag.is_none() {
            errors.add(
                &self.at(key),
                format!("must be `true` or `false`, not {}", kind(value)),
            );
        }
        flag
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, errors: &mut Errors) {
        for key in self
            .values
            .keys()
            .filter(|key| !self.known.contains(&key.as_str()))
        {
            let suggestion = nearest(key, self.known.iter().copied());
            errors.add_with(&self.at(key), format!("unknown key `{key}`"), suggestion);
        }
    }
}
