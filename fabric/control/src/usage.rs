//! Sums of usage by minute and function, for what outlives the jobs, and what they cost.
//!
//! Costs are not priced from these sums, because rounding sums is not summing what was rounded. When a job's line
//! grows, its amount grows from one rounded value to the next, and the minute gets the difference: all minutes
//! together have exactly the amounts of all receipts. Invocations have no receipts; those of one function in one
//! minute are a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::{Amounts, FunctionUsage, Meters, PriceSheet};

/// Minutes that are kept apart (31 days); older ones are folded into one sum per function.
pub const USAGE_MINUTES_MAX: usize = 31 * 24 * 60;
const MINUTE_MS: u64 = 60_000;

/// Sums of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "StoredSums")]
pub struct UsageSums {
    /// By Unix minute, then function.
    pub minutes: BTreeMap<u64, BTreeMap<String, FunctionUsage>>,
    /// What is older than the minutes kept.
    pub older: BTreeMap<String, FunctionUsage>,
    /// Costs by Unix minute, then function.
    pub costs: BTreeMap<u64, BTreeMap<String, Cost>>,
    /// Costs that are older than the minutes kept.
    pub older_costs: BTreeMap<String, Amounts>,
}

/// Costs of one function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Growth of the amounts of lines.
    #[serde(flatten)]
    pub amounts: Amounts,
    /// Billed meters of invocations, whose sum is a line.
    invoked: Meters,
}

/// Sums as a snapshot has them.
#[derive(Deserialize)]
struct StoredSums {
    minutes: BTreeMap<u64, BTreeMap<String, FunctionUsage>>,
    older: BTreeMap<String, FunctionUsage>,
    costs: Option<BTreeMap<u64, BTreeMap<String, Cost>>>,
    older_costs: Option<BTreeMap<String, Amounts>>,
}

impl From<StoredSums> for UsageSums {
    /// Snapshots of earlier versions have no costs: a minute's function is priced as a line, as it was then.
    fn from(stored: StoredSums) -> Self {
        let sheet = PriceSheet::default();
        let cost = |used: &FunctionUsage| Cost {
            amounts: sheet.amounts(&used.billed),
            ..Cost::default()
        };
        let of_minute = |minute: &BTreeMap<String, FunctionUsage>| {
            let costs = minute.iter().map(|(name, used)| (name.clone(), cost(used)));
            costs.collect::<BTreeMap<_, _>>()
        };
        let costs = stored.costs.unwrap_or_else(|| {
            let minutes = stored.minutes.iter();
            minutes
                .map(|(at, minute)| (*at, of_minute(minute)))
                .collect()
        });
        let older_costs = stored.older_costs.unwrap_or_else(|| {
            let older = stored.older.iter();
            older
                .map(|(name, used)| (name.clone(), cost(used).amounts))
                .collect()
        });
        Self {
            minutes: stored.minutes,
            older: stored.older,
            costs,
            older_costs,
        }
    }
}

impl UsageSums {
    /// Adds usage of a job. `growth`: by how much the amount of each line's sum in the job grew.
    pub(crate) fn add_of_job(&mut self, at_ms: u64, usage: &[FunctionUsage], growth: &[Amounts]) {
        let costs = self.costs.entry(at_ms / MINUTE_MS).or_default();
        for (one, growth) in usage.iter().zip(growth) {
            let cost = costs.entry(one.function.clone()).or_default();
            cost.amounts = cost.amounts.add(growth);
        }
        self.add(at_ms, usage);
    }

    /// Adds usage of invocations.
    pub(crate) fn add_of_invocations(&mut self, at_ms: u64, usage: &[FunctionUsage]) {
        let sheet = PriceSheet::default();
        let costs = self.costs.entry(at_ms / MINUTE_MS).or_default();
        for one in usage {
            let cost = costs.entry(one.function.clone()).or_default();
            let before = sheet.amounts(&cost.invoked);
            cost.invoked = cost.invoked.add(&one.billed);
            let growth = sheet.amounts(&cost.invoked).since(&before);
            cost.amounts = cost.amounts.add(&growth);
        }
        self.add(at_ms, usage);
    }

    fn add(&mut self, at_ms: u64, usage: &[FunctionUsage]) {
        let minute = self.minutes.entry(at_ms / MINUTE_MS).or_default();
        fold(minute, usage);
        while self.minutes.len() > USAGE_MINUTES_MAX {
            if let Some((_, oldest)) = self.minutes.pop_first() {
                fold(&mut self.older, &oldest.into_values().collect::<Vec<_>>());
            }
        }
        let first = self
            .minutes
            .first_key_value()
            .map_or(0, |(first, _)| *first);
        while let Some(oldest) = self
            .costs
            .first_entry()
            .filter(|oldest| *oldest.key() < first)
        {
            for (function, cost) in oldest.remove() {
                let sum = self.older_costs.entry(function).or_default();
                *sum = sum.add(&cost.amounts);
            }
        }
    }
}

fn fold(sums: &mut BTreeMap<String, FunctionUsage>, usage: &[FunctionUsage]) {
    for one in usage {
        let sum = sums
            .entry(one.function.clone())
            .or_insert_with(|| FunctionUsage {
                function: one.function.clone(),
                ..FunctionUsage::default()
            });
        sum.add(one);
    }
}
