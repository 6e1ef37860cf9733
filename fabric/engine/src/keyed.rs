//! Partitions that adaptive tasks share: which of them a task reads, and which segments of one that several share.
//!
//! All tasks of a stage find the same parts, from the indexes of what was committed. Of a partition that is shared,
//! each task reads its segments of one edge and that partition of the other edges whole. What several tasks read whole
//! counts once, for the first of them; the others check what they read by themselves.

use std::sync::Arc;

use futures::future::try_join_all;
use weft_core::{ErrorCode, Problem};
use weft_protocol::{
    AdaptiveTasks, EdgeRef, ObjectRef, ReadMode, StageContext, TaskPart, settled_tasks,
};
use weft_sandbox::{MemoryAccount, Reservation};
use weft_shuffle::{LargePartition, ObjectReader, Part, Parts, Segment, SegmentBytes};

use crate::edge::out_of_memory;
use crate::plan::{EdgeLeaf, Leaf};
use crate::sql_source::of_writer;

/// Indexes that a task reads at a time.
const INDEX_READS: usize = 16;

/// An edge whose partitions the tasks share.
struct KeyedEdge {
    edge: EdgeRef,
    /// Position of the edge among those that the stage reads.
    input: usize,
    /// The writing stage's name, for errors.
    from: String,
    partitions: usize,
    is_split: bool,
}

/// The edges of which a task and those beside it read partitions.
pub(crate) struct KeyedShare {
    context: Arc<StageContext>,
    /// Position of the first of the tasks as they were planned.
    first: u32,
    edges: Vec<KeyedEdge>,
    /// Position of the task among those that share the partitions.
    reader: u32,
    /// Number of tasks that share them.
    n_readers: u32,
}

impl KeyedShare {
    /// Finds the edges that a task of a stage with these leaves shares. Nothing if its number of tasks is not settled,
    /// or it reads no partitions.
    pub(crate) fn of(context: &Arc<StageContext>, leaves: &[Leaf], task: u32) -> Option<Self> {
        let adaptive = &context.adaptive;
        let (tasks, range) = adaptive.iter().find_map(|tasks| {
            let range = settled_tasks(adaptive, tasks.planned);
            let is_of_task = tasks.settled.is_some() && range.position(task).is_some();
            is_of_task.then_some((tasks, range))
        })?;
        let edges = leaves.iter().filter_map(|leaf| match leaf {
            Leaf::Edge(edge) => Some(edge),
            Leaf::Files(_) => None,
        });
        let edges = (0u32..).zip(edges);
        let edges = edges.filter_map(|(read, edge)| keyed_edge(context, tasks, read, edge));
        let edges: Vec<KeyedEdge> = edges.collect();
        (!edges.is_empty()).then(|| Self {
            context: Arc::clone(context),
            first: tasks.planned.first,
            edges,
            reader: task - range.first,
            n_readers: range.count,
        })
    }

    /// The position of an edge among those that are shared, if it is one.
    pub(crate) fn position(&self, edge: &EdgeLeaf) -> Option<usize> {
        let wanted = edge.read.edge_ref();
        self.edges.iter().position(|one| one.edge == wanted)
    }

    /// The task's part. Nothing if the tasks before it read all that there is.
    pub(crate) async fn part(
        &self,
        reader: &ObjectReader,
        account: &Arc<MemoryAccount>,
    ) -> Result<Option<Part>, Problem> {
        let shared = reader.shared_parts(self.context.stage, self.first);
        let parts = shared.get_or_try_init(|| self.chosen(reader, account));
        Ok(parts.await?.of(self.reader).cloned())
    }

    /// The part for the commit of the task.
    pub(crate) async fn recorded(
        &self,
        reader: &ObjectReader,
        account: &Arc<MemoryAccount>,
    ) -> Result<Option<TaskPart>, Problem> {
        let part = self.part(reader, account).await?;
        Ok(part.as_ref().map(Part::recorded))
    }

    /// The segments of a writer that a task with this part reads of an edge.
    pub(crate) async fn segments(
        &self,
        reader: &ObjectReader,
        edge: usize,
        part: &Part,
        (writer, object): (u32, &ObjectRef),
    ) -> Result<Vec<Segment>, Problem> {
        let of = &self.edges[edge];
        let mut read = Vec::new();
        for partition in part.partitions() {
            let segments = reader
                .segments(object, writer, of.edge.edge, partition)
                .await;
            let segments = segments.map_err(|error| of_writer(&of.from, &error))?;
            let segments = segments.into_iter();
            read.extend(segments.filter(|one| part.has(edge, writer, one.sequence())));
        }
        Ok(read)
    }

