//! The `weft` binary as a process: signals, pipes and exit codes.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use axum::body::Body;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

fn job(status: &str) -> Value {
    json!({"id": "job-1", "name": "words", "status": status, "stages": [], "outputs": []})
}

/// Serves for as long as the test runs.
fn serve(router: Router) -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || runtime.block_on(axum::serve(listener, router).into_future()));
    address
}

/// A server whose job runs until it is cancelled.
fn cancellable() -> Router {
    let (cancel, cancelled) = watch::channel(false);
    let event = |cancelled: bool| match cancelled {
        false => format!("event: job\ndata: {}\n\n", job("running")),
        true => format!("event: end\ndata: {}\n\n", job("cancelled")),
    };
    let events = async move || {
        let states = tokio_stream::wrappers::WatchStream::new(cancelled.clone());
        Body::from_stream(states.map(move |cancelled| Ok::<_, std::io::Error>(event(cancelled))))
    };
    let cancel = async move || {
        cancel.send_replace(true);
        (axum::http::StatusCode::ACCEPTED, Json(job("running")))
    };
    Router::new()
        .route("/v1/jobs", post(async || Json(job("planning"))))
        .route("/v1/jobs/{id}/events", get(events))
        .route("/v1/jobs/{id}/cancel", post(cancel))
}

fn weft(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command
        .args(arguments)
        .env("WEFT_TOKEN", "x")
        .env("WEFT_ENDPOINT", format!("http://{address}"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn interrupt(child: &Child) {
    let process = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).expect("it runs");
}

#[test]
fn an_interrupt_without_a_terminal_cancels_and_is_130() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("job.toml");
    std::fs::write(&file, "name = \"words\"\n").expect("written");
    let address = serve(cancellable());
    let mut child = weft(address, &["run", file.to_str().expect("text"), "--json"])
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert_eq!(
        lines.next().expect("a line").expect("text"),
        "job-1 running"
    );
    interrupt(&child);
    let said: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert_eq!(
        said,
        ["cancelling job-1", "job-1 cancelled", "error: interrupted"]
    );
    let done = child.wait_with_output().expect("it ends");
    assert_eq!(done.status.code(), Some(130));
    let document: Value = serde_json::from_slice(&done.stdout).expect("one document");
    assert_eq!(document["status"], "cancelled");
}

#[test]
fn an_interrupted_query_is_cancelled_and_leaves_no_file() {
    let temporary = tempfile::tempdir().expect("a folder");
    let names = || std::fs::read_dir(temporary.path()).expect("it is there");
    let address = serve(cancellable());
    let mut child = weft(address, &["sql", "SELECT 1 AS one"])
        .env("TMPDIR", temporary.path())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert_eq!(
        lines.next().expect("a line").expect("text"),
        "job-1 running"
    );
    interrupt(&child);
    let said: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert_eq!(
        said,
        ["cancelling job-1", "job-1 cancelled", "error: interrupted"]
    );
    let done = child.wait_with_output().expect("it ends");
    assert_eq!((done.status.code(), done.stdout.len()), (Some(130), 0));
    assert_eq!(names().count(), 0);
}

#[test]
fn a_reader_that_goes_away_is_a_quiet_end() {
    let line = json!({"stage": 0, "task": 0, "attempt": 1, "level": "info", "function": "a/b", "message": "x".repeat(1000)});
    let page = json!({"items": vec![line; 1000], "next_cursor": null, "dropped": 0});
    let address = serve(Router::new().route("/v1/jobs/{id}/logs", get(async move || Json(page))));
    let mut child = weft(address, &["logs", "job-1"])
        .spawn()
        .expect("it starts");
    let mut first = [0; 10];
    child
        .stdout
        .take()
        .expect("piped")
        .read_exact(&mut first)
        .expect("a beginning");
    let done = child.wait_with_output().expect("it ends");
    assert_eq!(
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stderr).as_ref()
        ),
        (Some(0), "")
    );
}

#[test]
fn exit_codes_reach_the_shell() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    for (arguments, code) in [
        (&["jobs"][..], 3),
        (&["what"], 2),
        (&["--version"], 0),
        (&["build", "/nowhere"], 1),
    ] {
        let status = weft(nobody, arguments).status().expect("it runs");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}
