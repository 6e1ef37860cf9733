//! Guests that mean harm, through a whole server: each is stopped at the limit that is in force, by an error that says whose, which
//! and how much; it is billed for what it used; a neighbour's job beside it publishes the same bytes; and nothing restarts.
//!
//! Every case prints a line: what was done, under which limit, how long it took to be stopped, what was said, what was billed.

mod cases;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use self::cases::{Body, CASES, Case, Entry, FOREIGN, HONEST, Limit, assembled};

use crate::clock::{eventually, now, parse_ms};
use crate::fixture::{Fixture, Place};
use crate::http::Request;
use crate::server::{Server, Setup};
use crate::{guests, job, outputs};

use Entry::{Combine, Foreign, Map, Reduce, Task};

/// Room for the neighbour beside each hostile task.
const SLOTS: u32 = 4;

/// A server with a neighbour.
struct Street {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
    fixture: Arc<Fixture>,
}

/// What a case came to.
struct Outcome {
    stopped_after_ms: u64,
    neighbour_ms: u64,
    error: String,
    billed_cpu_ns: u64,
    /// What is not as it must be.
    wrong: Vec<String>,
}

impl Street {
    fn new() -> Street {
        let fixture = Fixture::shared();
        let place = Place::with_components(&fixture);
        let setup = Setup {
            slots: SLOTS,
            ..Setup::default()
        };
        let server = Server::start(&place.data(), &setup);
        for body in FOREIGN {
            server.ask(&Request::component(assembled(body))).ok();
        }
        std::fs::write(place.path("lines.txt"), "one\ntwo\nthree\n").expect("it writes");
        Street {
            server,
            place,
            fixture,
        }
    }

    /// Those that are there once one is: a lost one is started again.
    fn executors(&self) -> Vec<rustix::process::Pid> {
        eventually("an executor is there", || {
            Some(self.server.children("executor")).filter(|found| !found.is_empty())
        })
    }

    fn receipt(&self, id: &str) -> Value {
        let receipt = Request::get(format!("/v1/jobs/{id}/receipt"));
        eventually("the receipt is final", || {
            let found = self.server.ask(&receipt).ok();
            (found["provisional"] == false).then_some(found)
        })
    }

    /// Runs the hostile job while the neighbour's is under way.
    fn run(&self, case: &Case, limit: &Limit, number: usize) -> Outcome {
        let out = self.place.path(&format!("neighbour-{number}"));
        let executors = self.executors();
        let neighbour = job::submit(&self.server, &job::weblog(&self.fixture.logs(), &out));
        let lines = self.place.path("lines.txt");
        let hostile = case.job(limit, &lines, &self.place.path(&format!("out-{number}")));
        let id = job::submit(&self.server, &hostile);
        let ended = job::wait(&self.server, &id);
        let beside = job::wait(&self.server, &neighbour);
        let mut wrong = self.check_neighbour(&beside, &out);
        wrong.extend(check_overlap(&ended, &beside));
        wrong.extend(case.check(&ended, limit));
        let receipt = self.receipt(&id);
        wrong.extend(case.check_bill(&receipt, limit));
        if self.executors() != executors {
            wrong.push("the executor was lost".into());
        }
        Outcome {
            stopped_after_ms: took_ms(&ended),
            neighbour_ms: took_ms(&beside),
            error: ended["problem"]["detail"].as_str().unwrap_or("-").into(),
            billed_cpu_ns: cpu_ns(&receipt, "billed"),
            wrong,
        }
    }

    fn check_neighbour(&self, beside: &Value, out: &Path) -> Vec<String> {
        if beside["status"] != "succeeded" {
            return vec![format!("the neighbour: {}", beside["problem"])];
        }
        // The manifests name the folders that they lie in, so only their names are compared.
        let data = |(path, _): &(&std::path::PathBuf, &Vec<u8>)| !path.ends_with("_weft.manifest");
        let found = outputs::published(out);
        let same = found
            .iter()
            .filter(data)
            .eq(self.fixture.expected.iter().filter(data));
        match same {
            true => Vec::new(),
            false => vec!["the neighbour published other bytes".into()],
        }
    }
}

fn at(job: &Value, name: &str) -> u64 {
    job[name].as_str().map_or(0, parse_ms)
}

fn took_ms(job: &Value) -> u64 {
    at(job, "ended_at").saturating_sub(at(job, "submitted_at"))
}

fn cpu_ns(receipt: &Value, whose: &str) -> u64 {
    receipt[whose]["guest_cpu_ns"].as_u64().unwrap_or(0)
}

