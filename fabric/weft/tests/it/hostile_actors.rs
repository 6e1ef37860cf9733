//! Actors and tasks that mean harm, through a whole server: each deed is stopped at its limit, by an error that names
//! it; the actor goes on with what it kept before, other keys of it and actors of a neighbour meanwhile; and nothing
//! restarts.

use std::io::Read;
use std::net::TcpStream;
use std::thread;

use serde_json::{Value, json};

use crate::clock::{eventually, now};
use crate::fixture::Place;
use crate::http::{Request, Response};
use crate::job;
use crate::server::{Server, Setup};

const BRUTE: &str = "brute@0.1.0/brute";
/// Accounts of the neighbour, in several shards.
const ACCOUNTS: [&str; 6] = ["ada", "bob", "eve", "ida", "max", "zoe"];
/// Time between two alarms of an actor.
const ALARM_GAP_MS: u128 = 10;

/// A server with hostile components and a neighbour.
struct Street {
    // Dropped first: its folder is in use until then.
    server: Server,
    _place: Place,
    /// Deposits of each account, and turns of an honest key of the hostile actor.
    n_visits: u64,
}

fn invoke(actor: &str, method: &str, input: &str) -> Request {
    let path = format!("/v1/actors/{actor}/{method}");
    Request::post(path, "application/json", input.as_bytes().to_vec())
}

fn brute(key: &str, deed: &str) -> Request {
    invoke(&format!("brute/brute/{key}"), deed, "")
}

fn show(actor: &str) -> Request {
    Request::get(format!("/v1/actors/{actor}"))
}

/// Code, limit, its value and function of an error.
fn said(answer: &Response) -> [Value; 4] {
    let problem = answer.json();
    ["code", "limit", "value", "function"].map(|name| problem[name].clone())
}

impl Street {
    fn new() -> Street {
        let place = Place::new();
        let server = Server::start(&place.data(), &Setup::default());
        for guest in ["brute", "bank", "fanout"] {
            job::deploy(&server, guest);
        }
        Street {
            server,
            _place: place,
            n_visits: 0,
        }
    }

    fn ask(&self, request: &Request) -> Response {
        self.server.ask(request)
    }

    /// The answer of a turn that goes well.
    fn text(&self, request: &Request) -> String {
        let answer = self.ask(request);
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
        answer.text()
    }

    fn number(&self, request: &Request) -> u64 {
        self.text(request).parse().expect("a number")
    }

    /// Has the neighbour and an honest key of the hostile actor do something, and looks at all that they did so far.
    fn visit(&mut self) {
        self.n_visits += 1;
        for key in ACCOUNTS {
            let account = format!("bank/account/{key}");
            let deposit = json!({ "amount": 1 }).to_string();
            self.text(&invoke(&account, "deposit", &deposit));
            let balance = self.text(&invoke(&account, "balance", ""));
            assert_eq!(balance, json!({ "balance": self.n_visits }).to_string());
        }
        assert_eq!(self.number(&brute("honest", "add")), self.n_visits);
    }

    /// Ends an actor as its owner would.
    fn delete(&self, actor: &str, key: &str) {
        let output = self.server.cli(&["actor", "delete", actor, key]).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
    }
}

/// A deed of one turn, the query of its invocation, and the limit that stops it with its value.
type Deed = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
);

const DEEDS: &[Deed] = &[
    // The value is what is left of the deadline.
    ("spin", "deadline_ms=500", "wall", None),
    ("eat", "", "memory", Some("256 MiB")),
    ("put", "", "state", Some("1000 keys written in a turn")),
    ("fill", "", "state", Some("4 MiB a turn")),
    ("large-value", "", "state", Some("1 MiB for a value")),
    ("large-key", "", "state", Some("1024 bytes for a key")),
    ("large-answer", "", "output", Some("1048576 bytes")),
    ("tell", "", "outbox", Some("100 messages of a turn")),
];

