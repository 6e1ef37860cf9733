use weft::prelude::*;

use crate::agent::Agents;
use crate::payment::{Payment, Place};

/// What is known of each payment.
pub(crate) fn schema() -> Schema {
    Schema::new().utf8("fam").utf8("os").i64("km").i64("score")
}

/// Payments in, a score for each out. A payment that lacks something is skipped, and counted.
#[derive(Default)]
pub(crate) struct Score {
    agents: Agents,
    n_payments: u64,
    n_skipped: u64,
}

impl Map for Score {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        input.require("ua", DataType::Utf8)?;
        for name in ["lat1", "lon1", "lat2", "lon2", "amount"] {
            input.require(name, DataType::Float64)?;
        }
        input.require("hour", DataType::Int32)?;
        Ok(schema())
    }

    fn open(_: &Params) -> Result<Score> {
        Ok(Score::default())
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let n = input.rows();
        let agents = input.binary("ua")?;
        let (lat1, lon1) = (input.f64("lat1")?, input.f64("lon1")?);
        let (lat2, lon2) = (input.f64("lat2")?, input.f64("lon2")?);
        let (amounts, hours) = (input.f64("amount")?, input.i32("hour")?);
        let known = &mut self.agents;
        let payment = |row| {
            Some(Payment {
                agent: known.parse(agents.get(row)?),
                from: Place {
                    latitude: lat1.get(row)?,
                    longitude: lon1.get(row)?,
                },
                to: Place {
                    latitude: lat2.get(row)?,
                    longitude: lon2.get(row)?,
                },
                amount: amounts.get(row)?,
                hour: hours.get(row)?,
            })
        };
        let mut families = Utf8Builder::with_capacity(n, 8 * n);
        let mut systems = Utf8Builder::with_capacity(n, 8 * n);
        let mut distances = Vec::with_capacity(n);
        let mut scores = Vec::with_capacity(n);
        for payment in (0..n).filter_map(payment) {
            let (score, km) = payment.score();
            families.push(payment.agent.family);
            systems.push(payment.agent.system);
            distances.push(km as i64);
            scores.push(score);
        }
        self.n_payments += n as u64;
        self.n_skipped += (n - scores.len()) as u64;
        out.emit(Batch::new(
            &schema(),
            [
                families.into(),
                systems.into(),
                distances.into(),
                scores.into(),
            ],
        )?)
    }

    fn finish(&mut self, _: &mut Output) -> Result<()> {
        if self.n_skipped > 0 {
            weft::info!(
                "skipped {} payments of {} that lack something",
                self.n_skipped,
                self.n_payments
            );
        }
        Ok(())
    }
}
