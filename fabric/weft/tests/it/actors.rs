//! Actors of real servers: what was acknowledged is there, whoever is killed or paused, and nothing happens twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::clock::eventually;
use crate::cluster::Cluster;
use crate::fixture::Place;
use crate::http::{Request, Response};
use crate::job;
use crate::random::Random;
use crate::server::{Server, Setup, children_of};

/// Kills of the server in one test.
const KILLS: u32 = 6;
/// Transfers between two kills.
const TRANSFERS: u32 = 12;
const ACCOUNTS: [&str; 6] = ["ada", "bob", "eve", "ida", "max", "zoë"];

fn invoke(actor: &str, method: &str, input: &str) -> Request {
    let path = format!("/v1/actors/{actor}/{method}");
    Request::post(path, "application/json", input.as_bytes().to_vec())
}

/// The path of an account; its key is one segment, whatever is in it.
fn account(key: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let key: String = key.bytes().map(encode).collect();
    format!("bank/account/{key}")
}

fn deposit(key: &str, amount: u64) -> Request {
    invoke(
        &account(key),
        "deposit",
        &json!({ "amount": amount }).to_string(),
    )
}

/// A server with the component `name`.
fn server(place: &Place, name: &str) -> Server {
    let server = Server::start(&place.data(), &Setup::default());
    job::deploy(&server, name);
    server
}

/// Asks until there is an answer. The request has an idempotency key, or changes nothing.
fn answer(server: &Server, request: &Request) -> Response {
    eventually("the actor answers", || {
        Some(server.ask(request)).filter(|answer| answer.status != 429)
    })
}

fn balance(server: &Server, key: &str) -> u64 {
    let answer = answer(server, &invoke(&account(key), "balance", "")).ok();
    answer["balance"].as_u64().expect("a balance")
}

/// Numbers of transfers in the histories of all accounts, by what became of them there.
fn transfers(server: &Server) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in ACCOUNTS {
        let history = answer(server, &invoke(&account(key), "history", "")).ok();
        for entry in history["history"].as_array().expect("a list") {
            if let Some(transfer) = entry["transfer"].as_str() {
                let kind = entry["kind"].as_str().expect("a kind").to_owned();
                found.entry(transfer.to_owned()).or_default().push(kind);
            }
        }
    }
    found
}

#[test]
fn money_is_neither_lost_nor_made_when_the_server_is_killed() {
    let place = Place::new();
    let mut random = Random::seeded("bank", 20_261_201);
    let mut server = server(&place, "bank");
    let mut deposited = 0;
    let mut sent = 0;
    for round in 0..KILLS {
        for number in 0..TRANSFERS {
            let from = random.below(ACCOUNTS.len() as u64) as usize;
            let to = (from + 1 + random.below(ACCOUNTS.len() as u64 - 1) as usize) % ACCOUNTS.len();
            let (from, to) = (ACCOUNTS[from], ACCOUNTS[to]);
            let amount = 1 + random.below(100);
            let key = format!("{round}-{number}");
            let put = deposit(from, amount).header("idempotency-key", &key);
            answer(&server, &put).ok();
            let pay = json!({ "to": to, "amount": amount }).to_string();
            let pay = invoke(&account(from), "transfer", &pay).header("idempotency-key", &key);
            // The same key, of another method: another request.
            let refused = answer(&server, &pay);
            assert_eq!(refused.json()["code"], "version_conflict", "{refused:?}");
            answer(
                &server,
                &pay.header("idempotency-key", format!("{key}-pay")),
            )
            .ok();
            deposited += amount;
            sent += 1;
        }
        // Transfers are under way, and one request: its client cannot know what came of it, and repeats it.
        let last = deposit(ACCOUNTS[0], 1).header("idempotency-key", format!("last-{round}"));
        let _asked = server.start_asking(&last);
        server.kill();
        server = Server::start(&place.data(), &Setup::default());
        let once = answer(&server, &last);
        assert_eq!(answer(&server, &last).body, once.body, "it has one answer");
        deposited += 1;
    }
    let sum = || {
        ACCOUNTS
            .iter()
            .map(|key| balance(&server, key))
            .sum::<u64>()
    };
    eventually("all messages arrive", || (sum() == deposited).then_some(()));
    let transfers = transfers(&server);
    assert_eq!(transfers.len(), sent, "{transfers:#?}");
    for (transfer, mut kinds) in transfers {
        kinds.sort();
        assert_eq!(kinds, ["received", "sent"], "{transfer}");
    }
    assert_eq!(sum(), deposited, "nothing arrives twice");
}

