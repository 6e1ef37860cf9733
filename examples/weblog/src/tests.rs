use weft::prelude::*;
use weft::testing::{Run, run_map, run_reduce};

use crate::pages::{Top, TopPartial};
use crate::visitors::{Daily, DailyPartial};
use crate::visits::Parse;

fn line(day: u32, address: &str, page: &str) -> String {
    format!(
        r#"{address} - - [{day:02}/Jul/2025:13:55:36 +0000] "GET {page} HTTP/1.1" 200 512 "-" "curl/8""#
    )
}

fn parse(lines: &[String]) -> Run {
    let lines: BinaryBuilder = lines.iter().map(String::as_bytes).collect();
    let input = Batch::new(&Schema::new().binary("line"), [lines.into()]).expect("one column");
    run_map::<Parse>(&Params::default(), vec![input]).expect("parses")
}

fn reduce<R: Reduce>(input: Vec<Batch>, rows_per_push: usize) -> Vec<Batch> {
    run_reduce::<R>(&Params::default(), &["day"], input, rows_per_push)
        .expect("reduces")
        .batches
}

/// Two days, the first one on both ends of the log.
fn lines() -> Vec<String> {
    vec![
        line(10, "10.0.0.1", "/b?x=1"),
        line(11, "10.0.0.1", "/c"),
        line(11, "10.0.0.2", "/b"),
        line(11, "10.0.0.2", "/c?"),
        line(10, "10.0.0.3", "/a"),
        line(10, "10.0.0.1", "/b"),
    ]
}

#[test]
fn parse_skips_and_counts_malformed_lines() {
    let mut lines = lines();
    lines.truncate(2);
    lines.insert(1, "10.0.0.9 - - [garbage".into());
    lines.insert(2, line(12, "10.0.0.9", "/d").replace("Jul", "Jux"));
    let run = parse(&lines);
    assert_eq!(
        run.rows(),
        [
            "2025-07-10 | 10.0.0.1 | /b | 1",
            "2025-07-11 | 10.0.0.1 | /c | 1"
        ]
    );
    assert_eq!(
        run.log,
        [(
            weft::log::Level::Info,
            "skipped 2 malformed lines of 4".to_string()
        )]
    );
}

#[test]
fn partials_keep_one_row_for_each_address_or_page() {
    let expected = [
        "2025-07-10 | 10.0.0.1 | null | 0",
        "2025-07-10 | 10.0.0.3 | null | 0",
    ];
    assert_eq!(
        weft::testing::rows(&reduce::<DailyPartial>(parse(&lines()).batches, 100))[..2],
        expected
    );
    let expected = ["2025-07-10 | null | /b | 2", "2025-07-10 | null | /a | 1"];
    assert_eq!(
        weft::testing::rows(&reduce::<TopPartial>(parse(&lines()).batches, 100))[..2],
        expected
    );
}

#[test]
fn results_do_not_depend_on_pieces_or_combines() {
    let daily = ["2025-07-10 | 2", "2025-07-11 | 2"];
    let top = [
        "2025-07-10 | 1 | /b | 2",
        "2025-07-10 | 2 | /a | 1",
        "2025-07-11 | 1 | /c | 2",
        "2025-07-11 | 2 | /b | 1",
    ];
    for rows in [1, 2, 3, 100] {
        let visits = || parse(&lines()).batches;
        assert_eq!(weft::testing::rows(&reduce::<Daily>(visits(), rows)), daily);
        assert_eq!(weft::testing::rows(&reduce::<Top>(visits(), rows)), top);
        let (addresses, pages) = (
            reduce::<DailyPartial>(visits(), rows),
            reduce::<TopPartial>(visits(), rows),
        );
        assert_eq!(
            weft::testing::rows(&reduce::<Daily>(addresses, rows)),
            daily
        );
        assert_eq!(weft::testing::rows(&reduce::<Top>(pages, rows)), top);
    }
}

#[test]
fn ten_pages_come_out_ties_by_page() {
    let lines: Vec<_> = (0..30)
        .rev()
        .map(|i| line(10, "10.0.0.1", &format!("/{:02}", i % 15)))
        .chain([line(10, "::1", "/14")])
        .collect();
    let rows = weft::testing::rows(&reduce::<Top>(parse(&lines).batches, 7));
    assert_eq!(rows.len(), 10);
    assert_eq!(rows[0], "2025-07-10 | 1 | /14 | 3");
    assert_eq!(rows[1], "2025-07-10 | 2 | /00 | 2");
    assert_eq!(rows[9], "2025-07-10 | 10 | /08 | 2");
}

#[test]
fn no_lines_give_no_rows() {
    assert!(
        reduce::<Top>(parse(&[]).batches, 1).is_empty() && reduce::<Daily>(vec![], 1).is_empty()
    );
}
