use weft::prelude::*;
use weft::testing::{Run, run_map, run_reduce};

use crate::rows::Score;
use crate::sums::{Sums, TaskSums};

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/120.0.1.2 Safari/537.36";
const CURL: &str = "curl/8.5.0";

fn schema() -> Schema {
    let schema = Schema::new().utf8("ua").nullable();
    let names = ["lat1", "lon1", "lat2", "lon2", "amount"];
    let with = |schema: Schema, name: &str| schema.f64(name).nullable();
    names.into_iter().fold(schema, with).i32("hour").nullable()
}

/// Payments of a browser, half a degree to the north, of an amount at an hour.
fn payments(rows: &[(Option<&str>, f64, i32)]) -> Batch {
    let agents: Utf8Builder = rows.iter().map(|row| row.0).collect();
    let degrees = |degrees: f64| Column::from(vec![degrees; rows.len()]);
    let amounts: Vec<f64> = rows.iter().map(|row| row.1).collect();
    let hours: Vec<i32> = rows.iter().map(|row| row.2).collect();
    let columns = [
        agents.into(),
        degrees(10.0),
        degrees(20.0),
        degrees(10.5),
        degrees(20.0),
        amounts.into(),
        hours.into(),
    ];
    Batch::new(&schema(), columns).expect("fits")
}

fn score(rows: &[(Option<&str>, f64, i32)]) -> Run {
    run_map::<Score>(&Params::default(), vec![payments(rows)]).expect("scores")
}

fn rows() -> Vec<(Option<&'static str>, f64, i32)> {
    vec![
        (Some(CHROME), 10.0, 12),
        (Some(CURL), 600.0, 3),
        (Some(CHROME), 1000.0, 5),
        (Some(CURL), 10.0, 6),
    ]
}

#[test]
fn each_payment_gets_a_score() {
    let run = score(&rows());
    let expected = [
        "Chrome | Windows | 55 | 5",
        "Other | Other | 55 | 55",
        "Chrome | Windows | 55 | 52",
        "Other | Other | 55 | 20",
    ];
    assert_eq!(run.rows(), expected);
    assert!(run.log.is_empty());
}

#[test]
fn payments_that_lack_something_are_skipped_and_counted() {
    let run = score(&[(None, 10.0, 12), (Some(CURL), 10.0, 12)]);
    assert_eq!(run.rows(), ["Other | Other | 55 | 20"]);
    let line = "skipped 1 payments of 2 that lack something";
    assert_eq!(run.log, [(weft::log::Level::Info, line.to_string())]);
}

#[test]
fn sums_do_not_depend_on_tasks_or_pieces() {
    let expected = [
        "Chrome | Windows | 2 | 110 | 57",
        "Other | Other | 2 | 110 | 75",
    ];
    for task_rows in [1, 3, 100] {
        for rows_per_push in [1, 2, 100] {
            let task = |rows: &[_]| {
                let scores = score(rows).batches;
                let run = run_map::<TaskSums>(&Params::default(), scores);
                run.expect("adds up").batches
            };
            let sums = rows().chunks(task_rows).flat_map(task).collect();
            let run = run_reduce::<Sums>(&Params::default(), &["fam", "os"], sums, rows_per_push);
            assert_eq!(run.expect("adds up").rows(), expected);
        }
    }
}

#[test]
fn other_columns_are_refused_before_the_job_runs() {
    let params = Params::default();
    let scores = Score::bind(&schema(), &params).expect("binds");
    let sums = TaskSums::bind(&scores, &params).expect("binds");
    assert_eq!(Sums::bind(&sums, &params).expect("binds"), sums);
    assert!(Score::bind(&scores, &params).is_err() && Sums::bind(&scores, &params).is_err());
}
