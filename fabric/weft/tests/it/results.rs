//! Rows that the cluster keeps and the API streams: no folder is shared with whoever asks.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use serde_json::{Value, json};

use crate::clock::{eventually, until_empty};
use crate::cluster::Cluster;
use crate::fixture::Place;
use crate::http::{Request, Response};
use crate::server::{Server, Setup, weft};
use crate::{folder, job};

/// Files of the table `numbers`, and rows of each.
const FILES: usize = 4;
const ROWS: usize = 100;

/// Writes `numbers-*.csv`, whose rows are numbered in the order of the files.
fn write_numbers(here: &Path, rows: usize) {
    fs::create_dir_all(here).expect("it is made");
    for file in 0..FILES {
        let numbers = file * rows..(file + 1) * rows;
        let lines = numbers.map(|n| format!("{n},row {n} of a table of numbers\n"));
        let text = format!("n,text\n{}", lines.collect::<String>());
        fs::write(here.join(format!("numbers-{file}.csv")), text).expect("it writes");
    }
}

/// A query over these files, as a job whose rows the cluster keeps.
fn kept(here: &Path, sql: &str) -> Value {
    json!({
        "name": "kept",
        "stage": [{ "name": "query", "sql": sql, "folder": here, "partitions": FILES }],
        "output": { "result": { "from": "query" } },
    })
}

fn rows_of(id: &str, query: &str) -> Request {
    Request::get(format!("/v1/jobs/{id}/outputs/result/rows?{query}"))
}

