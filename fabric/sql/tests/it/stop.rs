//! Statements that compute for hours end when their task is cancelled.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use weft_core::{ErrorCode, Problem};
use weft_sql::{Session, SortKeys, Sources, TaskMemory};

use crate::data::{Data, block_on};
use crate::runner::{options, plan};

/// A table on all leaves, in a task that is cancelled after so many questions.
#[derive(Debug)]
struct Cancelled {
    rows: Vec<RecordBatch>,
    asked: AtomicU32,
}

const QUESTIONS: u32 = 20;

impl Sources for Cancelled {
    fn streams(&self, _leaf: u32) -> usize {
        1
    }

    fn open(&self, _leaf: u32, _stream: usize) -> Result<SendableRecordBatchStream, Problem> {
        let schema = self.rows[0].schema();
        let rows = stream::iter(self.rows.clone().into_iter().map(Ok));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn open_range(
        &self,
        _leaf: u32,
        _stream: usize,
        _keys: &SortKeys,
    ) -> Result<SendableRecordBatchStream, Problem> {
        panic!("one task reads no ranges")
    }

    fn check(&self) -> Result<(), Problem> {
        match self.asked.fetch_add(1, Ordering::Relaxed) < QUESTIONS {
            true => Ok(()),
            false => Err(Problem::new(ErrorCode::Internal, "the task was cancelled")),
        }
    }
}

fn ends(sql: &str) {
    let session = Session::new();
    let (_, stages) = plan(&session, &NUMBERS, sql, &options(1, true)).expect(sql);
    assert_eq!(stages.len(), 1, "{sql}");
    let spill = tempfile::tempdir().expect("a folder for spilling");
    let memory = TaskMemory {
        pool: Arc::new(UnboundedMemoryPool::default()),
        spill_folder: spill.path().to_owned(),
    };
    let sources = Arc::new(Cancelled {
        rows: NUMBERS[0].batches.clone(),
        asked: AtomicU32::new(0),
    });
    let ended = block_on(async {
        let mut rows = session.open(&stages[0].variants[0].plan, sources, memory)?;
        while let Some(batch) = rows.next().await {
            batch?;
        }
        Ok::<(), Problem>(())
    });
    let problem = ended.expect_err(sql);
    assert!(problem.detail.contains("cancelled"), "{sql}: {problem}");
}

/// One batch of numbers.
static NUMBERS: LazyLock<Vec<Data>> = LazyLock::new(|| {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("one column");
    vec![Data::new("numbers", vec![batch])]
});

#[test]
fn a_task_that_computes_for_hours_ends_when_it_is_cancelled() {
    for sql in [
        "SELECT count(value) AS n FROM generate_series(1, 9000000000) WHERE value < 0",
        "SELECT sum(a.n * b.n) AS n FROM numbers a, numbers b",
        "SELECT sum(b.n) AS n FROM numbers a JOIN numbers b ON a.n <= b.n + 100000",
        "SELECT sum(b.n) AS n FROM numbers a JOIN numbers b ON a.n % 1 = b.n % 1",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT 1 FROM r) SELECT sum(n) AS n FROM r",
    ] {
        ends(sql);
    }
}
