//! Joins by sorting and merging: chosen by the size of the build side, or when a task runs out of memory.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation, UnboundedMemoryPool};
use weft_core::{ErrorCode, Problem};
use weft_sql::{Options, Session, fair_pool};

use crate::data::{Data, SMALL, TPCH, block_on, plain_context};
use crate::memory::account;
use crate::runner::{merging, options, plan, run, run_within, sorted};

/// Keys have duplicates and nulls; `e` has no rows.
pub(crate) const MERGED: &[&str] = &[
    "SELECT t.id, u.id AS other FROM t JOIN u ON t.k = u.k",
    "SELECT t.id, u.id AS other FROM t JOIN u ON t.k = u.k AND t.s = u.s AND t.v <> u.v",
    "SELECT t.id, u.id AS other FROM t JOIN u ON t.f = u.f",
    "SELECT u.v, t.v AS other, u.id FROM t JOIN u ON t.k + 1 = u.k",
    // Of these the filter reads columns that nobody else does.
    "SELECT t.k, u.k AS other FROM t JOIN u ON t.k = u.k AND t.v < u.v",
    "SELECT t.k, u.k AS other FROM t LEFT JOIN u ON t.k = u.k AND t.v < u.v",
    "SELECT t.k, u.k AS other FROM t FULL JOIN u ON t.k = u.k AND t.v < u.v",
    "SELECT t.id, u.id AS other FROM t LEFT JOIN u ON t.k = u.k AND u.v > 30",
    "SELECT u.id, t.id AS other FROM u LEFT JOIN t ON t.k = u.k AND t.v < u.v",
    "SELECT t.id, u.id AS other FROM t RIGHT JOIN u ON t.k = u.k AND t.v < u.v",
    "SELECT t.id, u.id AS other FROM t FULL JOIN u ON t.k = u.k",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v < t.v)",
    "SELECT id FROM u WHERE EXISTS (SELECT 1 FROM t WHERE u.k = t.k AND u.v < t.v)",
    "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v < t.v)",
    "SELECT id FROM u WHERE NOT EXISTS (SELECT 1 FROM t WHERE u.k = t.k AND u.v < t.v)",
    "SELECT id FROM t WHERE id = 3 OR EXISTS (SELECT 1 FROM u WHERE u.k = t.k AND u.v < t.v)",
    "SELECT id FROM t WHERE id = 3 OR NOT EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "SELECT k, s FROM t INTERSECT SELECT k, s FROM u",
    "SELECT k, s FROM t EXCEPT SELECT k, s FROM u",
    "SELECT t.id, e.id AS other FROM t JOIN e ON t.k = e.k",
    "SELECT t.id, e.id AS other FROM t LEFT JOIN e ON t.k = e.k",
    "SELECT t.id, e.id AS other FROM t RIGHT JOIN e ON t.k = e.k",
    "SELECT t.id, e.id AS other FROM t FULL JOIN e ON t.k = e.k",
    "SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM e WHERE e.k = t.k)",
    // Nodes above that could use the order of the join.
    "SELECT t.k, t.s, count(*), sum(u.v) FROM t JOIN u ON t.k = u.k GROUP BY t.k, t.s",
    "SELECT t.k, count(*) FROM t JOIN u ON t.k = u.k GROUP BY t.k",
    "SELECT t.id, u.id AS other, row_number() OVER (PARTITION BY t.k ORDER BY t.id, u.id) FROM t JOIN u ON t.k = u.k",
    "SELECT t.id, u.id AS other, w.id AS third FROM t JOIN u ON t.k = u.k JOIN w ON w.k = t.k",
    "SELECT t.id, u.id AS other, w.id AS third FROM t JOIN u ON t.k = u.k JOIN w ON w.s = t.s",
    "SELECT x.id, w.v FROM (SELECT id, k FROM t UNION ALL SELECT id, k FROM u) x JOIN w ON x.k = w.k",
];

/// NOT IN, and a float among several keys: zeros of both signs would be out of order.
const HASHED: &[&str] = &[
    "SELECT id FROM w WHERE k NOT IN (SELECT k FROM t WHERE id < 5)",
    "SELECT t.id, u.id AS other FROM t JOIN u ON t.f = u.f AND t.k = u.k",
];