/// A command of a client that can write nowhere.
fn homeless(command: &mut Command) -> Output {
    let ran = command.current_dir("/").env("TMPDIR", "/nowhere").output();
    ran.expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server, and a folder of numbers.
struct Desk {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
}

impl Desk {
    fn new(setup: &Setup) -> Desk {
        let place = Place::new();
        let server = Server::start(&place.data(), setup);
        let desk = Desk { server, place };
        write_numbers(&desk.here(), ROWS);
        desk
    }

    fn here(&self) -> PathBuf {
        self.place.path("here")
    }

    /// Runs a query that succeeds, and gives the job's id.
    fn run(&self, sql: &str) -> String {
        job::id_of(&job::run(&self.server, &kept(&self.here(), sql)))
    }

    fn rows(&self, id: &str, query: &str) -> Response {
        self.server.ask(&rows_of(id, query))
    }

    /// The rows as text, of an answer that is whole.
    #[track_caller]
    fn text(&self, id: &str, query: &str) -> String {
        let answer = self.rows(id, query);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        answer.text()
    }

    /// The folder in which the server keeps the result of a job.
    fn kept(&self, id: &str) -> PathBuf {
        let store = self.place.data().join("store");
        store.join("outputs").join(id).join("result")
    }
}

fn batches(bytes: &[u8]) -> (usize, Vec<RecordBatch>) {
    let reader = StreamReader::try_new(bytes, None).expect("an Arrow stream");
    let columns = reader.schema().fields().len();
    let batches = reader.map(|batch| batch.expect("a whole stream"));
    (columns, batches.collect())
}

const ALL: &str = "SELECT n, text FROM 'numbers-*.csv'";

#[test]
fn a_client_that_shares_no_folder_reads_rows_of_a_cluster() {
    let cluster = Cluster::start(1, 2);
    let here = cluster.root.path().join("here");
    write_numbers(&here, ROWS);
    let endpoint = format!("http://{}", cluster.controllers[0]);
    let run = |arguments: &[&str]| {
        let mut command = weft();
        command.args(["--endpoint", &endpoint, "--token", &cluster.token]);
        let ran = homeless(command.args(arguments));
        let said = text(&ran.stderr);
        assert!(ran.status.success(), "{said}\n{}", cluster.logs());
        text(&ran.stdout)
    };
    let sql = format!("SELECT n FROM '{}/numbers-*.csv'", here.display());
    let partitions = FILES.to_string();
    let streamed = run(&["sql", &sql, "--format", "csv", "--partitions", &partitions]);
    let numbers = (0..FILES * ROWS).map(|n| format!("{n}\n"));
    assert_eq!(streamed, format!("n\n{}", numbers.collect::<String>()));

    let shown = run(&["sql", &sql, "--rows", "2", "--partitions", &partitions]);
    assert_eq!(shown, "n\n0\n1\n");
    let shown = run(&["show", "last/result", "--rows", "1"]);
    assert_eq!(shown, "n\n0\n(1 of 400 rows, 4 files)\n");
    let listed = run(&["--json", "job", "last"]);
    let listed: Value = serde_json::from_str(&listed).expect("one document");
    assert_eq!(listed["outputs"][0]["uri"], Value::Null, "{listed:#}");
    assert_eq!(listed["outputs"][0]["rows"], 400);
}

#[test]
fn rows_come_in_order_in_each_format() {
    let desk = Desk::new(&Setup::default());
    let id = desk.run(ALL);
    let arrow = desk.rows(&id, "format=arrow");
    let kind = arrow.header("content-type");
    assert_eq!(kind, Some("application/vnd.apache.arrow.stream"));
    let (columns, rows) = batches(&arrow.body);
    let numbers = rows.iter().flat_map(|batch| {
        let numbers = batch.column(0).as_primitive::<Int64Type>();
        numbers.values().to_vec()
    });
    let all = 0..i64::try_from(FILES * ROWS).expect("a small number");
    assert_eq!(columns, 2);
    assert!(numbers.eq(all), "{rows:?}");

    let csv = desk.text(&id, "format=csv&offset=99&limit=2");
    let expected = "n,text\n99,row 99 of a table of numbers\n100,row 100 of a table of numbers\n";
    assert_eq!(csv, expected);
    let json = desk.text(&id, "offset=399");
    assert_eq!(
        json,
        "{\"n\":399,\"text\":\"row 399 of a table of numbers\"}\n"
    );
    assert_eq!(desk.text(&id, "format=csv&offset=400"), "n,text\n");
    assert_eq!(desk.text(&id, "limit=0"), "");
    let accepted = rows_of(&id, "limit=1").header("accept", "text/csv");
    let accepted = desk.server.ask(&accepted);
    assert_eq!(accepted.header("content-type"), Some("text/csv"));
}

#[test]
fn an_empty_result_keeps_its_columns() {
    let desk = Desk::new(&Setup::default());
    let id = desk.run("SELECT n, text FROM 'numbers-*.csv' WHERE n < 0");
    assert_eq!(desk.text(&id, "format=csv"), "n,text\n");
    assert_eq!(desk.text(&id, "format=json"), "");
    let (columns, rows) = batches(&desk.rows(&id, "format=arrow").body);
    let n: usize = rows.iter().map(RecordBatch::num_rows).sum();
    assert_eq!((columns, n), (2, 0));
}

#[test]
fn rows_of_a_folder_are_streamed_too() {
    let desk = Desk::new(&Setup::default());
    let mut document = kept(&desk.here(), "SELECT n, n % 2 AS half FROM 'numbers-0.csv'");
    document["stage"][0]["partitions"] = json!(1);
    for format in ["parquet", "csv", "json"] {
        document["output"]["result"] = json!({
            "from": "query", "format": format, "uri": desk.place.path(format), "partition_by": ["half"],
        });
        let id = job::id_of(&job::run(&desk.server, &document));
        let csv = desk.text(&id, "format=csv&offset=49&limit=2");
        assert_eq!(csv, "n,half\n98,0\n1,1\n", "{format}");
    }
    // Somebody else's rows are not the job's.
    document["output"]["result"]["mode"] = json!("overwrite");
    let before = job::run(&desk.server, &document);
    job::run(&desk.server, &document);
    let answer = desk.rows(&job::id_of(&before), "");
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[test]
fn a_job_that_failed_has_no_rows() {
    let desk = Desk::new(&Setup::default());
    let document = kept(&desk.here(), "SELECT 1 / (n - 5) AS x FROM 'numbers-*.csv'");
    let id = job::submit(&desk.server, &document);
    let ended = job::wait(&desk.server, &id);
    assert_eq!(ended["status"], "failed", "{ended:#}");
    let answer = desk.rows(&id, "");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("has failed"), "{}", answer.text());
    until_empty("the job is archived", || {
        folder::leftovers(&desk.place.data())
    });
    let left = folder::names(&desk.place.data().join("store/outputs"));
    assert_eq!(left, [] as [&str; 0]);
}

#[test]
fn a_result_that_is_too_large_says_what_to_do() {
    let setup = Setup::default().with("WEFT__OUTPUTS__MAX_KEPT_BYTES", "4000");
    let desk = Desk::new(&setup);
    // One task alone writes too much, or only all of them together.
    for (sql, is_kept) in [
        (ALL, false),
        ("SELECT n FROM 'numbers-*.csv'", false),
        ("SELECT sum(n) AS n FROM 'numbers-*.csv'", true),
    ] {
        let id = job::submit(&desk.server, &kept(&desk.here(), sql));
        let ended = job::wait(&desk.server, &id);
        let status = if is_kept { "succeeded" } else { "failed" };
        assert_eq!(ended["status"], status, "{sql}: {ended:#}");
        if !is_kept {
            let problem = &ended["problem"];
            assert_eq!(problem["code"], "limit_exceeded", "{problem:#}");
            assert_eq!(problem["limit"], "kept_output", "{problem:#}");
            let detail = problem["detail"].as_str().expect("text");
            assert!(detail.contains("`uri`"), "{detail}");
        }
    }
    // Rows of a table have the same bound.
    let sql = format!("CREATE TABLE large AS {ALL}");
    let mut command = desk.server.cli(&["sql", &sql]);
    let ran = command.current_dir(desk.here()).output().expect("it runs");
    let said = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("more than the 4000 bytes"), "{said}");
    // A folder of one's own has no such bound.
    let out = desk.place.path("out").display().to_string();
    let mut command = desk.server.cli(&["sql", ALL, "--output", &out]);
    let ran = command.current_dir(desk.here()).output().expect("it runs");
    assert!(ran.status.success(), "{}", text(&ran.stderr));
}

