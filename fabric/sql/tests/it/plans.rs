//! Shapes of plans, and the version that they are made with.

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
