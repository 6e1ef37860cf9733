//! Whole commands against a small server on the loopback address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::terminal::captured;

/// A server on a thread of its own, until it is dropped.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(router: Router) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), router)
    }

    fn start_at(address: SocketAddr, router: Router) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(address))
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            tokio::select! {
                served = axum::serve(listener, router).into_future() => served.expect("it serves"),
                _ = stopped => {}
            }
        };
        let thread = std::thread::spawn(move || runtime.block_on(serve));
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn weft(&self, arguments: &[&str]) -> Done {
        let endpoint = format!("http://{}", self.address);
        weft(
            &[
                &["--endpoint", endpoint.as_str(), "--token", "secret"],
                arguments,
            ]
            .concat(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread
            .take()
            .expect("once")
            .join()
            .expect("the server does not panic");
    }
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    code: u8,
    stdout: String,
    stderr: String,
}

/// A program of which nothing but the command line runs.
struct NoServer;

impl Program for NoServer {
    fn up(&self, _: UpSettings) -> anyhow::Result<()> {
        unreachable!("no test becomes the server")
    }
    fn controller(&self, _: &std::path::Path) -> anyhow::Result<()> {
        unreachable!("no test becomes a controller")
    }
    fn node(&self, _: &std::path::Path) -> anyhow::Result<()> {
        unreachable!("no test becomes a node")
    }
    fn default_settings(&self, _: ServerRole) -> &'static str {
        "listen = \"127.0.0.1:7070\"\n"
    }
    fn make_authority(&self, _: &std::path::Path) -> anyhow::Result<()> {
        unreachable!("no test makes an authority")
    }
    fn issue_certificate(
        &self,
        _: &std::path::Path,
        _: ServerRole,
        _: &str,
    ) -> anyhow::Result<CertificateFiles> {
        unreachable!("no test issues certificates")
    }
    fn executor(&self) -> anyhow::Result<()> {
        unreachable!("no test becomes an executor")
    }
    fn compiler(
        &self,
        _: &std::path::Path,
        _: &std::path::Path,
        _: usize,
        _: bool,
    ) -> anyhow::Result<()> {
        unreachable!("no test becomes a compiler")
    }
    fn check_stores(
        &self,
        _: &std::path::Path,
        _: Option<&std::path::Path>,
        _: Option<&str>,
    ) -> anyhow::Result<Vec<StoreCheck>> {
        unreachable!("no test looks at this machine")
    }
    fn preview(&self, folder: &std::path::Path, rows: usize) -> anyhow::Result<Preview> {
        let shown = folder.display();
        anyhow::ensure!(folder.is_dir(), "`{shown}` is not a published output");
        let all = [("Berlin", "3"), ("Paris", "2"), ("Rome", "1")];
        let row = |(city, n): (&str, &str)| vec![Some(city.to_owned()), Some(n.to_owned())];
        Ok(Preview {
            manifest: json!({ "rows": all.len() }),
            schema: vec![("city".into(), "utf8".into()), ("n".into(), "int64".into())],
            n_rows: all.len() as u64,
            n_files: 1,
            rows: all.into_iter().take(rows).map(row).collect(),
        })
    }
    fn row_decoder(&self) -> Box<dyn RowDecoder> {
        Box::<Lines>::default()
    }
    fn pools_sandboxes(&self) -> anyhow::Result<bool> {
        Ok(true)
    }
}

fn weft(arguments: &[&str]) -> Done {
    let arguments =
        Arguments::try_parse_from(["weft"].iter().chain(arguments)).expect("good usage");
    let (mut output, stdout, stderr) = captured::output(arguments.global.json);
    let code = run_and_report(&NoServer, &arguments, &mut output);
    Done {
        code,
        stdout: stdout.text(),
        stderr: stderr.text(),
    }
}

fn problem(status: StatusCode, code: &str) -> Response {
    let document = json!({"type": "about:blank", "status": status.as_u16(), "code": code, "detail": "not like this"});
    (
        status,
        [("content-type", "application/problem+json")],
        document.to_string(),
    )
        .into_response()
}

fn job(status: &str) -> Value {
    json!({
        "id": "job-1", "name": "words", "status": status, "submitted_at": "2026-11-20T12:00:00Z",
        "stages": [{"position": 0, "name": "words", "status": "running", "tasks_total": 2, "tasks_done": 1}],
        "problem": null, "outputs": [],
    })
}

fn ended() -> Value {
    let mut job = job("succeeded");
    job["outputs"] =
        json!([{"name": "words", "uri": "/out/words/", "files": 1, "rows": 3, "bytes": 1024}]);
    job
}

fn event(kind: &str, job: &Value) -> String {
    format!("event: {kind}\ndata: {job}\n\n")
}

fn receipt() -> weft_core::Receipt {
    weft_core::Receipt::new("job-1".into(), &[], weft_core::PriceSheet::default(), false)
}