/// The hash table alone takes 2.2 MB, and the rows of the build side 1.2 MB.
const LARGE: &str = "SELECT count(*), sum(a.l_suppkey * b.l_partkey) FROM lineitem a JOIN lineitem b \
     ON a.l_orderkey = b.l_orderkey AND a.l_linenumber = b.l_linenumber";
const TOO_FEW_BYTES: u64 = 3 << 20;
const ENOUGH_BYTES: u64 = 256 << 20;

/// Text of all stages.
fn text(data: &'static [Data], sql: &str, options: &Options) -> String {
    let (_, stages) = plan(&Session::new(), data, sql, options).expect(sql);
    let lines = stages.iter().flat_map(|stage| &stage.operators);
    lines
        .map(|line| line.show(|stage| stage.to_string()) + "\n")
        .collect()
}

fn expected(data: &[Data], sql: &str) -> Vec<RecordBatch> {
    let plain = plain_context(data);
    let rows = block_on(async { plain.sql(sql).await?.collect().await });
    rows.expect("DataFusion runs the statement")
}

/// Runs a statement in one task, and returns its rows and how often the task started over.
fn within(
    bytes: u64,
    data: &'static [Data],
    sql: &str,
) -> Result<(Vec<RecordBatch>, usize), Problem> {
    let pool = || fair_pool(account(u64::MAX), bytes);
    run_within(&Session::new(), data, sql, &options(1, false), &pool)
}

/// Consumers of memory for build sides, as DataFusion names them: of an exchanged side, and of any.
pub(crate) const OF_PARTITION: &str = "HashJoinInput[";
const OF_ANY: &str = "HashJoinInput";

/// A pool without bounds that refuses build sides.
pub(crate) fn no_builds(refused: &'static str) -> Arc<dyn MemoryPool> {
    Arc::new(NoBuilds {
        refused,
        pool: UnboundedMemoryPool::default(),
    })
}

#[derive(Debug)]
struct NoBuilds {
    refused: &'static str,
    pool: UnboundedMemoryPool,
}

impl fmt::Display for NoBuilds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all but {}", self.refused)
    }
}

impl MemoryPool for NoBuilds {
    fn name(&self) -> &str {
        "no_builds"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.pool.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.pool.shrink(reservation, shrink);
    }

    fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> Result<(), DataFusionError> {
        let name = reservation.consumer().name();
        if name.starts_with(self.refused) {
            return Err(DataFusionError::ResourcesExhausted(name.to_owned()));
        }
        self.pool.try_grow(reservation, additional)
    }

    fn reserved(&self) -> usize {
        self.pool.reserved()
    }
}

