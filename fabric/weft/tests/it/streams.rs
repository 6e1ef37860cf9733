//! Calls of map functions: bodies that stream both ways, in every format; answers that are cut off; clients that are slow or gone.

use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use serde_json::{Value, json};

use crate::clock::eventually;
use crate::http::{Request, Response};
use crate::invoke::Desk;
use crate::job;
use crate::server::{Server, kill};

const ARROW: &str = "application/vnd.apache.arrow.stream";
const JSON: &str = "application/x-ndjson";

impl Desk {
    /// Sends all rows, and waits for all that come back.
    fn stream(&self, path: &str, content_type: &str, accept: &str, input: &[u8]) -> Response {
        let path = format!("/v1/invoke/{path}");
        let invoke = Request::post(path, content_type, input.to_vec());
        self.server.ask(&invoke.header("accept", accept))
    }

    fn streaming(&self) -> u64 {
        let metrics = self.server.ask(&Request::get("/metrics")).text();
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix("weft_invocations_streaming "));
        value.expect("it is counted").parse().expect("a number")
    }
}

/// A call whose input is sent piece by piece.
struct Call {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Call {
    fn start(desk: &Desk, path: &str, headers: &[(&'static str, &str)]) -> Call {
        let request = Request::post(format!("/v1/invoke/{path}"), "text/plain", Vec::new())
            .header("content-length", "")
            .header("transfer-encoding", "chunked");
        let add = |request: Request, (name, value): &(&'static str, &str)| {
            request.header(name, value.to_string())
        };
        let request = headers.iter().fold(request, add);
        Call {
            stream: desk.server.start_asking(&request),
            answer: Vec::new(),
        }
    }

    fn send(&mut self, piece: &[u8]) {
        let head = format!("{:x}\r\n", piece.len());
        let chunk = [head.as_bytes(), piece, b"\r\n"].concat();
        self.stream.write_all(&chunk).expect("the server reads");
    }

    /// Waits until `what` has come back.
    fn wait_for(&mut self, what: &str) {
        let mut piece = [0; 4096];
        while !String::from_utf8_lossy(&self.answer).contains(what) {
            let read = self.stream.read(&mut piece).expect("an answer comes");
            let text = String::from_utf8_lossy(&self.answer);
            assert!(read > 0, "no `{what}` in: {text}");
            self.answer.extend_from_slice(&piece[..read]);
        }
    }

    /// Reads the rest of the answer. Errors: it was cut off.
    fn rest(mut self) -> std::io::Result<Response> {
        // A connection that is reset has brought all that it brings.
        let _ = self.stream.read_to_end(&mut self.answer);
        Response::parse(&self.answer)
    }

    fn end(mut self) -> std::io::Result<Response> {
        self.stream
            .write_all(b"0\r\n\r\n")
            .expect("the server reads");
        self.rest()
    }
}

#[test]
fn rows_come_back_before_the_input_has_ended() {
    let desk = Desk::new();
    let mut call = Call::start(&desk, "mirror/pass", &[("te", "trailers")]);
    for line in ["one", "two", "three"] {
        call.send(format!("{line}\n").as_bytes());
        call.wait_for(&format!("{{\"line\":\"{line}\"}}"));
    }
    // A line may come in pieces, and the last one has no end.
    call.send(b"fo");
    call.send(b"ur");
    let answer = call.end().expect("it is whole");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(JSON));
    assert_eq!(answer.header("x-weft-function"), Some("mirror@0.1.0/pass"));
    assert!(answer.text().ends_with("{\"line\":\"four\"}\n"));
    let meter = |name| {
        answer
            .trailer(name)
            .and_then(|text| text.parse::<u64>().ok())
    };
    assert!(meter("x-weft-guest-cpu-ns") > Some(0));
    assert!(meter("x-weft-cpu-ns") >= meter("x-weft-guest-cpu-ns"));
    assert_eq!(answer.trailer("x-weft-problem"), None);
}

fn arrow(n: &[i64], name: &[&str]) -> Vec<u8> {
    let columns: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(Int64Array::from(n.to_vec()))),
        ("name", Arc::new(StringArray::from(name.to_vec()))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("of one length");
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref()).expect("it writes");
    writer.write(&batch).expect("it writes");
    writer.finish().expect("it writes");
    bytes
}

#[test]
fn every_format_goes_in_and_comes_out() {
    let desk = Desk::new();
    let rows = arrow(&[1, 2], &["a,b", "\u{e9}"]);
    let csv = "n,name\n1,\"a,b\"\n2,\u{e9}\n";
    let json = "{\"n\":1,\"name\":\"a,b\"}\n{\"n\":2,\"name\":\"\u{e9}\"}\n";
    for (kind, input) in [
        ("text/csv; charset=utf-8", csv.as_bytes()),
        (JSON, json.as_bytes()),
        (ARROW, &rows),
    ] {
        for (accept, output) in [
            ("text/csv", csv),
            ("*/*", json),
            ("text/html, text/csv;q=1", csv),
        ] {
            let answer = desk.stream("mirror/copy", kind, accept, input);
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, output),
                "{kind} {accept}"
            );
        }
        let answer = desk.stream("mirror/copy", kind, ARROW, input);
        let again = desk.stream("mirror/copy", ARROW, "text/csv", &answer.body);
        assert_eq!(again.text(), csv, "what comes out goes in");
        let mut reader = StreamReader::try_new(Cursor::new(answer.body), None).expect("Arrow");
        let batch = reader.next().expect("rows").expect("Arrow");
        assert_eq!(
            batch.column(0).as_primitive::<Int64Type>().values(),
            &[1, 2]
        );
        assert_eq!(batch.column(1).as_string::<i32>().value(0), "a,b");
    }
    // Lines are text, or bytes.
    let text = desk.stream("mirror/pass", "", "text/csv", b"\xc3\xa9\n");
    assert_eq!(text.text(), "line\n\u{e9}\n");
    let binary = desk.stream("mirror/pass", "application/octet-stream", JSON, b"\xff\n");
    assert_eq!(binary.text(), "{\"line\":\"ff\"}\n");
    // A file is a stream with something around it.
    let batch = StreamReader::try_new(Cursor::new(&rows), None)
        .expect("Arrow")
        .next()
        .expect("rows")
        .expect("Arrow");
    let mut file = Vec::new();
    let mut writer = FileWriter::try_new(&mut file, batch.schema_ref()).expect("it writes");
    writer.write(&batch).expect("it writes");
    writer.finish().expect("it writes");
    assert_eq!(
        desk.stream("mirror/copy", ARROW, "text/csv", &file).text(),
        csv
    );
    let twice = [&rows[..], &rows].concat();
    let twice = Request::post("/v1/invoke/mirror/copy", ARROW, twice).header("te", "trailers");
    let problem = desk.server.ask(&twice);
    let problem = problem.trailer("x-weft-problem").expect("it says why");
    assert!(problem.contains("more behind the end"), "{problem}");
    // Nothing in, nothing out, but the names of columns.
    assert_eq!(
        desk.stream("mirror/pass", "", "text/csv", b"").text(),
        "line\n"
    );
    assert_eq!(desk.stream("mirror/pass", "", JSON, b"").text(), "");
}

