//! Plans for people: before a job runs, and as it ran.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::clock::until_empty;
use crate::fixture::Place;
use crate::http::Request;
use crate::server::{Server, Setup};
use crate::{folder, job};

/// Three cities in two files of three rows each.
const FILES: [(&str, &str); 2] = [
    ("trips-1.csv", "city,fare\nBerlin,10\nParis,7\nBerlin,20\n"),
    ("trips-2.csv", "city,fare\nRome,5\nParis,8\nBerlin,30\n"),
];
const FARES: &str =
    "SELECT city, sum(fare) AS fares FROM 'trips-*.csv' GROUP BY city ORDER BY city";

/// A server, and a folder with the files of trips.
struct Desk {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
}

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        fs::create_dir(place.path("here")).expect("it is made");
        let desk = Desk { server, place };
        for (name, rows) in FILES {
            desk.write(name, rows);
        }
        desk
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place.path("here").join(name), text).expect("it writes");
    }

    fn weft(&self, arguments: &[&str]) -> Output {
        let mut command = self.server.cli(arguments);
        let ran = command.current_dir(self.place.path("here")).output();
        ran.expect("it starts")
    }

    /// Standard output of a command that succeeds.
    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let ran = self.weft(arguments);
        let said = String::from_utf8_lossy(&ran.stderr);
        let log = self.server.log();
        assert!(ran.status.success(), "{arguments:?}: {said}\n{log}");
        String::from_utf8(ran.stdout).expect("it is text")
    }

    #[track_caller]
    fn document(&self, arguments: &[&str]) -> Value {
        let said = self.says(&[arguments, &["--json"]].concat());
        serde_json::from_str(&said).expect("one document")
    }

    fn n_jobs(&self) -> usize {
        let jobs = self.server.ask(&Request::get("/v1/jobs")).ok();
        jobs["items"].as_array().expect("a list").len()
    }
}

#[track_caller]
fn has_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
}

#[test]
fn a_query_is_explained_and_not_run() {
    let desk = Desk::new();
    let bytes: usize = FILES.iter().map(|(_, rows)| rows.len()).sum();
    let reads = format!("trips-*.csv: csv, 2 files, {bytes} bytes; columns city, fare");
    let explain = format!("/* why? */ EXPLAIN {FARES}");
    for line in [&["--explain", FARES][..], &[explain.as_str()]] {
        let said = desk.says(&[&["sql", "--partitions", "2"][..], line].concat());
        let words = [
            "\nquery.1: 2 tasks\n",
            &format!("\n  reads {reads}\n"),
            "AggregateExec: mode=Partial",
            "Scan: table=trips-*.csv, columns=[city, fare]",
            "\n  writes by hash of city into 2 partitions, for query.2\n",
            "\nquery.2: 2 tasks\n  reads query.1: partitioned; columns ",
            "Read: query.1, by key",
            "\n  writes to 1 partition, sorted by city, for query\n",
            "\nquery: 2 tasks\n  reads query.2: ranged, merged; columns city, fares\n",
            "\n  writes to the output result: arrow, kept",
        ];
        has_all(&said, &words);
    }
    let document = desk.document(&["sql", "--explain", "--partitions", "2", FARES]);
    let names = |stage: &Value| stage["name"].clone();
    let stages = document["stages"].as_array().expect("a list");
    let found: Vec<Value> = stages.iter().map(names).collect();
    assert_eq!(found, ["query.1", "query.2", "query"]);
    assert_eq!(stages[0]["plan"]["reads"], json!([reads]));
    assert_eq!(stages[0]["plan"]["omitted_lines"], 0);
    assert_eq!(desk.n_jobs(), 0);
}

#[test]
fn a_query_is_shown_as_it_ran() {
    let desk = Desk::new();
    let said = desk.says(&["sql", "--analyze", "--partitions", "2", FARES]);
    let words = [
        "query.1: 2 tasks, done\n  | 6 rows in, ",
        " written to shuffles\n  | CPU ",
        "\n  | most rows in: ",
        "\nquery: 2 tasks, done\n  | 3 rows in, 3 rows out\n",
        "AggregateExec: mode=Partial",
    ];
    has_all(&said, &words);
    assert_eq!(desk.n_jobs(), 1);
    assert_eq!(desk.says(&["job", "last", "--plan"]), said);
    until_empty("the job is archived", || {
        folder::leftovers(&desk.place.data())
    });
    assert_eq!(desk.says(&["job", "last", "--plan"]), said);

    let analyze = format!("EXPLAIN ANALYZE {FARES}");
    let document = desk.document(&["sql", "--partitions", "2", &analyze]);
    let items = document["items"].as_array().expect("a list");
    let [first, second, last] = &items[..] else {
        panic!("{document:#}");
    };
    let of = |item: &Value, counter: &str| item["stage"][counter].as_u64().expect("a number");
    assert_eq!(of(first, "rows_read"), 6, "{document:#}");
    assert!(of(first, "bytes_read") > 0, "{document:#}");
    for (item, counter) in [
        (first, "shuffle_bytes_written"),
        (second, "shuffle_bytes_read"),
    ] {
        assert!(of(item, counter) > 0, "{counter}: {document:#}");
    }
    assert_eq!(of(second, "rows_read"), of(first, "rows_written"));
    assert_eq!((of(last, "rows_read"), of(last, "rows_written")), (3, 3));
    let rows = |name: &str| first["task_rows"][name].as_u64().expect("a number");
    assert!((3..=6).contains(&rows("rows_largest")), "{document:#}");
    assert!(first["cpu_ms"].is_u64(), "{document:#}");
}

#[test]
fn stages_of_a_job_file_are_explained() {
    let desk = Desk::new();
    job::deploy(&desk.server, "hello");
    let job = |sql: &str| {
        format!(
            r#"
name = "greetings"
[input.trips]
format = "csv"
uri = "trips-*.csv"
[[stage]]
name = "cities"
from = ["trips"]
sql = "{sql}"
[[stage]]
name = "greeted"
from = "cities"
map = "hello/greet"
[output.greeted]
from = "greeted"
format = "json"
uri = "out/"
"#
        )
    };
    desk.write("job.toml", &job("SELECT DISTINCT city AS name FROM trips"));
    let said = desk.says(&["run", "--explain", "job.toml"]);
    let words = [
        "reads trips: csv, 2 files, ",
        "Scan: table=trips, columns=[city]",
        "\n  runs map hello@",
        "/greet in stage greeted\n",
        "\n  writes to the output greeted: json in ",
    ];
    has_all(&said, &words);
    assert_eq!(desk.n_jobs(), 0);

    desk.write(
        "explain.toml",
        &job("EXPLAIN SELECT city AS name FROM trips"),
    );
    let refused = desk.weft(&["run", "--check", "explain.toml"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    has_all(&said, &["[invalid_job]", "`weft sql --explain`", "--plan"]);
}

#[test]
fn a_job_that_was_not_planned_has_no_stages() {
    let desk = Desk::new();
    let failed = desk.weft(&["sql", "SELECT * FROM 'none-*.csv'"]);
    assert!(!failed.status.success(), "there is no such file");
    let said = desk.says(&["job", "last", "--plan"]);
    assert_eq!(said, "the job has not been planned\n");
    let document = desk.document(&["job", "last", "--plan"]);
    assert_eq!(document, json!({ "items": [] }));
}
