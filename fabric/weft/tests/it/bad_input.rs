//! What users get wrong, and what they do on purpose: each is refused with a code of the closed list and a message that says
//! what, where, and what to do; and the server goes on serving.

use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::{eventually, until_empty};
use crate::fixture::{Fixture, Place};
use crate::http::{Request, Response};
use crate::server::{Server, Setup};
use crate::{folder, guests, job};

/// The closed list.
const CODES: [&str; 19] = [
    "invalid_component",
    "unknown_import",
    "version_conflict",
    "invalid_job",
    "unknown_function",
    "no_input",
    "bad_record",
    "schema_mismatch",
    "output_exists",
    "limit_exceeded",
    "guest_trap",
    "guest_error",
    "query_error",
    "store_unavailable",
    "not_found",
    "unauthorized",
    "too_large",
    "busy",
    "internal",
];

/// A server that bad input goes to, with a job that must go through after each.
struct Victim {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
    fixture: Arc<Fixture>,
}

impl Victim {
    fn new() -> Victim {
        let fixture = Fixture::shared();
        let place = Place::with_components(&fixture);
        let server = Server::start(&place.data(), &Setup::default());
        Victim {
            fixture,
            place,
            server,
        }
    }

    /// Panics unless `problem` has the code and says all of `words`, and the server still serves a good job.
    fn check(&self, problem: &Value, code: &str, words: &[&str]) {
        assert!(CODES.contains(&code));
        assert_eq!(problem["code"], code, "{problem:#}");
        assert_eq!(
            problem["type"],
            format!("urn:weft:problem:{code}"),
            "{problem:#}"
        );
        let text = problem.to_string();
        for word in words {
            let quoted = Value::String((*word).into()).to_string();
            let found = text.contains(quoted.trim_matches('"'));
            assert!(found, "`{word}` is not in {problem:#}");
        }
        job::run(&self.server, &job::noop(1));
    }

    /// The same for a request.
    fn refuses(&self, request: &Request, status: u16, code: &str, words: &[&str]) {
        let answer = self.server.ask(request);
        let problem = problem(&answer);
        assert_eq!(answer.status, status, "{problem:#}");
        self.check(&problem, code, words);
    }

    /// The same for a job that is accepted and then fails. Gives its id.
    fn fails(&self, job: &Value, code: &str, words: &[&str]) -> String {
        let id = job::submit(&self.server, job);
        let ended = job::wait(&self.server, &id);
        assert_eq!(ended["status"], "failed", "{ended:#}");
        self.check(&ended["problem"], code, words);
        id
    }

    /// A file of three lines.
    fn lines(&self) -> PathBuf {
        let path = self.place.path("lines.txt");
        std::fs::write(&path, "one\ntwo\nthree\n").expect("it writes");
        path
    }

    /// A job in which the vandal does `deed`.
    fn misbehaving(&self, deed: &str, limits: &Value) -> Value {
        let (params, out) = (json!({ "deed": deed }), self.place.path(deed));
        let mut job = job::map("vandal/misbehave", &params, &self.lines(), &out);
        job["limits"] = limits.clone();
        job
    }
}

/// The problem that an answer carries, in the form of RFC 9457.
fn problem(answer: &Response) -> Value {
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("application/problem+json"), "{}", answer.text());
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status, "{problem:#}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(
        detail.len() > 10,
        "a problem says what happened: {problem:#}"
    );
    problem
}

/// A component out of its text.
fn assembled(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's own WAT is right")
}

/// The component with a custom section more: another digest, the same in all else.
fn with_custom_section(mut component: Vec<u8>, content: &[u8]) -> Vec<u8> {
    let name = b"note";
    let size = u8::try_from(1 + name.len() + content.len()).expect("short");
    component.extend([0, size, u8::try_from(name.len()).expect("short")]);
    component.extend(name);
    component.extend(content);
    component
}

