//! The examples, as their READMEs say: job files as they lie there, run by the command line, with results that are known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::fixture::Place;
use crate::job;
use crate::outputs::rows;
use crate::random::Random;
use crate::server::{Server, Setup};

/// A server with an example's component, and a folder with its job file.
struct Example {
    server: Server,
    place: Place,
}

impl Example {
    fn new(name: &str) -> Example {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        job::deploy(&server, name);
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../examples")
            .join(name)
            .join("job.toml");
        std::fs::copy(file, place.path("job.toml")).expect("the example has a job file");
        std::fs::create_dir_all(place.path("data")).expect("it is made");
        Example { server, place }
    }

    /// Runs the job file, and gives the folder of its outputs.
    fn run(&self) -> PathBuf {
        let file = self.place.path("job.toml");
        let file = file.to_str().expect("a name");
        let ran = self.server.cli(&["run", file]).output().expect("it runs");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{said}");
        self.place.path("out")
    }
}

/// Words of a small vocabulary, with blanks doubled here and there.
fn text() -> String {
    let mut random = Random::seeded("words", 3);
    let mut text = String::new();
    for _ in 0..20_000 {
        let word = random.below(300);
        text += &format!("{}{word:o}", "wörd".repeat(1 + word as usize % 3));
        text += match random.below(12) {
            0 => "\n",
            1 => "  ",
            _ => " ",
        };
    }
    text + "end\n"
}

#[test]
fn words_are_counted_the_same_in_rust_and_in_python() {
    let text = text();
    let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
    for word in text.lines().flat_map(|line| line.split(' ')) {
        *expected.entry(word).or_default() += 1;
    }
    let mut expected: Vec<String> = expected
        .iter()
        .map(|(word, n)| format!("{word}|{n}"))
        .collect();
    expected.sort();
    for example in ["wordcount", "wordcount-py"] {
        let example = Example::new(example);
        std::fs::write(example.place.path("data/words.txt"), &text).expect("it writes");
        assert_eq!(rows(&example.run().join("words")), expected);
    }
}

#[test]
fn fares_are_averaged_by_zone_and_hour() {
    let example = Example::new("taxi");
    job::deploy(&example.server, "mirror");
    let csv = example.place.path("trips.csv");
    let trips = "PULocationID,tpep_pickup_datetime,fare_amount\n161,2024-01-01T08:05:00,12.8\n\
                 7,2024-01-01T23:59:00,9.3\n161,2024-01-02T08:40:00,20.5\n161,2024-01-02T09:00:00,7.2\n,2024-01-02T09:00:00,7.2\n";
    std::fs::write(&csv, trips).expect("it writes");
    let schema = [
        "PULocationID int32",
        "tpep_pickup_datetime timestamp-us",
        "fare_amount float64",
    ];
    let made = example.place.path("made");
    let to_parquet = json!({
        "name": "trips",
        "input": { "trips": { "format": "csv", "uri": csv, "schema": schema } },
        "stage": [{ "name": "passed", "from": "trips", "map": "mirror/pass" }],
        "output": { "passed": { "from": "passed", "format": "parquet", "uri": made } },
    });
    job::run(&example.server, &to_parquet);
    let part = made.join("part-passed-00000.parquet");
    let month = example.place.path("data/yellow_tripdata_2024-01.parquet");
    std::fs::copy(part, month).expect("it copies");
    let zones = rows(&example.run().join("zones"));
    assert_eq!(zones, ["161|8|16.65|2", "161|9|7.2|1", "7|23|9.3|1"]);
}
