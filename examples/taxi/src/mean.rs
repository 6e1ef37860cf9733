use weft::BATCH_ROWS;
use weft::prelude::*;

use crate::fares::Fares;

/// Fares of a zone and hour in, their mean out. Groups come in order, and so do rows.
#[derive(Default)]
pub(crate) struct Mean {
    fares: Fares,
    zones: Vec<i64>,
    hours: Vec<i32>,
    means: Vec<f64>,
    trips: Vec<i64>,
}

fn schema() -> Schema {
    Schema::new()
        .i64("zone")
        .i32("hour")
        .f64("avg_fare")
        .i64("trips")
}

impl Reduce for Mean {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("zone", DataType::Int64)?;
        input.require("hour", DataType::Int32)?;
        input.require("cents", DataType::Int64)?;
        input.require("trips", DataType::Int64)?;
        Ok(schema())
    }

    fn open(_: &Params) -> Result<Mean> {
        Ok(Mean::default())
    }

    fn push(&mut self, rows: &Rows<'_>, _: &mut Output) -> Result<()> {
        let (cents, trips) = (rows.i64("cents")?, rows.i64("trips")?);
        for (cents, trips) in cents.as_slice()?.iter().zip(trips.as_slice()?) {
            self.fares.add(Fares {
                cents: *cents,
                trips: *trips,
            })?;
        }
        Ok(())
    }

    fn end(&mut self, last: &Rows<'_>, out: &mut Output) -> Result<()> {
        let fares = std::mem::take(&mut self.fares);
        self.zones.push(last.i64("zone")?.value(0));
        self.hours.push(last.i32("hour")?.value(0));
        self.means.push(fares.mean());
        self.trips.push(fares.trips);
        if self.trips.len() >= BATCH_ROWS {
            self.finish(out)
        } else {
            Ok(())
        }
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let columns = [
            std::mem::take(&mut self.zones).into(),
            std::mem::take(&mut self.hours).into(),
            std::mem::take(&mut self.means).into(),
            std::mem::take(&mut self.trips).into(),
        ];
        out.emit(Batch::new(&schema(), columns)?)
    }
}