#[test]
fn uploads_that_are_no_components() {
    let victim = Victim::new();
    let core = assembled("(module (func (export \"run\")))");
    let foreign = assembled(
        "(component (import \"acme:shell/run@1.0.0\" (instance)) (instance $functions)
           (export \"weft:fabric/functions@0.1.0\" (instance $functions)))",
    );
    let mut broken = guests::bytes("hello");
    let middle = broken.len() / 2;
    broken[middle..middle + 64].fill(0xff);
    let mut cut = guests::bytes("hello");
    cut.truncate(cut.len() / 2);
    let cases: [(Vec<u8>, &str, &[&str]); 8] = [
        (
            Vec::new(),
            "invalid_component",
            &["not WebAssembly", "nothing"],
        ),
        (
            b"#!/bin/sh\necho hi\n".to_vec(),
            "invalid_component",
            &["not WebAssembly", "#!/bin/s"],
        ),
        (core, "invalid_component", &["core module", "weft build"]),
        (
            foreign,
            "unknown_import",
            &["acme:shell/run@1.0.0", "weft:fabric/{data"],
        ),
        (
            assembled("(component)"),
            "invalid_component",
            &["does not export", "weft:fabric/functions@0.1.0", "SDK"],
        ),
        (broken, "invalid_component", &["not valid"]),
        (cut, "invalid_component", &["not valid"]),
        (
            b"\0asm\x0d\0\x02\0".to_vec(),
            "invalid_component",
            &["not WebAssembly"],
        ),
    ];
    for (body, code, words) in cases {
        victim.refuses(&Request::component(body), 400, code, words);
    }
    let components = victim.server.ask(&Request::get("/v1/components")).ok();
    assert_eq!(
        components["items"].as_array().map(Vec::len),
        Some(3),
        "{components:#}"
    );
    until_empty("nothing is left behind", || {
        folder::leftovers(&victim.place.data())
    });
    let stored = folder::names(&victim.place.data().join("store/components"));
    assert_eq!(stored.len(), 3, "what was refused is not kept: {stored:?}");
}

#[test]
fn uploads_that_are_not_what_they_say() {
    let victim = Victim::new();
    let hello = guests::bytes("hello");
    let other = with_custom_section(hello.clone(), b"another build");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let upload = Request::component(other.clone()).header("x-weft-digest", &wrong);
    victim.refuses(
        &upload,
        400,
        "invalid_component",
        &[&wrong, "send it again"],
    );
    let upload = Request::component(other);
    victim.refuses(
        &upload,
        409,
        "version_conflict",
        &["`hello` 0.1.0", "raise the version", "-dev"],
    );
    let again = victim.server.ask(&Request::component(hello));
    assert_eq!(
        again.status,
        200,
        "the same bytes again are fine: {}",
        again.text()
    );

    let size = (200u64 << 20).to_string();
    let large = Request::component(b"\0asm".to_vec()).header("content-length", size);
    victim.refuses(&large, 413, "too_large", &["128 MiB"]);
    let stored = folder::names(&victim.place.data().join("uploads"));
    assert!(stored.is_empty(), "it is refused by its head: {stored:?}");
}

#[test]
fn an_upload_that_is_cut_off_leaves_nothing() {
    let victim = Victim::new();
    let mut bytes = with_custom_section(guests::bytes("hello"), b"cut");
    let declared = bytes.len().to_string();
    bytes.truncate(bytes.len() - 1000);
    let upload = Request::component(bytes).header("content-length", declared);
    // The client hangs up, so nobody may be there to be told.
    if let Ok(answer) = victim.server.try_ask(&upload.and_hang_up()) {
        victim.check(&problem(&answer), "invalid_component", &["cut off"]);
    }
    until_empty("nothing is left behind", || {
        folder::leftovers(&victim.place.data())
    });
    job::run(&victim.server, &job::noop(1));
}

/// Half way there are bytes that nothing refers to, so a registration that has begun comes to its end.
#[test]
fn an_upload_whose_client_goes_away_is_finished() {
    let victim = Victim::new();
    let stored = || folder::names(&victim.place.data().join("store/components")).len();
    let before = stored();
    let connection = victim
        .server
        .start_asking(&Request::component(guests::bytes("mirror")));
    eventually("the component is stored", || {
        (stored() > before).then_some(())
    });
    drop(connection);
    let listed = Request::get("/v1/components/mirror");
    eventually("the component is registered", || {
        (victim.server.ask(&listed).status == 200).then_some(())
    });
    until_empty("nothing is left behind", || {
        folder::leftovers(&victim.place.data())
    });
}

fn submit(job: &Value) -> Request {
    Request::json("/v1/jobs", job)
}

#[test]
fn job_documents_that_are_wrong() {
    let victim = Victim::new();
    let good = job::weblog(&victim.fixture.logs(), &victim.place.out());

    let mut job = good.clone();
    job["stage"][1]["shufle"] = json!({ "keys": ["day"] });
    let words = ["stage[1].shufle", "unknown key"];
    victim.refuses(&submit(&job), 400, "invalid_job", &words);
    let errors = victim.server.ask(&submit(&job)).json()["errors"].clone();
    assert_eq!(errors[0]["suggestion"], "shuffle", "{errors:#}");

    let mut job = good;
    job["output"]["daily"]["from"] = json!("dayly");
    job["stage"][0]["from"] = json!("log");
    job["limits"] = json!({ "memory": "lots" });
    let words = [
        "output.daily.from",
        "stage[0].from",
        "limits.memory",
        "256MiB",
    ];
    victim.refuses(&submit(&job), 400, "invalid_job", &words);

    let toml = Request::post("/v1/jobs", "application/json", b"name = 'toml'".to_vec());
    victim.refuses(&toml, 400, "invalid_job", &["not JSON"]);
    let large = Request::post("/v1/jobs", "application/json", vec![b' '; 3 << 20]);
    victim.refuses(&large, 413, "too_large", &["larger than 1 MiB"]);
}

#[test]
fn functions_that_are_not_there() {
    let victim = Victim::new();
    let mut job = job::weblog(&victim.fixture.logs(), &victim.place.out());
    let cases: [(&str, &[&str]); 4] = [
        ("weblog/pars", &["no function `pars`", "`parse`"]),
        ("nowhere/parse", &["no component `nowhere`", "weft deploy"]),
        ("weblog@9.9.9/parse", &["no version 9.9.9", "it has 0.1.0"]),
        (
            "weblog/daily",
            &[
                "`weblog/daily`",
                "is a reduce function, where a map is needed",
            ],
        ),
    ];
    for (function, words) in cases {
        job["stage"][0]["map"] = json!(function);
        victim.refuses(&submit(&job), 422, "unknown_function", words);
    }
}

#[test]
fn requests_that_name_nothing() {
    let victim = Victim::new();
    for (path, word) in [
        ("/v1/jobs/job-nothing", "job-nothing"),
        ("/v1/jobs/job-00000000000000000000000000", "job-0000"),
        ("/v1/components/nothing", "nothing"),
        ("/v1/components/hello/9.9.9", "hello"),
        ("/v1/nothing", "/v1/nothing"),
    ] {
        victim.refuses(&Request::get(path), 404, "not_found", &[word]);
    }
    // What the framework refuses by itself is told in the same way.
    for (path, word) in [
        ("/v1/jobs?cursor=1&cursor=2", "cursor"),
        ("/v1/components/%ff", "UTF-8"),
        ("/v1/usage?from_ms=x", "from_ms"),
    ] {
        victim.refuses(&Request::get(path), 400, "invalid_job", &[word]);
    }
    let cursor = Request::get("/v1/jobs?cursor=nonsense");
    victim.refuses(&cursor, 400, "not_found", &["nonsense", "from the start"]);
    let cursor = Request::get("/v1/components?cursor=gone@1.0.0");
    victim.refuses(&cursor, 400, "not_found", &["gone@1.0.0", "from the start"]);
    let health = Request::json("/v1/health", &json!({}));
    victim.refuses(&health, 405, "not_found", &["POST", "/v1/health"]);
}

#[test]
fn inputs_and_outputs_that_are_not_as_they_should_be() {
    let victim = Victim::new();
    let (place, logs) = (&victim.place, victim.fixture.logs());
    let run = |input: PathBuf| job::map("vandal/line", &json!({}), &input, &place.path("mapped"));

    victim.fails(
        &run(place.path("nothing-*.log")),
        "no_input",
        &["input `lines`", "nothing-*.log", "matches no file"],
    );
    std::fs::create_dir_all(place.path("folder.log")).expect("it is made");
    victim.fails(&run(place.path("folder.log")), "no_input", &["folder.log"]);
    std::fs::write(place.path("bad.log.gz"), b"this is no gzip").expect("it writes");
    victim.fails(
        &run(place.path("bad.log.gz")),
        "bad_record",
        &["bad.log.gz", "not readable gzip"],
    );
    let mut cut = std::fs::read(logs.join("access-06.log.gz")).expect("it is there");
    cut.truncate(cut.len() / 2);
    std::fs::write(place.path("cut.log.gz"), cut).expect("it writes");
    victim.fails(
        &run(place.path("cut.log.gz")),
        "bad_record",
        &["cut.log.gz", "not readable gzip"],
    );

    std::fs::write(place.path("latin.txt"), b"good\nna\xefve\n").expect("it writes");
    let mut latin = job::map(
        "vandal/name",
        &json!({}),
        &place.path("latin.txt"),
        &place.path("mapped"),
    );
    latin["input"]["lines"]["encoding"] = json!("utf8");
    victim.fails(
        &latin,
        "bad_record",
        &["latin.txt", "byte 5", "not UTF-8", "bad_records"],
    );

    let mut keyless = job::weblog(&logs, &place.out());
    keyless["stage"][1]["shuffle"]["keys"] = json!(["dya"]);
    victim.fails(
        &keyless,
        "schema_mismatch",
        &["stage `daily`", "`dya`", "`day`, `address`"],
    );

    let taken = place.out().join("top");
    std::fs::create_dir_all(&taken).expect("it is made");
    std::fs::write(taken.join("mine.txt"), "mine").expect("it writes");
    let exists = job::weblog(&logs, &place.out());
    victim.fails(
        &exists,
        "output_exists",
        &["output `top`", "out/top", "choose another folder"],
    );
    assert_eq!(
        folder::contents(&place.out()).len(),
        1,
        "nobody else's file is touched"
    );
    assert!(
        !place.path("mapped").exists(),
        "jobs that failed leave no output"
    );
}

/// Who did it, and where.
const FUNCTION: &str = "vandal@0.1.0/misbehave";
const TASK: &str = "stage `mapped`, task 0";

/// What the guest does, under which limit, the code that its job then fails with, and what is said of it.
type Deed = (
    &'static str,
    Option<(&'static str, &'static str)>,
    &'static str,
    &'static [&'static str],
);