#[test]
fn calls_of_maps_that_cannot_be() {
    let desk = Desk::new();
    let refused = |path: &str, kind: &str, input: &[u8]| {
        let answer = desk.stream(path, kind, JSON, input);
        let problem = answer.json();
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        (answer.status, text("code"), text("detail"))
    };
    for (path, kind, input, status, code, detail) in [
        (
            "mirror/pass",
            "application/json",
            &b"{}"[..],
            415,
            "invalid_job",
            "`text/csv`",
        ),
        (
            "mirror/pass",
            "",
            b"a\n\xff\n",
            422,
            "bad_record",
            "`body`, byte 2: the line is not UTF-8",
        ),
        (
            "mirror/pass",
            JSON,
            b"{\"a\":1}\n{\n",
            422,
            "bad_record",
            "record 2",
        ),
        (
            "mirror/pass",
            JSON,
            b"",
            422,
            "schema_mismatch",
            "no record",
        ),
        (
            "mirror/pass",
            ARROW,
            b"no arrow at all",
            422,
            "bad_record",
            "it does not begin as Arrow does",
        ),
        (
            "mirror/gcd",
            "",
            b"a\n",
            422,
            "guest_error",
            "mirror@0.1.0/gcd",
        ),
        (
            "vandal/misbehave?deed=trap&at=push",
            "",
            b"a\n",
            422,
            "guest_trap",
            "records 1 to 1 of `body`",
        ),
        (
            "vandal/misbehave?deed=no-columns",
            "",
            b"a\n",
            422,
            "schema_mismatch",
            "without columns",
        ),
    ] {
        let found = refused(path, kind, input);
        assert_eq!(
            (found.0, found.1.as_str()),
            (status, code),
            "{path}: {}",
            found.2
        );
        assert!(found.2.contains(detail), "{path}: {}", found.2);
    }
    let keyed = Request::post("/v1/invoke/mirror/pass", "", Vec::new());
    let keyed = desk.server.ask(&keyed.header("idempotency-key", "k"));
    assert_eq!(
        (keyed.status, &keyed.json()["code"]),
        (400, &json!("invalid_job"))
    );
    let packed = Request::post("/v1/invoke/mirror/pass", "text/plain", Vec::new());
    let packed = desk.server.ask(&packed.header("content-encoding", "gzip"));
    assert_eq!(packed.status, 415, "{}", packed.text());
    // A call that fails at its beginning has an answer, however much is still on its way.
    for (kind, status) in [("", 422), ("application/json", 415)] {
        let large = desk.stream("mirror/gcd", kind, JSON, &vec![b'\n'; 32 << 20]);
        assert_eq!(large.status, status, "{}", large.text());
    }
    // There an answer ends as it would be cut off.
    let Server { address, token, .. } = &desk.server;
    let mut old = TcpStream::connect(address).expect("the server listens");
    let head = format!(
        "POST /v1/invoke/mirror/pass HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    old.write_all(head.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).expect("it answers");
    let answer = Response::parse(&answer).expect("it is whole");
    assert_eq!(answer.status, 400, "{}", answer.text());
}

/// Whoever reads trailers is told why an answer ends early; for all others it does not end as an answer does.
#[test]
fn answers_that_end_early_are_no_answers() {
    let desk = Desk::new();
    for told in [true, false] {
        let headers: &[_] = if told { &[("te", "trailers")] } else { &[] };
        let mut call = Call::start(&desk, "mirror/pass", headers);
        call.send(b"one\n");
        call.wait_for("{\"line\":\"one\"}");
        call.send(b"\xff\n");
        match (told, call.rest()) {
            (true, answer) => {
                let answer = answer.expect("it ends");
                let problem = answer.trailer("x-weft-problem").expect("it says why");
                let problem: Value = serde_json::from_str(problem).expect("JSON");
                assert_eq!(problem["code"], "bad_record", "{problem:#}");
            }
            (false, answer) => assert!(answer.is_err(), "{answer:?}"),
        }
    }
}

#[test]
fn calls_that_stream_have_a_deadline() {
    let desk = Desk::new();
    let mut call = Call::start(&desk, "mirror/pass?deadline_ms=200", &[("te", "trailers")]);
    call.send(b"one\n");
    let answer = call.rest().expect("it ends");
    let problem = answer.trailer("x-weft-problem").expect("it says why");
    let problem: Value = serde_json::from_str(problem).expect("JSON");
    let found = (&problem["code"], &problem["limit"], &problem["value"]);
    assert_eq!(
        found,
        (&json!("limit_exceeded"), &json!("wall"), &json!("200 ms"))
    );
    eventually("its sandbox is gone", || {
        (desk.streaming() == 0).then_some(())
    });
}

/// What a client does not take is not computed: the server stops to read long before all has been sent. Once it is taken, all comes.
#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let desk = Desk::new();
    let mut call = Call::start(&desk, "mirror/pass", &[("accept", "text/csv")]);
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    let piece = line.repeat(1024);
    let pieces = 256;
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    let all = [chunk.repeat(pieces), b"0\r\n\r\n".to_vec()].concat();
    // Whether a write waits is all that can be seen of a server that does not read.
    call.stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .expect("a socket");
    let mut sent = 0;
    while sent < all.len() {
        match call.stream.write(&all[sent..]) {
            Ok(n) => sent += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                break;
            }
        }
    }
    assert!(sent < all.len() / 2, "{sent} bytes were taken in");
    call.stream.set_write_timeout(None).expect("a socket");
    let answer = thread::scope(|scope| {
        let mut sender = call.stream.try_clone().expect("a socket");
        let rest = &all[sent..];
        scope.spawn(move || sender.write_all(rest).expect("the server reads"));
        call.rest().expect("it is whole")
    });
    let expected = [b"line\n".to_vec(), piece.repeat(pieces)].concat();
    assert!(answer.body == expected, "all lines come back");
}

