use weft::prelude::*;

use crate::tally::Tally;
use crate::visits;

/// Addresses that a combine remembers before it lets them go: a combine need not be perfect, and memory is limited.
const MAX_ADDRESSES: usize = 1 << 20;

/// Visits of a day in, one row for each of its addresses out.
#[derive(Default)]
pub(crate) struct DailyPartial {
    addresses: Tally,
}

impl Reduce for DailyPartial {
    fn bind(_: &Schema, _: &Params) -> Result<Schema> {
        Ok(visits::schema())
    }

    fn open(_: &Params) -> Result<DailyPartial> {
        Ok(DailyPartial::default())
    }

    fn push(&mut self, rows: &Rows<'_>, out: &mut Output) -> Result<()> {
        add_addresses(&mut self.addresses, rows)?;
        if self.addresses.len() > MAX_ADDRESSES {
            self.end(rows, out)
        } else {
            Ok(())
        }
    }

    fn end(&mut self, last: &Rows<'_>, out: &mut Output) -> Result<()> {
        let (addresses, hits) = self.addresses.take();
        let pages = Column::nulls_of(&DataType::Utf8, hits.len());
        out.emit(visits::of_day(
            last.utf8("day")?.value(0),
            addresses,
            pages,
            hits,
        )?)
    }
}

/// Visits of a day in, how many addresses they came from out.
#[derive(Default)]
pub(crate) struct Daily {
    addresses: Tally,
    days: Utf8Builder,
    visitors: Vec<i64>,
}

fn daily() -> Schema {
    Schema::new().utf8("day").i64("visitors")
}

impl Reduce for Daily {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("day", DataType::Utf8)?;
        input.require("address", DataType::Utf8)?;
        Ok(daily())
    }

    fn open(_: &Params) -> Result<Daily> {
        Ok(Daily::default())
    }

    fn push(&mut self, rows: &Rows<'_>, _: &mut Output) -> Result<()> {
        add_addresses(&mut self.addresses, rows)
    }

    fn end(&mut self, last: &Rows<'_>, _: &mut Output) -> Result<()> {
        self.days.push(last.utf8("day")?.value(0));
        self.visitors.push(self.addresses.len() as i64);
        self.addresses.clear();
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let visitors = std::mem::take(&mut self.visitors);
        out.emit(Batch::new(&daily(), [self.days.take(), visitors.into()])?)
    }
}

fn add_addresses(addresses: &mut Tally, rows: &Rows<'_>) -> Result<()> {
    rows.utf8("address")?
        .iter()
        .flatten()
        .for_each(|address| addresses.add(address, 0));
    Ok(())
}