/// A server that runs one job; its stream of events is what `events` answers with at each
/// connection.
fn running(events: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Router {
    Router::new()
        .route(
            "/v1/jobs",
            post(async || (StatusCode::CREATED, Json(job("planning")))),
        )
        .route("/v1/jobs/{id}/events", get(async move || events()))
        .route("/v1/jobs/{id}/receipt", get(async || Json(receipt())))
}

fn job_file() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("job.toml");
    std::fs::write(&path, "name = \"words\"\n").expect("written");
    let path = path.to_str().expect("text").to_owned();
    (folder, path)
}

#[test]
fn wrong_usage_is_2() {
    for line in [
        &["weft"][..],
        &["weft", "what"],
        &["weft", "run"],
        &["weft", "new", "x", "--lang", "cobol"],
    ] {
        let error = Arguments::try_parse_from(line).expect_err("wrong");
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
    assert_eq!(weft(&["jobs", "--endpoint", "ftp://x"]).code, 2);
    assert_eq!(weft(&["new", "Not-A-Name"]).code, 2);
}

#[test]
fn an_unknown_language_is_told_which_there_are() {
    let line = ["weft", "new", "x", "--lang", "cobol"];
    let error = Arguments::try_parse_from(line).expect_err("wrong");
    assert!(error.to_string().contains("rust, python"), "{error}");
}

#[test]
fn nobody_there_is_3() {
    let address = Server::start(Router::new()).address;
    let done = weft(&[
        "jobs",
        "--json",
        "--token",
        "x",
        "--endpoint",
        &format!("http://{address}"),
    ]);
    assert_eq!((done.code, done.stdout.as_str()), (3, ""));
    assert!(
        done.stderr.contains("weft up") && done.stderr.contains("refused"),
        "{done:?}"
    );
}

#[test]
fn the_next_endpoint_is_tried() {
    let gone = Server::start(Router::new()).address;
    let server =
        Server::start(Router::new().route("/v1/jobs/{id}", get(async || Json(job("running")))));
    let done = server.weft(&[
        "job",
        "job-1",
        "--endpoint",
        &format!("http://{gone},http://{}", server.address),
    ]);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn a_refusal_is_1_and_a_document() {
    let server = Server::start(
        Router::new().fallback(async || problem(StatusCode::UNAUTHORIZED, "unauthorized")),
    );
    let done = server.weft(&["jobs", "--json"]);
    let document: Value = serde_json::from_str(&done.stdout).expect("one document");
    assert_eq!((done.code, &document["code"]), (1, &json!("unauthorized")));
    assert!(
        done.stderr.contains("not like this [unauthorized]") && done.stderr.contains("WEFT_TOKEN"),
        "{done:?}"
    );
}

#[test]
fn the_token_is_shown_and_a_missing_one_is_not() {
    let check = async |headers: HeaderMap| match headers
        .get("authorization")
        .map(|value| value.as_bytes())
    {
        Some(b"Bearer secret") => Json(json!({"items": [], "next_cursor": null})).into_response(),
        Some(_) => problem(StatusCode::BAD_REQUEST, "internal"),
        None => problem(StatusCode::UNAUTHORIZED, "unauthorized"),
    };
    let server = Server::start(Router::new().route("/v1/jobs", get(check)));
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().to_str().expect("text");
    let line = [
        "jobs",
        "--data",
        folder,
        "--endpoint",
        &format!("http://{}", server.address),
    ];
    let done = weft(&line);
    assert!(
        done.code == 1 && done.stderr.contains("no token was found"),
        "{done:?}"
    );
    std::fs::write(data.path().join("token"), "secret\n").expect("written");
    assert_eq!(weft(&line).code, 0);
}

#[test]
fn lists_are_followed_page_by_page() {
    let page = async |Query(query): Query<std::collections::BTreeMap<String, String>>| match query
        .get("cursor")
        .map(String::as_str)
    {
        None => Json(json!({"items": [job("running"), job("running")], "next_cursor": "a/b"})),
        Some("a/b") => Json(json!({"items": [job("failed")], "next_cursor": null})),
        other => panic!("an unknown cursor: {other:?}"),
    };
    let server = Server::start(Router::new().route("/v1/jobs", get(page)));
    let done = server.weft(&["jobs", "--json"]);
    let document: Value = serde_json::from_str(&done.stdout).expect("one document");
    assert_eq!(document["items"].as_array().map(Vec::len), Some(3));
    let done = server.weft(&["jobs", "--limit", "1"]);
    assert_eq!((done.code, done.stdout.lines().count()), (0, 2));
    assert!(done.stderr.contains("more than 1"), "{done:?}");
}

#[test]
fn logs_are_lines() {
    let line = |task: u32| json!({"stage": 0, "task": task, "attempt": 1, "level": "info", "function": "a/b", "message": "x\u{1b}[2J"});
    let items = json!({"items": [line(0), line(1)], "next_cursor": null, "dropped": 7});
    let server =
        Server::start(Router::new().route("/v1/jobs/{id}/logs", get(async move || Json(items))));
    let done = server.weft(&["logs", "job-1"]);
    assert_eq!(
        done.stdout,
        "0/0#1 info  a/b: x\u{fffd}[2J\n0/1#1 info  a/b: x\u{fffd}[2J\n"
    );
    assert_eq!(done.stderr, "7 lines dropped: there were too many\n");
    assert_eq!(
        server
            .weft(&["logs", "job-1", "--json"])
            .stdout
            .lines()
            .count(),
        2
    );
}

#[test]
fn a_job_is_run_to_its_end() {
    let events = || {
        Body::from(format!(
            ": hello\n\n{}{}",
            event("job", &job("running")),
            event("end", &ended())
        ))
        .into_response()
    };
    let server = Server::start(running(events));
    let (_folder, file) = job_file();
    let done = server.weft(&["run", &file]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stdout.starts_with(
            "job-1 succeeded\n  words: 3 rows, 1 file, 1.0 KiB in the folder /out/words/\n  billed: "
        ),
        "{done:?}"
    );
    assert_eq!(
        done.stderr, "job-1 running\n  words running: 1/2 tasks\n",
        "how it ended is told once, on standard output"
    );
    let done = server.weft(&["run", &file, "--json"]);
    let document: Value = serde_json::from_str(&done.stdout).expect("one document");
    assert_eq!(
        (&document["status"], &document["receipt"]["job"]),
        (&json!("succeeded"), &json!("job-1"))
    );
}

#[test]
fn a_failed_job_is_1_with_its_problem() {
    let mut failed = job("failed");
    failed["problem"] = json!({"code": "limit_exceeded", "detail": "too much", "limit": "memory", "value": "16MiB", "function": "a/b"});
    let server = Server::start(running(move || {
        Body::from(event("end", &failed)).into_response()
    }));
    let (_folder, file) = job_file();
    let done = server.weft(&["run", &file]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    assert!(
        done.stderr.contains(
            "error: too much [limit_exceeded]\n  limit: memory\n  value: 16MiB\n  function: a/b"
        ),
        "{done:?}"
    );
}

#[test]
fn a_job_that_is_wrong_is_1_with_all_that_is_wrong() {
    let refuse = async |Json(document): Json<Value>| {
        let problem = weft_core::job::decode(&document).expect_err("it has no stage");
        (
            StatusCode::BAD_REQUEST,
            Json(serde_json::to_value(problem).expect("plain data")),
        )
    };
    let server = Server::start(Router::new().route("/v1/jobs", post(refuse)));
    let (_folder, file) = job_file();
    std::fs::write(
        &file,
        "name = \"a\"\nstages = []\nlimits = { memory = 3 }\n",
    )
    .expect("written");
    let done = server.weft(&["run", &file]);
    assert_eq!(done.code, 1);
    assert!(
        done.stderr
            .contains("\n  stages: unknown key `stages` (did you mean `stage`?)"),
        "{done:?}"
    );
    assert!(
        done.stderr.contains("\n  limits.memory: must be text"),
        "{done:?}"
    );
}

/// Rows that are sent as lines of `city,n`.
#[derive(Default)]
struct Lines(Vec<u8>);

impl RowDecoder for Lines {
    fn push(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.0.extend_from_slice(piece);
        Ok(())
    }
    fn finish(self: Box<Self>) -> anyhow::Result<TextTable> {
        let text = String::from_utf8(self.0)?;
        let row = |line: &str| line.split(',').map(|text| Some(text.to_owned())).collect();
        Ok(TextTable {
            schema: vec![("city".into(), "utf8".into()), ("n".into(), "int64".into())],
            rows: text.lines().map(row).collect(),
        })
    }
}

/// Rows of the jobs of [`querying`], in a format that says what it is and is easily read.
async fn rows_of(
    Path((_, output)): Path<(String, String)>,
    Query(query): Query<std::collections::HashMap<String, String>>,
) -> Response {
    if output != "result" {
        return problem(StatusCode::NOT_FOUND, "not_found");
    }
    let limit = query
        .get("limit")
        .map_or(usize::MAX, |limit| limit.parse().expect("a number"));
    let rows = ["Berlin,3\n", "Paris,2\n", "Rome,1\n"]
        .into_iter()
        .take(limit);
    let head = match query["format"].as_str() {
        "arrow" => "",
        "csv" => "city,n\n",
        other => panic!("`{other}` is asked for"),
    };
    let pieces = std::iter::once(head)
        .chain(rows)
        .map(Ok::<_, std::io::Error>);
    Body::from_stream(futures::stream::iter(pieces)).into_response()
}

/// The job documents that a server was sent.
type Documents = Arc<Mutex<Vec<Value>>>;

/// A server whose jobs end with `status`, as soon as they are followed.
fn querying(status: &'static str) -> (Server, Documents) {
    let documents = Documents::default();
    let (sent, seen) = (Arc::clone(&documents), Arc::clone(&documents));
    let submit = async move |Json(document): Json<Value>| {
        sent.lock().expect("no panic before").push(document);
        (StatusCode::CREATED, Json(job("planning")))
    };
    let events = async move || {
        let document = seen.lock().expect("no panic before").last().cloned();
        let uri = document.expect("a job was sent")["output"]["result"]["uri"].clone();
        let mut ended = job(status);
        match status {
            "succeeded" => {
                ended["outputs"] =
                    json!([{"name": "result", "uri": uri, "files": 1, "rows": 3, "bytes": 1024}]);
            }
            _ => {
                ended["problem"] =
                    json!({"code": "query_error", "detail": "stage `query`: divides by zero"});
            }
        }
        Body::from(event("end", &ended)).into_response()
    };
    let check = async || {
        let columns = json!([{"name": "city", "type": "utf8"}]);
        let stages = json!([{"name": "query", "tasks_total": 3}]);
        Json(
            json!({"input_bytes": 2048, "stages": stages, "columns": [{"of": "query", "columns": columns}]}),
        )
    };
    let plan = async || {
        let stage = json!({"name": "query", "status": "done", "tasks_total": 3, "tasks_done": 3, "rows_read": 6});
        Json(json!({"items": [{"stage": stage, "plan": {"reads": ["trips"]}}]}))
    };
    let router = Router::new()
        .route("/v1/jobs", post(submit))
        .route("/v1/jobs/check", post(check))
        .route("/v1/jobs/{id}/plan", get(plan))
        .route("/v1/jobs/{id}/events", get(events))
        .route("/v1/jobs/{id}/outputs/{name}/rows", get(rows_of));
    (Server::start(router), documents)
}

/// The one output of the last job.
fn last_output(documents: &Documents) -> Value {
    let documents = documents.lock().expect("no panic before");
    documents.last().expect("a job was sent")["output"]["result"].clone()
}

#[test]
fn a_query_prints_its_rows() {
    let (server, documents) = querying("succeeded");
    let done = server.weft(&["sql", "SELECT 1"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.stdout, "city    n\nBerlin  3\nParis   2\nRome    1\n");
    assert!(done.stderr.ends_with("\n3 rows\n"), "{done:?}");
    // No folder is named: the cluster keeps the rows.
    assert_eq!(last_output(&documents), json!({"from": "query"}));
    let stage = documents.lock().expect("no panic before")[0]["stage"][0].clone();
    let here = std::env::current_dir().expect("it is known");
    let expected = json!({"name": "query", "sql": "SELECT 1", "folder": here});
    assert_eq!(stage, expected);

    let done = server.weft(&["sql", "SELECT 1", "--rows", "2"]);
    assert_eq!(done.stdout, "city    n\nBerlin  3\nParis   2\n");
    assert!(done.stderr.ends_with("\n2 rows of 3\n"), "{done:?}");

    let done = server.weft(&["sql", "SELECT 1", "--json"]);
    let document: Value = serde_json::from_str(&done.stdout).expect("one document");
    let rows = json!([["Berlin", 3], ["Paris", 2], ["Rome", 1]]);
    assert_eq!(
        (&document["columns"], &document["rows"]),
        (&json!(["city", "n"]), &rows)
    );
    let manifest = &document["manifest"];
    assert_eq!(
        (&manifest["output"], &manifest["rows"]),
        (&json!("result"), &json!(3))
    );
}

#[test]
fn a_query_is_explained_without_a_job_and_analyzed_with_one() {
    let (server, documents) = querying("succeeded");
    for explain in [
        &["sql", "EXPLAIN SELECT 1"][..],
        &["sql", "--explain", "SELECT 1"],
    ] {
        let done = server.weft(explain);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(
            done.stdout.starts_with("reads 2.0 KiB\nquery: 3 tasks\n"),
            "{done:?}"
        );
    }
    assert!(documents.lock().expect("no panic before").is_empty());
    for analyze in [
        &["sql", "explain analyze SELECT 1"][..],
        &["sql", "--analyze", "SELECT 1"],
    ] {
        let done = server.weft(analyze);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(
            done.stdout
                .starts_with("query: 3 tasks, done\n  | 6 rows in, 0 rows out\n"),
            "{done:?}"
        );
        assert!(done.stdout.ends_with("\n  reads trips\n"), "{done:?}");
        let documents = documents.lock().expect("no panic before");
        let sql = &documents.last().expect("a job was sent")["stage"][0]["sql"];
        assert_eq!(sql.as_str().expect("text").trim(), "SELECT 1");
    }
    let done = server.weft(&["sql", "EXPLAIN ANALYZE SELECT 1", "--json"]);
    let document: Value = serde_json::from_str(&done.stdout).expect("one document");
    assert_eq!(document["items"][0]["plan"], json!({"reads": ["trips"]}));
}

#[test]
fn a_statement_without_rows_is_a_job_without_outputs() {
    let (server, documents) = querying("succeeded");
    let view = "CREATE VIEW one AS SELECT 1 AS a";
    let explained = format!("EXPLAIN {view}");
    for explain in [&["sql", &explained][..], &["sql", "--explain", view]] {
        let done = server.weft(explain);
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.stdout.starts_with("reads 2.0 KiB\n"), "{done:?}");
    }
    for (option, value) in [("--output", "out/"), ("--format", "csv")] {
        let done = server.weft(&["sql", view, option, value]);
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{done:?}");
        assert!(done.stderr.contains("has no rows"), "{done:?}");
    }
    assert!(documents.lock().expect("no panic before").is_empty());
    let done = server.weft(&["sql", view]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    let documents = documents.lock().expect("no panic before");
    let document = documents.last().expect("a job was sent");
    assert_eq!(document["stage"][0]["sql"], view);
    assert_eq!(document["output"], Value::Null);
}

#[test]
fn a_query_streams_its_rows_in_the_format_that_is_asked_for() {
    let (server, documents) = querying("succeeded");
    let done = server.weft(&["sql", "SELECT 1", "--format", "csv"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (0, "city,n\nBerlin,3\nParis,2\nRome,1\n")
    );
    assert_eq!(last_output(&documents), json!({"from": "query"}));
    let done = server.weft(&["sql", "SELECT 1", "--format", "csv", "--rows", "1"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "city,n\nBerlin,3\n"));
    for line in [
        &["sql", "SELECT 1", "--format", "parquet"][..],
        &["sql", "SELECT 1", "--format", "csv", "--json"],
    ] {
        let done = server.weft(line);
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{done:?}");
    }
}

#[test]
fn a_query_that_fails_prints_no_rows() {
    let (server, _) = querying("failed");
    let done = server.weft(&["sql", "SELECT 1 / n FROM 'a.csv'"]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    let error = "error: stage `query`: divides by zero [query_error]\n";
    assert!(done.stderr.ends_with(error), "{done:?}");
    let done = server.weft(&["sql", "SELECT 1", "--json"]);
    let document: Value = serde_json::from_str(&done.stdout).expect("one document");
    assert_eq!(
        (done.code, &document["status"]),
        (1, &json!("failed")),
        "{done:?}"
    );
}

/// A server whose jobs end as `outcome` says of the number of jobs that it was sent, and of the last one's statement.
fn ending(outcome: fn(usize, &str) -> Value) -> (Server, Documents) {
    let documents = Documents::default();
    let (sent, seen) = (Arc::clone(&documents), Arc::clone(&documents));
    let submit = async move |Json(document): Json<Value>| {
        sent.lock().expect("no panic before").push(document);
        (StatusCode::CREATED, Json(job("planning")))
    };
    let events = async move || {
        let documents = seen.lock().expect("no panic before");
        let last = documents.last().expect("a job was sent");
        let sql = last["stage"][0]["sql"].as_str().expect("text");
        Body::from(event("end", &outcome(documents.len(), sql))).into_response()
    };
    let router = Router::new()
        .route("/v1/jobs", post(submit))
        .route("/v1/jobs/{id}/events", get(events));
    (Server::start(router), documents)
}

fn failed(code: &str) -> Value {
    let mut job = job("failed");
    job["problem"] = json!({"code": code, "detail": "not like this"});
    job
}

#[test]
fn a_statement_that_loses_against_another_runs_again() {
    let insert = ["sql", "INSERT INTO t VALUES (1)"];
    let (server, documents) = ending(|n, _| match n {
        1 | 2 => failed("version_conflict"),
        _ => job("succeeded"),
    });
    let done = server.weft(&insert);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(documents.lock().expect("no panic before").len(), 3);
    assert!(
        done.stderr.contains("running it again (2 of 5)"),
        "{done:?}"
    );
    assert!(!done.stderr.contains("(3 of 5)"), "{done:?}");

    let (server, documents) = ending(|_, _| failed("version_conflict"));
    let done = server.weft(&insert);
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(documents.lock().expect("no panic before").len(), 6);
    assert!(done.stderr.ends_with("[version_conflict]\n"), "{done:?}");

    let (server, documents) = ending(|_, _| failed("query_error"));
    assert_eq!(server.weft(&insert).code, 1);
    assert_eq!(documents.lock().expect("no panic before").len(), 1);
}

#[test]
fn a_file_of_statements_stops_at_the_first_that_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("script.sql");
    let text = "CREATE VIEW a AS SELECT ';' AS b;\n\nDROP VIEW\n  bad;\nDROP VIEW c;\n";
    std::fs::write(&path, text).expect("written");
    let path = path.to_str().expect("text");
    let (server, documents) = ending(|_, sql| match sql.contains("bad") {
        true => failed("not_found"),
        false => job("succeeded"),
    });
    let done = server.weft(&["sql", "-f", path]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{done:?}");
    let stopped = "stopped at statement 2 of 3, on line 3; the one after it did not run\n";
    assert!(done.stderr.ends_with(stopped), "{done:?}");
    let sent = documents.lock().expect("no panic before").clone();
    let sent: Vec<&Value> = sent.iter().map(|one| &one["stage"][0]["sql"]).collect();
    assert_eq!(
        sent,
        ["CREATE VIEW a AS SELECT ';' AS b", "\n\nDROP VIEW\n  bad"]
    );

    let done = server.weft(&["sql", "-f", path, "--output", "/nowhere"]);
    assert_eq!(done.code, 2, "{done:?}");
}

#[test]
fn a_query_that_nobody_takes_is_an_error() {
    let address = Server::start(Router::new()).address;
    let endpoint = format!("http://{address}");
    let done = weft(&["sql", "SELECT 1", "--endpoint", &endpoint, "--token", "x"]);
    assert_eq!((done.code, done.stdout.as_str()), (3, ""), "{done:?}");

    let refuse = async || problem(StatusCode::BAD_REQUEST, "invalid_job");
    let server = Server::start(Router::new().route("/v1/jobs", post(refuse)));
    let done = server.weft(&["sql", "SELECT 1"]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{done:?}");
}

#[test]
fn a_query_may_write_its_rows_to_a_folder() {
    let (server, documents) = querying("succeeded");
    let folder = "/nowhere/out";
    let line = ["sql", "SELECT 1", "--output", folder, "--partitions", "3"];
    let written = format!("result: 3 rows, 1 file, 1.0 KiB in the folder {folder}\n");
    let done = server.weft(&[&line[..], &["--format", "csv", "--rows", "1"]].concat());
    assert_eq!(done.stdout, "city    n\nBerlin  3\n");
    assert!(
        done.stderr.ends_with(&format!("{written}1 row of 3\n")),
        "{done:?}"
    );
    let expected = json!({"from": "query", "format": "csv", "uri": folder});
    assert_eq!(last_output(&documents), expected);
    let stage = documents.lock().expect("no panic before")[0]["stage"][0].clone();
    assert_eq!(stage["partitions"], 3);
}

#[test]
fn rows_of_a_job_are_shown() {
    let mut ended = job("succeeded");
    let output = |name: &str| json!({"name": name, "uri": null, "files": 1, "rows": 3, "bytes": 9});
    ended["outputs"] = json!([output("result")]);
    let id = ended["id"].as_str().expect("text").to_owned();
    let listed = json!({"items": [ended.clone()], "next_cursor": null});
    let show = async move || Json(ended.clone());
    let list = async move || Json(listed.clone());
    let router = Router::new()
        .route("/v1/jobs", get(list))
        .route("/v1/jobs/{id}", get(show))
        .route("/v1/jobs/{id}/outputs/{name}/rows", get(rows_of));
    let server = Server::start(router);
    for of in ["last", "last/result"] {
        let done = server.weft(&["show", of, "--rows", "2"]);
        let expected = "city    n\nBerlin  3\nParis   2\n(2 of 3 rows, 1 file)\n";
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (0, expected),
            "{of} of {id}"
        );
    }
    let done = server.weft(&["show", "last/none"]);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""), "{done:?}");
    assert!(done.stderr.contains("not_found"), "{done:?}");
}

#[test]
fn outputs_in_buckets_are_shown_by_job() {
    let done = weft(&["show", "s3://lake/out/daily"]);
    assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{done:?}");
    assert!(done.stderr.contains("`weft show JOB/OUTPUT`"), "{done:?}");
}

#[test]
fn a_query_is_checked_without_a_folder() {
    let (server, documents) = querying("succeeded");
    let done = server.weft(&["sql", "SELECT 1", "--check"]);
    let expected = "nothing is wrong with the job; it reads 2.0 KiB\n  query: city utf8\n  stage query: 3 tasks\n";
    assert_eq!((done.code, done.stdout.as_str()), (0, expected));
    assert!(documents.lock().expect("no panic before").is_empty());
}

#[test]
fn a_query_that_cannot_be_sent_is_wrong_usage() {
    for line in [&["sql", " "][..], &["sql", "SELECT 1", "--param", "day=1"]] {
        let done = weft(&[line, &["--token", "x"]].concat());
        assert_eq!((done.code, done.stdout.as_str()), (2, ""), "{done:?}");
    }
}

#[test]
fn a_broken_stream_is_connected_again() {
    let n_connections = Arc::new(Mutex::new(0));
    let count = Arc::clone(&n_connections);
    let events = move || {
        let mut n_connections = count.lock().expect("no panic before");
        *n_connections += 1;
        match *n_connections {
            1 => Body::from(event("job", &job("running"))).into_response(),
            2 => problem(StatusCode::SERVICE_UNAVAILABLE, "busy"),
            _ => Body::from(event("end", &ended())).into_response(),
        }
    };
    let server = Server::start(running(events));
    let (_folder, file) = job_file();
    let done = server.weft(&["run", &file]);
    assert_eq!(
        (done.code, *n_connections.lock().expect("no panic before")),
        (0, 3)
    );
    assert_eq!(
        done.stderr.matches("connecting again").count(),
        1,
        "{done:?}"
    );
}

#[test]
fn a_server_may_restart_under_a_job() {
    let server = Server::start(running(|| {
        let hangs = futures::StreamExt::chain(
            futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(event(
                "job",
                &job("running"),
            )))]),
            futures::stream::pending(),
        );
        Body::from_stream(hangs).into_response()
    }));
    let address = server.address;
    let restart = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(server);
        std::thread::sleep(std::time::Duration::from_millis(300));
        Server::start_at(
            address,
            running(|| Body::from(event("end", &ended())).into_response()),
        )
    });
    let (_folder, file) = job_file();
    let done = weft(&[
        "run",
        &file,
        "--token",
        "x",
        "--endpoint",
        &format!("http://{address}"),
    ]);
    assert!(
        done.code == 0 && done.stderr.contains("lost the server"),
        "{done:?}"
    );
    drop(restart.join().expect("it restarts"));
}

