//! Schemas inside plans: as hexadecimal Arrow IPC, so that a plan stays one JSON document.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserializer, Serializer, de, ser};

use crate::hex;

/// For `#[serde(serialize_with)]`.
pub(crate) fn serialize<S: Serializer>(
    schema: &SchemaRef,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    let write = StreamWriter::try_new(&mut bytes, schema).and_then(|mut writer| writer.finish());
    write.map_err(ser::Error::custom)?;
    hex::serialize(&bytes, serializer)
}

/// For `#[serde(deserialize_with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SchemaRef, D::Error> {
    let bytes = hex::deserialize(deserializer)?;
    let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(de::Error::custom)?;
    Ok(reader.schema())
}

/// Columns and their types, as manifests list them and job files write them.
pub(crate) fn texts(schema: &Schema) -> Vec<(String, String)> {
    let fields = schema.fields().iter();
    let text = |field: &FieldRef| {
        (
            field.name().clone(),
            weft_sandbox::type_name(field.data_type()),
        )
    };
    fields.map(text).collect()
}

/// Names of columns as errors list them.
pub(crate) fn names(schema: &Schema) -> String {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    format!("`{}`", names.collect::<Vec<_>>().join("`, `"))
}

/// A schema without columns, for stages without rows.
pub(crate) fn empty() -> SchemaRef {
    Arc::new(Schema::empty())
}
