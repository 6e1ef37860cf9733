use weft::prelude::*;

use crate::line;

/// A visit has all columns. What the combines make of visits leaves `address` or `page` out.
pub(crate) fn schema() -> Schema {
    Schema::new()
        .utf8("day")
        .utf8("address")
        .nullable()
        .utf8("page")
        .nullable()
        .i64("hits")
}

/// `n` rows of one day.
pub(crate) fn of_day(day: &str, addresses: Column, pages: Column, hits: Vec<i64>) -> Result<Batch> {
    let mut days = Utf8Builder::with_capacity(hits.len(), hits.len() * day.len());
    hits.iter().for_each(|_| days.push(day));
    Batch::new(&schema(), [days.into(), addresses, pages, hits.into()])
}

/// Lines in, visits out.
#[derive(Default)]
pub(crate) struct Parse {
    /// The day of the line before, as in the log and as it comes out: lines of a day stand together.
    date: [u8; 11],
    day: Option<String>,
    n_lines: u64,
    n_malformed: u64,
}

impl Map for Parse {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("line", DataType::Binary)?;
        Ok(schema())
    }

    fn open(_: &Params) -> Result<Parse> {
        Ok(Parse::default())
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let lines = input.binary("line")?;
        let n = lines.len();
        let mut days = Utf8Builder::with_capacity(n, 10 * n);
        let mut addresses = Utf8Builder::with_capacity(n, 16 * n);
        let mut pages = Utf8Builder::with_capacity(n, 32 * n);
        for line in lines.iter() {
            let Some((day, line)) = self.visit(line) else {
                continue;
            };
            days.push(day);
            addresses.push(line.address);
            pages.push(line.page);
        }
        let hits = vec![1i64; days.len()];
        self.n_lines += n as u64;
        self.n_malformed += (n - hits.len()) as u64;
        out.emit(Batch::new(
            &schema(),
            [days.into(), addresses.into(), pages.into(), hits.into()],
        )?)
    }

    fn finish(&mut self, _: &mut Output) -> Result<()> {
        weft::info!(
            "skipped {} malformed lines of {}",
            self.n_malformed,
            self.n_lines
        );
        Ok(())
    }
}

impl Parse {
    fn visit<'a>(&mut self, line: Option<&'a [u8]>) -> Option<(&str, line::Line<'a>)> {
        let line = line::parse(line?)?;
        if *line.date != self.date {
            self.date = *line.date;
            self.day = line::iso_day(line.date);
        }
        Some((self.day.as_deref()?, line))
    }
}