    async fn chosen(
        &self,
        reader: &ObjectReader,
        account: &Arc<MemoryAccount>,
    ) -> Result<Arc<Parts>, Problem> {
        let n_partitions = self.edges.iter().map(|edge| edge.partitions);
        let bytes = n_partitions.clone().sum::<usize>() * size_of::<u64>();
        let n_partitions = n_partitions.max().unwrap_or_default();
        let of_parts = Parts::memory_bytes(n_partitions, self.n_readers);
        let reserved = account.try_reserve((bytes as u64).saturating_add(of_parts));
        let mut reserved =
            reserved.ok_or_else(|| out_of_memory(account, "the sizes of partitions"))?;
        let mut sizes = Vec::with_capacity(self.edges.len());
        for edge in &self.edges {
            sizes.push(self.sizes(reader, edge).await?);
        }
        let split: Vec<bool> = self.edges.iter().map(|edge| edge.is_split).collect();
        let mut large = Vec::new();
        for (partition, edge) in Parts::large_partitions(&sizes, &split) {
            let mut one = LargePartition {
                partition,
                edge,
                segments: Vec::new(),
            };
            self.find_segments(reader, account, &mut reserved, &mut one)
                .await?;
            large.push(one);
        }
        Ok(Arc::new(Parts::new(&sizes, &large, self.n_readers)))
    }

    /// Bytes of each partition of an edge.
    async fn sizes(&self, reader: &ObjectReader, edge: &KeyedEdge) -> Result<Vec<u64>, Problem> {
        let mut sizes = vec![0u64; edge.partitions];
        for objects in self.context.inputs[edge.input].objects.chunks(INDEX_READS) {
            let mut reads = Vec::with_capacity(objects.len());
            for object in objects.iter().flatten() {
                reads.push(reader.raw_bytes(object, edge.edge.edge));
            }
            let read = try_join_all(reads).await;
            let read = read.map_err(|error| of_writer(&edge.from, &error))?;
            for (partition, bytes) in read.into_iter().flatten() {
                let size = sizes.get_mut(partition as usize).ok_or_else(|| {
                    let detail = format!(
                        "stage `{}` wrote to partition {partition} of {}",
                        edge.from, edge.partitions
                    );
                    Problem::new(ErrorCode::Internal, detail)
                })?;
                *size = size.saturating_add(bytes);
            }
        }
        Ok(sizes)
    }

    /// Finds the segments of a large partition, and reserves memory for those of each writer before they are kept.
    async fn find_segments(
        &self,
        reader: &ObjectReader,
        account: &MemoryAccount,
        reserved: &mut Reservation,
        large: &mut LargePartition,
    ) -> Result<(), Problem> {
        let of = &self.edges[large.edge];
        for (writer, object) in (0u32..).zip(&self.context.inputs[of.input].objects) {
            let Some(object) = object else { continue };
            let segments = reader
                .segments(object, writer, of.edge.edge, large.partition)
                .await;
            let segments = segments.map_err(|error| of_writer(&of.from, &error))?;
            // A vector that grows has room for up to twice what it holds.
            let bytes = 2 * size_of::<SegmentBytes>() * segments.len();
            if !reserved.try_grow(bytes as u64) {
                return Err(out_of_memory(account, "the sizes of segments"));
            }
            let found = segments.iter().map(|segment| SegmentBytes {
                writer,
                sequence: segment.sequence(),
                raw_bytes: segment.raw_bytes(),
            });
            large.segments.extend(found);
        }
        Ok(())
    }
}

/// Partitions that tasks share, of which a stream gives the task's out.
pub(crate) struct KeyedRows {
    pub(crate) share: Arc<KeyedShare>,
    /// Position of the edge in the share.
    pub(crate) edge: usize,
    /// The task's part, once the stream asked for it; nothing within if the task has none.
    pub(crate) part: Option<Option<Part>>,
}

impl KeyedRows {
    /// The segments of a writer that the task reads, partition by partition.
    pub(crate) async fn segments(
        &mut self,
        reader: &ObjectReader,
        account: &Arc<MemoryAccount>,
        of: (u32, &ObjectRef),
    ) -> Result<Vec<Segment>, Problem> {
        if self.part.is_none() {
            self.part = Some(self.share.part(reader, account).await?);
        }
        match self.part.as_ref().and_then(Option::as_ref) {
            Some(part) => self.share.segments(reader, self.edge, part, of).await,
            None => Ok(Vec::new()),
        }
    }
}

/// The edge of a leaf, if the tasks share its partitions. `read`: its position among the stage's reads.
fn keyed_edge(
    context: &StageContext,
    tasks: &AdaptiveTasks,
    read: u32,
    edge: &EdgeLeaf,
) -> Option<KeyedEdge> {
    let is_shared =
        edge.read.mode == ReadMode::Partitioned && edge.read.tasks == Some(tasks.planned);
    let wanted = edge.read.edge_ref();
    let input = context.inputs.iter().position(|one| one.edge == wanted);
    Some(KeyedEdge {
        edge: wanted,
        input: input.filter(|_| is_shared)?,
        from: edge.from.clone(),
        // As many as there were tasks to be.
        partitions: tasks.planned.count as usize,
        is_split: tasks.split.contains(&read),
    })
}
