//! Tasks of SQL stages that follow from what their inputs wrote: few for little data, several for a partition that is
//! much larger than the others.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use crate::fixture::Place;
use crate::http::Request;
use crate::server::{Server, Setup};
use crate::{folder, job};

const N_FILES: u64 = 4;
const FILE_ROWS: u64 = 100_000;
const N_ROWS: u64 = N_FILES * FILE_ROWS;
/// The key of four rows in five.
const FREQUENT_KEY: u64 = 7;
const N_KEYS: u64 = 120_000;
const PARTITIONS: u64 = 4;
const PAD: &str = "forty characters that make a row longer.";

/// A server, and a place for files.
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
        Desk { server, place }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place.path("here").join(name), text).expect("it writes");
    }

    /// Rows of which most have one key, and a row for each key.
    fn write_skewed(&self) {
        for file in 0..N_FILES {
            let mut text = "id,k,pad\n".to_owned();
            for row in 0..FILE_ROWS {
                let id = row * N_FILES + file;
                let key = match id % 5 {
                    0 => id % N_KEYS,
                    _ => FREQUENT_KEY,
                };
                writeln!(text, "{id},{key},{PAD}").expect("a text takes it");
            }
            self.write(&format!("facts-{file}.csv"), &text);
        }
        let mut text = "k,label\n".to_owned();
        for key in 0..N_KEYS {
            writeln!(text, "{key},label {key}").expect("a text takes it");
        }
        self.write("labels.csv", &text);
    }

    /// Runs a statement in which `{here}` is the folder of the files. Returns its rows and the job.
    fn run(&self, sql: &str, partitions: Option<u64>) -> (String, Value) {
        let here = self.place.path("here").display().to_string();
        let mut stage = json!({ "name": "query", "sql": sql.replace("{here}", &here) });
        if let Some(partitions) = partitions {
            stage["partitions"] = json!(partitions);
        }
        let name = format!("out-{}", partitions.unwrap_or_default());
        let out = self.place.path(&name);
        let job = json!({
            "name": "query",
            "stage": [stage],
            // Sides of joins of more than 2 MiB are exchanged.
            "limits": { "memory": "64MiB" },
            "output": { "query": { "from": "query", "format": "csv", "uri": out } },
        });
        let ended = job::run(&self.server, &job);
        let names = folder::names(&out);
        let files = names.iter().filter(|name| name.ends_with(".csv"));
        let text = files.map(|name| fs::read_to_string(out.join(name)).expect("it is text"));
        (text.collect(), ended)
    }

    /// The stages of the job's plan as it ran.
    fn plan(&self, job: &Value) -> Vec<Value> {
        let request = Request::get(format!("/v1/jobs/{}/plan", job::id_of(job)));
        let plan = self.server.ask(&request).ok();
        plan["items"].as_array().expect("a list").clone()
    }
}

#[test]
fn a_large_partition_of_a_join_is_shared_by_tasks() {
    let desk = Desk::new();
    desk.write_skewed();
    let sql = "SELECT count(*) AS n, sum(f.id) AS ids, sum(length(f.pad)) AS pads, sum(length(l.label)) AS labels \
         FROM '{here}/facts-*.csv' f JOIN '{here}/labels.csv' l ON f.k = l.k";
    let (unsplit, _) = desk.run(sql, Some(1));
    let ids = N_ROWS * (N_ROWS - 1) / 2;
    let expected = format!("{N_ROWS},{ids},{},", N_ROWS * PAD.len() as u64);
    assert!(unsplit.contains(&expected), "{unsplit}");

    let (rows, job) = desk.run(sql, Some(PARTITIONS));
    assert_eq!(rows, unsplit);
    let plan = desk.plan(&job);
    let is_split = |item: &&Value| {
        let split = item["adaptive"]["split"].as_array();
        split.is_some_and(|split| !split.is_empty())
    };
    let joined = plan.iter().find(is_split);
    let joined = joined.unwrap_or_else(|| panic!("no partition was split: {plan:#?}"));
    let tasks_total = joined["stage"]["tasks_total"].as_u64().expect("a number");
    assert!(tasks_total > PARTITIONS, "{joined:#}");
    let adaptive = &joined["adaptive"];
    assert_eq!(adaptive["tasks_planned"], PARTITIONS, "{adaptive}");
    let split = adaptive["split"].as_array().expect("a list");
    assert_eq!(split.len(), 1, "{adaptive}");
    let shared = split[0]["tasks"].as_u64().expect("a number");
    assert!(shared > 1, "{adaptive}");
    // No task has as many rows as the large partition.
    let most = joined["task_rows"]["rows_largest"].as_u64();
    assert!(most.expect("it ran") < N_ROWS * 7 / 10, "{joined:#}");
}

#[test]
fn little_data_is_read_by_one_task() {
    const WIDE: usize = 16 << 10;
    const FILE_LINES: usize = 2_200;
    let desk = Desk::new();
    // Two tasks read these files, and hardly anything comes out of them.
    let pad = "x".repeat(WIDE);
    for file in 0..2 {
        let mut text = "k,pad\n".to_owned();
        for line in 0..FILE_LINES {
            writeln!(text, "{},{pad}", line % 10).expect("a text takes it");
        }
        desk.write(&format!("wide-{file}.csv"), &text);
    }
    let sql = "SELECT k, count(*) AS n FROM '{here}/wide-*.csv' GROUP BY k";
    let (rows, job) = desk.run(sql, None);
    let mut rows: Vec<&str> = rows.lines().skip(1).collect();
    rows.sort_unstable();
    let expected: Vec<String> = (0..10)
        .map(|k| format!("{k},{}", 2 * FILE_LINES / 10))
        .collect();
    assert_eq!(rows, expected);
    let plan = desk.plan(&job);
    let last = plan.last().expect("a stage");
    assert_eq!(last["stage"]["tasks_total"], 1, "{plan:#?}");
    let expected = json!({ "tasks_planned": 2, "partitions_most": 2, "split": [] });
    assert_eq!(last["adaptive"], expected);
    let id = job::id_of(&job);
    let shown = desk.server.cli(&["job", &id, "--plan"]).output();
    let shown = String::from_utf8(shown.expect("it starts").stdout).expect("it is text");
    assert!(shown.contains("planned with 2 tasks"), "{shown}");

    // Whoever says how many tasks there are gets them.
    let (_, job) = desk.run(sql, Some(3));
    let last = desk.plan(&job).pop().expect("a stage");
    assert_eq!(last["stage"]["tasks_total"], 3);
    assert_eq!(last["adaptive"], Value::Null);
}
