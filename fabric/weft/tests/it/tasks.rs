//! Sets of tasks: their results are rows, whoever reads them, and whoever is killed meanwhile.

use std::fs;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt32Type;
use arrow::ipc::reader::StreamReader;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Place};
use crate::http::{Request, Response};
use crate::job;
use crate::server::{Server, Setup};

/// Files of the input, and rows of each.
const FILES: usize = 2;
const ROWS: usize = 250;

/// A server with the component `hello`, and a folder of rows.
struct Desk {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
}

impl Desk {
    fn new(setup: impl FnOnce(&Place) -> Setup) -> Desk {
        let place = Place::with_components(&Fixture::shared());
        for file in 0..FILES {
            let lines =
                (0..ROWS).map(|row| format!("{},\"say \"\"{row}\"\"\"\n", file * ROWS + row));
            let text = format!("n,text\n{}", lines.collect::<String>());
            fs::write(place.path(&format!("rows-{file}.csv")), text).expect("it writes");
        }
        let server = Server::start(&place.data(), &setup(&place));
        Desk { server, place }
    }

    fn undisturbed() -> Desk {
        Desk::new(|_| Setup::default())
    }

    /// A job that calls `hello/echo` for the rows of `uri`, with more keys in its stage.
    fn each(&self, uri: &Path, more: Value) -> Value {
        let mut stage = json!({ "name": "calls", "for_each": "rows", "task": "hello/echo" });
        if let (Value::Object(stage), Value::Object(more)) = (&mut stage, more) {
            stage.extend(more);
        }
        json!({
            "name": "each",
            "input": { "rows": { "format": "csv", "uri": uri } },
            "stage": [stage],
            "output": { "results": { "from": "calls" } },
        })
    }

    fn rows(&self, id: &str, output: &str, query: &str) -> Response {
        let path = format!("/v1/jobs/{id}/outputs/{output}/rows?{query}");
        let answer = self.server.ask(&Request::get(path));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer
    }

    /// Runs a job, and gives the rows of its output `results` as CSV.
    fn results(&self, job: &Value) -> String {
        let id = job::id_of(&job::run(&self.server, job));
        self.rows(&id, "results", "format=csv").text()
    }

    fn weft(&self, arguments: &[&str]) -> String {
        let ran = self.server.cli(arguments).output().expect("it starts");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{arguments:?}: {said}");
        String::from_utf8(ran.stdout).expect("text")
    }
}

/// The rows of all files, as a task gets them.
fn inputs() -> Vec<Value> {
    let row = |row: usize| json!({ "n": row, "text": format!("say \"{}\"", row % ROWS) });
    (0..FILES * ROWS).map(row).collect()
}

#[test]
fn results_of_a_set_come_in_order() {
    let desk = Desk::undisturbed();
    let set =
        json!({ "function": "hello/echo", "count": 100, "input": "hi", "tags": { "a": "b" } });
    let accepted = desk.server.ask(&Request::json("/v1/tasks", &set));
    let location = accepted.header("location").map(str::to_owned);
    let id = job::id_of(&accepted.ok());
    assert_eq!(location, Some(format!("/v1/tasks/{id}")));
    let ended = job::wait(&desk.server, &id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let output = &ended["outputs"][0];
    assert_eq!(
        (&output["files"], &output["rows"]),
        (&json!(1), &json!(100))
    );

    let shown = desk
        .server
        .ask(&Request::get(format!("/v1/tasks/{id}")))
        .ok();
    assert_eq!(shown["tasks_done"], 100, "{shown:#}");
    assert_eq!(shown["function"], "hello@0.1.0/echo");
    assert_eq!(shown["tags"], json!({ "a": "b" }));
    let results = shown["results"].as_str().expect("a path");
    let rows = desk.server.ask(&Request::get(results)).text();
    let expected = (0..100).map(|index| format!("{{\"index\":{index},\"result\":\"6869\"}}\n"));
    assert_eq!(rows, expected.collect::<String>());
    let page = desk
        .server
        .ask(&Request::get(format!("{results}?offset=98&format=csv")));
    assert_eq!(page.text(), "index,result\n98,6869\n99,6869\n");
}

#[test]
fn the_command_line_runs_sets_and_reads_results() {
    let desk = Desk::undisturbed();
    let run = ["task", "run", "hello/echo", "--count", "3"];
    let waited = desk.weft(&[&run[..], &["--input", "hi", "--wait"]].concat());
    assert_eq!(waited, "0\thi\n1\thi\n2\thi\n");
    let bytes = desk.place.path("bytes");
    fs::write(&bytes, b"\xff\0").expect("it writes");
    let file = bytes.to_str().expect("text");
    let json = desk.weft(&[&run[..], &["--input-file", file, "--wait", "--json"]].concat());
    let lines = (0..3).map(|index| format!("{{\"index\":{index},\"result_hex\":\"ff00\"}}\n"));
    assert_eq!(json, lines.collect::<String>());

    let id = desk.weft(&[&run[..], &["--input", "a"]].concat());
    job::wait(&desk.server, id.trim());
    let shown = desk.weft(&["task", "show", id.trim()]);
    assert!(
        shown.contains("hello@0.1.0/echo  succeeded\ntasks: 3 of 3"),
        "{shown}"
    );
    assert_eq!(
        desk.weft(&["task", "results", "last"]),
        "0\ta\n1\ta\n2\ta\n"
    );
}

/// Results that nothing reads cost nothing.
#[test]
fn results_that_nothing_reads_are_dropped() {
    let desk = Desk::undisturbed();
    let ended = job::run(&desk.server, &job::noop(10));
    let stages = ended["stages"].as_array().expect("a list");
    assert_eq!(stages.len(), 1);
    assert_eq!(stages[0]["rows_written"], 0);
    assert_eq!(stages[0]["shuffle_bytes_written"], 0);
}

#[test]
fn a_task_runs_for_each_row_and_statements_read_the_results() {
    let desk = Desk::undisturbed();
    let mut document = desk.each(&desk.place.path("rows-*.csv"), json!({}));
    let sql = "SELECT CAST(result AS VARCHAR) AS text FROM calls ORDER BY \"partition\", \"index\"";
    let stages = document["stage"].as_array_mut().expect("a list");
    stages.push(json!({ "name": "query", "from": ["calls"], "sql": sql }));
    stages.push(
        json!({ "name": "sum", "from": ["calls"], "sql": "SELECT count(*) AS n FROM calls" }),
    );
    for name in ["query", "sum"] {
        document["output"][name] = json!({ "from": name });
    }
    let id = job::id_of(&job::run(&desk.server, &document));
    let text = desk.rows(&id, "query", "format=json").text();
    let found = text.lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let text = row["text"].as_str().expect("text");
        serde_json::from_str::<Value>(text).expect("a row is JSON")
    });
    // Places are those of the input: so is their order.
    assert_eq!(found.collect::<Vec<_>>(), inputs());
    assert_eq!(desk.rows(&id, "sum", "format=csv").text(), "n\n500\n");
    let places = desk.rows(&id, "results", "format=csv").text();
    assert!(places.starts_with("partition,index,result\n"), "{places}");
    assert_eq!(places.lines().count(), 1 + FILES * ROWS);
}

