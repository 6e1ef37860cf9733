//! The columns that JSON records seem to have.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Scalar;
use crate::scan::infer::Numbers;
use crate::scan::reason::shown;

/// Keys of all objects in one place.
const MAX_KEYS: usize = 4_096;
/// Levels of objects and lists that columns are inferred of.
const MAX_DEPTH: usize = 16;

/// The values seen under one key, or the records.
#[derive(Debug, Clone, Default)]
pub(in crate::scan) struct Shape {
    boolean: bool,
    text: bool,
    numbers: Numbers,
    items: Option<Box<Shape>>,
    members: Option<Shapes>,
}

/// Shapes by key, in the order in which the keys first stood.
#[derive(Debug, Clone, Default)]
struct Shapes {
    keys: Vec<String>,
    shapes: Vec<Shape>,
    by_key: HashMap<String, usize>,
}

impl Shapes {
    fn of(&mut self, key: &str) -> &mut Shape {
        let position = match self.by_key.get(key) {
            Some(position) => *position,
            None => {
                self.by_key.insert(key.to_owned(), self.keys.len());
                self.keys.push(key.to_owned());
                self.shapes.push(Shape::default());
                self.keys.len() - 1
            }
        };
        &mut self.shapes[position]
    }

    /// Columns of the keys. Those that cannot name a column have none, nor have those of which nothing but `{}` was
    /// seen: no format holds a struct without members.
    fn fields(&self, path: &str) -> Result<Vec<FieldRef>, String> {
        let mut fields = Vec::new();
        for (key, shape) in self.keys.iter().zip(&self.shapes) {
            if !weft_sandbox::is_column_name(key) {
                continue;
            }
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            let data_type = shape.data_type(&path)?;
            fields.extend(data_type.map(|data_type| Arc::new(Field::new(key, data_type, true))));
        }
        Ok(fields)
    }
}

impl Shape {
    /// Adds what a record shows. Errors: it is no JSON object, or nests too deep.
    pub(in crate::scan) fn add_record(&mut self, record: &str) -> Result<(), String> {
        if !record.starts_with('{') {
            return Err("the line is no JSON object".to_owned());
        }
        self.add(record, 0)
    }

    fn add(&mut self, json: &str, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("it nests deeper than {MAX_DEPTH}"));
        }
        let parsed = |error: serde_json::Error| error.to_string();
        match json.as_bytes().first() {
            Some(b'{') => {
                let members = self.members.get_or_insert_default();
                for (key, value) in pairs(json).map_err(parsed)? {
                    if members.keys.len() >= MAX_KEYS && !members.by_key.contains_key(&key) {
                        return Err(format!(
                            "objects have more than {MAX_KEYS} keys in all: name the columns in `schema`"
                        ));
                    }
                    members.of(&key).add(value.get(), depth + 1)?;
                }
            }
            Some(b'[') => {
                let items = self.items.get_or_insert_default();
                for item in items_of(json).map_err(parsed)? {
                    items.add(item.get(), depth + 1)?;
                }
            }
            _ => match Scalar::read(json)? {
                Scalar::Boolean(_) => self.boolean = true,
                Scalar::Number(text) => self.numbers.add(text),
                Scalar::Text(_) => self.text = true,
                Scalar::Null | Scalar::Nested => {}
            },
        }
        Ok(())
    }

    /// The columns of records. Errors: values of one key that no column can hold together.
    pub(in crate::scan) fn schema(&self) -> Result<Schema, String> {
        let fields = self.members.as_ref().map(|members| members.fields(""));
        Ok(Schema::new(fields.transpose()?.unwrap_or_default()))
    }

    /// The type that holds all values exactly. Nothing where there is none but `{}`.
    fn data_type(&self, path: &str) -> Result<Option<DataType>, String> {
        let is_scalar = self.boolean || self.text || self.numbers.any();
        let conflict = |a: &str, b: &str| {
            let path = shown(path);
            Err(format!(
                "`{path}` holds {a} in one record and {b} in another"
            ))
        };
        let fields = match &self.members {
            Some(_) if self.items.is_some() => return conflict("an object", "a list"),
            Some(_) if is_scalar => return conflict("an object", "a single value"),
            Some(members) => Some(members.fields(path)?),
            None => None,
        };
        if let Some(fields) = fields {
            let is_struct = !fields.is_empty();
            return Ok(is_struct.then(|| DataType::Struct(Fields::from(fields))));
        }
        if let Some(items) = &self.items {
            if is_scalar {
                return conflict("a list", "a single value");
            }
            let item = items.data_type(path)?;
            let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
            return Ok(item.map(list));
        }
        Ok(Some(match (self.boolean, self.text, self.numbers.any()) {
            (true, false, false) => DataType::Boolean,
            (false, false, true) => self.numbers.data_type(),
            // Also where there is nothing but null.
            _ => DataType::Utf8,
        }))
    }
}

/// Keys and values of an object.
fn pairs(json: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }

    let mut parser = serde_json::Deserializer::from_str(json);
    let pairs = parser.deserialize_map(Pairs)?;
    parser.end()?;
    Ok(pairs)
}

fn items_of(json: &str) -> serde_json::Result<Vec<&RawValue>> {
    struct Items;

    impl<'de> Visitor<'de> for Items {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                items.push(item);
            }
            Ok(items)
        }
    }

    let mut parser = serde_json::Deserializer::from_str(json);
    let items = parser.deserialize_seq(Items)?;
    parser.end()?;
    Ok(items)
}