fn check_overlap(one: &Value, other: &Value) -> Option<String> {
    let apart = at(one, "ended_at") < at(other, "submitted_at")
        || at(other, "ended_at") < at(one, "submitted_at");
    apart.then(|| "the two jobs did not overlap".into())
}

impl Case {
    fn function(&self) -> String {
        match self.entry {
            Map(_) => "vandal@0.1.0/misbehave".into(),
            Reduce(_) => "vandal@0.1.0/hoard".into(),
            Combine(_) => "vandal@0.1.0/pile".into(),
            Task => "vandal@0.1.0/toil".into(),
            Foreign(name) => format!("{name}@0.1.0/f"),
        }
    }

    fn job(&self, limit: &Limit, lines: &Path, out: &Path) -> Value {
        let params = |at: &str| json!({ "deed": self.deed, "at": at, "bytes": "8000000" });
        let mut job = match self.entry {
            Map(at) => job::map("vandal/misbehave", &params(at), lines, out),
            Reduce(at) => grouped(json!({ "reduce": "vandal/hoard" }), &params(at), lines, out),
            Combine(at) => grouped(json!({ "combine": "vandal/pile" }), &params(at), lines, out),
            Task => tasks("vandal/toil", &params("run")),
            // Tasks are not bound, so a component whose `bind` does harm is asked for a map.
            Foreign(name) if name.starts_with("bind-") => {
                job::map(&format!("{name}/f"), &json!({}), lines, out)
            }
            Foreign(name) => tasks(&format!("{name}/f"), &json!({})),
        };
        let mut limits = json!({ "cpu": "20s", "wall": "25s", "memory": "1GiB" });
        if let Some((name, text)) = limit.asked {
            limits[name] = json!(text);
        }
        job["limits"] = limits;
        job
    }

    /// What is wrong with the job's end.
    fn check(&self, ended: &Value, limit: &Limit) -> Vec<String> {
        let mut wrong = Vec::new();
        let problem = &ended["problem"];
        let mut same = |what: &str, found: &Value, expected: Value| {
            if *found != expected {
                wrong.push(format!("{what} is {found}, not {expected}"));
            }
        };
        same("status", &ended["status"], json!("failed"));
        same("code", &problem["code"], json!(self.code));
        same("function", &problem["function"], json!(self.function()));
        same(
            "limit",
            &problem["limit"],
            json!(limit.said.map(|said| said.0)),
        );
        same(
            "value",
            &problem["value"],
            json!(limit.said.map(|said| said.1)),
        );
        let detail = problem["detail"].as_str().unwrap_or_default();
        let function = self.function();
        let said = limit
            .said
            .into_iter()
            .flat_map(|(name, value)| [name, value]);
        let words = self
            .words
            .iter()
            .copied()
            .chain(said)
            .chain([function.as_str()]);
        for word in words.filter(|word| !detail.contains(word)) {
            wrong.push(format!("`{word}` is not said"));
        }
        if detail.len() > 5000 || detail.chars().any(|c| c.is_control() && c != '\n') {
            wrong.push("the text is long or rude".into());
        }
        wrong
    }

    /// What is wrong with the bill: at least what the limit allowed, on the line of the function, and nothing waived.
    fn check_bill(&self, receipt: &Value, limit: &Limit) -> Vec<String> {
        let mut wrong = Vec::new();
        let least_ns = match limit.asked {
            Some(("cpu", text)) => {
                1_000_000 * text.trim_end_matches("ms").parse::<u64>().expect("ms")
            }
            _ => 1,
        };
        let lines = receipt["lines"].as_array().into_iter().flatten();
        let own = lines.filter(|line| line["function"] == json!(self.function()));
        let billed: u64 = own.map(|line| cpu_ns(line, "billed")).sum();
        if billed < least_ns {
            wrong.push(format!("{billed} ns are billed, of at least {least_ns}"));
        }
        if cpu_ns(receipt, "platform") > 0 {
            wrong.push(format!("{} ns are waived", cpu_ns(receipt, "platform")));
        }
        wrong
    }
}

fn tasks(function: &str, params: &Value) -> Value {
    json!({ "name": "hostile", "stage": [{ "name": "task", "task": function, "count": 1, "params": params }] })
}

/// Lines with their lengths, then groups of equal lengths.
fn grouped(work: Value, params: &Value, lines: &Path, out: &Path) -> Value {
    let mut stage = json!({
        "name": "reduced", "from": "mapped", "params": params,
        "shuffle": { "keys": ["bytes"], "partitions": 1 },
    });
    for (kind, function) in work.as_object().expect("kind and function") {
        stage[kind] = function.clone();
    }
    json!({
        "name": "hostile",
        "input": { "lines": { "format": "text", "uri": lines } },
        "stage": [{ "name": "mapped", "from": "lines", "map": "vandal/line" }, stage],
        "output": { "reduced": { "from": "reduced", "format": "parquet", "uri": out } },
    })
}

