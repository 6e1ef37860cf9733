//! Nodes on which attempts keep failing for the platform's reasons: a broken disk, say. Such a node fails
//! fast, is idle, and would be given every task next; so it is left alone for a while, as long as another
//! one takes work.

use weft_core::NodeId;
use weft_protocol::TaskFailure;

use super::nodes::NodeView;
use super::{Scheduler, Turn};

/// Failures in a row after which a node is left alone.
const FAULTS_MAX: u32 = 3;
/// Time for which it is left alone. A success ends its row; one more failure after it begins the time anew.
const QUARANTINE_MS: u64 = 30_000;

/// Outcomes of a node's attempts, lately.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    faults: u32,
    until_ms: Option<u64>,
}

impl Record {
    /// An attempt ended as it should, or failed for reasons of its own.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// An attempt failed for the platform's reasons. Returns whether the node is left alone from now on.
    pub(super) fn failed(&mut self, now_ms: u64) -> bool {
        self.faults += 1;
        if self.faults < FAULTS_MAX || self.is_quarantined(now_ms) {
            return false;
        }
        self.until_ms = Some(now_ms + QUARANTINE_MS);
        true
    }

    pub(super) fn is_quarantined(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| now_ms < until_ms)
    }
}

/// Returns whether a node takes work that another one can take as well.
pub(super) fn is_trusted(view: &NodeView, now_ms: u64) -> bool {
    !view.record.is_quarantined(now_ms)
}

impl Scheduler {
    /// Remembers how an attempt on a node ended.
    pub(super) fn note_attempt(
        &mut self,
        turn: &Turn<'_>,
        node: &NodeId,
        failure: Option<&TaskFailure>,
    ) {
        let Some(view) = self.nodes.get_mut(node) else {
            return;
        };
        match failure {
            // What another task wrote is lost, whichever node reads it.
            Some(failure) if failure.cancelled || failure.lost.is_some() => {}
            Some(TaskFailure { problem, .. }) if problem.code.is_platform_fault() => {
                if view.record.failed(turn.now.monotonic_ms) {
                    let for_s = QUARANTINE_MS / 1_000;
                    tracing::warn!(%node, for_s, %problem, "attempts on a node keep failing: others are preferred");
                }
            }
            _ => view.record.succeeded(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_left_alone_after_failures_in_a_row() {
        let mut record = Record::default();
        assert!(!record.failed(1));
        assert!(!record.failed(2));
        record.succeeded();
        assert!(!record.failed(3) && !record.failed(4));
        assert!(record.failed(5), "the third in a row");
        assert!(record.is_quarantined(6));
        assert!(!record.failed(7), "it is left alone already");
        let later = 5 + QUARANTINE_MS;
        assert!(!record.is_quarantined(later));
        assert!(record.failed(later), "it is as before");
        record.succeeded();
        assert!(!record.is_quarantined(later + 1));
    }
}
