//! Invocations: answers and meters, limits and deadlines, many at once, executors that die.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;

use serde_json::{Value, json};

use crate::clock::eventually;
use crate::fixture::{Fixture, Place};
use crate::http::{Request, Response};
use crate::job;
use crate::server::{Server, Setup, kill};

/// A server with functions that can be called.
pub(crate) struct Desk {
    _place: Place,
    pub(crate) server: Server,
}

impl Desk {
    pub(crate) fn new() -> Desk {
        let place = Place::with_components(&Fixture::shared());
        let server = Server::start(&place.data(), &Setup::default());
        job::deploy(&server, "mirror");
        Desk {
            _place: place,
            server,
        }
    }

    fn invoke(&self, path: &str, input: &[u8]) -> Response {
        let invoke = Request::post(format!("/v1/invoke/{path}"), "text/plain", input.to_vec());
        self.server.ask(&invoke)
    }

    /// The problem of a call that fails.
    fn fails(&self, path: &str, status: u16, code: &str) -> Value {
        let answer = self.invoke(path, b"");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{path}: {problem:#}");
        problem
    }
}

fn number(answer: &Response, name: &str) -> u64 {
    let text = answer
        .header(name)
        .unwrap_or_else(|| panic!("no header {name}"));
    text.parse().expect("meters are whole numbers")
}

#[test]
fn a_call_answers_with_what_it_used() {
    let desk = Desk::new();
    let input: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let answer = desk.invoke("mirror/echo", &input);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == input, "bytes come back as they are");
    assert_eq!(answer.header("x-weft-function"), Some("mirror@0.1.0/echo"));
    let (cpu_ns, wall_ns) = (
        number(&answer, "x-weft-cpu-ns"),
        number(&answer, "x-weft-wall-ns"),
    );
    assert!(number(&answer, "x-weft-guest-cpu-ns") > 0 && cpu_ns > 0 && wall_ns > 0);
    assert!(number(&answer, "x-weft-memory-peak-bytes") >= 1_000_000);
    // An instance serves one call: the counter in its memory never moves.
    for _ in 0..3 {
        assert_eq!(desk.invoke("mirror@0.1.0/count", b"").body, [0]);
    }
}

/// Calls that are sent one behind the other, without waiting, are answered in their order on the same connection.
#[test]
fn calls_follow_each_other_on_a_connection() {
    let desk = Desk::new();
    let Server { address, token, .. } = &desk.server;
    let call = |n: usize, connection: &str| {
        format!(
            "POST /v1/invoke/mirror/echo HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             connection: {connection}\r\ncontent-length: 1\r\n\r\n{n}"
        )
    };
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let mut answers = String::new();
    let all: String = (0..9)
        .map(|n| call(n, if n == 8 { "close" } else { "keep-alive" }))
        .collect();
    stream.write_all(all.as_bytes()).expect("the server reads");
    stream.read_to_string(&mut answers).expect("it answers");
    let bodies: Vec<&str> = answers
        .split("HTTP/1.1 200 OK\r\n")
        .skip(1)
        .map(|answer| answer.split_once("\r\n\r\n").expect("a head").1)
        .collect();
    assert_eq!(
        bodies,
        ["0", "1", "2", "3", "4", "5", "6", "7", "8"],
        "{answers}"
    );
}

#[test]
fn calls_that_cannot_be() {
    let desk = Desk::new();
    desk.fails("mirror/nothing", 422, "unknown_function");
    desk.fails("nowhere/echo", 422, "unknown_function");
    desk.fails("vandal/hoard", 422, "unknown_function");
    desk.fails("mirror/echo?deadline_ms=soon", 400, "invalid_job");
    let large = desk.invoke("mirror/echo", &vec![0; 9 << 20]);
    assert_eq!(
        (large.status, &large.json()["code"]),
        (413, &json!("too_large"))
    );
}

