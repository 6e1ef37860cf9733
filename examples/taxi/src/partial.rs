use std::collections::BTreeMap;

use weft::prelude::*;

use crate::fares::Fares;

/// Zones below this number have a place of their own. Those of the taxi commission go up to 265.
const SMALL_ZONES: usize = 4096;

/// Places of other zones that are held in memory at a time.
const OTHERS_MAX: usize = 1 << 16;

/// What goes through the shuffle: fares of one zone and hour, of one task.
pub(crate) fn schema() -> Schema {
    Schema::new()
        .i64("zone")
        .i32("hour")
        .i64("cents")
        .i64("trips")
}

/// Fares by zone and hour.
#[derive(Default)]
pub(crate) struct Table {
    small: Vec<[Fares; 24]>,
    others: BTreeMap<(i64, i32), Fares>,
}

impl Table {
    /// The fares of a zone and an hour, which is one of 0 to 23.
    #[inline]
    pub(crate) fn at(&mut self, zone: i64, hour: i32) -> &mut Fares {
        match usize::try_from(zone) {
            Ok(zone) if zone < SMALL_ZONES => {
                if zone >= self.small.len() {
                    self.small.resize(zone + 1, Default::default());
                }
                &mut self.small[zone][hour as usize]
            }
            _ => self.others.entry((zone, hour)).or_default(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.others.len() >= OTHERS_MAX
    }

    /// Emits a row for each zone and hour that has trips, and forgets them.
    pub(crate) fn drain(&mut self, out: &mut Output) -> Result<()> {
        let (small, others) = (
            std::mem::take(&mut self.small),
            std::mem::take(&mut self.others),
        );
        let hours = |(zone, fares): (i64, [Fares; 24])| {
            (0i32..)
                .zip(fares)
                .map(move |(hour, fares)| ((zone, hour), fares))
        };
        let (mut zones, mut hours_of_day) = (vec![], vec![]);
        let (mut cents, mut trips) = (vec![], vec![]);
        for ((zone, hour), fares) in (0i64..).zip(small).flat_map(hours).chain(others) {
            if fares.trips > 0 {
                zones.push(zone);
                hours_of_day.push(hour);
                cents.push(fares.cents);
                trips.push(fares.trips);
            }
        }
        out.emit(Batch::new(
            &schema(),
            [
                zones.into(),
                hours_of_day.into(),
                cents.into(),
                trips.into(),
            ],
        )?)
    }
}