const DEEDS: &[Deed] = &[
    (
        "refuse",
        None,
        "guest_error",
        &["stage `mapped`", "binds to nothing"],
    ),
    ("panic-at-bind", None, "guest_trap", &["stage `mapped`"]),
    (
        "no-columns",
        None,
        "schema_mismatch",
        &["stage `mapped`", "without columns"],
    ),
    ("trap", None, "guest_trap", &[TASK, "trapped"]),
    (
        "fail",
        None,
        "guest_error",
        &[TASK, "records 1 to", "failed on purpose"],
    ),
    ("wrong-schema", None, "schema_mismatch", &[TASK, "rows"]),
    (
        "spin",
        Some(("cpu", "300ms")),
        "limit_exceeded",
        &[TASK, "`cpu` limit", "300", "raise `limits.cpu`"],
    ),
    (
        "eat",
        Some(("memory", "64MiB")),
        "limit_exceeded",
        &[TASK, "`memory` limit", "64 MiB", "raise `limits.memory`"],
    ),
    (
        "flood",
        Some(("output", "1MiB")),
        "limit_exceeded",
        &[TASK, "`output` limit", "raise `limits.output`"],
    ),
];

#[test]
fn guests_that_misbehave() {
    let victim = Victim::new();
    for (deed, limit, code, words) in DEEDS {
        let limits: Value = limit.iter().map(|(name, value)| (*name, *value)).collect();
        let id = victim.fails(&victim.misbehaving(deed, &limits), code, words);
        let problem = job::show(&victim.server, &id)["problem"].clone();
        assert_eq!(problem["function"], FUNCTION, "{problem:#}");
        let named = problem["limit"].as_str();
        assert_eq!(named, limit.map(|(name, _)| name), "{problem:#}");
        assert_eq!(problem["value"].is_string(), limit.is_some(), "{problem:#}");
    }
    let executors = victim.server.children("executor");
    assert_eq!(executors.len(), 1, "and one executor is there");
}