#[test]
fn a_task_runs_for_each_batch_of_rows() {
    let desk = Desk::undisturbed();
    let keys = json!({ "each": "batch", "batch_rows": 100, "partitions": 3 });
    let document = desk.each(&desk.place.path("rows-*.csv"), keys);
    let id = job::id_of(&job::run(&desk.server, &document));
    let rows = desk.rows(&id, "results", "format=arrow").body;
    let batches = |bytes: &[u8]| -> Vec<RecordBatch> {
        let reader = StreamReader::try_new(bytes, None).expect("an Arrow stream");
        reader.map(|batch| batch.expect("it is whole")).collect()
    };
    let mut found = Vec::new();
    for batch in batches(&rows) {
        let number = |column: usize, row: usize| {
            batch.column(column).as_primitive::<UInt32Type>().value(row)
        };
        let results = batch.column(2).as_binary::<i32>();
        found.extend((0..batch.num_rows()).map(|row| {
            let given = batches(results.value(row));
            let n: usize = given.iter().map(RecordBatch::num_rows).sum();
            (number(0, row), number(1, row), n)
        }));
    }
    found.sort_unstable();
    let expected = [
        (0, 0, 100),
        (0, 1, 100),
        (0, 2, 50),
        (1, 0, 100),
        (1, 1, 100),
        (1, 2, 50),
    ];
    assert_eq!(found, expected);
}

#[test]
fn results_are_the_same_whoever_is_killed_and_how_often_tasks_run() {
    let set = json!({
        "name": "set",
        "stage": [{ "name": "set", "task": "hello/echo", "count": 40, "input": "hi" }],
        "output": { "results": { "from": "set" } },
    });
    let run = |desk: &Desk| {
        let each = desk.each(&desk.place.path("rows-*.csv"), json!({ "partitions": 4 }));
        (desk.results(&set), desk.results(&each))
    };
    let expected = run(&Desk::undisturbed());
    assert_eq!(expected.0.lines().count(), 1 + 40);
    assert_eq!(expected.1.lines().count(), 1 + FILES * ROWS);

    let twice = Desk::new(|_| Setup::default().with("WEFT__SCHEDULER__RUN_TASKS_TWICE", "1"));
    assert_eq!(run(&twice), expected);
    let log = twice.server.log();
    assert!(!log.contains("differ"), "{log}");
    for point in ["each=kill@40", "each=kill@300", "shuffle-write=kill@7"] {
        let killed =
            Desk::new(|place| Setup::default().with_failpoints(point, &place.path("once")));
        assert_eq!(run(&killed), expected, "{point}");
        assert!(
            killed.place.path("once").exists(),
            "{point} is passed so often"
        );
    }
}

#[test]
fn a_result_that_is_too_large_for_a_row_says_so() {
    let desk = Desk::undisturbed();
    let rows = desk.place.path("large.csv");
    fs::write(&rows, format!("text\nsmall\n{}\n", "x".repeat(1 << 20))).expect("it writes");
    let id = job::submit(&desk.server, &desk.each(&rows, json!({ "partitions": 1 })));
    let ended = job::wait(&desk.server, &id);
    let problem = &ended["problem"];
    assert_eq!(problem["code"], "limit_exceeded", "{ended:#}");
    assert_eq!(problem["limit"], "output", "{problem:#}");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("`index` = 1"), "{detail}");
}
