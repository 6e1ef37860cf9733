//! Sums of usage by minute and function, for what outlives the jobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_core::FunctionUsage;

/// Minutes that are kept apart (31 days); older ones are folded into one sum per function.
pub const USAGE_MINUTES_MAX: usize = 31 * 24 * 60;

/// Sums of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageSums {
    /// By Unix minute, then function.
    pub minutes: BTreeMap<u64, BTreeMap<String, FunctionUsage>>,
    /// What is older than the minutes kept.
    pub older: BTreeMap<String, FunctionUsage>,
}

impl UsageSums {
    pub(crate) fn add(&mut self, at_ms: u64, usage: &[FunctionUsage]) {
        let minute = self.minutes.entry(at_ms / 60_000).or_default();
        fold(minute, usage);
        while self.minutes.len() > USAGE_MINUTES_MAX {
            if let Some((_, oldest)) = self.minutes.pop_first() {
                fold(&mut self.older, &oldest.into_values().collect::<Vec<_>>());
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