/// Where a function fails over groups, the job names them: its input has no records that a user would know.
#[test]
fn groups_that_a_function_fails_over() {
    let victim = Victim::new();
    let groups = "the groups from `line` = \"one\" to `line` = \"two\": ";
    for (role, function) in [("reduce", "vandal/hoard"), ("combine", "vandal/pile")] {
        let lines = victim.lines();
        let stage = json!({
            "name": "grouped",
            "from": "lines",
            "params": { "deed": "fail" },
            "shuffle": { "keys": ["line"], "partitions": 1 },
            role: function,
        });
        let job = json!({
            "name": "grouped",
            "input": { "lines": { "format": "text", "encoding": "utf8", "uri": lines } },
            "stage": [stage],
            "output": { "out": { "from": "grouped", "format": "csv", "uri": victim.place.path(role) } },
        });
        victim.fails(&job, "guest_error", &[groups, "failed on purpose"]);
    }
}

/// A function that takes as long as it may does not outlive its job's time.
#[test]
fn a_job_that_takes_too_long() {
    let victim = Victim::new();
    let endless = victim.misbehaving("spin", &json!({ "wall": "500ms" }));
    let words = ["`wall` limit", "500 ms", "raise `limits.wall`"];
    victim.fails(&endless, "limit_exceeded", &words);
}

