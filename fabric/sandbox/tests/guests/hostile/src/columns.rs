//! Columns that lie about themselves.

use crate::bindings::weft::fabric::data::{Batch, Column, DataType, Field, Node};

pub(crate) fn field(name: &str, data_type: DataType) -> Field {
    Field {
        name: name.into(),
        data_type,
        nullable: true,
        children: 0,
        precision: 0,
        scale: 0,
    }
}

fn of(data_type: DataType, children: u32) -> Field {
    Field {
        children,
        ..field("c", data_type)
    }
}

fn column(nodes: &[(u32, u32)], buffers: Vec<Vec<u8>>) -> Column {
    let nodes = nodes.iter().map(|(rows, nulls)| Node {
        rows: *rows,
        nulls: *nulls,
    });
    Column {
        nodes: nodes.collect(),
        buffers,
    }
}

pub(crate) fn i32s(values: &[i32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// A column of numbers as it should be.
pub(crate) fn numbers(rows: u32) -> (Vec<Field>, Column) {
    let values = i32s(&vec![7; rows as usize]);
    (
        vec![of(DataType::Int32, 0)],
        column(&[(rows, 0)], vec![vec![], values]),
    )
}

fn texts(rows: u32, offsets: &[i32], bytes: &[u8]) -> (Vec<Field>, Column) {
    let buffers = vec![vec![], i32s(offsets), bytes.to_vec()];
    (vec![of(DataType::Utf8, 0)], column(&[(rows, 0)], buffers))
}

fn lists(rows: u32, offsets: &[i32], items: u32) -> (Vec<Field>, Column) {
    let fields = vec![of(DataType::ArrayOf, 1), of(DataType::Int32, 0)];
    let values = i32s(&vec![7; items as usize]);
    let buffers = vec![vec![], i32s(offsets), vec![], values];
    (fields, column(&[(rows, 0), (items, 0)], buffers))
}

fn decimals(values: &[i128]) -> (Vec<Field>, Column) {
    let decimal = Field {
        precision: 3,
        scale: 1,
        ..of(DataType::Decimal128, 0)
    };
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    let buffers = vec![vec![], bytes.collect()];
    (vec![decimal], column(&[(values.len() as u32, 0)], buffers))
}

/// The lie of this name.
fn lie(name: &str) -> (Vec<Field>, Column) {
    let required = |(mut fields, column): (Vec<Field>, Column)| {
        for field in &mut fields {
            field.nullable = false;
        }
        (fields, column)
    };
    match name {
        "short-values" => (
            vec![of(DataType::Int32, 0)],
            column(&[(4, 0)], vec![vec![], vec![0; 15]]),
        ),
        "short-bits" => (
            vec![of(DataType::Boolean, 0)],
            column(&[(9, 0)], vec![vec![], vec![0]]),
        ),
        "short-validity" => (
            vec![of(DataType::Int32, 0)],
            column(&[(9, 1)], vec![vec![0xff], vec![0; 36]]),
        ),
        "short-offsets" => texts(3, &[0, 1, 2], b"ab"),
        "no-offsets" => texts(1, &[], b"ab"),
        "offsets-go-back" => texts(3, &[0, 2, 1, 3], b"abc"),
        "offsets-below-zero" => texts(2, &[-1, 0, 1], b"abc"),
        "offsets-past-the-end" => texts(2, &[0, 1, 9], b"abc"),
        "bad-utf8" => texts(1, &[0, 2], &[0xff, 0xfe]),
        "split-character" => texts(2, &[0, 1, 2], "é".as_bytes()),
        "list-past-the-end" => lists(2, &[0, 1, 9], 3),
        "list-goes-back" => lists(2, &[0, 3, 1], 3),
        "decimal-too-large" => decimals(&[1, 12_345]),
        "too-few-buffers" => (
            vec![of(DataType::Utf8, 0)],
            column(&[(1, 0)], vec![vec![], i32s(&[0, 1])]),
        ),
        "too-many-buffers" => {
            let (fields, mut column) = numbers(2);
            column.buffers.push(vec![1]);
            (fields, column)
        }
        "no-nodes" => (vec![of(DataType::Int32, 0)], column(&[], vec![])),
        "too-few-nodes" => {
            let (fields, mut column) = lists(1, &[0, 1], 1);
            column.nodes.pop();
            (fields, column)
        }
        "too-many-nodes" => {
            let (fields, mut column) = numbers(2);
            column
                .nodes
                .extend(vec![Node { rows: 2, nulls: 0 }; 100_000]);
            (fields, column)
        }
        "huge-rows" => (
            vec![of(DataType::Int32, 0)],
            column(&[(u32::MAX, 0)], vec![vec![], vec![]]),
        ),
        "huge-struct" => (
            vec![of(DataType::StructOf, 1), of(DataType::Int32, 0)],
            column(&[(1 << 24, 0), (0, 0)], vec![vec![], vec![], vec![]]),
        ),
        "uneven-struct" => (
            vec![of(DataType::StructOf, 1), of(DataType::Int32, 0)],
            column(&[(3, 0), (2, 0)], vec![vec![], vec![], vec![0; 8]]),
        ),
        "nulls-where-none-may-be" => required((
            vec![of(DataType::Int32, 0)],
            column(&[(2, 0)], vec![vec![0b01], vec![0; 8]]),
        )),
        "nulls-in-a-required-member" => {
            let fields = vec![of(DataType::StructOf, 1), of(DataType::Int32, 0)];
            let buffers = vec![vec![], vec![0b01], vec![0; 8]];
            let (mut fields, column) = (fields, column(&[(2, 0), (2, 0)], buffers));
            fields[1].nullable = false;
            (fields, column)
        }
        "another-type" => {
            let (_, column) = numbers(4);
            (vec![of(DataType::Utf8, 0)], column)
        }
        // No lie: null counts are not believed, and longer buffers are fine.
        "wrong-null-count" => {
            let (fields, mut column) = numbers(2);
            column.nodes[0].nulls = 99;
            column.buffers[1].extend([0; 100]);
            (fields, column)
        }
        other => panic!("no lie `{other}`"),
    }
}

/// Makes a batch of a lie, both ways that there are. Gives what the host says.
pub(crate) fn tell(name: &str) -> Result<Vec<u8>, String> {
    let (fields, column) = lie(name);
    let created = Batch::create(&fields, &[column]);
    let (fields, column) = lie(name);
    let rows = match column.nodes.first() {
        Some(node) if node.rows <= 1 << 20 => node.rows,
        _ => 4,
    };
    let (other, numbers) = numbers(rows);
    let renamed: Vec<_> = other
        .into_iter()
        .map(|field| Field {
            name: "n".into(),
            ..field
        })
        .collect();
    let base = Batch::create(&renamed, &[numbers]).expect("numbers are no lie");
    let added = base.with_column(&fields, &column);
    match (created, added) {
        (Ok(batch), Ok(wider)) => Ok(format!("{} {}", batch.rows(), wider.rows()).into_bytes()),
        (Err(created), Err(added)) => Err(format!("{created} | {added}")),
        (Ok(_), Err(added)) => Err(format!("create took it | {added}")),
        (Err(created), Ok(_)) => Err(format!("{created} | with-column took it")),
    }
}