#[test]
fn an_alarm_outlives_the_server() {
    let place = Place::new();
    let server = server(&place, "sessions");
    let touch = json!({ "data": "cart", "idle_ms": 300 }).to_string();
    answer(&server, &invoke("sessions/session/s-1", "touch", &touch)).ok();
    server.kill();
    let server = Server::start(&place.data(), &Setup::default());
    // Nobody invokes it: its shard is opened for the alarm.
    let show = Request::get("/v1/actors/sessions/session/s-1");
    eventually("the alarm comes", || {
        let shown = server.ask(&show);
        let alarmed = shown.status == 200 && {
            let actor = shown.json();
            actor["alarm_at"].is_null() && actor["entries"] == 0
        };
        (alarmed || shown.status == 404).then_some(())
    });
}

#[test]
fn actors_that_wait_for_themselves_are_refused() {
    let place = Place::new();
    let server = server(&place, "knot");
    let ask = |keys: &str| server.ask(&invoke("knot/knot/a", "ask", keys));
    let keys: Vec<String> = (0..12).map(|number| format!("k{number}")).collect();
    let chained = ask(&keys.join("\n"));
    assert_eq!((chained.status, chained.text()), (200, "k11".into()));
    for cycle in ["a", "b\na", "b\nc\nb"] {
        let refused = ask(cycle);
        assert_eq!(refused.status, 422, "{cycle:?}: {}", refused.text());
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("would wait for itself"), "{detail}");
    }
    let long: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    assert_eq!(ask(&long.join("\n")).status, 422);
    // Nobody is held up by those that were refused.
    assert_eq!(ask("b").text(), "b");
}

#[test]
fn a_turn_that_fails_leaves_nothing() {
    let place = Place::new();
    let server = server(&place, "knot");
    let ask = |method: &str| server.ask(&invoke("knot/knot/a", method, ""));
    assert_eq!(ask("count").text(), "1");
    let failed = ask("fail");
    let code = failed.json()["code"].clone();
    assert_eq!((failed.status, code), (422, json!("guest_error")));
    assert_eq!(failed.header("x-weft-function"), Some("knot@0.1.0/knot"));
    assert_eq!(ask("count").text(), "2");
    let used = eventually("the turns are metered", || {
        let usage = server.ask(&Request::get("/v1/usage")).ok();
        let mut lines = usage["lines"].as_array()?.iter();
        let line = lines.find(|line| line["function"] == "knot@0.1.0/knot")?;
        (line["billed_attempts"] == 3).then(|| line.clone())
    });
    assert!(
        used["billed"]["guest_cpu_ns"].as_u64() > Some(0),
        "{used:#}"
    );
}