/// Inputs come in pieces, and many that are slow do not fill the server's memory: past its bound calls are refused, until there
/// is room again.
#[test]
fn inputs_are_taken_in_as_they_come() {
    let desk = Desk::new();
    let echo = |body: &[u8]| Request::post("/v1/invoke/mirror/echo", "text/plain", body.to_vec());
    let chunked = echo(b"3\r\none\r\n4\r\n two\r\n0\r\n\r\n")
        .header("content-length", "")
        .header("transfer-encoding", "chunked");
    assert_eq!(desk.server.ask(&chunked).text(), "one two");
    let endless = echo(&[b"800001\r\n", &[0; 9 << 20][..]].concat())
        .header("content-length", "")
        .header("transfer-encoding", "chunked");
    let refused = desk.server.ask(&endless);
    assert_eq!(
        (refused.status, &refused.json()["code"]),
        (413, &json!("too_large"))
    );

    // All of 8 MiB but their last byte, 32 times: 32 bytes are left of 256 MiB.
    let held = format!("weft_invocation_input_held_bytes {}", 32 * ((8 << 20) - 1));
    let unended = echo(&vec![0; (8 << 20) - 1]).header("content-length", "8388608");
    let slow: Vec<_> = (0..32)
        .map(|_| desk.server.start_asking(&unended))
        .collect();
    eventually("all but the last bytes are there", || {
        let metrics = desk.server.ask(&Request::get("/metrics")).text();
        metrics.lines().any(|line| line == held).then_some(())
    });
    let refused = desk.invoke("mirror/echo", &[0; 64]);
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(
        refused.text().contains("hold 256 MiB of input"),
        "{}",
        refused.text()
    );
    assert_eq!(desk.invoke("mirror/echo", b"small").body, b"small");
    drop(slow);
    eventually("there is room again", || {
        (desk.invoke("mirror/echo", &[0; 64]).status == 200).then_some(())
    });
}

/// An output takes room until its client has taken it, or is gone.
#[test]
fn outputs_are_held_until_they_are_taken() {
    let desk = Desk::new();
    let held = |bytes: usize| {
        let line = format!("weft_invocation_output_held_bytes {bytes}");
        let metrics = desk.server.ask(&Request::get("/metrics")).text();
        metrics.lines().any(|one| one == line).then_some(())
    };
    // More than the buffers of a connection take in.
    let input = vec![0; 8 << 20];
    let echo = Request::post("/v1/invoke/mirror/echo", "text/plain", input);
    let slow = desk.server.start_asking(&echo);
    eventually("the output waits for its client", || held(8 << 20));
    assert_eq!(desk.invoke("mirror/echo", b"others").body, b"others");
    drop(slow);
    eventually("nobody waits for it any more", || held(0));
}

/// A call that spins is stopped at its deadline, and its slot is free for others.
#[test]
fn calls_that_take_too_long() {
    let desk = Desk::new();
    for _ in 0..4 {
        let problem = desk.fails(
            "vandal/spin-for-ever?deadline_ms=100",
            422,
            "limit_exceeded",
        );
        assert_eq!(
            (&problem["limit"], &problem["value"]),
            (&json!("wall"), &json!("100 ms"))
        );
    }
    assert_eq!(
        desk.invoke("mirror/echo", b"still here").body,
        b"still here"
    );
}

/// Nobody can raise the limits of a call, so no error says that one should.
#[test]
fn calls_have_limits_of_their_own() {
    let desk = Desk::new();
    for (deed, limit, value) in [("eat", "memory", "256 MiB"), ("log-flood", "log", "64 MiB")] {
        let path = format!("vandal/toil?deed={deed}&at=run");
        let problem = desk.fails(&path, 422, "limit_exceeded");
        assert_eq!(
            (&problem["limit"], &problem["value"]),
            (&json!(limit), &json!(value))
        );
        let detail = problem["detail"].as_str().expect("text");
        assert!(!detail.contains("raise"), "{detail}");
    }
}

#[test]
fn many_calls_at_once_and_a_job_beside_them() {
    let fixture = Fixture::shared();
    let desk = Desk::new();
    let out = desk._place.out();
    let id = job::submit(&desk.server, &job::weblog(&fixture.logs(), &out));
    thread::scope(|scope| {
        for caller in 0..16u8 {
            let desk = &desk;
            scope.spawn(move || {
                for call in 0..50u8 {
                    let input = [caller, call];
                    assert_eq!(desk.invoke("mirror/echo", &input).body, input);
                }
            });
        }
    });
    assert_eq!(job::wait(&desk.server, &id)["status"], "succeeded");
}

/// Hundredths of a second that a process has computed.
fn cpu_ticks(pid: rustix::process::Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let stat = stat.expect("it runs");
    let (_, rest) = stat.rsplit_once(") ").expect("a name comes first");
    let number = |at: usize| {
        rest.split(' ')
            .nth(at)
            .and_then(|text| text.parse::<u64>().ok())
    };
    number(11).expect("user") + number(12).expect("system")
}

