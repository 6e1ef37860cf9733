//! Walks through a record with a strict parser, and pushes what it finds into columns.

use std::borrow::Cow;
use std::fmt;

use arrow::datatypes::FieldRef;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use weft_core::job::UnknownFields;

use super::MAX_CELLS;
use super::column::{Column, Members, Scalar, Values};
use super::unknown::Unknown;
use crate::scan::reason::shown;

/// State of a walk beside the columns.
pub(super) struct Walk<'a> {
    /// A text may stand for a number where the job declares the column as one.
    pub(super) text_is_number: bool,
    pub(super) unknown: &'a mut Unknown,
    /// Columns on the way to where the walk is.
    pub(super) path: Vec<FieldRef>,
    /// The keys of the record that no column has, with their values, as JSON.
    pub(super) rest: String,
    /// Values of all objects of the record, null ones included.
    pub(super) cells: usize,
    /// Set where the record is JSON and does not fit its columns.
    pub(super) misfit: Option<String>,
}

impl Walk<'_> {
    fn misfit<E: Error>(&mut self, what: String) -> E {
        self.misfit = Some(what);
        E::custom("")
    }

    fn path_of<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.path.is_empty() {
            return Cow::Borrowed(name);
        }
        let names = self.path.iter().map(|field| field.name().as_str());
        let names: Vec<&str> = names.chain([name]).collect();
        Cow::Owned(names.join("."))
    }
}

/// A record, or an object within one.
pub(super) struct Object<'a, 'w> {
    pub(super) members: &'a mut Members,
    pub(super) walk: &'a mut Walk<'w>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { members, walk } = self;
        members.object += 1;
        let mut likely = 0;
        while let Some(key) = map.next_key_seed(Key { members, likely })? {
            let position = match key {
                Found::Column(position) => position,
                Found::Unknown(name) => {
                    unknown(&name, walk, &mut map)?;
                    continue;
                }
            };
            likely = position + 1;
            let column = &mut members.columns[position];
            if std::mem::replace(&mut members.seen[position], members.object) == members.object {
                let name = walk.path_of(column.field.name());
                return Err(walk.misfit(format!("the key `{}` stands twice", shown(&name))));
            }
            map.next_value_seed(Value { column, walk })?;
        }
        walk.cells = walk.cells.saturating_add(members.columns.len());
        if walk.cells > MAX_CELLS {
            let what = format!("its objects have more than {MAX_CELLS} values, null ones included");
            return Err(walk.misfit(what));
        }
        members.fill();
        Ok(())
    }
}

/// Passes over a value that no column takes, or keeps it with the rest.
fn unknown<'de, A: MapAccess<'de>>(
    name: &str,
    walk: &mut Walk<'_>,
    map: &mut A,
) -> Result<(), A::Error> {
    match walk.unknown.policy {
        UnknownFields::Fail => {
            let path = walk.path_of(name);
            Err(walk.misfit(format!(
                "no column has the key `{}`, and `unknown_fields` is \"fail\"",
                shown(&path)
            )))
        }
        UnknownFields::Rest if walk.path.is_empty() => {
            let value: &RawValue = map.next_value()?;
            walk.rest.push(if walk.rest.is_empty() { '{' } else { ',' });
            walk.rest += &serde_json::to_string(name).map_err(A::Error::custom)?;
            walk.rest.push(':');
            walk.rest += value.get();
            Ok(())
        }
        UnknownFields::Ignore | UnknownFields::Rest => {
            let path = walk.path_of(name);
            walk.unknown.add(&path);
            map.next_value::<IgnoredAny>().map(drop)
        }
    }
}

enum Found<'de> {
    Column(usize),
    Unknown(Cow<'de, str>),
}

struct Key<'a> {
    members: &'a Members,
    likely: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Found<'de>, E> {
        Ok(match self.members.position(key, self.likely) {
            Some(position) => Found::Column(position),
            None => Found::Unknown(Cow::Borrowed(key)),
        })
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Found<'de>, E> {
        Ok(match self.members.position(key, self.likely) {
            Some(position) => Found::Column(position),
            None => Found::Unknown(Cow::Owned(key.to_owned())),
        })
    }
}

/// A value of a column.
struct Value<'a, 'w> {
    column: &'a mut Column,
    walk: &'a mut Walk<'w>,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Values::List { .. } | Values::Struct(_) = self.column.values {
            return deserializer.deserialize_any(self);
        }
        let raw = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        let Self { column, walk } = self;
        let fits = match Scalar::read(raw) {
            Ok(scalar) => column.push(&scalar, walk.text_is_number),
            Err(what) => {
                let name = walk.path_of(column.field.name());
                let what = format!("the text in column `{}`: {what}", shown(&name));
                return Err(walk.misfit(what));
            }
        };
        match fits {
            true => Ok(()),
            false => Err(does_not_fit(column, walk, raw)),
        }
    }
}

/// A value as errors show it: a text without its quotes.
fn does_not_fit<E: Error>(column: &Column, walk: &mut Walk<'_>, raw: &str) -> E {
    let text = serde_json::from_str::<String>(raw);
    let name = walk.path_of(column.field.name());
    let what = crate::scan::reason::not_valid(
        text.as_deref().unwrap_or(raw),
        &name,
        column.field.data_type(),
    );
    walk.misfit(what)
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.column.push_null();
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        Err(does_not_fit(self.column, self.walk, &value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        Err(does_not_fit(self.column, self.walk, &value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        Err(does_not_fit(self.column, self.walk, &value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        Err(does_not_fit(self.column, self.walk, &value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        Err(does_not_fit(self.column, self.walk, value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Self { column, walk } = self;
        let Values::List { item, .. } = &mut column.values else {
            return Err(does_not_fit(column, walk, "[..]"));
        };
        walk.path.push(FieldRef::clone(&column.field));
        while items
            .next_element_seed(Value {
                column: item,
                walk: &mut *walk,
            })?
            .is_some()
        {}
        walk.path.pop();
        column.end_nested().map_err(|what| walk.misfit(what))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { column, walk } = self;
        let Values::Struct(members) = &mut column.values else {
            return Err(does_not_fit(column, walk, "{..}"));
        };
        walk.path.push(FieldRef::clone(&column.field));
        Object {
            members,
            walk: &mut *walk,
        }
        .visit_map(map)?;
        walk.path.pop();
        column.end_nested().map_err(|what| walk.misfit(what))
    }
}