#[test]
fn guests_that_mean_harm_are_stopped_and_billed_beside_a_neighbour() {
    let street = Street::new();
    let mut wrong = Vec::new();
    let mut number = 0;
    eprintln!(
        "| case | at | limit | stopped after | error | billed | neighbour (alone {:?}) |",
        street.fixture.undisturbed
    );
    eprintln!("|---|---|---|---|---|---|---|");
    for case in CASES {
        for limit in case.limits {
            number += 1;
            let came = street.run(case, limit, number);
            let said = limit
                .said
                .map_or_else(|| "-".into(), |(name, value)| format!("{name} {value}"));
            let at = match case.entry {
                Map(at) => format!("map {at}"),
                Reduce(at) => format!("reduce {at}"),
                Combine(at) => format!("combine {at}"),
                Task | Foreign(_) => "task".into(),
            };
            let error: String = came.error.chars().take(160).collect();
            eprintln!(
                "| {} | {at} | {said} | {} ms | {error} | {:.1} ms | {} ms |",
                case.deed,
                came.stopped_after_ms,
                came.billed_cpu_ns as f64 / 1e6,
                came.neighbour_ms
            );
            let what = format!("{} in {at} under {said}", case.deed);
            wrong.extend(
                came.wrong
                    .into_iter()
                    .map(|wrong| format!("{what}: {wrong}")),
            );
        }
    }
    street.server.ask(&Request::get("/v1/health")).ok();
    assert!(
        wrong.is_empty(),
        "{}\n{}",
        wrong.join("\n"),
        street.server.log()
    );
}