#[test]
fn the_cli_invokes_lists_shows_and_deletes_actors() {
    let place = Place::new();
    let server = server(&place, "bank");
    let run = |arguments: &[&str]| {
        let output = server.cli(arguments).output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        (output.status.code().expect("it exits"), text)
    };
    let invoke = |key: &str, method: &str, input: &str| {
        run(&[
            "actor",
            "invoke",
            "bank/account",
            key,
            method,
            "--input",
            input,
        ])
    };
    let amount = r#"{"amount":100}"#;
    assert_eq!(
        invoke("ada", "deposit", amount),
        (0, r#"{"balance":100}"#.into())
    );
    assert_eq!(invoke("a/b c", "deposit", amount).0, 0);
    assert_eq!(invoke("ada", "nothing", "").0, 1);
    assert_eq!(run(&["actor", "invoke", "bank", "ada", "deposit"]).0, 2);
    assert_eq!(
        run(&["actor", "invoke", "bank/none", "ada", "deposit"]).0,
        1
    );
    assert_eq!(
        run(&["actor", "invoke", "bank@0.1.0/account", "ada", "balance"]).0,
        1
    );
    let keyed = [
        "actor",
        "invoke",
        "bank/account",
        "bob",
        "deposit",
        "--input",
        amount,
    ];
    let keyed = [&keyed[..], &["--idempotency-key", "k", "--deadline", "30s"]].concat();
    for _ in 0..2 {
        assert_eq!(run(&keyed), (0, r#"{"balance":100}"#.into()));
    }
    let listed = |limit: &str| {
        let (code, text) = run(&["--json", "actor", "list", "bank/account", "--limit", limit]);
        assert_eq!(code, 0, "{text}");
        serde_json::from_str::<Value>(&text).expect("one document")
    };
    let keys = |list: &Value| -> Vec<String> {
        let actors = list["actors"].as_array().expect("a list").iter();
        actors
            .map(|one| one["key"].as_str().expect("a key").to_owned())
            .collect()
    };
    assert_eq!(keys(&listed("100")), ["a/b c", "ada", "bob"]);
    let first = listed("2");
    assert_eq!((keys(&first).len(), &first["next"]), (2, &json!("ada")));
    let (code, shown) = run(&["--json", "actor", "show", "bank/account", "a/b c"]);
    let shown: Value = serde_json::from_str(&shown).expect("one document");
    assert_eq!((code, &shown["turns"]), (0, &json!(1)), "{shown:#}");
    assert_eq!(run(&["actor", "delete", "bank/account", "a/b c"]).0, 0);
    assert_eq!(keys(&listed("100")), ["ada", "bob"]);
    assert_eq!(
        invoke("a/b c", "balance", ""),
        (0, r#"{"balance":0}"#.into())
    );
    let (_, component) = run(&["components", "bank"]);
    assert!(component.contains("needs state"), "{component}");
}

/// The balance of an account, by one controller, if it is told.
fn told(controller: SocketAddr, token: &str, key: &str) -> Option<u64> {
    let ask = invoke(&account(key), "balance", "").with_query("deadline_ms=3000");
    let answer = ask.send(controller, token).ok()?;
    (answer.status == 200).then(|| answer.json()["balance"].as_u64().expect("a balance"))
}

/// Deposits, and repeats that until it is acknowledged. Returns the balance.
fn deposit_once(cluster: &Cluster, key: &str, once: &str) -> u64 {
    let put = deposit(key, 1).with_query("deadline_ms=3000");
    let put = put.header("idempotency-key", once);
    eventually("the deposit is acknowledged", || {
        let mut answers = cluster.controllers.iter().filter_map(|controller| {
            let answer = put.send(*controller, &cluster.token).ok()?;
            (answer.status == 200).then(|| answer.json()["balance"].as_u64())
        });
        answers.next()
    })
    .expect("a balance")
}

#[test]
fn actors_are_served_elsewhere_when_their_node_or_the_leader_is_killed() {
    let mut cluster = Cluster::start(3, 2);
    cluster.deploy(0, "bank");
    for key in ACCOUNTS {
        assert_eq!(deposit_once(&cluster, key, "first"), 1);
    }
    for (process, expected) in ["node-1", "node-2", "leader"].into_iter().zip(1..) {
        cluster.run("kill", &[process]);
        for key in ACCOUNTS {
            let balance = eventually("the account is served", || {
                let mut controllers = cluster.controllers.iter();
                controllers.find_map(|controller| told(*controller, &cluster.token, key))
            });
            assert_eq!(balance, expected, "{key} after {process} was killed");
            // What came before is known, also where another executor had it.
            assert_eq!(deposit_once(&cluster, key, "first"), 1, "{key}");
            assert_eq!(deposit_once(&cluster, key, process), expected + 1, "{key}");
        }
        cluster.up(&[]);
    }
}

/// Processes that stand still until this is dropped.
struct Stopped(Vec<Pid>);

impl Stopped {
    fn new(pids: Vec<Pid>) -> Stopped {
        for pid in &pids {
            kill_process(*pid, Signal::STOP).expect("it runs");
        }
        Stopped(pids)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

/// A flag that is set when this is dropped, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A node and its executors.
fn processes_of(cluster: &Cluster, name: &str) -> Vec<Pid> {
    let status = cluster.run("status", &[]);
    let processes = status["processes"].as_array().expect("a list");
    let node = processes.iter().find(|one| one["name"] == name);
    let pid = node.expect("it is listed")["pid"]
        .as_i64()
        .expect("it runs");
    let node = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let mut all = vec![node];
    all.extend(children_of(node, "executor"));
    all
}

/// A read that begins after a deposit was acknowledged shows it, whoever is asked, and whoever stood still meanwhile.
#[test]
fn a_node_that_stood_still_tells_nothing_old() {
    let cluster = Cluster::start(1, 2);
    cluster.deploy(0, "bank");
    let acknowledged = ACCOUNTS.map(|key| AtomicU64::new(deposit_once(&cluster, key, "first")));
    let (acknowledged, ended) = (&acknowledged, &AtomicBool::new(false));
    let (controller, token) = (cluster.controllers[0], &*cluster.token);
    thread::scope(|scope| {
        let _ends = Ends(ended);
        for _ in 0..2 {
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    for (key, acknowledged) in ACCOUNTS.iter().zip(acknowledged) {
                        let least = acknowledged.load(Ordering::SeqCst);
                        if let Some(balance) = told(controller, token, key) {
                            assert!(balance >= least, "{key}: {balance} after {least}");
                        }
                    }
                }
            });
        }
        for (round, node) in ["node-1", "node-2"].into_iter().enumerate() {
            let stopped = Stopped::new(processes_of(&cluster, node));
            // Until the other node serves all of them.
            for (key, acknowledged) in ACCOUNTS.iter().zip(acknowledged) {
                let balance = deposit_once(&cluster, key, node);
                acknowledged.store(balance, Ordering::SeqCst);
                assert_eq!(balance, round as u64 + 2, "{key} while {node} stands still");
            }
            drop(stopped);
            // It goes on, is asked as before, and serves what it is granted anew.
            for key in ACCOUNTS {
                eventually("the account is served", || told(controller, token, key));
            }
            eventually("both nodes work", || {
                let nodes = Request::get("/v1/nodes").send(controller, token).ok()?.ok();
                let nodes = nodes["items"].as_array()?.clone();
                let ready = nodes.iter().filter(|node| node["status"] == "ready");
                (ready.count() == 2).then_some(())
            });
        }
    });
}