#[test]
fn a_job_sent_twice_has_one_key() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&keys);
    let submit = async move |headers: HeaderMap| {
        let mut seen = seen.lock().expect("no panic before");
        seen.push(headers["idempotency-key"].clone());
        match seen.len() {
            1 => (
                StatusCode::TOO_MANY_REQUESTS,
                [("retry-after", "0")],
                Json(json!({})),
            )
                .into_response(),
            _ => (StatusCode::CREATED, Json(job("planning"))).into_response(),
        }
    };
    let server = Server::start(Router::new().route("/v1/jobs", post(submit)));
    let (_folder, file) = job_file();
    let done = server.weft(&["run", &file, "--detach"]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "job-1\n"));
    let keys = keys.lock().expect("no panic before");
    assert!(
        keys.len() == 2 && keys[0] == keys[1] && keys[0].len() == 32,
        "{keys:?}"
    );
}

#[test]
fn components_are_streamed_with_their_digest() {
    let upload = async |headers: HeaderMap, request: Request| {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX)
            .await
            .expect("a body");
        assert_eq!(headers["content-type"], "application/wasm");
        assert_eq!(headers["content-length"], body.len().to_string());
        let component = json!({"name": "a", "version": "1.0.0", "digest": headers["x-weft-digest"].to_str().ok(), "size_bytes": body.len()});
        (StatusCode::CREATED, Json(component))
    };
    let server = Server::start(Router::new().route("/v1/components", post(upload)));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.wasm");
    std::fs::write(&path, [&b"\0asm\x0d\0\x01\0"[..], &[0; 200_000]].concat()).expect("written");
    let path = path.to_str().expect("text");
    let done = server.weft(&["deploy", path, path, "--json"]);
    let lines: Vec<Value> = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a document"))
        .collect();
    assert_eq!(
        (done.code, lines.len(), &lines[0]["size_bytes"]),
        (0, 2, &json!(200_008))
    );
    assert!(
        lines[0]["digest"]
            .as_str()
            .is_some_and(|digest| digest.len() == 71),
        "{lines:?}"
    );
    let done = server.weft(&["deploy", path]);
    assert!(
        done.stdout
            .starts_with("deployed a@1.0.0 (195.3 KiB, sha256:"),
        "{done:?}"
    );
}

