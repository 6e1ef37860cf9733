//! Schemas across the boundary: fields in pre-order with child counts, because WIT has no recursion.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use crate::bindings::data;

/// Fields of one schema, nested ones included.
pub(crate) const FIELDS_MAX: usize = 4096;
const DEPTH_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 1024;
/// Bytes of all names of one schema: it goes into plans, manifests and answers.
pub const SCHEMA_NAME_BYTES_MAX: usize = 256 << 10;

/// The type in which a guest sees `data_type`: views and dictionaries are materialised, large offsets narrowed, lists
/// of all kinds are lists and maps lists of their entries; times of day and durations are whole microseconds, halves
/// are float32, decimals have 128 bits.
pub fn guest_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, values) => guest_type(values),
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Decimal256(precision, scale) if *precision <= DECIMAL128_PRECISION => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(child)
        | DataType::LargeList(child)
        | DataType::FixedSizeList(child, _)
        | DataType::ListView(child)
        | DataType::LargeListView(child) => DataType::List(guest_field(child)),
        DataType::Map(entries, _) => DataType::List(map_entry(entries)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(guest_field).collect()),
        other => other.clone(),
    }
}

/// The entries of a map, whose members writers name as they like.
fn map_entry(entries: &FieldRef) -> FieldRef {
    let members = match entries.data_type() {
        DataType::Struct(members) => members.iter().zip(["key", "value"]),
        _ => return guest_field(entries),
    };
    let member =
        |(member, name): (&FieldRef, &str)| Field::clone(&guest_field(member)).with_name(name);
    let entry = DataType::Struct(members.map(member).collect());
    Arc::new(Field::new("item", entry, entries.is_nullable()))
}

/// Digits that 128 bits hold.
const DECIMAL128_PRECISION: u8 = 38;

/// The name of a type as guests know it. A type that no guest sees has Arrow's.
pub fn type_name(data_type: &DataType) -> String {
    let member = |field: &FieldRef| format!("{} {}", field.name(), type_name(field.data_type()));
    match guest_type(data_type) {
        DataType::Timestamp(_, _) => "timestamp-us".into(),
        DataType::Decimal128(precision, scale) => format!("decimal128({precision}, {scale})"),
        DataType::List(item) => format!("list({})", type_name(item.data_type())),
        DataType::Struct(members) => {
            let members: Vec<String> = members.iter().map(member).collect();
            format!("struct({})", members.join(", "))
        }
        plain @ (DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32) => plain.to_string().to_lowercase(),
        other => other.to_string(),
    }
}

/// The field in whose type a guest sees `field`.
pub fn guest_field(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(
        field.name(),
        guest_type(field.data_type()),
        field.is_nullable(),
    ))
}

/// A schema as a guest sees it. Errors: a type that does not cross the boundary.
pub(crate) fn to_guest(schema: &Schema) -> Result<Vec<data::Field>, String> {
    let mut flat = Vec::new();
    for field in schema.fields() {
        push(field, &mut flat)?;
    }
    Ok(flat)
}

fn push(field: &Field, flat: &mut Vec<data::Field>) -> Result<(), String> {
    let mut one = data::Field {
        name: field.name().clone(),
        data_type: data::DataType::Boolean,
        nullable: field.is_nullable(),
        children: 0,
        precision: 0,
        scale: 0,
    };
    let data_type = guest_type(field.data_type());
    one.data_type = match &data_type {
        DataType::Boolean => data::DataType::Boolean,
        DataType::Int8 => data::DataType::Int8,
        DataType::Int16 => data::DataType::Int16,
        DataType::Int32 => data::DataType::Int32,
        DataType::Int64 => data::DataType::Int64,
        DataType::UInt8 => data::DataType::Uint8,
        DataType::UInt16 => data::DataType::Uint16,
        DataType::UInt32 => data::DataType::Uint32,
        DataType::UInt64 => data::DataType::Uint64,
        DataType::Float32 => data::DataType::Float32,
        DataType::Float64 => data::DataType::Float64,
        DataType::Utf8 => data::DataType::Utf8,
        DataType::Binary => data::DataType::Binary,
        DataType::Date32 => data::DataType::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, None) => data::DataType::TimestampUs,
        DataType::Decimal128(precision, scale) => {
            (one.precision, one.scale) = (*precision, *scale);
            data::DataType::Decimal128
        }
        DataType::List(_) => {
            one.children = 1;
            data::DataType::ArrayOf
        }
        DataType::Struct(fields) => {
            one.children = u32::try_from(fields.len()).map_err(|_| "too many fields")?;
            data::DataType::StructOf
        }
        other => {
            return Err(format!(
                "column `{}` has type {other}, which functions cannot take",
                field.name()
            ));
        }
    };
    flat.push(one);
    match &data_type {
        DataType::List(child) => push(child, flat),
        DataType::Struct(fields) => fields.iter().try_for_each(|child| push(child, flat)),
        _ => Ok(()),
    }
}

