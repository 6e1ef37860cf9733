//! A component that does what no user should, each deed by its name, and two honest maps for tests that need rows.

mod deeds;
mod lies;

use weft::prelude::*;

use crate::deeds::Deed;

weft::component! {
    /// Does the param `deed` where the param `at` says: in `bind`, `open`, `push` or `finish`.
    map "misbehave" = Misbehave;
    /// The same, and in `end`.
    reduce "hoard" = Hoard;
    /// The same, before a shuffle.
    combine "pile" = Pile;
    /// The same in a task, at `run`.
    task "toil" = toil;
    /// Turns the text column `line` into `name`.
    map "name" = Name;
    /// Gives each line back as a row with its length.
    map "line" = Line;
    /// Does not end.
    task "spin-for-ever" = spin_for_ever;
}

struct Misbehave {
    deed: Deed,
}

fn honest() -> Schema {
    Schema::new().i64("rows")
}

/// Schemas that `bind` answers with and that are no good.
fn lie_at_bind(params: &Params) -> Result<Schema> {
    let schema = match params.get("deed") {
        Some("panic-at-bind") => panic!("nobody binds this function"),
        Some("refuse") => return Err("this function binds to nothing".into()),
        Some("no-columns") => Schema::new(),
        Some("long-name") => Schema::new().i64(&"n".repeat(100_000)),
        Some("rude-name") => Schema::new().i64("\u{1b}[2J"),
        Some("twice") => Schema::new().i64("rows").i64("rows"),
        Some("too-many") => (0..5000).fold(Schema::new(), |schema, n| schema.i64(&format!("c{n}"))),
        Some("wide") => (0..4096).fold(Schema::new(), |schema, n| {
            schema.i64(&format!("{n:\u{1}>1000}"))
        }),
        _ => honest(),
    };
    Ok(schema)
}

impl Map for Misbehave {
    fn bind(_: &Schema, params: &Params) -> Result<Schema> {
        Deed::of(params)?.at("bind")?;
        lie_at_bind(params)
    }

    fn open(params: &Params) -> Result<Misbehave> {
        let deed = Deed::of(params)?;
        deed.at("open")?;
        Ok(Misbehave { deed })
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        if self.deed.at("push")? {
            return Ok(());
        }
        match self.deed.name.as_str() {
            "wrong-schema" => out.emit(Batch::new(
                &Schema::new().utf8("rows"),
                [Column::from_iter(["one"])],
            )?),
            "flood" => flood(out),
            // Those that are done elsewhere.
            _ if !self.deed.is_at("push") => Ok(()),
            lie => lies::tell(lie, input.rows()),
        }
    }

    fn finish(&mut self, _: &mut Output) -> Result<()> {
        self.deed.at("finish").map(drop)
    }
}

/// Emits more than any limit of output allows.
fn flood(out: &mut Output) -> Result<()> {
    let rows = vec![7i64; 1 << 16];
    loop {
        out.emit(Batch::new(&honest(), [rows.clone().into()])?)?;
    }
}

/// Takes groups and does its deed.
struct Grouped {
    deed: Deed,
}

impl Grouped {
    fn open(params: &Params) -> Result<Grouped> {
        let deed = Deed::of(params)?;
        deed.at("open")?;
        Ok(Grouped { deed })
    }

    fn push(&mut self, out: &mut Output) -> Result<()> {
        self.deed.at("push")?;
        match self.deed.name.as_str() {
            "flood" => flood(out),
            _ => Ok(()),
        }
    }
}

struct Hoard(Grouped);

impl Reduce for Hoard {
    fn bind(_: &Schema, params: &Params) -> Result<Schema> {
        Deed::of(params)?.at("bind")?;
        Ok(honest())
    }

    fn open(params: &Params) -> Result<Hoard> {
        Grouped::open(params).map(Hoard)
    }

    fn push(&mut self, _: &Rows<'_>, out: &mut Output) -> Result<()> {
        self.0.push(out)
    }

    fn end(&mut self, _: &Rows<'_>, _: &mut Output) -> Result<()> {
        self.0.deed.at("end").map(drop)
    }

    fn finish(&mut self, _: &mut Output) -> Result<()> {
        self.0.deed.at("finish").map(drop)
    }
}

struct Pile(Grouped);

impl Reduce for Pile {
    fn bind(input: &Schema, params: &Params) -> Result<Schema> {
        Deed::of(params)?.at("bind")?;
        Ok(input.clone())
    }

    fn open(params: &Params) -> Result<Pile> {
        Grouped::open(params).map(Pile)
    }

    fn push(&mut self, rows: &Rows<'_>, out: &mut Output) -> Result<()> {
        self.0.deed.at("push")?;
        let places: Vec<u32> = rows.range().map(|row| row as u32).collect();
        out.emit(rows.batch().take(&places)?)
    }

    fn end(&mut self, _: &Rows<'_>, _: &mut Output) -> Result<()> {
        self.0.deed.at("end").map(drop)
    }
}

fn toil(task: Task) -> Result<Vec<u8>> {
    Deed::of(&task.params)?.at("run")?;
    match task.params.get("deed") {
        // What a task answers with counts as output.
        Some("answer") => Ok(vec![7; task.params.parse("bytes", 0)?]),
        _ => Ok(vec![]),
    }
}

fn spin_for_ever(_: Task) -> Result<Vec<u8>> {
    Deed::of(&Params::from([("deed", "spin"), ("at", "run")]))?.at("run")?;
    Ok(vec![])
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
