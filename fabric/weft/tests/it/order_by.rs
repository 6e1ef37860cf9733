//! Sorts without a limit: tasks share the last merge, each with a range of the values, and what they write is one
//! order from the first task to the last.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::fixture::Place;
use crate::random::Random;
use crate::server::{Server, Setup};
use crate::{folder, job};

const N_FILES: u64 = 8;
const FILE_ROWS: u64 = 6_000;
const N_ROWS: u64 = N_FILES * FILE_ROWS;
const N_TASKS: u64 = 8;
/// The value of nine rows in ten.
const HOT: u64 = 7;

/// Writes files with a number for each row and a value that most of them have.
fn write_numbers(to: &Path) {
    fs::create_dir_all(to).expect("it is made");
    let mut random = Random::seeded("order by", 5);
    for file in 0..N_FILES {
        let mut text = "id,score,hot\n".to_owned();
        for row in 0..FILE_ROWS {
            let id = row * N_FILES + file;
            let hot = match random.below(10) {
                0 => random.below(1_000),
                _ => HOT,
            };
            let line = writeln!(text, "{id},{},{hot}", random.below(20_000));
            line.expect("a text takes it");
        }
        fs::write(to.join(format!("numbers-{file}.csv")), text).expect("it writes");
    }
}

/// A server with the files, and a place for outputs.
struct Sorts {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
}

impl Sorts {
    fn new() -> Sorts {
        let place = Place::new();
        write_numbers(&place.path("numbers"));
        let server = Server::start(&place.data(), &Setup::default());
        Sorts { server, place }
    }

    /// Runs `SELECT columns .. ORDER BY order`. Returns the lines of each task, and what the job's stages say.
    fn run(&self, out: &str, (columns, order): (&str, &str), tasks: u64) -> (Vec<String>, Value) {
        let numbers = self.place.path("numbers/numbers-*.csv");
        let sql = format!(
            "SELECT {columns} FROM '{}' ORDER BY {order}",
            numbers.display()
        );
        let out = self.place.path(out);
        let job = json!({
            "name": "sort",
            "stage": [{ "name": "sorted", "sql": sql, "partitions": tasks }],
            // Little memory makes segments small, and there are several of each task.
            "limits": { "memory": "64MiB" },
            "output": { "sorted": { "from": "sorted", "format": "csv", "uri": out } },
        });
        let ended = job::run(&self.server, &job);
        let names = folder::names(&out);
        let files = names.iter().filter(|name| name.ends_with(".csv"));
        let texts = files.map(|name| fs::read_to_string(out.join(name)).expect("it is text"));
        let rows = texts.map(|text| {
            let (_, rows) = text.split_once('\n').expect("a header");
            rows.to_owned()
        });
        (rows.collect(), ended["stages"].clone())
    }
}

fn n_tasks_of(stages: &Value, name: &str) -> u64 {
    let mut stages = stages.as_array().expect("a list").iter();
    let stage = stages.find(|stage| stage["name"] == name);
    let n_tasks = stage.and_then(|stage| stage["tasks_total"].as_u64());
    n_tasks.expect("the stage has tasks")
}

#[track_caller]
fn check_shares(files: &[String]) {
    let shares: Vec<usize> = files.iter().map(|file| file.lines().count()).collect();
    assert_eq!(shares.iter().sum::<usize>() as u64, N_ROWS);
    let most = 2 * (N_ROWS / N_TASKS) as usize;
    assert!(shares.iter().all(|n| *n < most), "{shares:?}");
}

#[test]
fn tasks_share_the_merge_of_a_sort() {
    let sorts = Sorts::new();
    let by_score = ("id, score", "score DESC, id % 1000, id");
    let (one, stages) = sorts.run("one", by_score, 1);
    assert_eq!((one.len(), n_tasks_of(&stages, "sorted")), (1, 1));
    assert_eq!(one[0].lines().count() as u64, N_ROWS);
    let (files, stages) = sorts.run("shared", by_score, N_TASKS);
    assert_eq!(n_tasks_of(&stages, "sorted"), N_TASKS);
    assert!(files.concat() == one[0], "the same rows in the same order");
    check_shares(&files);
}

/// Values cannot part rows that are equal: the tasks that sorted them do.
#[test]
fn a_value_that_most_rows_have_is_merged_by_several_tasks() {
    let sorts = Sorts::new();
    let by_value = ("hot, id", "hot");
    let (files, _) = sorts.run("first", by_value, N_TASKS);
    check_shares(&files);
    let hot = format!("{HOT},");
    let has_hot = files
        .iter()
        .filter(|file| file.contains(&format!("\n{hot}")));
    assert!(has_hot.count() > 4, "nine rows in ten are shared");

    let all = files.concat();
    let rows = all.lines().map(|line| {
        let (value, id) = line.split_once(',').expect("two columns");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        (number(value), number(id))
    });
    let rows: Vec<(u64, u64)> = rows.collect();
    assert!(rows.is_sorted_by_key(|(value, _)| *value));
    let mut ids: Vec<u64> = rows.iter().map(|(_, id)| *id).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..N_ROWS), "each row once");

    let (again, _) = sorts.run("again", by_value, N_TASKS);
    assert!(again == files, "every run gives the same files");
}
