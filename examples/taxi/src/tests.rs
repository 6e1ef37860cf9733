use weft::prelude::*;
use weft::testing::{Run, run_map, run_reduce};

use crate::mean::Mean;
use crate::trips::TaskFares;

const HOUR_US: i64 = 3_600_000_000;

/// Zone, hours since 1970, fare.
type Trip = (Option<i64>, Option<i64>, Option<f64>);

fn trip(zone: i64, hours: i64, fare: f64) -> Trip {
    (Some(zone), Some(hours), Some(fare))
}

fn schema(zone: DataType) -> Schema {
    Schema::from(vec![
        Field::nullable("PULocationID", zone),
        Field::nullable("tpep_pickup_datetime", DataType::TimestampUs),
        Field::nullable("fare_amount", DataType::Float64),
    ])
}

fn batch(trips: &[Trip]) -> Batch {
    let zones: Vec<_> = trips.iter().map(|trip| trip.0).collect();
    let pickups: Vec<_> = trips
        .iter()
        .map(|trip| trip.1.unwrap_or(0) * HOUR_US)
        .collect();
    let pickups = Column::timestamp_us(pickups)
        .with_validity(trips.iter().map(|trip| trip.1.is_some()).collect());
    let fares: Vec<_> = trips.iter().map(|trip| trip.2).collect();
    let columns = [zones.into(), pickups, fares.into()];
    Batch::new(&schema(DataType::Int64), columns).expect("fits")
}

fn task(trips: &[Trip]) -> Run {
    run_map::<TaskFares>(&Params::default(), vec![batch(trips)]).expect("adds up")
}

fn means(partials: Vec<Batch>, rows_per_push: usize) -> Vec<String> {
    run_reduce::<Mean>(
        &Params::default(),
        &["zone", "hour"],
        partials,
        rows_per_push,
    )
    .expect("divides")
    .rows()
}

#[test]
fn a_task_adds_up_its_trips() {
    let run = task(&[
        trip(7, 9, 0.1),
        trip(161, 9, 12.5),
        trip(7, 24 + 9, 0.2),
        trip(7, 10, -3.0),
        trip(1 << 40, 0, 1.0),
        trip(-1, 0, 1.0),
    ]);
    let expected = [
        "7 | 9 | 30 | 2",
        "7 | 10 | -300 | 1",
        "161 | 9 | 1250 | 1",
        "-1 | 0 | 100 | 1",
        "1099511627776 | 0 | 100 | 1",
    ];
    assert_eq!(run.rows(), expected);
    assert!(run.log.is_empty() && task(&[]).batches.is_empty());
}

#[test]
fn trips_that_lack_something_are_skipped_and_counted() {
    let run = task(&[
        (None, Some(9), Some(1.0)),
        (Some(7), None, Some(1.0)),
        (Some(7), Some(9), None),
        trip(7, 9, f64::NAN),
        trip(7, 9, 1.0),
    ]);
    assert_eq!(run.rows(), ["7 | 9 | 100 | 1"]);
    let line = "skipped 4 trips of 5 without zone, pickup or fare";
    assert_eq!(run.log, [(weft::log::Level::Info, line.to_string())]);
}

#[test]
fn zones_may_be_narrow() {
    let columns = [
        vec![7i32].into(),
        Column::timestamp_us(vec![0]),
        vec![1.0f64].into(),
    ];
    let input = Batch::new(&schema(DataType::Int32), columns).expect("fits");
    let run = run_map::<TaskFares>(&Params::default(), vec![input]).expect("adds up");
    assert_eq!(run.rows(), ["7 | 0 | 100 | 1"]);
    let bind = |zone| TaskFares::bind(&schema(zone), &Params::default());
    assert!(bind(DataType::Int64).is_ok() && bind(DataType::Utf8).is_err());
}

#[test]
fn means_come_in_order_whatever_the_pieces() {
    for rows in [1, 2, 100] {
        let first = task(&[trip(161, 9, 1.0), trip(7, 23, 5.0), trip(7, 9, 10.0)]);
        let second = task(&[trip(7, 9, 0.0), trip(7, 9, 0.0), trip(-1, 0, 2.5)]);
        let partials = first.batches.into_iter().chain(second.batches).collect();
        assert_eq!(
            means(partials, rows),
            [
                "-1 | 0 | 2.5 | 1",
                "7 | 9 | 3.3333333333333335 | 3",
                "7 | 23 | 5 | 1",
                "161 | 9 | 1 | 1"
            ]
        );
    }
    assert!(means(vec![], 1).is_empty());
}

/// Ten cents a thousand times: added up as floats, they are not a hundred dollars.
#[test]
fn sums_are_exact() {
    let trips: Vec<_> = (0..1000).map(|_| trip(7, 9, 0.1)).collect();
    assert_eq!(means(task(&trips).batches, 100), ["7 | 9 | 0.1 | 1000"]);
}