#[test]
fn clients_that_go_away_are_billed_and_forgotten() {
    let desk = Desk::new();
    let mut call = Call::start(&desk, "mirror/halve", &[]);
    call.send(b"one\n");
    call.wait_for("one");
    assert_eq!(desk.streaming(), 1);
    call.stream.shutdown(Shutdown::Both).expect("it is open");
    drop(call);
    eventually("its sandbox is gone", || {
        (desk.streaming() == 0).then_some(())
    });
    let billed = eventually("it is billed", || {
        let usage = desk.server.ask(&Request::get("/v1/usage")).ok();
        let lines = usage["lines"].as_array().cloned().unwrap_or_default();
        lines
            .into_iter()
            .find(|one| one["function"] == "mirror@0.1.0/halve")
    });
    assert!(
        billed["billed"]["guest_cpu_ns"].as_u64() > Some(0),
        "{billed:#}"
    );
    assert_eq!(billed["billed"]["rows_in"], 1, "{billed:#}");
}

/// Calls that stream wait for their clients, and keep no slot while they do; but each holds a sandbox, so there is a bound.
#[test]
fn calls_that_stream_are_bounded_and_keep_nobody_waiting() {
    let desk = Desk::new();
    let mut calls = Vec::new();
    let refused = loop {
        let mut call = Call::start(&desk, "mirror/pass", &[]);
        call.send(b"one\n");
        call.wait_for("\r\n\r\n");
        if call.answer.starts_with(b"HTTP/1.1 429") {
            break call.rest().expect("it is whole");
        }
        calls.push(call);
        assert!(calls.len() < 1000, "there is no bound");
    };
    let problem = refused.json();
    assert_eq!(problem["code"], "busy");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains(&format!(
        "{} calls of `mirror@0.1.0/pass` stream",
        calls.len()
    )));
    let other = desk.stream("mirror/copy", "", "text/csv", b"other\n");
    assert_eq!(other.text(), "line\nother\n");
    let task = Request::post("/v1/invoke/mirror/echo", "", b"task".to_vec());
    assert_eq!(desk.server.ask(&task).text(), "task");
    job::run(&desk.server, &job::noop(3));
    for call in calls {
        let answer = call.end().expect("it is whole");
        assert_eq!(answer.text(), "{\"line\":\"one\"}\n");
    }
}

