//! A component that does what no user should, each deed by its name, and two honest maps for tests that need rows.

mod lies;

use weft::prelude::*;

weft::component! {
    /// Does the param `deed` with its first batch.
    map "misbehave" = Misbehave;
    /// Turns the text column `line` into `name`.
    map "name" = Name;
    /// Gives each line back as a row with its length.
    map "line" = Line;
    /// Does not end.
    task "spin-for-ever" = spin_for_ever;
}

struct Misbehave {
    deed: String,
}

fn honest() -> Schema {
    Schema::new().i64("rows")
}

impl Map for Misbehave {
    fn bind(_: &Schema, params: &Params) -> Result<Schema> {
        match params.get("deed") {
            Some("refuse") => Err("this function binds to nothing".into()),
            Some("panic-at-bind") => panic!("nobody binds this function"),
            Some("no-columns") => Ok(Schema::new()),
            _ => Ok(honest()),
        }
    }

    fn open(params: &Params) -> Result<Misbehave> {
        let deed = params.get("deed").ok_or("the param `deed` is missing")?;
        Ok(Misbehave { deed: deed.into() })
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        match self.deed.as_str() {
            "trap" => panic!("trapped on purpose"),
            "fail" => Err("failed on purpose".into()),
            "spin" => spin(),
            "eat" => eat(),
            "wrong-schema" => out.emit(Batch::new(
                &Schema::new().utf8("rows"),
                [Column::from_iter(["one"])],
            )?),
            "flood" => flood(out),
            lie => lies::tell(lie, input.rows()),
        }
    }
}

fn spin() -> Result<()> {
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn spin_for_ever(_: Task) -> Result<Vec<u8>> {
    spin()?;
    Ok(vec![])
}

/// Takes memory, and touches it, until there is no more.
fn eat() -> Result<()> {
    let mut eaten = vec![];
    loop {
        eaten.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}

/// Emits more than any limit of output allows.
fn flood(out: &mut Output) -> Result<()> {
    let rows = vec![7i64; 1 << 16];
    loop {
        out.emit(Batch::new(&honest(), [rows.clone().into()])?)?;
    }
}

struct Name;

impl Map for Name {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("line", DataType::Utf8)?;
        Ok(Schema::new().utf8("name"))
    }

    fn open(_: &Params) -> Result<Name> {
        Ok(Name)
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let lines = input.utf8("line")?;
        let mut names = Utf8Builder::new();
        lines.iter().for_each(|line| names.push_option(line));
        out.emit(Batch::new(&Schema::new().utf8("name"), [names.into()])?)
    }
}

struct Line;

fn line() -> Schema {
    Schema::new().binary("line").i64("bytes")
}

impl Map for Line {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("line", DataType::Binary)?;
        Ok(line())
    }

    fn open(_: &Params) -> Result<Line> {
        Ok(Line)
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let lines = input.binary("line")?;
        let bytes: Vec<i64> = lines
            .iter()
            .map(|line| line.map_or(0, |line| line.len() as i64))
            .collect();
        out.emit(input.with_column(Field::new("bytes", DataType::Int64), bytes)?)
    }
}