#[test]
fn guests_that_lie() {
    let victim = Victim::new();
    // Most are found out where the batch is made, which the guest hears of; the host counts nulls itself.
    for (lie, code) in [
        ("short-values", "guest_error"),
        ("too-many-rows", "guest_error"),
        ("too-many-nulls", "schema_mismatch"),
        ("no-buffers", "guest_error"),
        ("offsets-past-the-end", "guest_error"),
        ("offsets-that-fall", "guest_error"),
        ("negative-offsets", "guest_error"),
        ("bytes-as-text", "guest_error"),
    ] {
        let id = victim.fails(
            &victim.misbehaving(lie, &json!({})),
            code,
            &[TASK, FUNCTION],
        );
        let problem = &job::show(&victim.server, &id)["problem"];
        eprintln!("{lie}: {}", problem["detail"]);
    }
}

/// A panic says in the job's log what and where.
#[test]
fn the_log_of_a_job_that_trapped_says_why() {
    let victim = Victim::new();
    let id = victim.fails(&victim.misbehaving("trap", &json!({})), "guest_trap", &[]);
    let logs = victim
        .server
        .ask(&Request::get(format!("/v1/jobs/{id}/logs")))
        .ok();
    assert!(logs.to_string().contains("trapped on purpose"), "{logs:#}");
}

