//! Columns as they cross the boundary: nodes in pre-order, and per node its buffers.

use crate::bits::Bits;
use crate::buffer::Buffer;
use crate::column::Column;
use crate::schema::{DataType, Kind};
use crate::{Error, Result};

/// Appends `(rows, nulls)` of the column and of all below it to `nodes`, and their buffers to `buffers`, without copying.
pub(crate) fn write<'a>(
    column: &'a Column,
    nodes: &mut Vec<(u32, u32)>,
    buffers: &mut Vec<&'a [u8]>,
) {
    nodes.push((column.rows as u32, column.nulls() as u32));
    buffers.push(column.validity.as_ref().map_or(&[], Bits::as_bytes));
    buffers.extend(column.buffers.iter().map(Buffer::as_bytes));
    column
        .children
        .iter()
        .for_each(|child| write(child, nodes, buffers));
}

/// Takes one column of this type, and all below it, from nodes and buffers. Values, offsets and bytes that are too short
/// are an error; what the offsets say is looked at when values are read.
pub(crate) fn read(
    data_type: &DataType,
    nodes: &mut impl Iterator<Item = (u32, u32)>,
    buffers: &mut impl Iterator<Item = Vec<u8>>,
) -> Result<Column> {
    let kind = data_type.kind();
    let (rows, nulls) = nodes.next().ok_or_else(short)?;
    let rows = rows as usize;
    let validity = buffers.next().ok_or_else(short)?;
    let validity = match nulls {
        0 => None,
        _ => Some(Bits::from_bytes(validity, rows).ok_or_else(short)?),
    };
    let mut column = Column {
        validity,
        ..Column::flat(kind, rows, read_buffers(kind, rows, buffers)?)
    };
    for field in data_type.children() {
        column
            .children
            .push(read(&field.data_type, nodes, buffers)?);
    }
    Ok(column)
}

fn read_buffers(
    kind: Kind,
    rows: usize,
    buffers: &mut impl Iterator<Item = Vec<u8>>,
) -> Result<Vec<Buffer>> {
    let mut next = || buffers.next().ok_or_else(short);
    let (read, expected) = match kind {
        Kind::Boolean => (vec![next()?.into()], rows.div_ceil(8)),
        Kind::Utf8 | Kind::Binary => (
            vec![Buffer::offsets(next()?), next()?.into()],
            4 * (rows + 1),
        ),
        Kind::ArrayOf => (vec![Buffer::offsets(next()?)], 4 * (rows + 1)),
        Kind::StructOf => return Ok(vec![]),
        _ => (vec![Buffer::values(kind, next()?)], rows * kind.width()),
    };
    if read[0].as_bytes().len() < expected {
        Err(short())
    } else {
        Ok(read)
    }
}

fn short() -> Error {
    "a column came with too few buffers, or with short ones".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Field, Schema};

    fn check(data_type: DataType, column: Column, expected: &str) {
        let (mut nodes, mut buffers) = (vec![], vec![]);
        write(&column, &mut nodes, &mut buffers);
        let copies = buffers.iter().map(|buffer| buffer.to_vec());
        let read = read(&data_type, &mut nodes.into_iter(), &mut copies.into_iter())
            .expect("what was written");
        let schema = Schema::new().with(Field::nullable("c", data_type));
        let batch = crate::Batch::new(&schema, [read]).expect("fits");
        assert_eq!(crate::testing::rows(&[batch]).join(" "), expected);
    }

    #[test]
    fn columns_of_all_types_come_back() {
        check(
            DataType::Boolean,
            vec![true, false, true].into(),
            "true false true",
        );
        check(DataType::Int64, vec![Some(1i64), None].into(), "1 null");
        check(
            DataType::Utf8,
            Column::from_iter([Some("a"), None, Some("bc")]),
            "a null bc",
        );
        check(DataType::Date32, Column::date32(vec![7]), "7");
        check(
            DataType::Decimal128 {
                precision: 9,
                scale: 2,
            },
            Column::decimal128(vec![-5, 1 << 70]),
            "-5 1180591620717411303424",
        );
        let item = || Box::new(Field::nullable("item", DataType::Utf8));
        let list =
            Column::array_of(vec![0, 2, 2, 3], Column::from_iter(["a", "b", "c"])).expect("a list");
        check(DataType::ArrayOf(item()), list.clone(), "[a, b] [] [c]");
        let members = vec![
            Field::new("n", DataType::Uint8),
            Field::new("l", DataType::ArrayOf(item())),
        ];
        let pair = Column::struct_of(vec![vec![1u8, 2, 3].into(), list]).expect("a struct");
        let pair = pair.with_validity([true, false, true].into_iter().collect());
        check(
            DataType::StructOf(members),
            pair,
            "{1, [a, b]} null {3, [c]}",
        );
    }

    #[test]
    fn no_rows_need_no_offsets() {
        let column = read(
            &DataType::Utf8,
            &mut [(0, 0)].into_iter(),
            &mut vec![vec![]; 3].into_iter(),
        );
        assert_eq!(column.expect("empty").rows(), 0);
    }

    #[test]
    fn short_buffers_are_refused() {
        let column = read(
            &DataType::Int32,
            &mut [(2, 0)].into_iter(),
            &mut [vec![], vec![0; 7]].into_iter(),
        );
        assert!(column.is_err());
    }
}
