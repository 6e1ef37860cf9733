use weft::prelude::*;

use crate::fares::{Fares, cents};
use crate::partial::{self, Table};

const ZONE: &str = "PULocationID";
const PICKUP: &str = "tpep_pickup_datetime";
const FARE: &str = "fare_amount";

/// Trips in, fares by zone and hour out: a task's own, once, at its end.
///
/// A trip without zone, pickup or fare is skipped, and counted.
#[derive(Default)]
pub(crate) struct TaskFares {
    table: Table,
    n_trips: u64,
    n_skipped: u64,
}

impl Map for TaskFares {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        // Files from before 2023 have the wider type.
        if input.field(ZONE)?.data_type != DataType::Int32 {
            input.require(ZONE, DataType::Int64)?;
        }
        input.require(PICKUP, DataType::TimestampUs)?;
        input.require(FARE, DataType::Float64)?;
        Ok(partial::schema())
    }

    fn open(_: &Params) -> Result<TaskFares> {
        Ok(TaskFares::default())
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let (pickups, fares) = (input.timestamp_us(PICKUP)?, input.f64(FARE)?);
        let times_and_fares = pickups.iter().zip(fares.iter());
        for (zone, (pickup, fare)) in zones(&input)?.into_iter().zip(times_and_fares) {
            match (zone, pickup, fare.and_then(cents)) {
                (Some(zone), Some(pickup), Some(cents)) => {
                    let fares = self.table.at(zone, hour(pickup));
                    fares.add(Fares { cents, trips: 1 })?;
                }
                _ => self.n_skipped += 1,
            }
        }
        self.n_trips += input.rows() as u64;
        if self.table.is_full() {
            self.table.drain(out)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        if self.n_skipped > 0 {
            weft::info!(
                "skipped {} trips of {} without zone, pickup or fare",
                self.n_skipped,
                self.n_trips
            );
        }
        self.table.drain(out)
    }
}

fn zones(trips: &Batch) -> Result<Vec<Option<i64>>> {
    Ok(match trips.schema().field(ZONE)?.data_type {
        DataType::Int32 => {
            let zones = trips.i32(ZONE)?.iter();
            zones.map(|zone| zone.map(i64::from)).collect()
        }
        _ => trips.i64(ZONE)?.iter().collect(),
    })
}

/// The hour of the day, 0 to 23, of a time in microseconds since 1970: as it stands in the file, which means local time.
fn hour(time_us: i64) -> i32 {
    // Hours are whole numbers of 1024 us: the day's part of them fits 32 bits, of which processors divide faster.
    const HOUR: u64 = 3_600_000_000 >> 10;
    const DAY: u64 = 24 * HOUR;
    // Whole days that make all times positive.
    const DAYS: i64 = ((1u64 << 53).div_ceil(DAY) * DAY) as i64;
    let time = ((time_us >> 10) + DAYS) as u64 % DAY;
    (time as u32 / HOUR as u32) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_those_of_the_day() {
        const HOUR_US: i64 = 3_600_000_000;
        assert_eq!((hour(0), hour(HOUR_US - 1), hour(HOUR_US)), (0, 0, 1));
        assert_eq!(hour(1_735_689_599_999_999), 23); // 2024-12-31T23:59:59.999999
        assert_eq!((hour(-1), hour(-24 * HOUR_US)), (23, 0));
        let exact = |time_us: i64| time_us.div_euclid(HOUR_US).rem_euclid(24) as i32;
        for hours in (-2_562_047_788..=2_562_047_788).step_by(9973) {
            for time in [-1, 0, 1].map(|away| hours * HOUR_US + away) {
                assert_eq!(hour(time), exact(time), "{time}");
            }
        }
        for time in [i64::MIN, i64::MIN + 1, i64::MAX] {
            assert_eq!(hour(time), exact(time), "{time}");
        }
    }
}
