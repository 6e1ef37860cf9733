//! Scalar functions that lie about their columns, or do not return.

use std::cell::Cell;

use crate::Hostile;
use crate::bindings::exports::weft::fabric::scalars::{Guest, Scalar};
use crate::bindings::weft::fabric::data::{Batch, Column, DataType, Field, Node};
use crate::columns::{field, i32s};

thread_local! {
    static LISTS_SPIN: Cell<bool> = const { Cell::new(false) };
}

/// The next `describe` lists a function of another kind.
pub(crate) fn list_spin() {
    LISTS_SPIN.set(true);
}

fn numbers(rows: u32, nulls: u32) -> Column {
    let validity = match nulls {
        0 => vec![],
        _ => vec![0; rows.div_ceil(8) as usize],
    };
    Column {
        nodes: vec![Node { rows, nulls }],
        buffers: vec![validity, i32s(&vec![7; rows as usize])],
    }
}

impl Guest for Hostile {
    fn describe() -> Vec<Scalar> {
        let spin = Scalar {
            name: "spin".into(),
            summary: String::new(),
            deterministic: true,
        };
        match LISTS_SPIN.take() {
            true => vec![spin],
            false => vec![],
        }
    }

    fn bind(function: String, arguments: Vec<Field>) -> Result<(Vec<Field>, Vec<Field>), String> {
        let returns = field("returns", DataType::Int32);
        match function.as_str() {
            "refuse" => Err("it takes nothing".into()),
            "fewer-arguments" => Ok((vec![], vec![returns])),
            "no-column" => Ok((arguments, vec![])),
            "two-columns" => {
                let other = field("other", DataType::Int32);
                Ok((arguments, vec![returns, other]))
            }
            _ => Ok((arguments, vec![returns])),
        }
    }

    fn evaluate(function: String, arguments: Batch) -> Result<Column, String> {
        let rows = arguments.rows();
        match function.as_str() {
            "fine" => Ok(numbers(rows, 0)),
            "nulls" => Ok(numbers(rows, rows)),
            "fewer-rows" => Ok(numbers(rows - 1, 0)),
            "more-rows" => Ok(numbers(rows + 1, 0)),
            "short-values" => Ok(Column {
                buffers: vec![vec![], vec![0; 3]],
                ..numbers(rows, 0)
            }),
            "fail" => Err("on purpose".into()),
            "panic" => panic!("on purpose"),
            "spin" => loop {
                std::hint::black_box(rows);
            },
            other => Err(format!("no function `{other}`")),
        }
    }
}