#[test]
fn a_component_is_found_by_name_and_version() {
    let one = async |Path((name, version)): Path<(String, String)>| {
        Json(json!({"name": name, "version": version, "digest": "d"}))
    };
    let many = async |Path(name): Path<String>| {
        Json(
            json!({"items": [{"name": name, "version": "2.0.0"}, {"name": name, "version": "1.0.0"}]}),
        )
    };
    let router = Router::new()
        .route("/v1/components/{name}", get(many))
        .route("/v1/components/{name}/{version}", get(one));
    let server = Server::start(router);
    assert!(
        server
            .weft(&["components", "a@1.0.0+b"])
            .stdout
            .starts_with("a@1.0.0+b  0 B  d")
    );
    let done = server.weft(&["components", "a"]);
    assert!(
        done.stdout.contains("a@2.0.0") && done.stdout.contains("a@1.0.0"),
        "{done:?}"
    );
}

#[test]
fn a_reduce_that_is_invoked_is_refused_by_the_server() {
    let one = async || {
        let functions = [json!({"name": "sums", "kind": "reduce-groups"})];
        Json(json!({"name": "a", "version": "1.0.0", "functions": functions}))
    };
    let refuse = async |body: Bytes| {
        assert!(body.is_empty(), "no input is sent that nobody takes");
        problem(StatusCode::NOT_FOUND, "unknown_function")
    };
    let router = Router::new()
        .route("/v1/components/{name}", get(one))
        .route("/v1/invoke/{component}/{function}", post(refuse));
    let server = Server::start(router);
    let formats: [&[&str]; 2] = [&[], &["--input-format", "csv"]];
    for formats in formats {
        let done = server.weft(&[&["invoke", "a/sums", "--input", "rows"][..], formats].concat());
        assert_eq!((done.code, done.stdout.as_str()), (1, ""));
        assert!(
            done.stderr.contains("not like this [unknown_function]"),
            "{done:?}"
        );
    }
}