/// Those whose executor dies are told to try again, and can.
#[test]
fn calls_outlive_executors() {
    let desk = Desk::new();
    let spin = Request::post("/v1/invoke/vandal/spin-for-ever", "", Vec::new());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| desk.server.ask(&spin));
        let executor = desk.server.children("executor")[0];
        eventually("the call spins", || {
            (cpu_ticks(executor) >= 20).then_some(())
        });
        assert_eq!(desk.invoke("mirror/echo", b"a").body, b"a");
        kill(executor);
        let answer = waiting.join().expect("it was answered");
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (429, &json!("busy"))
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
    });
    let again = eventually("an executor is ready", || {
        Some(desk.invoke("mirror/echo", b"b")).filter(|answer| answer.status != 429)
    });
    assert_eq!(again.body, b"b");
}

#[test]
fn the_cli_invokes() {
    let desk = Desk::new();
    let run = |arguments: &[&str], input: &str| {
        let mut command = desk.server.cli(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("text"),
        )
    };
    assert_eq!(
        run(&["invoke", "mirror/echo"], "from a pipe\n"),
        (Some(0), "from a pipe\n".into())
    );
    let keyed = |input| {
        [
            "invoke",
            "mirror/echo",
            "--idempotency-key",
            "k",
            "--input",
            input,
        ]
    };
    assert_eq!(run(&keyed("x"), ""), (Some(0), "x".into()));
    assert_eq!(run(&keyed("y"), "").0, Some(1), "another request");
    let (code, out) = run(&["invoke", "mirror/echo", "--input", "x", "--json"], "");
    let document: Value = serde_json::from_str(&out).expect("one document");
    assert_eq!((code, &document["output"]), (Some(0), &json!("x")));
    assert!(document["cpu_ns"].as_u64() > Some(0), "{document:#}");
    assert_eq!(run(&["invoke", "mirror/nothing"], "").0, Some(1));
    let large = "x".repeat((8 << 20) + 1);
    let mut invoke = desk.server.cli(&["invoke", "mirror/echo"]);
    invoke.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = invoke.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(large.as_bytes()).expect("it reads");
    drop(stdin);
    let refused = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("larger than the 8 MiB"), "{said}");
    assert_eq!(run(&["invoke", "mirror"], "").0, Some(2));
}

/// A function whose answer is random, unless it is the same call.
#[test]
fn a_key_has_one_answer() {
    let place = Place::with_components(&Fixture::shared());
    let setup = Setup::default();
    let server = Server::start(&place.data(), &setup);
    job::deploy(&server, "probe-py");
    let keyed = |input: &str, key: &str| {
        let call = Request::post(
            "/v1/invoke/probe-py/randomness",
            "",
            input.as_bytes().to_vec(),
        );
        call.header("idempotency-key", key)
    };
    let first = server.ask(&keyed("", "a"));
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(server.ask(&keyed("", "a")).body, first.body);
    assert_ne!(server.ask(&keyed("", "b")).body, first.body);
    let conflict = server.ask(&keyed("other", "a"));
    let code = &conflict.json()["code"];
    assert_eq!((conflict.status, code), (409, &json!("version_conflict")));
    let brief = || keyed("", "brief").header("idempotency-key-ttl", "1");
    let answer = server.ask(&brief());
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually("the answer expires", || {
        (server.ask(&brief()).body != answer.body).then_some(())
    });
    for ttl in ["0", "86401", "1h", "-1"] {
        let refused = server.ask(&keyed("", "a").header("idempotency-key-ttl", ttl));
        let code = &refused.json()["code"];
        assert_eq!((refused.status, code), (400, &json!("invalid_job")));
    }
    // A deadline is an answer, too.
    let late = |deadline: u32| {
        let path = format!("/v1/invoke/vandal/spin-for-ever?deadline_ms={deadline}");
        let call = Request::post(path, "", Vec::new()).header("idempotency-key", "c");
        let answer = server.ask(&call);
        (answer.status, answer.json()["value"].clone())
    };
    assert_eq!(late(100), (422, json!("100 ms")));
    assert_eq!(late(600_000), (422, json!("100 ms")));
    server.kill();
    let server = Server::start(&place.data(), &setup);
    let again = server.ask(&keyed("", "a"));
    assert_eq!(again.body, first.body, "a crash changes nothing");
    assert_eq!(again.header("x-weft-cpu-ns"), first.header("x-weft-cpu-ns"));
}
