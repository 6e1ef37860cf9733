//! Mappers and reducers that misuse their output and what they are given.

use std::cell::RefCell;

use crate::bindings::exports::weft::fabric::{mapper, reducer};
use crate::bindings::weft::fabric::data::{Batch, DataType};
use crate::bindings::weft::fabric::output::emit;
use crate::columns::{field, i32s, numbers};
use crate::{Hostile, Params};

thread_local! {
    static FUNCTION: RefCell<String> = const { RefCell::new(String::new()) };
    static KEPT: RefCell<Vec<Batch>> = const { RefCell::new(Vec::new()) };
}

fn batch(name: &str, data_type: DataType, rows: u32) -> Batch {
    let (_, mut column) = numbers(rows);
    if let DataType::Int64 = data_type {
        column.buffers[1] = i32s(&vec![7; 2 * rows as usize]);
    }
    let fields = [field(name, data_type)];
    Batch::create(&fields, &[column]).expect("numbers are no lie")
}

fn push(input: Batch) -> Result<(), String> {
    match FUNCTION.with_borrow(String::clone).as_str() {
        "another-name" => emit(batch("other", DataType::Int32, 3)),
        "another-type" => emit(batch("n", DataType::Int64, 3)),
        // The error is swallowed; the limit must stand all the same.
        "swallow" => {
            drop(emit(batch("other", DataType::Int32, 3)));
            Ok(())
        }
        "more-columns" => {
            let (fields, column) = numbers(input.rows());
            emit(input.with_column(&fields, &column)?)
        }
        "flood" => loop {
            drop(emit(batch("n", DataType::Int32, 1 << 16)));
        },
        "drizzle" => loop {
            drop(emit(input.take(&[0])?));
        },
        "keep" => {
            KEPT.with_borrow_mut(|kept| kept.push(input));
            Ok(())
        }
        "nulls" => {
            let (_, mut column) = numbers(3);
            column.buffers[0] = vec![0b101];
            let fields = [field("n", DataType::Int32)];
            emit(Batch::create(&fields, &[column])?)
        }
        "error" => Err("e".repeat(4 << 20)),
        _ => emit(input),
    }
}

impl mapper::Guest for Hostile {
    fn open(function: String, _: Params) -> Result<(), String> {
        FUNCTION.set(function);
        Ok(())
    }

    fn push(input: Batch) -> Result<(), String> {
        push(input)
    }

    fn finish() -> Result<(), String> {
        Ok(())
    }
}

impl reducer::Guest for Hostile {
    fn open(function: String, _: Params) -> Result<(), String> {
        FUNCTION.set(function);
        Ok(())
    }

    fn push(input: Batch, _: Vec<u32>, _: bool) -> Result<(), String> {
        push(input)
    }

    fn finish() -> Result<(), String> {
        Ok(())
    }
}