#[test]
fn deeds_of_a_turn_are_stopped_at_their_limits_and_leave_nothing() {
    let mut street = Street::new();
    let executors = street.server.children("executor");
    for (deed, query, limit, value) in DEEDS {
        let key = format!("{deed}s");
        assert_eq!(street.number(&brute(&key, "add")), 1);
        let began = now();
        let refused = street.ask(&brute(&key, deed).with_query(query));
        eprintln!("| {deed} | {:?} | {} |", began.elapsed(), refused.text());
        let [code, said_limit, said_value, function] = said(&refused);
        assert_eq!(
            (refused.status, code, said_limit, function),
            (422, json!("limit_exceeded"), json!(limit), json!(BRUTE)),
            "{deed}: {}",
            refused.text()
        );
        if let Some(value) = value {
            assert_eq!(said_value, json!(value), "{deed}");
        }
        assert_eq!(street.number(&brute(&key, "add")), 2, "after {deed}");
        street.visit();
    }
    // Nobody was told.
    assert_eq!(street.number(&brute("tells-told", "turns")), 0);
    let refused = street.ask(&brute("scans", "large-scan"));
    assert_eq!(said(&refused)[0], "guest_error");
    assert!(refused.text().contains("a scan returns up to 1000 entries"));
    assert_eq!(street.server.children("executor"), executors);
}

/// The answer of a turn that may take longer than other requests of tests.
fn answer_at_last(mut asked: TcpStream) -> Response {
    asked.set_read_timeout(None).expect("it is a socket");
    let mut answer = Vec::new();
    asked.read_to_end(&mut answer).expect("an answer");
    Response::parse(&answer).expect("a whole answer")
}

#[test]
fn a_turn_that_computes_without_end_is_stopped_by_its_cpu_time_while_others_go_on() {
    let mut street = Street::new();
    street.visit();
    let spin = brute("spins", "spin").with_query("deadline_ms=600000");
    let spinning = street.server.start_asking(&spin);
    let stopped = thread::scope(|scope| {
        let waiting = scope.spawn(move || answer_at_last(spinning));
        while !waiting.is_finished() {
            street.visit();
        }
        waiting.join().expect("no panic")
    });
    assert_eq!(
        said(&stopped),
        [
            json!("limit_exceeded"),
            json!("cpu"),
            json!("30000 ms"),
            json!(BRUTE)
        ],
        "{}",
        stopped.text()
    );
    let used = stopped.header("x-weft-guest-cpu-ns").expect("a meter");
    let used_ns: u64 = used.parse().expect("a number");
    assert!(used_ns >= 30_000_000_000, "{used_ns} ns are billed");
    assert_eq!(street.number(&brute("spins", "add")), 1);
    street.visit();
}

#[test]
fn a_storm_of_alarms_has_a_bounded_rate_and_ends_with_its_actor() {
    let mut street = Street::new();
    let fires = |street: &Street, key: &str| street.number(&brute(key, "fires"));
    let began = now();
    street.text(&brute("gale", "storm"));
    eventually("the alarms fire", || {
        street.visit();
        (fires(&street, "gale") >= 50).then_some(())
    });
    let fired = u128::from(fires(&street, "gale"));
    let most = began.elapsed().as_millis() / ALARM_GAP_MS + 2;
    assert!(
        fired <= most,
        "{fired} alarms in {:?} are too many",
        began.elapsed()
    );
    street.delete("brute/brute", "gale");
    // Those of another one go on for as long as an alarm that was left would take.
    street.text(&brute("breeze", "storm"));
    eventually("the alarms of another one fire", || {
        (fires(&street, "breeze") >= 20).then_some(())
    });
    assert_eq!(street.ask(&show("brute/brute/gale")).status, 404);
    assert_eq!(fires(&street, "gale"), 0);
    street.delete("brute/brute", "breeze");
    street.visit();
}