/// Nobody knows what an actor did before it was lost: only a key makes it safe to ask again.
#[test]
fn an_invocation_of_an_actor_is_repeated_only_with_a_key() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keys = Arc::clone(&seen);
    let invoke = async move |Path(path): Path<(String, String, String, String)>,
                             headers: HeaderMap,
                             body: Bytes| {
        let key = headers.get("idempotency-key").cloned();
        let mut seen = seen.lock().expect("no panic before");
        seen.push((path, key.is_some(), body));
        let busy = (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]);
        match seen.len() {
            1 | 2 => busy.into_response(),
            _ => "7".into_response(),
        }
    };
    let route = "/v1/actors/{component}/{actor}/{key}/{method}";
    let server = Server::start(Router::new().route(route, post(invoke)));
    let line = [
        "actor",
        "invoke",
        "bank/account",
        "a/b",
        "deposit",
        "--input",
        "5",
    ];
    assert_eq!(server.weft(&line).code, 1);
    let keyed = [&line[..], &["--idempotency-key", "k"]].concat();
    let done = server.weft(&keyed);
    assert_eq!((done.code, done.stdout.as_str()), (0, "7"), "{done:?}");
    let names = ["bank", "account", "a/b", "deposit"].map(String::from);
    let path: (String, String, String, String) = names.into();
    let asked = |has_key| (path.clone(), has_key, Bytes::from_static(b"5"));
    let keys = keys.lock().expect("no panic before");
    assert_eq!(*keys, [asked(false), asked(true), asked(true)]);
    assert_eq!(server.weft(&["actor", "show", "bank", "ada"]).code, 2);
}