#[test]
fn joins_of_all_types_merge() {
    let session = Session::new();
    let mut faults = Vec::new();
    for sql in MERGED {
        let expected = sorted(&expected(&SMALL, sql));
        for options in [merging(1), merging(3), merging(8)] {
            let text = text(&SMALL, sql, &options);
            if !text.contains("SortMergeJoinExec") || text.contains("HashJoinExec") {
                faults.push(format!("{sql}: {text}"));
            }
            match run(&session, &SMALL, sql, &options) {
                Ok(rows) if sorted(&rows) == expected => {}
                Ok(rows) => {
                    let n: usize = rows.iter().map(RecordBatch::num_rows).sum();
                    faults.push(format!("{sql}: {n} rows for {}", expected.len()));
                }
                Err(problem) => faults.push(format!("{sql}: {problem}")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn joins_that_cannot_merge_stay() {
    for sql in HASHED {
        for options in [merging(1), merging(3)] {
            let text = text(&SMALL, sql, &options);
            assert!(text.contains("HashJoinExec"), "{sql}: {text}");
            let rows = run(&Session::new(), &SMALL, sql, &options).expect(sql);
            assert_eq!(sorted(&rows), sorted(&expected(&SMALL, sql)), "{sql}");
        }
    }
}

#[test]
fn joins_on_one_key_sort_each_side_once() {
    let sql =
        "SELECT count(*), sum(t.v + u.v + w.v) FROM t JOIN u ON t.k = u.k JOIN w ON u.k = w.k";
    let text = text(&SMALL, sql, &merging(1));
    assert_eq!(text.matches("SortMergeJoinExec").count(), 2, "{text}");
    assert_eq!(text.matches("SortExec").count(), 3, "{text}");
}

#[test]
fn large_build_sides_merge() {
    let sql = "SELECT count(*) FROM orders JOIN lineitem ON o_orderkey = l_orderkey";
    for tasks in [1, 3] {
        let bounded = |build_bytes| Options {
            build_bytes,
            ..options(tasks, false)
        };
        let small = text(&TPCH, sql, &bounded(64 << 10));
        assert!(small.contains("SortMergeJoinExec"), "{small}");
        let large = text(&TPCH, sql, &bounded(64 << 20));
        assert!(large.contains("HashJoinExec"), "{large}");
    }
}

#[test]
fn broadcasts_fit_in_the_memory_for_build_sides() {
    let sql = "SELECT count(*) FROM nation JOIN customer ON n_nationkey = c_nationkey";
    let bounded = |build_bytes| Options {
        build_bytes,
        ..options(3, true)
    };
    let large = text(&TPCH, sql, &bounded(64 << 20));
    assert!(large.contains("CollectLeft"), "{large}");
    let small = text(&TPCH, sql, &bounded(1 << 10));
    assert!(!small.contains("CollectLeft"), "{small}");
}

#[test]
fn a_task_that_runs_out_of_memory_starts_over_with_merge_joins() {
    let text = text(&TPCH, LARGE, &options(1, false));
    assert!(text.contains("HashJoinExec"), "{text}");
    let (rows, n_restarts) = within(TOO_FEW_BYTES, &TPCH, LARGE).expect("merge joins spill");
    assert_eq!(n_restarts, 1);
    assert_eq!(sorted(&rows), sorted(&expected(&TPCH, LARGE)));
}

#[test]
fn a_task_with_enough_memory_starts_once() {
    let (rows, n_restarts) = within(ENOUGH_BYTES, &TPCH, LARGE).expect("it fits");
    assert_eq!(n_restarts, 0);
    assert_eq!(sorted(&rows), sorted(&expected(&TPCH, LARGE)));
}

#[test]
fn joins_of_all_types_start_over() {
    let pool = || no_builds(OF_PARTITION);
    let session = Session::new();
    let mut n_in_all = 0;
    for sql in MERGED {
        let got = run_within(&session, &SMALL, sql, &options(3, false), &pool);
        let (rows, n_restarts) = got.expect(sql);
        assert_eq!(sorted(&rows), sorted(&expected(&SMALL, sql)), "{sql}");
        n_in_all += n_restarts;
    }
    assert!(n_in_all >= MERGED.len(), "{n_in_all} tasks started over");
}

/// The upper window is planned without a sort: the join has the order of the lower one, which is not that of its key.
#[test]
fn starting_over_keeps_the_order_that_nodes_above_rely_on() {
    let sql = "SELECT a.id, a.n, b.id AS other, sum(b.v) OVER (ORDER BY a.v, a.id) AS so_far \
         FROM (SELECT id, k, v, row_number() OVER (ORDER BY v, id) AS n FROM t) a \
         JOIN (SELECT id, k, v FROM u WHERE id < 48) b ON a.k = b.k";
    let text = text(&SMALL, sql, &options(1, false));
    assert_eq!(text.matches("SortExec").count(), 1, "{text}");
    let pool = || no_builds(OF_ANY);
    let got = run_within(&Session::new(), &SMALL, sql, &options(1, false), &pool);
    let (rows, n_restarts) = got.expect("merge joins need no hash table");
    assert_eq!(n_restarts, 1);
    assert_eq!(sorted(&rows), sorted(&expected(&SMALL, sql)));
}

#[test]
fn a_build_side_that_can_only_be_hashed_names_the_limit() {
    let sql = "SELECT id FROM w WHERE k NOT IN (SELECT k FROM t WHERE id < 5)";
    let problem = within(64, &SMALL, sql).expect_err("64 bytes are too few");
    assert_eq!(problem.code, ErrorCode::LimitExceeded, "{problem}");
    assert!(problem.detail.contains("limits.memory"), "{problem}");
}
