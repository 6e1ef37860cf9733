//! Fields as they cross the boundary: in pre-order, each with how many follow below it.

use crate::bindings::weft::fabric::data::{DataType as Wire, FieldParam, FieldResult};
use crate::schema::{DataType, Field, Schema};

/// Fields for an import.
pub(crate) fn params(fields: &[Field]) -> Vec<FieldParam<'_>> {
    let mut all = vec![];
    visit(fields, &mut |field| {
        let (precision, scale) = digits(&field.data_type);
        all.push(FieldParam {
            name: &field.name,
            data_type: wire(&field.data_type),
            nullable: field.nullable,
            children: field.data_type.children().len() as u32,
            precision,
            scale,
        });
    });
    all
}

/// Fields for an export's answer.
pub(crate) fn results(schema: &Schema) -> Vec<FieldResult> {
    let owned = |field: FieldParam<'_>| FieldResult {
        name: field.name.into(),
        data_type: field.data_type,
        nullable: field.nullable,
        children: field.children,
        precision: field.precision,
        scale: field.scale,
    };
    params(schema.fields()).into_iter().map(owned).collect()
}

/// The schema that fields from the host make up.
pub(crate) fn schema(fields: Vec<FieldResult>) -> Schema {
    let mut fields = fields.into_iter();
    let mut top = vec![];
    while let Some(field) = next(&mut fields) {
        top.push(field);
    }
    top.into()
}

fn visit<'a>(fields: &'a [Field], visitor: &mut impl FnMut(&'a Field)) {
    for field in fields {
        visitor(field);
        visit(field.data_type.children(), visitor);
    }
}

fn next(fields: &mut impl Iterator<Item = FieldResult>) -> Option<Field> {
    let FieldResult {
        name,
        data_type,
        nullable,
        children,
        precision,
        scale,
    } = fields.next()?;
    let children: Vec<_> = (0..children).map_while(|_| next(fields)).collect();
    let data_type = match data_type {
        Wire::Boolean => DataType::Boolean,
        Wire::Int8 => DataType::Int8,
        Wire::Int16 => DataType::Int16,
        Wire::Int32 => DataType::Int32,
        Wire::Int64 => DataType::Int64,
        Wire::Uint8 => DataType::Uint8,
        Wire::Uint16 => DataType::Uint16,
        Wire::Uint32 => DataType::Uint32,
        Wire::Uint64 => DataType::Uint64,
        Wire::Float32 => DataType::Float32,
        Wire::Float64 => DataType::Float64,
        Wire::Utf8 => DataType::Utf8,
        Wire::Binary => DataType::Binary,
        Wire::Date32 => DataType::Date32,
        Wire::TimestampUs => DataType::TimestampUs,
        Wire::Decimal128 => DataType::Decimal128 { precision, scale },
        Wire::ArrayOf => DataType::ArrayOf(Box::new(children.into_iter().next()?)),
        Wire::StructOf => DataType::StructOf(children),
    };
    Some(Field {
        name,
        data_type,
        nullable,
    })
}

fn wire(data_type: &DataType) -> Wire {
    match data_type {
        DataType::Boolean => Wire::Boolean,
        DataType::Int8 => Wire::Int8,
        DataType::Int16 => Wire::Int16,
        DataType::Int32 => Wire::Int32,
        DataType::Int64 => Wire::Int64,
        DataType::Uint8 => Wire::Uint8,
        DataType::Uint16 => Wire::Uint16,
        DataType::Uint32 => Wire::Uint32,
        DataType::Uint64 => Wire::Uint64,
        DataType::Float32 => Wire::Float32,
        DataType::Float64 => Wire::Float64,
        DataType::Utf8 => Wire::Utf8,
        DataType::Binary => Wire::Binary,
        DataType::Date32 => Wire::Date32,
        DataType::TimestampUs => Wire::TimestampUs,
        DataType::Decimal128 { .. } => Wire::Decimal128,
        DataType::ArrayOf(_) => Wire::ArrayOf,
        DataType::StructOf(_) => Wire::StructOf,
    }
}

fn digits(data_type: &DataType) -> (u8, i8) {
    match data_type {
        DataType::Decimal128 { precision, scale } => (*precision, *scale),
        _ => (0, 0),
    }
}
