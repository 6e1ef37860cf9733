//! Schemas that do not hold together.

use crate::bindings::weft::fabric::data::{DataType, Field};
use crate::columns::field;

/// The schema of this name; `None` if there is none.
pub(crate) fn schema(name: &str) -> Option<Vec<Field>> {
    let nested = |data_type, children| Field {
        children,
        ..field("c", data_type)
    };
    let decimal = |precision, scale| Field {
        precision,
        scale,
        ..field("c", DataType::Decimal128)
    };
    let number = || field("c", DataType::Int32);
    Some(match name {
        "twice" => vec![number(), number()],
        "unnamed" => vec![field("", DataType::Int32)],
        "long-name" => vec![field(&"n".repeat(100_000), DataType::Int32)],
        "childless-list" => vec![nested(DataType::ArrayOf, 0)],
        "list-of-two" => vec![nested(DataType::ArrayOf, 2), number(), number()],
        "missing-children" => vec![nested(DataType::StructOf, 3), number()],
        "endless-children" => vec![nested(DataType::StructOf, u32::MAX)],
        "empty-struct" => vec![nested(DataType::StructOf, 0)],
        "number-with-children" => vec![nested(DataType::Int32, 1), number()],
        "too-deep" => {
            let mut fields = vec![nested(DataType::ArrayOf, 1); 100];
            fields.push(number());
            fields
        }
        "too-many" => (0..5000)
            .map(|n| field(&format!("c{n}"), DataType::Int32))
            .collect(),
        "precision-0" => vec![decimal(0, 0)],
        "precision-39" => vec![decimal(39, 0)],
        "scale-above-precision" => vec![decimal(3, 4)],
        "scale-below-zero" => vec![decimal(3, -1)],
        _ => return None,
    })
}