/// What `describe` does is not of a job: its limits are the fabric's own, and its errors are the answer to an upload.
#[test]
fn components_that_do_harm_when_they_are_described() {
    let street = Street::new();
    let mut wrong = Vec::new();
    let cases: [(Body, &str, &[&str]); 4] = [
        (
            Body { name: "describe-spins", describe: "(loop $again br $again) (i32.const 1024)", ..HONEST },
            "invalid_component",
            &["describe", "`cpu` limit", "10000 ms"],
        ),
        (
            Body {
                name: "describe-eats",
                describe: "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
                ..HONEST
            },
            "invalid_component",
            &["describe", "`memory` limit", "256 MiB"],
        ),
        (
            Body { name: "describe-far", describe: "(i32.const 0x7ffffff0)", ..HONEST },
            "invalid_component",
            &["describe", "out of bounds"],
        ),
        (
            Body { name: "start-wide-table", fields: "(table 1000 funcref) (table $table 0 funcref)
                (func $grow (drop (table.grow $table (ref.null func) (i32.const -11))) unreachable) (start $grow)", ..HONEST },
            "invalid_component",
            &["describe", "elements"],
        ),
    ];
    for (body, code, words) in cases {
        let out = street.place.path(body.name);
        let executors = street.executors();
        let neighbour = job::submit(&street.server, &job::weblog(&street.fixture.logs(), &out));
        let began = now();
        let answer = street.server.ask(&Request::component(assembled(&body)));
        eprintln!(
            "| {} | describe | {:?} | {} |",
            body.name,
            began.elapsed(),
            answer.text()
        );
        let problem = answer.json();
        let text = problem["detail"].as_str().unwrap_or_default();
        let missing = words.iter().filter(|word| !text.contains(**word));
        let mut found: Vec<String> = missing
            .map(|word| format!("`{word}` is not said"))
            .collect();
        if problem["code"] != code {
            found.push(format!("the code is {}", problem["code"]));
        }
        // What a component may do at describe is not a matter of any job's limits.
        if text.contains("limits.") {
            found.push(format!("advice that does not help: {text}"));
        }
        let beside = job::wait(&street.server, &neighbour);
        found.extend(street.check_neighbour(&beside, &out));
        if street.executors() != executors {
            found.push("the executor was lost".into());
        }
        wrong.extend(
            found
                .into_iter()
                .map(|found| format!("{}: {found}", body.name)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A call that nobody waits for any more does not run, and one that runs is stopped: the next caller finds a free slot.
#[test]
fn calls_that_were_given_up_leave_the_slots_free() {
    let street = Street::new();
    let executors = street.executors();
    job::deploy(&street.server, "mirror");
    for deadline_ms in [50, 150] {
        std::thread::scope(|scope| {
            for _ in 0..4 * SLOTS {
                let path = format!("/v1/invoke/vandal/spin-for-ever?deadline_ms={deadline_ms}");
                let spin = Request::post(path, "", Vec::new());
                let server = &street.server;
                scope.spawn(move || {
                    let problem = server.ask(&spin).json();
                    assert_eq!(problem["limit"], "wall", "{problem:#}");
                    assert_eq!(problem["value"], format!("{deadline_ms} ms"), "{problem:#}");
                });
            }
        });
        let began = now();
        let echo = Request::post(
            "/v1/invoke/mirror/echo?deadline_ms=5000",
            "",
            b"here".to_vec(),
        );
        let answer = street.server.ask(&echo);
        eprintln!(
            "| spin | invocation | wall {deadline_ms} ms | echo after it: {:?} |",
            began.elapsed()
        );
        assert_eq!(answer.body, b"here", "{}", answer.text());
    }
    assert_eq!(street.executors(), executors);
}

/// Compile bombs: the child is stopped, the component refused with a limit, and the neighbour goes on.
#[test]
fn compile_bombs_are_refused() {
    let street = Street::new();
    let executors = street.executors();
    let bombs: [(&str, Vec<u8>, &[&str]); 4] = [
        (
            "a million functions",
            with_module(1_000_000, &[0, 0x0b]),
            &["memory", "2 GiB"],
        ),
        (
            "more than a million",
            with_module(1_000_001, &[0, 0x0b]),
            &["1000000"],
        ),
        ("a giant function", with_module(1, &giant()), &["7654321"]),
        ("deep types", deep_types(1000), &["nesting is too deep"]),
    ];
    for (number, (name, bytes, words)) in bombs.into_iter().enumerate() {
        let out = street.place.path(&format!("bomb-{number}"));
        let neighbour = job::submit(&street.server, &job::weblog(&street.fixture.logs(), &out));
        let began = now();
        let answer = street.server.ask(&Request::component(bytes));
        let problem = answer.json();
        eprintln!(
            "| {name} | compiler | {:?} | {} |",
            began.elapsed(),
            problem["detail"]
        );
        assert_eq!(problem["code"], "invalid_component", "{problem:#}");
        // Whichever of the words: the engine's own limits come first, and change with it.
        let said = |word: &&str| {
            problem["detail"]
                .as_str()
                .is_some_and(|text| text.contains(*word))
        };
        assert!(words.iter().any(said), "{name}: {problem:#}");
        let beside = job::wait(&street.server, &neighbour);
        assert_eq!(street.check_neighbour(&beside, &out), Vec::<String>::new());
    }
    assert_eq!(street.executors(), executors);
}

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(n & 127).expect("seven bits");
        n >>= 7;
        bytes.push(if n > 0 { low | 128 } else { low });
        if n == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], leb(content.len()), content.to_vec()].concat()
}

/// The honest component, and behind it a module of `n` functions with this body.
fn with_module(n: usize, body: &[u8]) -> Vec<u8> {
    let function = [leb(body.len()), body.to_vec()].concat();
    let types = section(1, &[1, 0x60, 0, 0]);
    let functions = section(3, &[leb(n), vec![0; n]].concat());
    let code = section(10, &[leb(n), function.repeat(n)].concat());
    let module = [b"\0asm\x01\0\0\0".to_vec(), types, functions, code].concat();
    [assembled(&HONEST), section(1, &module)].concat()
}

/// A body of more bytes than the engine takes: calls of itself.
fn giant() -> Vec<u8> {
    let step = [0x41, 0, 0x10, 0, 0x1a];
    [vec![0], step.repeat(1_700_000), vec![0x0b]].concat()
}

/// Lists of lists, so many deep.
fn deep_types(depth: usize) -> Vec<u8> {
    let lists: String = (1..depth)
        .map(|n| format!("(type $t{n} (list $t{}))", n - 1))
        .collect();
    let text = format!(
        r#"(component (type $t0 (list u8)) {lists}
            (core module $module (memory (export "m") 1) (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0) (func (export "f") (param i32 i32)))
            (core instance $i (instantiate $module))
            (func $f (param "x" $t{last}) (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "r"))))
            (instance $functions (export "describe" (func $f)) (export "bind" (func $f)))
            (export "weft:fabric/functions@0.1.0" (instance $functions)))"#,
        last = depth - 1
    );
    wat::parse_str(text).expect("the test's own WAT is right")
}

/// Guests that are no Rust are still built from files that lie here.
#[test]
fn the_guests_by_hand_are_components() {
    assert!(assembled(&HONEST).starts_with(b"\0asm\x0d\0\x01\0"));
    assert!(guests::bytes("vandal").starts_with(b"\0asm\x0d\0\x01\0"));
}
