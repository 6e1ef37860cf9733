//! What a function can do wrong wherever it is called: each deed by its name, at the entry point that the param `at` names.

use std::hint::black_box;

use weft::prelude::*;

/// Rows of the batch out of which the host is made to compute.
const ROWS: usize = 1 << 17;

/// A deed, and where it is done.
pub(crate) struct Deed {
    pub(crate) name: String,
    at: String,
}

impl Deed {
    /// What the params ask for; in `push`, unless they say where.
    pub(crate) fn of(params: &Params) -> Result<Deed> {
        let name = params.get("deed").ok_or("the param `deed` is missing")?;
        Ok(Deed {
            name: name.into(),
            at: params.get("at").unwrap_or("push").into(),
        })
    }

    /// True where this is the place for it.
    pub(crate) fn is_at(&self, here: &str) -> bool {
        self.at == here
    }

    /// Does the deed where this is the place for it. False: it is another place, or no deed of these.
    pub(crate) fn at(&self, here: &str) -> Result<bool> {
        match self.is_at(here) {
            true => act(&self.name),
            false => Ok(false),
        }
    }
}

/// Does a deed that needs nothing but the host. False: there is none of this name.
fn act(name: &str) -> Result<bool> {
    match name {
        "unreachable" => unreachable(),
        "trap" => panic!("trapped on purpose"),
        "fail" => Err("failed on purpose".into()),
        "spin" => spin(),
        "eat" => eat(),
        "recurse" => Err(recurse(0).to_string().into()),
        "log-flood" => loop {
            weft::log::write(weft::log::Level::Warn, &"l".repeat(60_000));
        },
        "log-nothing" => loop {
            weft::log::write(weft::log::Level::Warn, "");
        },
        "hold" => hold(),
        "take" => take(),
        "filter" => filter(),
        _ => Ok(false),
    }
}

fn unreachable() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    panic!("only Wasm traps")
}

fn spin() -> ! {
    let mut turns = 0u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Takes memory, and touches it, until there is no more.
fn eat() -> ! {
    let mut eaten = vec![];
    loop {
        eaten.push(black_box(vec![1u8; 1 << 20]));
    }
}

fn recurse(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let room = black_box([depth; 16]);
    recurse(depth + 1) + room[(depth % 16) as usize]
}

fn numbers(rows: usize) -> Result<Batch> {
    Batch::new(&Schema::new().i64("rows"), [vec![7i64; rows].into()])
}

/// Holds more batches than a guest may.
fn hold() -> ! {
    let mut held = vec![];
    let one = numbers(1).expect("numbers are no lie");
    loop {
        held.push(one.project(&["rows"]).expect("a column that it has"));
    }
}

/// Has the host compute, and keeps what it computed: from a list of rows that is small beside what becomes of it.
fn take() -> Result<bool> {
    let schema = Schema::new().utf8("text");
    let long = "x".repeat(1 << 20);
    let text = Batch::new(&schema, [Column::from_iter([long.as_str()])])?;
    let rows = vec![0u32; 1 << 10];
    let mut kept = vec![];
    loop {
        kept.push(text.take(&rows)?);
    }
}

/// The same by a mask that keeps all.
fn filter() -> Result<bool> {
    let (all, keep) = (numbers(ROWS)?, Bits::repeat(true, ROWS));
    let mut kept = vec![];
    loop {
        kept.push(all.filter(&keep)?);
    }
}
