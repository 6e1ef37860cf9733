//! Tasks whose number follows from the bytes that they read, once these are committed.
//!
//! ```text
//! planner ──AdaptiveTasks──▶ state: all inputs committed, EdgeBytes of the commits ──count──▶ settled
//!                                                                                              │
//! each task: indexes of the committed objects ──▶ its partitions, or its piece of one ◀────────┘
//! ```
//!
//! The state knows sums of bytes and how large a partition is at most, not the bytes of each partition: what it keeps
//! grows with writers and readers, not with their product. It settles how many tasks run; which partitions each of
//! them reads follows from the indexes, the same in every attempt.

use serde::{Deserialize, Serialize};

use crate::plan::TaskRange;

/// Decompressed bytes that are worth a task: if there is less for each of them, fewer tasks run.
pub const TASK_BYTES: u64 = 8 << 20;

/// Decompressed bytes that were written to an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EdgeBytes {
    /// Those of all partitions.
    pub all: u64,
    /// Those of the largest partition. A sum over tasks is an upper bound.
    pub largest: u64,
}

impl EdgeBytes {
    /// Adds what another task wrote.
    pub fn add(&mut self, other: &EdgeBytes) {
        self.all = self.all.saturating_add(other.all);
        self.largest = self.largest.saturating_add(other.largest);
    }
}

/// Tasks of a stage that stand side by side, read partitions or ranges of edges, and may be more or fewer than planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdaptiveTasks {
    /// The tasks as they were planned.
    pub planned: TaskRange,
    /// Fewer may run, each of which reads several partitions.
    pub coalesce: bool,
    /// Positions among the stage's reads of edges of which several tasks may share a partition. Each of them reads
    /// that partition of the other edges whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<u32>,
    /// Number of tasks that run, once it is settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<u32>,
}

impl AdaptiveTasks {
    /// Number of tasks for `bytes` in all partitions. `split`: bytes of the edges that may be split.
    pub fn count(&self, bytes: u64, split: &[EdgeBytes]) -> u32 {
        let planned = self.planned.count;
        let base = match self.coalesce {
            true => saturated(bytes.div_ceil(TASK_BYTES)).clamp(1, planned.max(1)),
            false => planned,
        };
        let pieces = split.iter().map(|edge| {
            let fair = fair_bytes(edge.all, planned);
            match is_skewed(edge.largest, fair) {
                true => saturated(edge.largest.div_ceil(piece_bytes(fair))),
                false => 0,
            }
        });
        let n_pieces = pieces.max().unwrap_or_default();
        base.saturating_add(n_pieces.min(planned))
    }
}

/// Bytes of a partition if `n_tasks` have as many each, and at least what is worth a task.
pub fn fair_bytes(bytes: u64, n_tasks: u32) -> u64 {
    (bytes / u64::from(n_tasks.max(1))).max(TASK_BYTES)
}

/// Returns whether a partition of so many bytes is too large for one task: half as large again as a fair share.
pub fn is_skewed(bytes: u64, fair: u64) -> bool {
    bytes > fair.saturating_add(fair / 2)
}

/// Bytes of each task that shares a partition: half of a fair share, so that slots which are free take the last ones.
pub fn piece_bytes(fair: u64) -> u64 {
    (fair / 2).max(TASK_BYTES)
}

/// The tasks that run in place of a range of planned ones, which is an adaptive one or holds none of their tasks.
///
/// `adaptive`: the adaptive tasks of the stage, in order.
pub fn settled_tasks(adaptive: &[AdaptiveTasks], planned: TaskRange) -> TaskRange {
    let mut settled = planned;
    for tasks in adaptive {
        let count = tasks.settled.unwrap_or(tasks.planned.count);
        if tasks.planned == planned {
            settled.count = count;
        } else if tasks.planned.first < planned.first {
            // Plans come from executors: wrong ones may wrap, and are refused by their ranges.
            let first = settled.first.wrapping_add(count);
            settled.first = first.wrapping_sub(tasks.planned.count);
        }
    }
    settled
}

/// Partitions that an adaptive task has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPart {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Position of the task among those that share the partition.
    pub piece: u32,
    /// Number of tasks that share it; 1 if none does.
    pub pieces: u32,
}

fn saturated(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn tasks(first: u32, count: u32, split: &[u32]) -> AdaptiveTasks {
        AdaptiveTasks {
            planned: TaskRange { first, count },
            coalesce: true,
            split: split.to_vec(),
            settled: None,
        }
    }

    #[test]
    fn little_is_read_by_few_tasks() {
        let count = |bytes: u64| tasks(0, 16, &[]).count(bytes, &[]);
        assert_eq!(count(0), 1);
        assert_eq!(count(3 * MIB), 1);
        assert_eq!(count(TASK_BYTES + 1), 2);
        assert_eq!(count(15 * TASK_BYTES), 15);
        assert_eq!(count(u64::MAX), 16);
        let exact = AdaptiveTasks {
            coalesce: false,
            ..tasks(0, 16, &[])
        };
        assert_eq!(exact.count(3 * MIB, &[]), 16);
    }

    #[test]
    fn a_partition_that_is_much_larger_than_others_has_tasks_of_its_own() {
        // A fair share is 64 MiB of these, whatever the other side has.
        let all = 1024 * MIB;
        let edge = |all: u64, largest: u64| EdgeBytes { all, largest };
        let count = |largest: u64| tasks(0, 16, &[1]).count(3 * all, &[edge(all, largest)]);
        assert_eq!(count(96 * MIB), 16);
        assert_eq!(count(96 * MIB + 1), 16 + 4);
        assert_eq!(count(256 * MIB), 16 + 8);
        assert_eq!(count(all), 32);
        assert_eq!(count(u64::MAX), 32);
        // What one task can read is not split.
        let small = edge(3 * MIB, 3 * MIB);
        assert_eq!(tasks(0, 16, &[1]).count(3 * MIB, &[small]), 1);
        // Of several sides, the one with the largest partition counts.
        let sides = [edge(all, 128 * MIB), edge(all, 96 * MIB)];
        assert_eq!(tasks(0, 16, &[0, 1]).count(2 * all, &sides), 16 + 4);
    }

    #[test]
    fn tasks_behind_settled_ones_move() {
        let range = |first, count| TaskRange { first, count };
        let mut adaptive = vec![tasks(2, 4, &[]), tasks(9, 3, &[])];
        assert_eq!(settled_tasks(&adaptive, range(6, 3)), range(6, 3));
        adaptive[0].settled = Some(1);
        adaptive[1].settled = Some(5);
        let settled = |first, count| settled_tasks(&adaptive, range(first, count));
        assert_eq!(settled(0, 2), range(0, 2));
        assert_eq!(settled(2, 4), range(2, 1));
        assert_eq!(settled(6, 3), range(3, 3));
        assert_eq!(settled(9, 3), range(6, 5));
        assert_eq!(settled(12, 1), range(11, 1));
    }
}