#[test]
fn requests_of_strangers() {
    let victim = Victim::new();
    let list = || Request::get("/v1/jobs");
    let port = victim.server.address.port();
    let own = format!("http://localhost:{port}");
    for (request, words) in [
        (list().header("authorization", ""), ["no token", "weft up"]),
        (
            list().header("authorization", "Basic eDp5"),
            ["no token", "weft up"],
        ),
        (
            list().header("authorization", "Bearer 0000"),
            ["not this server's", "data folder"],
        ),
        (
            list().header("host", "evil.example"),
            ["Host", "evil.example"],
        ),
        (
            list().header("host", format!("evil.example:{port}")),
            ["Host", "evil.example"],
        ),
        (
            list().header("host", "127.0.0.1:1"),
            ["Host", "127.0.0.1:1"],
        ),
        (list().header("host", ""), ["no `Host`", "Host"]),
        (
            list().header("origin", "http://evil.example"),
            ["Origin", "foreign"],
        ),
        (list().header("origin", "null"), ["Origin", "foreign"]),
        (
            list().header("origin", own.replace("http:", "https:")),
            ["Origin", "foreign"],
        ),
    ] {
        // Where the source is foreign, no token would help.
        let status = if words[0] == "Host" || words[0] == "Origin" || words[1] == "Host" {
            403
        } else {
            401
        };
        victim.refuses(&request, status, "unauthorized", &words);
    }
    assert_eq!(victim.server.ask(&list().header("origin", own)).status, 200);
    let job = job::noop(1).to_string().into_bytes();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = Request::post("/v1/jobs", content_type, job.clone());
        victim.refuses(
            &request,
            415,
            "invalid_job",
            &["Content-Type", "application/json"],
        );
    }
    let upload = Request::post("/v1/components", "application/json", b"{}".to_vec());
    victim.refuses(
        &upload,
        415,
        "invalid_component",
        &["Content-Type", "application/wasm"],
    );
    let health = victim
        .server
        .ask(&Request::get("/v1/health").header("authorization", ""));
    assert_eq!(health.ok()["status"], "ready");
}

#[test]
fn a_key_is_for_one_request() {
    let victim = Victim::new();
    let submit = |count, key: &str| {
        Request::json("/v1/jobs", &job::noop(count)).header("idempotency-key", key)
    };
    let first = victim.server.ask(&submit(1, "monday"));
    assert_eq!(first.status, 201);
    let again = victim.server.ask(&submit(1, "monday"));
    assert_eq!(again.status, 200);
    assert_eq!(first.json()["id"], again.json()["id"]);
    victim.refuses(
        &submit(2, "monday"),
        409,
        "version_conflict",
        &["`monday`", "another request"],
    );
    let other = victim.server.ask(&submit(1, "tuesday"));
    assert_ne!(first.json()["id"], other.ok()["id"]);
    // The job has been archived by now, and the key still stands for it.
    job::wait(&victim.server, &job::id_of(&first.json()));
    let late = victim.server.ask(&submit(1, "monday")).ok();
    assert_eq!(first.json()["id"], late["id"]);
    victim.refuses(
        &submit(1, &"k".repeat(256)),
        400,
        "invalid_job",
        &["Idempotency-Key", "255"],
    );
}

fn refusal(output: &Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_second_server_in_the_same_place() {
    let victim = Victim::new();
    let up = |data: PathBuf, listen: &str| {
        let mut up = crate::server::weft();
        up.arg("--data").arg(data).args(["up", "--listen", listen]);
        refusal(&up.output().expect("it runs"))
    };
    let address = victim.server.address.to_string();
    let (code, said) = up(victim.place.path("other"), &address);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("cannot listen on {address}")) && said.contains("--listen"),
        "{said}"
    );
    let (code, said) = up(victim.place.data(), "127.0.0.1:0");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("belongs to a Weft that is running") && said.contains("--data"),
        "{said}"
    );
    job::run(&victim.server, &job::noop(1));
}
