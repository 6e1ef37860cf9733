//! Sums over what a task of SQL has read, edge by edge: all tasks together must have read what was written.

use weft_core::{ErrorCode, Problem, lock};
use weft_protocol::{ReadMode, Sums};

use super::{SqlSources, of_writer};
use crate::keyed::KeyedShare;
use crate::plan::{EdgeLeaf, Leaf};

impl SqlSources {
    /// Sums over what the task has read, by edge of the stage. A segment that nobody pulled, because a limit was
    /// reached or a side of a join was empty, counts as the index of its object has it; one that a stream passed over
    /// which ran to its end does not count, and is missed.
    pub(crate) async fn finish(&self) -> Result<Vec<Sums>, Problem> {
        let mut read = Vec::new();
        for (position, leaf) in (0..).zip(self.leaves()) {
            let Leaf::Edge(edge) = leaf else { continue };
            if edge.read.mode == ReadMode::Ranged {
                read.push(self.finish_ranged(position, edge).await?);
                continue;
            }
            if let Some((keyed, of)) = self.keyed(edge) {
                read.push(self.finish_keyed(position, edge, &keyed, of).await?);
                continue;
            }
            let share = self.share(edge)?;
            let mut sums = Sums::default();
            for (task, object) in share.of_writers(0..share.objects.len()) {
                let (edge_number, partition) = (edge.read.edge, share.partition);
                let segments = self.reader.segments(object, task, edge_number, partition);
                let segments = segments
                    .await
                    .map_err(|error| of_writer(&edge.from, &error))?;
                let counts = lock(&self.counts);
                let has_ended = counts.ended.contains(&(position, task));
                for segment in segments {
                    let read = (position, task, partition, segment.sequence());
                    if !has_ended || counts.read.contains(&read) {
                        sums.add(&segment.sums());
                    }
                }
            }
            read.push(sums);
        }
        Ok(read)
    }

    /// The same of an edge whose partitions the tasks share. What several tasks read whole is one's to count, and each
    /// of the others checks it alone.
    async fn finish_keyed(
        &self,
        leaf: u32,
        edge: &EdgeLeaf,
        keyed: &KeyedShare,
        of: usize,
    ) -> Result<Sums, Problem> {
        let (mut sums, mut due) = (Sums::default(), Sums::default());
        let Some(part) = keyed.part(&self.reader, &self.account).await? else {
            return Ok(sums);
        };
        let share = self.share(edge)?;
        for (task, object) in share.of_writers(0..share.objects.len()) {
            let segments = keyed.segments(&self.reader, of, &part, (task, object));
            let segments = segments.await?;
            let counts = lock(&self.counts);
            let has_ended = counts.ended.contains(&(leaf, task));
            for segment in segments {
                let read = (leaf, task, segment.partition(), segment.sequence());
                due.add(&segment.sums());
                if !has_ended || counts.read.contains(&read) {
                    sums.add(&segment.sums());
                }
            }
        }
        if part.counts(of) {
            return Ok(sums);
        }
        match sums == due {
            true => Ok(Sums::default()),
            false => {
                let detail = format!(
                    "task {} of stage `{}` read {} rows in {} segments of a partition of stage `{}` that has {} in {}: \
                     rows were lost or doubled on the way",
                    self.task,
                    self.plan.name,
                    sums.rows,
                    sums.segments,
                    edge.from,
                    due.rows,
                    due.segments
                );
                Err(Problem::new(ErrorCode::Internal, detail))
            }
        }
    }

    /// The same of an edge of which the task reads a range. Segments count for the task in whose range their first
    /// rows are, by the index alone, and rows for the task that kept them: together they are what was written.
    async fn finish_ranged(&self, leaf: u32, edge: &EdgeLeaf) -> Result<Sums, Problem> {
        let mut sums = Sums::default();
        let Some(share) = self.ranged_share(edge)? else {
            return Ok(sums);
        };
        let ranges = share.ranges(&self.reader, &self.account).await?;
        let writers = self.share(edge)?;
        for (task, object) in writers.of_writers(0..writers.objects.len()) {
            let segments = self.reader.segments(object, task, edge.read.edge, 0).await;
            let segments = segments.map_err(|error| of_writer(&edge.from, &error))?;
            let counts = lock(&self.counts);
            let has_ended = counts.ended.contains(&(leaf, task));
            for segment in &segments[ranges.owned(task, share.reader)] {
                let read = (leaf, task, 0, segment.sequence());
                if !has_ended || counts.read.contains(&read) {
                    let mut of_segment = segment.sums();
                    if has_ended {
                        of_segment.rows = 0;
                    }
                    sums.add(&of_segment);
                }
            }
            let kept = counts
                .kept
                .range((leaf, task, 0, 0)..=(leaf, task, 0, u32::MAX));
            if has_ended {
                let rows = kept.map(|(_, rows)| rows).sum();
                sums.add(&Sums {
                    rows,
                    ..Sums::default()
                });
            }
        }
        Ok(sums)
    }
}
