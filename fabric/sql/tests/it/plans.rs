//! Shapes of plans, and the version that they are made with.

use weft_protocol::{ReadMode, TaskRange};
use weft_sql::{LeafPlan, Out, Session, SqlStage};

use crate::data::{SMALL, TPCH};
use crate::runner::{options, plan};

fn stages(sql: &str, tasks: u32) -> Vec<SqlStage> {
    plan(&Session::new(), &SMALL, sql, &options(tasks, true))
        .expect(sql)
        .1
}

#[test]
fn plans_belong_to_a_version_of_datafusion() {
    let version = format!("datafusion-{}", datafusion::DATAFUSION_VERSION);
    assert!(weft_protocol::FINGERPRINT.ends_with(&version), "{version}");
}

#[test]
fn one_task_needs_one_stage() {
    let sql = "SELECT k, count(*) FROM t GROUP BY k ORDER BY 2 LIMIT 3";
    let stages = stages(sql, 1);
    assert_eq!(stages.len(), 1, "{:?}", stages[0].operators);
    assert_eq!((stages[0].n_tasks, stages[0].out), (1, Out::Result));
}

#[test]
fn groups_are_exchanged_and_orders_merged() {
    let stages = stages(
        "SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY n LIMIT 3",
        3,
    );
    let shapes: Vec<(u32, Out)> = stages
        .iter()
        .map(|stage| (stage.n_tasks, stage.out))
        .collect();
    assert_eq!(
        shapes,
        [
            (3, Out::Hash { partitions: 3 }),
            (3, Out::Single),
            (1, Out::Result)
        ]
    );
    let LeafPlan::Exchange { per_writer, .. } = stages[2].leaves[0] else {
        panic!("{:?}", stages[2].leaves);
    };
    assert!(per_writer);
}

/// The number of tasks of the last stage, if it reads ranges of a sorted one.
fn merging_tasks(sql: &str) -> Option<u32> {
    let stages = stages(sql, 3);
    let last = stages.last().expect("a statement has a stage");
    let range = TaskRange {
        first: 0,
        count: last.n_tasks,
    };
    let reads_ranges = |leaf: &LeafPlan| match leaf {
        LeafPlan::Exchange {
            stage,
            mode: ReadMode::Ranged,
            tasks,
            per_writer,
        } => {
            assert_eq!((*tasks, *per_writer), (range, true), "{sql}");
            assert_eq!(stages[*stage].out, Out::Sorted, "{sql}");
            true
        }
        _ => false,
    };
    let is_ranged = last.leaves.iter().any(reads_ranges);
    is_ranged.then_some(last.n_tasks)
}

#[test]
fn tasks_share_the_last_merge() {
    for sql in [
        "SELECT id FROM t ORDER BY id",
        "SELECT id FROM t ORDER BY k DESC NULLS LAST, id % 3",
        "SELECT k, count(*) AS n FROM t GROUP BY k ORDER BY n, k",
        // What stands above the merge takes row by row.
        "SELECT id + 1 AS next FROM t ORDER BY k, id",
    ] {
        assert_eq!(merging_tasks(sql), Some(3), "{sql}");
    }
    let union = "SELECT id FROM t UNION ALL SELECT id FROM u ORDER BY id";
    assert_eq!(merging_tasks(union), Some(6));
    for sql in [
        "SELECT id FROM t ORDER BY id LIMIT 5",
        "SELECT id FROM t ORDER BY id OFFSET 5",
        "SELECT count(*) AS n FROM (SELECT id FROM t ORDER BY id LIMIT 5)",
        "SELECT id, row_number() OVER (ORDER BY id) AS n FROM t",
    ] {
        assert_eq!(merging_tasks(sql), None, "{sql}");
    }
    let one = stages("SELECT id FROM t ORDER BY id", 1);
    assert_eq!((one.len(), one[0].n_tasks), (1, 1));
}

/// However many tasks sort, each of those that merge reads from all of them.
#[test]
fn not_all_tasks_share_the_merge_of_very_many() {
    let stages = stages("SELECT id FROM t ORDER BY id", 1_000);
    let n_tasks: Vec<u32> = stages.iter().map(|stage| stage.n_tasks).collect();
    assert_eq!(n_tasks, [1_000, 256]);
}

#[test]
fn counts_read_one_narrow_column() {
    let stages = stages("SELECT count(*) FROM t", 3);
    let LeafPlan::Scan { columns, .. } = &stages[0].leaves[0] else {
        panic!("{:?}", stages[0].leaves);
    };
    assert_eq!(columns.as_deref(), Some(&[0][..]));
}

#[test]
fn unions_have_a_plan_for_each_branch() {
    let stages = stages("SELECT id FROM t UNION ALL SELECT id FROM u", 3);
    let stage = &stages[0];
    assert_eq!(
        (stages.len(), stage.n_tasks, stage.variants.len()),
        (1, 6, 2)
    );
}

#[test]
fn equal_statements_have_equal_plans() {
    let sql = "SELECT o_orderpriority, count(*) FROM orders JOIN lineitem ON o_orderkey = l_orderkey GROUP BY 1";
    let options = options(8, false);
    let session = Session::new();
    let plans = || {
        let (_, stages) = plan(&session, &TPCH, sql, &options).expect(sql);
        let plans = stages
            .into_iter()
            .map(|stage| (stage.variants, stage.leaves));
        plans.collect::<Vec<_>>()
    };
    assert_eq!(plans(), plans());
}
