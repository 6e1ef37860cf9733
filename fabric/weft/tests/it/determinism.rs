//! The same bytes, and the right ones, however the work is spread over slots, attempts and memory.

use serde_json::{Value, json};

use crate::access_log::{AccessLog, Size};
use crate::fixture::{Fixture, Place};
use crate::server::{Server, Setup};
use crate::{job, outputs};

#[test]
fn an_undisturbed_run_finds_what_the_logs_hold() {
    let fixture = Fixture::shared();
    let out = fixture.undisturbed_outputs();
    assert_eq!(outputs::daily(&out.join("daily")), fixture.log.daily());
    assert_eq!(outputs::top(&out.join("top")), fixture.log.top());
}

fn duplicates(job: &Value) -> u64 {
    let stages = job["stages"].as_array().expect("a job that ran has stages");
    let counts = stages.iter().map(|stage| stage["duplicates"].as_u64());
    counts.map(|count| count.expect("a count")).sum()
}

#[test]
fn slots_and_attempts_change_nothing() {
    let fixture = Fixture::shared();
    let setup = |slots| Setup {
        slots,
        ..Setup::default()
    };
    let twice = |slots| setup(slots).with("WEFT__SCHEDULER__RUN_TASKS_TWICE", "1");
    for (setup, runs_twice) in [
        (setup(1), false),
        (setup(2), false),
        (setup(5), false),
        (twice(1), true),
        (twice(2), true),
        (twice(5), true),
    ] {
        let place = Place::with_components(&fixture);
        let server = Server::start(&place.data(), &setup);
        let ended = job::run(&server, &job::weblog(&fixture.logs(), &place.out()));
        let context = format!("{setup:?}");
        outputs::assert_same(
            &outputs::published(&place.out()),
            &fixture.expected,
            &context,
        );
        assert_eq!(duplicates(&ended) > 0, runs_twice, "{context}: {ended:#}");
        assert!(
            !server.log().contains("differ"),
            "{context}: {}",
            server.log()
        );
    }
}

/// More rows than fit in a third of the memory of the one task that reduces them.
const LARGE: Size = Size {
    file_bytes: 20_000_000,
    n_files: 4,
    n_gzip_files: 0,
};

/// The weblog job with all visits of a day in one place: one partition, and nothing combined before.
fn uncombined(logs: &std::path::Path, out: &std::path::Path, memory: &str) -> Value {
    let mut job = job::weblog(logs, out);
    job["limits"] = json!({ "memory": memory });
    for stage in [1, 2] {
        let stage = job["stage"][stage].as_object_mut().expect("a stage");
        stage.remove("combine");
        stage.insert(
            "shuffle".into(),
            json!({ "keys": ["day"], "partitions": 1 }),
        );
    }
    job
}

#[test]
fn spilling_changes_nothing() {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let logs = place.path("logs");
    let log = AccessLog::write(&logs, &LARGE, 12);
    let setup = Setup::default().with("WEFT_LOG", "info,weft_engine=debug");
    let mut seen = Vec::new();
    for (memory, spills) in [("1GiB", false), ("64MiB", true)] {
        let server = Server::start(&place.data(), &setup);
        let out = place.out().join(memory);
        job::run(&server, &uncombined(&logs, &out, memory));
        assert_eq!(
            server.log().contains("spilled"),
            spills,
            "{memory}: {}",
            server.log()
        );
        assert_eq!(outputs::daily(&out.join("daily")), log.daily());
        assert_eq!(outputs::top(&out.join("top")), log.top());
        seen.push(outputs::published(&out));
    }
    outputs::assert_same(&seen[1], &seen[0], "64 MiB");
}

#[test]
fn runs_of_long_rows_are_merged_in_little_memory() {
    let place = Place::new();
    let server = Server::start(&place.data(), &Setup::default());
    const ROWS: usize = 150;
    const ROW_BYTES: usize = 300_000;
    // Keys in an order that is not theirs, and each value told by its key.
    let keys: Vec<usize> = (0..ROWS).map(|row| row * 77 % ROWS).collect();
    let value = |key: usize| char::from(b'a' + u8::try_from(key % 26).expect("a letter"));
    let lines = keys.iter().map(|key| {
        let value = value(*key).to_string().repeat(ROW_BYTES);
        format!("{key},{value}\n")
    });
    let input = place.path("rows.csv");
    std::fs::write(&input, format!("k,v\n{}", lines.collect::<String>())).expect("it writes");
    let job = json!({
        "name": "long-rows",
        "limits": { "memory": "16MiB" },
        "input": { "rows": { "format": "csv", "uri": input, "schema": ["k int64", "v utf8"] } },
        "stage": [{ "name": "sorted", "from": "rows", "shuffle": { "keys": ["k"], "partitions": 1 } }],
        "output": { "sorted": { "from": "sorted", "format": "csv", "uri": place.out() } },
    });
    job::run(&server, &job);
    let text = std::fs::read_to_string(place.out().join("part-sorted-00000.csv")).expect("a file");
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(rows.len(), ROWS);
    for (key, row) in rows.iter().enumerate() {
        let (found, rest) = row.split_once(',').expect("two columns");
        assert_eq!(found, key.to_string());
        assert!(rest.len() == ROW_BYTES && rest.starts_with(value(key)));
    }
}