#[test]
fn actors_are_listed_page_by_page() {
    let list = async |Query(query): Query<std::collections::BTreeMap<String, String>>| {
        let actor = |key: &str| json!({ "key": key, "turns": 3, "resident": false });
        match query.get("after").map(String::as_str) {
            None => Json(json!({ "actors": [actor("ada"), actor("bob")], "next": "bob" })),
            Some("bob") => Json(json!({ "actors": [actor("eve")], "next": null })),
            other => panic!("{other:?}"),
        }
    };
    let gone = async || StatusCode::NO_CONTENT;
    let router = Router::new()
        .route("/v1/actors/{component}/{actor}", get(list))
        .route(
            "/v1/actors/{component}/{actor}/{key}",
            axum::routing::delete(gone),
        );
    let server = Server::start(router);
    let done = server.weft(&["actor", "list", "bank/account"]);
    let keys: Vec<&str> = done
        .stdout
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        (done.code, &keys[..]),
        (0, &["key", "ada", "bob", "eve"][..])
    );
    let done = server.weft(&["actor", "list", "bank/account", "--limit", "2", "--json"]);
    let document: Value = serde_json::from_str(&done.stdout).expect("one document");
    assert_eq!(
        (
            &document["next"],
            document["actors"].as_array().map(Vec::len)
        ),
        (&json!("bob"), Some(2))
    );
    let done = server.weft(&["actor", "delete", "bank/account", "ada"]);
    assert_eq!(
        (done.code, &*done.stdout),
        (0, "deleted bank/account ada\n")
    );
}

#[test]
fn cancelling_is_a_call() {
    let cancel = async || (StatusCode::ACCEPTED, Json(job("running")));
    let server = Server::start(Router::new().route("/v1/jobs/{id}/cancel", post(cancel)));
    assert_eq!(
        server.weft(&["cancel", "job-1"]).stdout,
        "job-1 is being cancelled\n"
    );
}