#[test]
fn streams_end_with_their_executor() {
    let desk = Desk::new();
    let mut call = Call::start(&desk, "mirror/pass", &[("te", "trailers")]);
    call.send(b"one\n");
    call.wait_for("one");
    kill(desk.server.children("executor")[0]);
    let answer = call.rest().expect("it ends");
    let problem = answer.trailer("x-weft-problem").expect("it says why");
    assert!(problem.contains("\"busy\""), "{problem}");
    let again = eventually("an executor is ready", || {
        let answer = desk.stream("mirror/pass", "", "text/csv", b"again\n");
        (answer.status == 200).then(|| answer.text())
    });
    assert_eq!(again, "line\nagain\n");
}

#[test]
fn the_cli_streams() {
    let desk = Desk::new();
    let start = |arguments: &[&str]| {
        let mut command = desk.server.cli(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let mut child = start(&["invoke", "mirror/pass", "--json"]);
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut stdout = child.stdout.take().expect("it is piped");
    let row = b"{\"line\":\"one\"}\n";
    let mut first = vec![0; row.len()];
    stdin.write_all(b"one\n").expect("it reads");
    stdout.read_exact(&mut first).expect("it writes");
    assert_eq!(first, row, "before the input has ended");
    stdin.write_all(b"\xff\n").expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    // Rows are on standard output, and nothing else.
    assert_eq!(output.stdout, b"");
    let said: Value = serde_json::from_slice(&output.stderr).expect("a document");
    assert_eq!(said["code"], "bad_record", "{said:#}");

    let csv = ["--input-format", "csv", "--output-format", "csv"];
    let arguments = [
        &["invoke", "mirror/copy", "--input", "a,b\n1,x\n"][..],
        &csv,
    ]
    .concat();
    let output = start(&arguments).wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a,b\n1,x\n");
    let both = [&arguments[..], &["--json"]].concat();
    for wrong in [&both[..], &[&["invoke", "mirror/echo"][..], &csv].concat()] {
        let output = start(wrong).wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(2));
    }
}
