//! Tasks that share partitions otherwise than one each: each row is one task's, and all together read what was written.

use weft_protocol::AdaptiveTasks;

use super::*;

const LEFT: EdgeRef = EdgeRef { stage: 0, edge: 0 };
const RIGHT: EdgeRef = EdgeRef { stage: 1, edge: 0 };
const PARTITIONS: u32 = 4;
const WRITERS: u32 = 2;
/// The partition that is much larger than the others.
const LARGE: u32 = 2;
/// 2 MiB.
const SEGMENT_ROWS: usize = 1 << 18;

/// Has each of two tasks write so many rows to each partition of an edge.
async fn edge_input(
    blobs: &Blobs,
    folder: &std::path::Path,
    edge: EdgeRef,
    rows: [usize; PARTITIONS as usize],
) -> EdgeInput {
    let mut expected = Sums::default();
    let mut objects = Vec::new();
    for task in 0..WRITERS {
        let mut writer = ObjectWriter::new(task, folder);
        for (partition, rows) in (0..).zip(rows) {
            let rows = vec![i64::from(partition); rows];
            for rows in rows.chunks(SEGMENT_ROWS) {
                let column = Arc::new(Int64Array::from(rows.to_vec()));
                let batch = RecordBatch::try_new(schema(), vec![column]).expect("one column");
                let added = writer.add(edge.edge, partition, &schema(), &[batch]);
                added.expect("it is encoded");
            }
        }
        let key = format!("object-{}-{task}", edge.stage);
        let (object, sums) = writer.finish(blobs, &key, 1).await.expect("it is written");
        expected.add(&sums[0]);
        objects.push(Some(object));
    }
    EdgeInput {
        edge,
        expected,
        objects,
    }
}

fn leaf_of(edge: EdgeRef) -> Leaf {
    Leaf::Edge(EdgeLeaf {
        read: EdgeRead {
            tasks: Some(planned()),
            ..EdgeRead::from(edge)
        },
        from: "writer".into(),
        schema: schema(),
        columns: None,
        per_writer: false,
    })
}

fn planned() -> TaskRange {
    TaskRange {
        first: 0,
        count: PARTITIONS,
    }
}

/// Tasks that read two edges, of which the first may be split.
struct Tasks {
    inputs: Vec<EdgeInput>,
    n: u32,
    reader: ObjectReader,
    _folder: TempDir,
}

impl Tasks {
    async fn new(left: [usize; 4], right: [usize; 4], n: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::local(folder.path()).expect("a folder");
        let inputs = vec![
            edge_input(&blobs, folder.path(), LEFT, left).await,
            edge_input(&blobs, folder.path(), RIGHT, right).await,
        ];
        Self {
            inputs,
            n,
            reader: ObjectReader::new(blobs),
            _folder: folder,
        }
    }

    fn sources(&self, task: u32) -> SqlSources {
        let mut plan = plan(leaf_of(LEFT));
        if let Source::Sql(sql) = &mut plan.source {
            sql.leaves.push(leaf_of(RIGHT));
        }
        let context = Arc::new(StageContext {
            job: JobId::new(1, 2),
            stage: 2,
            fingerprint: FINGERPRINT.into(),
            plan: "plan".into(),
            inputs: self.inputs.clone(),
            adaptive: vec![AdaptiveTasks {
                planned: planned(),
                coalesce: true,
                split: vec![0],
                settled: Some(self.n),
            }],
            artefacts: Default::default(),
        });
        let keyed = KeyedShare::of(&context, leaves(&plan), task);
        SqlSources {
            keyed: keyed.map(Arc::new),
            plan: Arc::new(plan),
            task,
            context,
            reader: self.reader.clone(),
            account: MemoryAccount::new(64 << 20),
            inputs: Inputs::default(),
            cancel: CancellationToken::new(),
            counts: Arc::default(),
            functions: Arc::default(),
            ahead: Ahead::default(),
        }
    }

    /// Rows of both edges by task, after checking that sums over all tasks are what was written.
    async fn rows(&self) -> Vec<(usize, usize)> {
        let (mut rows, mut read) = (Vec::new(), [Sums::default(); 2]);
        for task in 0..self.n {
            let sources = self.sources(task);
            rows.push((pulled(&sources, 0).await, pulled(&sources, 1).await));
            let of_task = sources.finish().await.expect("indexes are there");
            for (sum, more) in read.iter_mut().zip(&of_task) {
                sum.add(more);
            }
        }
        for (sum, input) in read.iter().zip(&self.inputs) {
            assert_eq!(*sum, input.expected);
        }
        rows
    }
}