#[test]
fn rows_expire_and_say_so() {
    let setup = Setup::default().with("WEFT__OUTPUTS__KEPT_HOURS", "0");
    let desk = Desk::new(&setup);
    let id = desk.run(ALL);
    let answer = desk.rows(&id, "");
    assert_eq!(answer.status, 404);
    let said = answer.text();
    assert!(said.contains("not kept any more"), "{said}");
    until_empty("the job is archived", || {
        folder::leftovers(&desk.place.data())
    });
    let Desk { server, place } = desk;
    assert!(server.stop().success());
    // A server that starts removes them, once it knows that the job is archived.
    until_empty("the rows are swept", || {
        let server = Server::start(&place.data(), &setup);
        let left = folder::names(&place.data().join("store/outputs"));
        assert!(server.stop().success());
        left
    });
}

#[test]
fn rows_stay_over_a_restart() {
    let desk = Desk::new(&Setup::default());
    let id = desk.run(ALL);
    let before = desk.text(&id, "format=csv");
    until_empty("the job is archived", || {
        folder::leftovers(&desk.place.data())
    });
    let Desk { server, place } = desk;
    assert!(server.stop().success());
    let server = Server::start(&place.data(), &Setup::default());
    let again = eventually("an executor is ready", || {
        let answer = server.ask(&rows_of(&id, "format=csv"));
        (answer.status != 429).then_some(answer)
    });
    assert_eq!(again.text(), before);
    // Without its files, a job has no rows.
    fs::remove_dir_all(place.data().join("store/outputs")).expect("it is there");
    let answer = server.ask(&rows_of(&id, "format=csv"));
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[test]
fn rows_that_are_damaged_are_no_whole_answer() {
    let desk = Desk::new(&Setup::default());
    let id = desk.run(ALL);
    let mut files = folder::files(&desk.kept(&id));
    files.retain(|file| file.extension().is_some_and(|end| end == "arrow"));
    assert_eq!(files.len(), FILES);
    fs::remove_file(&files[2]).expect("it is there");
    let asked = rows_of(&id, "format=csv");
    let cut = desk.server.try_ask(&asked);
    cut.expect_err("it does not end like a whole answer");
    let told = desk.server.ask(&asked.header("te", "trailers"));
    assert_eq!(told.text().lines().count(), 1 + 2 * ROWS);
    let problem = told.trailer("x-weft-problem").expect("it is told");
    assert!(problem.contains("bad_record"), "{problem}");
    // Before the first row, the problem is the answer.
    let answer = desk.rows(&id, "format=csv&offset=250");
    assert_eq!(answer.status, 422, "{}", answer.text());
}

#[test]
fn clients_that_go_away_leave_room_for_others() {
    let desk = Desk::new(&Setup::default());
    // More than the windows and the buffers of sockets hold.
    write_numbers(&desk.here(), 100_000);
    let id = desk.run(ALL);
    for _ in 0..40 {
        let asked = rows_of(&id, "format=csv");
        let mut answer = desk.server.start_asking(&asked);
        let mut some = [0; 64];
        let read = answer.read(&mut some).expect("it answers");
        assert!(some[..read].starts_with(b"HTTP/1.1 "), "{}", text(&some));
    }
    let all = eventually("others have their turn", || {
        let answer = desk.rows(&id, "format=csv");
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(all.text().lines().count(), 1 + FILES * 100_000);
}

#[test]
fn the_command_line_streams_rows_in_each_format() {
    let desk = Desk::new(&Setup::default());
    let run = |arguments: &[&str]| {
        let sql = format!(
            "SELECT n FROM '{}/numbers-*.csv' WHERE n < 3",
            desk.here().display()
        );
        let arguments = [&["sql", sql.as_str()][..], arguments].concat();
        let ran = homeless(&mut desk.server.cli(&arguments));
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        ran.stdout
    };
    assert_eq!(text(&run(&["--format", "csv"])), "n\n0\n1\n2\n");
    let json = "{\"n\":0}\n{\"n\":1}\n";
    assert_eq!(text(&run(&["--format", "json", "--rows", "2"])), json);
    let (columns, rows) = batches(&run(&["--format", "arrow"]));
    let n: usize = rows.iter().map(RecordBatch::num_rows).sum();
    assert_eq!((columns, n), (1, 3));
}
