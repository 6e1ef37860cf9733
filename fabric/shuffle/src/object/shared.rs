//! Ways of tasks to share edges: computed once for all of an executor, from sizes that indexes tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_core::lock;
use weft_protocol::{EdgeBytes, EdgeRef, ObjectRef};

use super::{Added, ObjectReader, ObjectWriter};
use crate::error::Result;
use crate::parts::SharedParts;
use crate::ranges::SharedRanges;

/// Ranges of edges, each by its number of tasks.
pub(super) type RangesOf = BTreeMap<(EdgeRef, u32), SharedRanges>;

/// Parts of stages, each by the stage and the first of its tasks that share them.
pub(super) type PartsOf = BTreeMap<(u32, u32), SharedParts>;

impl ObjectWriter {
    /// Decompressed bytes of the segments so far, for each of `n_edges` edges.
    pub fn bytes(&self, n_edges: usize) -> Vec<EdgeBytes> {
        let mut partitions: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for Added { entry, .. } in &self.segments {
            *partitions.entry((entry.edge, entry.partition)).or_default() += entry.raw_bytes;
        }
        let mut bytes = vec![EdgeBytes::default(); n_edges];
        for ((edge, _), of_partition) in partitions {
            if let Some(of_edge) = bytes.get_mut(edge as usize) {
                of_edge.all += of_partition;
                of_edge.largest = of_edge.largest.max(of_partition);
            }
        }
        bytes
    }
}

impl ObjectReader {
    /// The ranges of an edge for `n_tasks` tasks, which one of the job's tasks computes for all.
    pub fn shared_ranges(&self, edge: EdgeRef, n_tasks: u32) -> SharedRanges {
        let mut ranges = lock(&self.ranges);
        Arc::clone(ranges.entry((edge, n_tasks)).or_default())
    }

    /// The parts of the tasks of a stage from `first` on, which one of the job's tasks computes for all.
    pub fn shared_parts(&self, stage: u32, first: u32) -> SharedParts {
        let mut parts = lock(&self.parts);
        Arc::clone(parts.entry((stage, first)).or_default())
    }

    /// Decompressed bytes of each segment of an edge, with its partition, in the order of the index.
    ///
    /// Errors: `Damaged` if the index is.
    pub async fn raw_bytes(&self, object: &ObjectRef, edge: u32) -> Result<Vec<(u32, u64)>> {
        let index = self.index(object).await?;
        let of_edge = index.iter().filter(|entry| entry.edge == edge);
        Ok(of_edge
            .map(|entry| (entry.partition, entry.raw_bytes))
            .collect())
    }
}