async fn pulled(sources: &SqlSources, leaf: u32) -> usize {
    let rows = sources.open(leaf, 0).expect("it opens");
    let batches: Vec<_> = rows.collect().await;
    let n_rows = |batch: &Result<RecordBatch, _>| batch.as_ref().expect("a batch").num_rows();
    batches.iter().map(n_rows).sum()
}

/// Five pieces of the large partition, two tasks before and one behind it, and one without rows.
async fn skewed() -> Tasks {
    let left = [1_000, 0, 8 * SEGMENT_ROWS, 500];
    Tasks::new(left, [10; 4], 9).await
}

#[tokio::test]
async fn a_small_stage_is_read_by_one_task() {
    let tasks = Tasks::new([5, 0, 9, 1], [10; 4], 1).await;
    assert_eq!(tasks.rows().await, [(30, 80)]);
    let tasks = Tasks::new([5, 0, 9, 1], [10; 4], 2).await;
    let rows = tasks.rows().await;
    assert_eq!(rows.iter().map(|(left, _)| left).sum::<usize>(), 30);
    assert!(rows.iter().all(|(_, right)| *right > 0), "{rows:?}");
}

#[tokio::test]
async fn a_large_partition_is_shared_and_its_other_side_read_by_each() {
    let tasks = skewed().await;
    let piece = |segments: usize| (segments * SEGMENT_ROWS, 20);
    let expected = [
        (2_000, 20),
        (0, 20),
        piece(4),
        piece(3),
        piece(3),
        piece(3),
        piece(3),
        (1_000, 20),
        (0, 0),
    ];
    assert_eq!(tasks.rows().await, expected);
    let part = tasks.sources(3).part().await.expect("indexes are there");
    let expected = TaskPart {
        first: LARGE,
        count: 1,
        piece: 1,
        pieces: 5,
    };
    assert_eq!(part, Some(expected));
    assert_eq!(tasks.sources(8).part().await.expect("it has none"), None);
    assert!(tasks.sources(8).is_idle().await.expect("it has none"));
    // No rows are a part, too: those of a partition without any.
    assert!(!tasks.sources(1).is_idle().await.expect("it has one"));
}

#[tokio::test]
async fn rows_that_nobody_pulled_of_a_shared_partition_count_once() {
    let tasks = skewed().await;
    let mut read = [Sums::default(); 2];
    for task in 0..tasks.n {
        let of_task = tasks.sources(task).finish().await;
        let of_task = of_task.expect("indexes are there");
        read.iter_mut()
            .zip(&of_task)
            .for_each(|(sum, more)| sum.add(more));
    }
    assert_eq!(read[0], tasks.inputs[0].expected);
    assert_eq!(read[1], tasks.inputs[1].expected);
}

/// Each task checks the rows that only the first of them counts.
#[tokio::test]
async fn a_task_that_misses_rows_of_the_other_side_fails() {
    let tasks = skewed().await;
    let sources = tasks.sources(3);
    pulled(&sources, 0).await;
    pulled(&sources, 1).await;
    assert!(lock(&sources.counts).read.remove(&(1, 0, LARGE, 0)));
    let problem = sources.finish().await.expect_err("rows are missing");
    assert_eq!(problem.code, ErrorCode::Internal);
    let detail = &problem.detail;
    assert!(detail.contains("read 10 rows in 1 segments"), "{detail}");
}

/// A stage whose number of tasks was not settled reads a partition in each of the planned ones.
#[tokio::test]
async fn tasks_that_are_not_settled_read_a_partition_each() {
    let tasks = Tasks::new([5, 0, 9, 1], [10; 4], PARTITIONS).await;
    let mut sources = tasks.sources(2);
    let mut context = StageContext::clone(&sources.context);
    context.adaptive[0].settled = None;
    sources.context = Arc::new(context);
    sources.keyed = KeyedShare::of(&sources.context, leaves(&sources.plan), 2).map(Arc::new);
    assert_eq!(pulled(&sources, 0).await, 18);
    assert_eq!(sources.part().await.expect("nothing is read"), None);
}