/// Two accounts in the shard of the actor: between them, messages go the way that its own to itself go.
fn accounts_beside(street: &Street, actor: &str) -> (String, String) {
    let shard = |actor: &str| street.ask(&show(actor)).ok()["shard"].clone();
    let own = shard(actor);
    let mut beside = (0..)
        .map(|number| format!("beside-{number}"))
        .filter(|key| {
            let account = format!("bank/account/{key}");
            street.text(&invoke(&account, "deposit", r#"{"amount":1}"#));
            shard(&account) == own
        });
    let mut next = || beside.next().expect("keys have no end");
    (next(), next())
}

#[test]
fn a_flood_of_messages_is_stopped_at_the_outbox_and_ends_with_its_actor() {
    let mut street = Street::new();
    street.text(&brute("rain", "add"));
    let (from, to) = accounts_beside(&street, "brute/brute/rain");
    let flood = brute("rain", "flood");
    let refused = eventually("the outbox is full", || {
        Some(street.ask(&flood)).filter(|answer| answer.status != 200)
    });
    let full = "10000 messages that wait in a shard's outbox";
    assert_eq!(
        said(&refused),
        [
            json!("limit_exceeded"),
            json!("outbox"),
            json!(full),
            json!(BRUTE)
        ],
        "{}",
        refused.text()
    );
    street.visit();
    let letter = eventually("a message is given up", || {
        let rain = street.ask(&show("brute/brute/rain")).ok();
        rain["dead_letters"].as_array()?.first().cloned()
    });
    assert_eq!(
        (&letter["to"], &letter["method"]),
        (&json!("brute/brute/rain"), &json!("flood"))
    );
    let reason = letter["reason"].as_str().expect("a reason");
    assert!(reason.contains("`outbox` limit"), "{reason}");
    street.delete("brute/brute", "rain");
    // The way is free, and so is the outbox.
    let pay = json!({ "to": to, "amount": 1 }).to_string();
    street.text(&invoke(&format!("bank/account/{from}"), "transfer", &pay));
    eventually("the transfer arrives", || {
        let balance = street.text(&invoke(&format!("bank/account/{to}"), "balance", ""));
        (balance == r#"{"balance":2}"#).then_some(())
    });
    assert_eq!(street.ask(&show("brute/brute/rain")).status, 404);
    street.visit();
}

#[test]
fn actors_that_wait_in_circles_are_refused_at_once() {
    let mut street = Street::new();
    let refused = street.ask(&brute("self", "ask-self"));
    assert_eq!(said(&refused)[0], "guest_error", "{}", refused.text());
    let circle = "brute/brute/self → brute/brute/self";
    assert!(refused.text().contains(circle), "{}", refused.text());
    // More of them than may wait for each other.
    let long = invoke("brute/brute/long-0", "ring", "20");
    let refused = street.ask(&long);
    let text = refused.text();
    assert!(
        text.contains("16 actors would wait for each other"),
        "{text}"
    );
    // Each begins elsewhere: whoever would close a circle is refused, and nobody waits for a deadline.
    let began = now();
    let rings: Vec<Response> = thread::scope(|scope| {
        let street = &street;
        let asked = (0..4).map(|position| {
            let ring = invoke(&format!("brute/brute/ring-{position}"), "ring", "4");
            scope.spawn(move || street.ask(&ring))
        });
        let asked: Vec<_> = asked.collect();
        let answers = asked
            .into_iter()
            .map(|asked| asked.join().expect("no panic"));
        answers.collect()
    });
    for refused in rings {
        assert_eq!(said(&refused)[0], "guest_error", "{}", refused.text());
        assert!(refused.text().contains("would wait for itself"));
    }
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    for position in 0..4 {
        assert_eq!(street.number(&brute(&format!("ring-{position}"), "add")), 1);
    }
    street.visit();
}

/// Bombs that have been answered so far, by the server's metrics.
fn n_bombs(server: &Server) -> String {
    let metrics = server.ask(&Request::get("/metrics")).text();
    let count = r#"weft_invocation_seconds_count{function="brute/bomb"} "#;
    let mut lines = metrics.lines();
    let found = lines.find_map(|line| line.strip_prefix(count));
    found.expect("bombs are counted").to_owned()
}

#[test]
fn a_task_that_spawns_itself_without_end_is_stopped_with_all_that_it_spawned() {
    let mut street = Street::new();
    let task = |name: &str| Request::post(format!("/v1/invoke/{name}"), "text/plain", Vec::new());
    let sum = Request::post("/v1/invoke/fanout/sum", "text/plain", b"100".to_vec());
    assert_eq!(street.text(&sum), "338350");
    let nested = street.ask(&task("brute/nest"));
    let text = nested.text();
    assert!(text.contains("16 nested spawners"), "{text}");
    let bomb = task("brute/bomb").with_query("deadline_ms=5000");
    let stopped = street.ask(&bomb);
    assert_eq!(
        said(&stopped),
        [
            json!("limit_exceeded"),
            json!("futures"),
            json!("16384 futures that are not joined"),
            json!("brute@0.1.0/bomb")
        ],
        "{}",
        stopped.text()
    );
    street.visit();
    // While they go on, others may find no room.
    eventually("no bomb is left", || {
        let before = n_bombs(&street.server);
        let answer = street.ask(&sum.clone().with_query("deadline_ms=5000"));
        let is_over = answer.status == 200 && n_bombs(&street.server) == before;
        is_over.then_some(answer)
    });
    assert_eq!(street.text(&sum), "338350");
    street.visit();
}
