use std::cmp::Reverse;

use weft::prelude::*;

use crate::tally::Tally;
use crate::visits;

/// Pages of a day that come out.
const TOP: usize = 10;

/// Pages that a combine remembers before it lets them go: a combine need not be perfect, and memory is limited.
const MAX_PAGES: usize = 1 << 20;

/// Visits of a day in, one row for each of its pages out.
#[derive(Default)]
pub(crate) struct TopPartial {
    pages: Tally,
}

impl Reduce for TopPartial {
    fn bind(_: &Schema, _: &Params) -> Result<Schema> {
        Ok(visits::schema())
    }

    fn open(_: &Params) -> Result<TopPartial> {
        Ok(TopPartial::default())
    }

    fn push(&mut self, rows: &Rows<'_>, out: &mut Output) -> Result<()> {
        add_pages(&mut self.pages, rows)?;
        if self.pages.len() > MAX_PAGES {
            self.end(rows, out)
        } else {
            Ok(())
        }
    }

    fn end(&mut self, last: &Rows<'_>, out: &mut Output) -> Result<()> {
        let (pages, hits) = self.pages.take();
        let addresses = Column::nulls_of(&DataType::Utf8, hits.len());
        out.emit(visits::of_day(
            last.utf8("day")?.value(0),
            addresses,
            pages,
            hits,
        )?)
    }
}

/// Visits of a day in, its most requested pages out.
#[derive(Default)]
pub(crate) struct Top {
    pages: Tally,
    days: Utf8Builder,
    ranks: Vec<i32>,
    top: Utf8Builder,
    hits: Vec<i64>,
}

fn top() -> Schema {
    Schema::new()
        .utf8("day")
        .i32("rank")
        .utf8("page")
        .i64("hits")
}

impl Reduce for Top {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("day", DataType::Utf8)?;
        input.require("page", DataType::Utf8)?;
        input.require("hits", DataType::Int64)?;
        Ok(top())
    }

    fn open(_: &Params) -> Result<Top> {
        Ok(Top::default())
    }

    fn push(&mut self, rows: &Rows<'_>, _: &mut Output) -> Result<()> {
        add_pages(&mut self.pages, rows)
    }

    fn end(&mut self, last: &Rows<'_>, _: &mut Output) -> Result<()> {
        let day = last.utf8("day")?.value(0);
        for (rank, page) in (1..).zip(most_requested(&self.pages)) {
            self.days.push(day);
            self.ranks.push(rank);
            self.top.push(self.pages.text(page));
            self.hits.push(self.pages.sum(page));
        }
        self.pages.clear();
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let (ranks, hits) = (
            std::mem::take(&mut self.ranks),
            std::mem::take(&mut self.hits),
        );
        out.emit(Batch::new(
            &top(),
            [self.days.take(), ranks.into(), self.top.take(), hits.into()],
        )?)
    }
}

fn add_pages(pages: &mut Tally, rows: &Rows<'_>) -> Result<()> {
    let hits = rows.i64("hits")?;
    for (page, hits) in rows.utf8("page")?.iter().zip(hits.as_slice()?) {
        if let Some(page) = page {
            pages.add(page, *hits);
        }
    }
    Ok(())
}

/// Positions of the pages with most hits, ties by page.
fn most_requested(pages: &Tally) -> Vec<usize> {
    let key = |page: &usize| (Reverse(pages.sum(*page)), pages.text(*page));
    let mut order: Vec<usize> = (0..pages.len()).collect();
    if order.len() > TOP {
        order.select_nth_unstable_by(TOP, |a, b| key(a).cmp(&key(b)));
        order.truncate(TOP);
    }
    order.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    order
}