/// Bytes that a schema takes, more or less.
pub(crate) fn schema_bytes(flat: &[data::Field]) -> u64 {
    const FIELD_BYTES: u64 = 128;
    flat.iter()
        .map(|field| FIELD_BYTES + field.name.len() as u64)
        .sum()
}

/// A schema that a guest made up: bounded, names unique. Errors say what is wrong with it.
pub(crate) fn from_guest(flat: &[data::Field]) -> Result<SchemaRef, String> {
    if flat.len() > FIELDS_MAX {
        return Err(format!(
            "{} fields; a schema may have {FIELDS_MAX}",
            flat.len()
        ));
    }
    let name_bytes: usize = flat.iter().map(|field| field.name.len()).sum();
    if name_bytes > SCHEMA_NAME_BYTES_MAX {
        return Err(format!(
            "names of {name_bytes} bytes in all; a schema may have {SCHEMA_NAME_BYTES_MAX}"
        ));
    }
    let mut rest = flat;
    let mut fields: Vec<FieldRef> = Vec::new();
    while !rest.is_empty() {
        fields.push(Arc::new(pull(&mut rest, 0)?));
    }
    check_unique(&fields)?;
    Ok(Arc::new(Schema::new(Fields::from(fields))))
}

fn check_unique(fields: &[FieldRef]) -> Result<(), String> {
    let mut names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(format!("the field `{}` stands twice", twice[0])),
        None => Ok(()),
    }
}

/// Whether a text can be the name of a column: of bounded length, without control characters but for those that break
/// lines, which headers of CSV have.
pub fn is_column_name(name: &str) -> bool {
    let is_break = |c: char| matches!(c, '\n' | '\r' | '\t');
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_control() && !is_break(c))
}

fn pull(rest: &mut &[data::Field], depth: usize) -> Result<Field, String> {
    let (one, after) = rest
        .split_first()
        .ok_or("a nested field lacks its children")?;
    *rest = after;
    if depth > DEPTH_MAX {
        return Err(format!("fields nest deeper than {DEPTH_MAX}"));
    }
    if !(1..=NAME_BYTES_MAX).contains(&one.name.len()) {
        return Err(format!(
            "a field's name has {} bytes; 1 to {NAME_BYTES_MAX} are allowed",
            one.name.len()
        ));
    }
    if !is_column_name(&one.name) {
        return Err(format!(
            "the field `{}` has control characters in its name",
            one.name.escape_debug()
        ));
    }
    let expected = match one.data_type {
        data::DataType::ArrayOf => Some(1),
        data::DataType::StructOf if one.children > 0 => None,
        data::DataType::StructOf => {
            return Err(format!("the struct `{}` has no members", one.name));
        }
        _ => Some(0),
    };
    if expected.is_some_and(|expected| one.children != expected) {
        return Err(format!(
            "the field `{}` has {} children",
            one.name, one.children
        ));
    }
    let mut children = Vec::new();
    for _ in 0..one.children {
        children.push(Arc::new(pull(rest, depth + 1)?));
    }
    check_unique(&children)?;
    Ok(Field::new(
        &one.name,
        data_type(one, children)?,
        one.nullable,
    ))
}

fn data_type(one: &data::Field, mut children: Vec<FieldRef>) -> Result<DataType, String> {
    Ok(match one.data_type {
        data::DataType::Boolean => DataType::Boolean,
        data::DataType::Int8 => DataType::Int8,
        data::DataType::Int16 => DataType::Int16,
        data::DataType::Int32 => DataType::Int32,
        data::DataType::Int64 => DataType::Int64,
        data::DataType::Uint8 => DataType::UInt8,
        data::DataType::Uint16 => DataType::UInt16,
        data::DataType::Uint32 => DataType::UInt32,
        data::DataType::Uint64 => DataType::UInt64,
        data::DataType::Float32 => DataType::Float32,
        data::DataType::Float64 => DataType::Float64,
        data::DataType::Utf8 => DataType::Utf8,
        data::DataType::Binary => DataType::Binary,
        data::DataType::Date32 => DataType::Date32,
        data::DataType::TimestampUs => DataType::Timestamp(TimeUnit::Microsecond, None),
        data::DataType::Decimal128 => {
            let scale_fits = i16::from(one.scale) <= i16::from(one.precision);
            if one.precision == 0 || one.precision > 38 || one.scale < 0 || !scale_fits {
                return Err(format!(
                    "the field `{}` is a decimal({}, {}); precision is 1 to 38, scale 0 to precision",
                    one.name, one.precision, one.scale
                ));
            }
            DataType::Decimal128(one.precision, one.scale)
        }
        data::DataType::ArrayOf => DataType::List(children.pop().ok_or("a list lacks its items")?),
        data::DataType::StructOf => DataType::Struct(Fields::from(children)),
    })
}

/// True where a batch with `found` may stand for one with `bound`: same names and types, and no nulls where none are bound.
pub(crate) fn fits(found: &Schema, bound: &Schema) -> bool {
    found.fields().len() == bound.fields().len()
        && found
            .fields()
            .iter()
            .zip(bound.fields())
            .all(|(found, bound)| {
                found.name() == bound.name() && found.data_type() == bound.data_type()
            })
}
