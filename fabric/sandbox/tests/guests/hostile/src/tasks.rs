//! Tasks that do not end, or not well.

use std::hint::black_box;

use crate::bindings::exports::weft::fabric::task::Guest;
use crate::bindings::weft::fabric::data::{Batch, Column, DataType, Field, Node};
use crate::bindings::weft::fabric::{log, meter, output};
use crate::columns::{self, field, i32s, numbers};
use crate::{Hostile, Params, descriptions};

fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_mul(31) + 1);
    }
}

fn recurse(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let room = black_box([depth; 16]);
    recurse(depth + 1) + room[(depth % 16) as usize]
}

/// Grows the memory until the host refuses. Gives the pages that were got.
fn grow() -> Vec<u8> {
    let mut pages = 0u32;
    while core::arch::wasm32::memory_grow::<0>(16) != usize::MAX {
        pages += 16;
    }
    pages.to_string().into_bytes()
}

fn batch(rows: u32) -> Batch {
    let (fields, column) = numbers(rows);
    Batch::create(&fields, &[column]).expect("numbers are no lie")
}

/// A batch of one row of text, this long.
fn long_text(length: usize) -> Batch {
    let buffers = vec![vec![], i32s(&[0, length as i32]), vec![b'x'; length]];
    let nodes = vec![Node { rows: 1, nulls: 0 }];
    let fields = [field("c", DataType::Utf8)];
    Batch::create(&fields, &[Column { nodes, buffers }]).expect("text is no lie")
}

/// Batches without rows whose schemas are large.
fn hold_schemas() -> Result<Vec<u8>, String> {
    let n_members = 2000;
    let outer = Field {
        children: n_members,
        ..field("outer", DataType::StructOf)
    };
    let members = (0..n_members).map(|n| field(&format!("{n:0100}"), DataType::Int32));
    let fields: Vec<Field> = [outer].into_iter().chain(members).collect();
    let column = Column {
        nodes: vec![Node { rows: 0, nulls: 0 }; fields.len()],
        buffers: vec![vec![]; 2 * fields.len() - 1],
    };
    let mut held = vec![];
    loop {
        held.push(Batch::create(&fields, std::slice::from_ref(&column))?);
    }
}

fn run(function: &str, index: u32, input: &str) -> Result<Vec<u8>, String> {
    match function {
        "spin" => spin(),
        "recurse" => Ok(recurse(0).to_string().into_bytes()),
        "grow" => Ok(grow()),
        "allocate" => {
            let mut kept = vec![];
            loop {
                kept.push(black_box(vec![1u8; 1 << 20]));
            }
        }
        "unreachable" => core::arch::wasm32::unreachable(),
        "panic" => panic!("on purpose"),
        "error" => Err("e".repeat(4 << 20)),
        "answer" => Ok(vec![7; index as usize]),
        "log" => {
            log::write(log::Level::Info, input);
            Ok(vec![])
        }
        "log-flood" => loop {
            log::write(log::Level::Warn, &"l".repeat(60_000));
        },
        "hold" => {
            let mut held = vec![];
            loop {
                held.push(batch(1));
            }
        }
        "hold-projected" => {
            let (first, mut held) = (batch(1), vec![]);
            loop {
                held.push(first.project(&[0])?);
            }
        }
        "hold-schemas" => hold_schemas(),
        "lie" => columns::tell(input),
        "describe" => {
            descriptions::prepare(input);
            Ok(vec![])
        }
        "take-past-the-end" => batch(3).take(&[0, 3]).map(|_| vec![]),
        "take-again-and-again" => {
            let rows = vec![0; 1 << 20];
            long_text(1 << 20).take(&rows).map(|_| vec![])
        }
        "short-mask" => batch(9).filter(&[0xff]).map(|_| vec![]),
        "project-past-the-end" => batch(3).project(&[0, 1]).map(|_| vec![]),
        "project-again-and-again" => batch(3).project(&vec![0; 1 << 20]).map(|_| vec![]),
        "column-past-the-end" => batch(3).column(1).map(|_| vec![]),
        "huge-column" => {
            let (fields, _) = numbers(1);
            let buffers = vec![vec![1; 65 << 20]; 2];
            let nodes = vec![Node { rows: 1, nulls: 0 }];
            Batch::create(&fields, &[Column { nodes, buffers }]).map(|_| vec![])
        }
        "emit" => output::emit(batch(1)).map(|()| vec![]),
        "meter" => {
            let (spent, left) = (meter::spent(), meter::remaining());
            let all = [
                spent.cpu_ns,
                spent.memory_bytes,
                spent.output_bytes,
                left.cpu_ns,
                left.memory_bytes,
                left.output_bytes,
            ];
            Ok(all.map(|n| n.to_string()).join(" ").into_bytes())
        }
        other => Err(format!("no task `{other}`")),
    }
}

impl Guest for Hostile {
    fn run(function: String, _: Params, index: u32, input: Vec<u8>) -> Result<Vec<u8>, String> {
        run(&function, index, &String::from_utf8_lossy(&input))
    }
}
