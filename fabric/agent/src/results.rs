//! Results that no leader has acknowledged.

use std::collections::BTreeMap;

use weft_core::TenantId;
use weft_protocol::{AgentOutcome, AgentResult};

/// Results by number. There are as many as the work that the agent was given.
#[derive(Default)]
pub(crate) struct Results {
    last: u64,
    open: BTreeMap<u64, AgentResult>,
}

impl Results {
    /// Numbers a result, and keeps it.
    pub(crate) fn add(&mut self, tenant: TenantId, outcome: AgentOutcome) -> AgentResult {
        self.last += 1;
        let number = self.last;
        let result = AgentResult {
            number,
            answered_below: self.open.keys().next().copied().unwrap_or(number),
            tenant,
            outcome,
        };
        self.open.insert(number, result.clone());
        result
    }

    /// Forgets results that are recorded.
    pub(crate) fn acknowledge(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.open.remove(number);
        }
    }

    /// Number of results that are kept.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// All that are kept, by number.
    pub(crate) fn all(&self) -> Vec<AgentResult> {
        self.open.values().cloned().collect()
    }

    /// Returns whether a report of the tenant's usage has not been acknowledged.
    pub(crate) fn reports_usage_of(&self, tenant: &TenantId) -> bool {
        self.open.values().any(|result| {
            result.tenant == *tenant && matches!(result.outcome, AgentOutcome::Usage { .. })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage() -> AgentOutcome {
        AgentOutcome::Usage { usage: Vec::new() }
    }

    #[test]
    fn results_are_kept_until_they_are_acknowledged() {
        let (mut results, tenant) = (Results::default(), TenantId::default_tenant());
        let numbers = |results: &Results| -> Vec<u64> {
            results.all().iter().map(|result| result.number).collect()
        };
        for expected in 1..=3 {
            let result = results.add(tenant.clone(), usage());
            assert_eq!((result.number, result.answered_below), (expected, 1));
        }
        results.acknowledge(&[2]);
        assert_eq!(numbers(&results), [1, 3]);
        results.acknowledge(&[1, 2]);
        assert_eq!(results.add(tenant.clone(), usage()).answered_below, 3);
        assert!(results.reports_usage_of(&tenant));
        results.acknowledge(&[3, 4]);
        assert!(results.all().is_empty());
        assert!(!results.reports_usage_of(&tenant));
        assert_eq!(results.add(tenant, usage()).answered_below, 5);
    }
}
