//! The reference of the API against the router and its answers: all that is there is in the document, and all that the document
//! tells of is there.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Value, json};
use weft_core::{ErrorCode, LimitKind};

use crate::fixture::{Fixture, Place};
use crate::http::{Request, Response};
use crate::server::{Server, Setup};
use crate::{guests, job};

const DOCUMENT: &str = include_str!("../../../controller/src/api/openapi.json");
const ROUTER: &str = include_str!("../../../controller/src/api/mod.rs");

static REFERENCE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(DOCUMENT).expect("the document is JSON"));

/// Methods, as the document calls them and the functions that route them.
const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// Words of schemas that are for people, or that are not looked at here.
const UNCHECKED: &str = "additionalProperties contentMediaType contentSchema default description examples format maxItems \
    maxLength maxProperties maximum minItems minLength not pattern properties propertyNames";

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = value.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.as_str(), value))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What stands where a `$ref` leads to.
fn resolved(value: &'static Value) -> &'static Value {
    let Some(reference) = value["$ref"].as_str() else {
        return value;
    };
    let target = REFERENCE.pointer(reference.trim_start_matches('#'));
    target.unwrap_or_else(|| panic!("`{reference}` leads nowhere"))
}

/// Method, path, id, and what the document says of it.
fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static Value)>
{
    members(&REFERENCE["paths"]).flat_map(|(path, operations)| {
        members(operations).map(move |(method, operation)| {
            let id = operation["operationId"].as_str().expect("it has an id");
            (method, path, id, operation)
        })
    })
}

/// What is wrong with `value`. Members that an object's schema does not name are, unless it takes all.
fn errors(schema: &'static Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let inner = |schema| errors(schema, value, at);
    for (word, said) in members(schema) {
        let fitting = || items(said).filter(|one| inner(one).is_empty()).count();
        let is_missing = |name: &Value| value.get(name.as_str().unwrap_or("")).is_none();
        let is_wrong = match word {
            "type" => *said != kind(value) && !items(said).any(|one| *one == kind(value)),
            "const" => value != said,
            "enum" => !items(said).any(|one| one == value),
            "minimum" => value.is_number() && value.as_f64() < said.as_f64(),
            "required" => value.is_object() && items(said).any(is_missing),
            "oneOf" => fitting() != 1,
            "anyOf" => fitting() == 0,
            "$ref" | "allOf" | "items" => false,
            other => !UNCHECKED.split(' ').any(|known| known == other),
        };
        if is_wrong {
            found.push(format!("{at}: {value} is not `{word}: {said}`"));
        }
        match word {
            "$ref" => found.extend(inner(resolved(schema))),
            "allOf" => found.extend(items(said).flat_map(inner)),
            "items" => found.extend(items(value).flat_map(|item| errors(said, item, at))),
            _ => {}
        }
    }
    let (named, others) = (&schema["properties"], &schema["additionalProperties"]);
    let is_open = named.is_null() || schema["type"] != "object";
    for (name, member) in members(value) {
        let at = format!("{at}/{name}");
        match (named.get(name), others) {
            (Some(schema), _) => found.extend(errors(schema, member, &at)),
            (None, Value::Object(_)) => found.extend(errors(others, member, &at)),
            (None, Value::Null) if is_open => {}
            (None, _) => found.push(format!("{at}: is not in the document")),
        }
    }
    found
}

/// Panics unless `answer` is as `response` says, which is null where there is no such status.
fn check(what: &str, response: &'static Value, answer: &Response) {
    let told = format!("{what} answered {}: {}", answer.status, answer.text());
    let response = resolved(response);
    for (name, header) in members(&response["headers"]) {
        let is_there = answer.header(&name.to_ascii_lowercase()).is_some();
        let is_required = resolved(header)["required"] == true;
        assert!(is_there || !is_required, "no `{name}`: {told}");
    }
    if answer.status == 204 {
        assert!(
            response["description"].is_string() && answer.body.is_empty(),
            "{told}"
        );
        return;
    }
    let kind = answer.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default();
    let content = response["content"].get(kind);
    let schema = &content.unwrap_or_else(|| panic!("no `{kind}`: {told}"))["schema"];
    let found = match kind {
        "text/event-stream" => {
            let schema = &schema["properties"]["data"]["contentSchema"];
            let text = answer.text();
            let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
            let data = data.map(|data| serde_json::from_str(data).expect("data is JSON"));
            data.flat_map(|data| errors(schema, &data, "")).collect()
        }
        json if json.ends_with("json") => errors(schema, &answer.json(), ""),
        _ => Vec::new(),
    };
    assert!(found.is_empty(), "{found:#?}\n{told}");
}

/// Method and path of all routes, as the source of the router makes them.
fn routes() -> BTreeSet<(&'static str, &'static str)> {
    let routed = ROUTER.split_once("Router::new()").expect("there is one").1;
    let (routed, rest) = routed.split_once(".fallback(").expect("it has an end");
    assert!(!rest.contains(".route("), "a route behind the fallback");
    let mut routes = BTreeSet::new();
    for route in routed.split(".route(").skip(1) {
        let path = route.split('"').nth(1).expect("a route has a path");
        let is_called = |method: &&str| {
            let call = |before: &str| route.contains(&format!("{before}{method}("));
            call(" ") || call(".")
        };
        let before = routes.len();
        let methods = METHODS.into_iter().filter(is_called);
        routes.extend(methods.map(|method| (method, path)));
        assert!(routes.len() > before, "no method is routed at `{path}`");
    }
    routes
}

#[test]
fn routes_are_those_of_the_document() {
    let documented = operations().map(|(method, path, ..)| (method, path));
    assert_eq!(documented.collect::<BTreeSet<_>>(), routes());
}

#[test]
fn lists_are_those_of_the_document() {
    assert_eq!(REFERENCE["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schemas = &REFERENCE["components"]["schemas"];
    // Whoever reads a code that is none is told of all.
    let none = serde_json::from_value::<ErrorCode>(json!("none"));
    let none = none.expect_err("no code").to_string();
    let codes: Vec<&str> = none.split('`').skip(3).step_by(2).collect();
    assert_eq!(schemas["ErrorCode"]["enum"], json!(codes));
    let limits = LimitKind::ALL.map(|limit| limit.to_string());
    assert_eq!(schemas["Limit"]["enum"], json!(limits));
}

/// A server whose answers are held against the document, and the operations that have succeeded.
struct Walk(Server, BTreeSet<&'static str>);

impl Walk {
    /// Asks, as the operation's id says.
    fn ask(&mut self, asked: &str, status: u16, request: &Request) -> Response {
        let answer = self.0.ask(request);
        let found = operations().find(|(_, _, id, _)| *id == asked);
        let (_, _, id, operation) = found.unwrap_or_else(|| panic!("there is no `{asked}`"));
        check(
            id,
            &operation["responses"][answer.status.to_string()],
            &answer,
        );
        assert_eq!(answer.status, status, "{id}: {}", answer.text());
        if status < 300 {
            self.1.insert(id);
        }
        answer
    }

    /// Runs a job and looks at all there is of it. Gives its id.
    fn job(&mut self, job: &Value, status: &str) -> String {
        let document = &REFERENCE["components"]["schemas"]["JobDocument"];
        assert_eq!(errors(document, job, ""), [] as [String; 0]);
        let accepted = self.ask("submitJob", 201, &Request::json("/v1/jobs", job));
        let id = job::id_of(&accepted.json());
        self.ask(
            "followJob",
            200,
            &request("get", "/v1/jobs/{id}/events", &id),
        );
        let ended = job::wait(&self.0, &id);
        assert_eq!(ended["status"], status, "{ended:#}");
        self.look([200, 202], &id);
        let list = request("get", "/v1/jobs/{id}/events", &id);
        self.ask("followJob", 200, &list.header("accept", "application/json"));
        id
    }

    /// Asks for all there is of a job, and has it cancelled.
    fn look(&mut self, [status, cancelled]: [u16; 2], job: &str) {
        for (method, path, id, _) in operations() {
            // Rows are those of an output, which the job must have.
            if path.starts_with("/v1/jobs/{id}") && id != "readRows" {
                let status = if method == "get" { status } else { cancelled };
                self.ask(id, status, &request(method, path, job));
            }
        }
    }
}

/// A request without a body, with `filling` in all places that the path leaves open.
fn request(method: &str, path: &str, filling: &str) -> Request {
    let parts = path.split('/');
    let parts = parts.map(|part| if part.starts_with('{') { filling } else { part });
    let path = parts.collect::<Vec<_>>().join("/");
    match method {
        "get" => Request::get(path),
        _ => Request::post(path, "application/json", Vec::new()),
    }
}

#[test]
fn answers_are_those_of_the_document() {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let server = Server::start(&place.data(), &Setup::default());
    // From here on an executor is ready.
    job::run(&server, &job::noop(1));
    let mut walk = Walk(server, BTreeSet::new());
    let served = walk.ask("openapi", 200, &Request::get("/v1/openapi.json"));
    assert!(served.text() == DOCUMENT, "another one is served");
    let (mirror, junk) = (guests::bytes("mirror"), b"junk".to_vec());
    // A custom section more makes it another component.
    let other = [&mirror[..], b"\0\x05\x04note"].concat();
    for (status, body, header, value) in [
        (201, &mirror, "x-none", ""),
        (200, &mirror, "x-none", ""),
        (400, &junk, "x-none", ""),
        (409, &other, "x-none", ""),
        (413, &junk, "content-length", "1000000000"),
        (415, &junk, "content-type", "text/plain"),
    ] {
        let upload = Request::component(body.clone()).header(header, value);
        walk.ask("uploadComponent", status, &upload);
    }
    let weblog = job::weblog(&fixture.logs(), &place.out());
    let ended = walk.job(&weblog, "succeeded");
    walk.job(&weblog, "failed");
    let (deed, lines) = (json!({ "deed": "spin" }), place.path("lines.txt"));
    std::fs::write(&lines, "one\ntwo\n").expect("it writes");
    let mut spin = job::map("vandal/misbehave", &deed, &lines, &place.path("spin"));
    spin["limits"] = json!({ "cpu": "200ms" });
    walk.job(&spin, "failed");
    walk.look([404, 404], "job-00000000000000000000000000");

    let unknown = json!({ "name": "n", "stage": [{ "name": "n", "task": "no/no", "count": 1 }] });
    for (id, path) in [("submitJob", "/v1/jobs"), ("checkJob", "/v1/jobs/check")] {
        walk.ask(id, 400, &Request::json(path, &json!({})));
        walk.ask(id, 422, &Request::json(path, &unknown));
        walk.ask(id, 413, &Request::json(path, &json!(" ".repeat(1 << 20))));
        walk.ask(id, 415, &Request::post(path, "text/plain", Vec::new()));
    }
    let noop = job::noop(1);
    for (job, submitted, checked) in [(&noop, 201, 200), (&noop, 200, 200), (&weblog, 409, 409)] {
        let submit = Request::json("/v1/jobs", job).header("idempotency-key", "key");
        walk.ask("submitJob", submitted, &submit);
        walk.ask("checkJob", checked, &Request::json("/v1/jobs/check", job));
    }
    for (path, status, input_bytes) in [
        ("hello/echo", 200, 1),
        ("hello/echo", 200, 1),
        ("hello/echo", 409, 2),
        ("hello/echo", 413, (8 << 20) + 1),
        ("hello/echo?deadline_ms=0", 400, 1),
        ("hello/none", 422, 1),
    ] {
        let path = format!("/v1/invoke/{path}");
        let invoke = Request::post(path, "text/plain", vec![0; input_bytes]);
        walk.ask("invoke", status, &invoke.header("idempotency-key", "key"));
    }
    for (kind, status) in [
        ("text/csv", 200),
        ("application/json", 415),
        ("text/plain", 422),
    ] {
        let stream = Request::post("/v1/invoke/hello/greet", kind, b"name\nada\n".to_vec());
        walk.ask("invoke", status, &stream);
    }
    task_sets(&mut walk, &ended);
    let view = json!({ "name": "v", "stage": [{ "name": "v", "sql": "CREATE VIEW one AS SELECT 1 AS a" }] });
    walk.job(&view, "succeeded");
    let of_job = |name: &str| format!("/v1/jobs/{ended}/{name}?cursor=");
    let rows = |output: &str| format!("/v1/jobs/{ended}/outputs/{output}");
    for (id, status, path) in [
        ("health", 200, "/v1/health"),
        ("metrics", 200, "/metrics"),
        ("showUsage", 200, "/v1/usage"),
        ("showUsage", 400, "/v1/usage?from_ms=2&to_ms=1"),
        ("showUsage", 400, "/v1/usage?none=1"),
        ("listNodes", 200, "/v1/nodes"),
        ("showCluster", 200, "/v1/cluster"),
        ("whyQueue", 200, "/v1/queue"),
        ("whyJob", 200, &format!("/v1/jobs/{ended}/why")),
        (
            "whyJob",
            200,
            &format!("/v1/jobs/{ended}/why?stage=visits&task=0"),
        ),
        ("whyJob", 400, &format!("/v1/jobs/{ended}/why?task=0")),
        ("whyJob", 400, &format!("/v1/jobs/{ended}/why?none=0")),
        ("whyJob", 404, "/v1/jobs/job-none/why"),
        ("readRows", 200, &rows("daily/rows?format=csv&limit=1")),
        ("readRows", 400, &rows("daily/rows?format=parquet")),
        ("readRows", 400, &rows("daily/rows?limit=all")),
        ("readRows", 400, &rows("daily/rows?none=1")),
        ("readRows", 404, &rows("none/rows")),
        (
            "readRows",
            404,
            "/v1/jobs/job-00000000000000000000000000/outputs/daily/rows",
        ),
        ("listJobs", 200, "/v1/jobs"),
        ("listJobs", 400, "/v1/jobs?cursor=a&cursor=b"),
        ("listJobs", 400, "/v1/jobs?cursor=none"),
        ("listTasks", 400, &of_job("tasks")),
        ("listLogs", 400, &of_job("logs")),
        ("listTables", 200, "/v1/tables"),
        ("listTables", 400, "/v1/tables?cursor=none"),
        ("showTable", 200, "/v1/tables/one"),
        ("showTable", 404, "/v1/tables/none"),
        ("listComponents", 200, "/v1/components"),
        ("listComponents", 400, "/v1/components?cursor=none"),
        ("showComponent", 200, "/v1/components/hello"),
        ("showComponent", 400, "/v1/components/%ff"),
        ("showComponentVersion", 200, "/v1/components/hello/0.1.0"),
        ("showComponentVersion", 404, "/v1/components/hello/9.9.9"),
    ] {
        walk.ask(id, status, &Request::get(path));
    }
    for status in [200, 404] {
        let drop = Request::get("/v1/tables/one").method("DELETE");
        walk.ask("dropTable", status, &drop);
    }
    actors(&mut walk);
    strangers_and_strays(&mut walk);
    // A server with one node refuses to drain it: `cluster.rs` drains one of two.
    walk.ask(
        "drainNode",
        429,
        &Request::post("/v1/nodes/local/drain", "", Vec::new()),
    );
    walk.ask(
        "drainNode",
        404,
        &Request::post("/v1/nodes/none/drain", "", Vec::new()),
    );
    // `members.rs` removes a member of a group.
    let member = |member: u64, method: &'static str| {
        let path = format!("/v1/cluster/members/{member}");
        Request::get(path).method(method)
    };
    for (id, status, request) in [
        ("addMember", 202, member(1, "PUT")),
        ("addMember", 409, member(2, "PUT")),
        ("removeMember", 409, member(1, "DELETE")),
        ("removeMember", 404, member(2, "DELETE")),
    ] {
        walk.ask(id, status, &request);
    }
    let elsewhere = ["drainNode", "removeMember"];
    let all = operations()
        .map(|(_, _, id, _)| id)
        .filter(|id| !elsewhere.contains(id));
    assert_eq!(walk.1, all.collect(), "each has succeeded once");
}

/// Runs a set of tasks, and looks at all there is of it. `job` is no such set.
fn task_sets(walk: &mut Walk, job: &str) {
    let path = "/v1/tasks";
    let set = json!({ "function": "hello/echo", "count": 2, "input": "hi" });
    let document = &REFERENCE["components"]["schemas"]["TaskSetDocument"];
    assert_eq!(errors(document, &set, ""), [] as [String; 0]);
    let (unknown, other) = (
        json!({ "function": "no/no" }),
        json!({ "function": "hello/echo" }),
    );
    let keyed = |set: &Value| Request::json(path, set).header("idempotency-key", "set");
    let accepted = walk.ask("submitTaskSet", 201, &keyed(&set));
    let id = job::id_of(&accepted.json());
    for (status, request) in [
        (200, keyed(&set)),
        (409, keyed(&other)),
        (400, Request::json(path, &json!({}))),
        (422, Request::json(path, &unknown)),
        (413, Request::json(path, &json!(" ".repeat(1 << 20)))),
        (415, Request::post(path, "text/plain", Vec::new())),
    ] {
        walk.ask("submitTaskSet", status, &request);
    }
    assert_eq!(job::wait(&walk.0, &id)["status"], "succeeded");
    for (status, id) in [(200, id.as_str()), (404, job), (404, "job-none")] {
        let path = format!("/v1/tasks/{id}");
        walk.ask("showTaskSet", status, &Request::get(&path));
        let results = Request::get(format!("{path}/results?limit=1"));
        walk.ask("readTaskResults", status, &results);
        let status = if status == 200 { 202 } else { status };
        walk.ask(
            "cancelTaskSet",
            status,
            &Request::get(path).method("DELETE"),
        );
    }
    let none = Request::get(format!("/v1/tasks/{id}/results?none=1"));
    walk.ask("readTaskResults", 400, &none);
}

/// Invokes an actor, and looks at it.
fn actors(walk: &mut Walk) {
    let bank = Request::component(guests::bytes("bank"));
    walk.ask("uploadComponent", 201, &bank);
    let deposit = br#"{"amount":1}"#.to_vec();
    let (long, large) = ("k".repeat(513), vec![0; (1 << 20) + 1]);
    for (actor, status, input) in [
        ("bank/account/ada/deposit", 200, &deposit),
        ("bank/account/ada/deposit", 200, &deposit),
        ("bank/account/ada/deposit", 409, &b"{}".to_vec()),
        ("bank/account/ada/nothing", 409, &deposit),
        ("bank/account/bob/nothing", 422, &deposit),
        ("bank/account/ada/deposit?deadline_ms=0", 400, &deposit),
        ("bank/account/ada/deposit?none=0", 400, &deposit),
        ("bank@0.1.0/account/ada/deposit", 400, &deposit),
        (&format!("bank/account/{long}/deposit"), 400, &deposit),
        ("bank/none/ada/deposit", 422, &deposit),
        ("bank/account/ada/deposit", 413, &large),
    ] {
        let path = format!("/v1/actors/{actor}");
        let invoke = Request::post(path, "application/json", input.clone());
        walk.ask(
            "invokeActor",
            status,
            &invoke.header("idempotency-key", "key"),
        );
    }
    for (id, status, path) in [
        ("showActor", 200, "bank/account/ada"),
        ("showActor", 404, "bank/account/nobody"),
        ("showActor", 400, "bank/account/%00"),
        ("listActors", 200, "bank/account"),
        ("listActors", 200, "bank/account?after=a&limit=1"),
        ("listActors", 400, "bank/account?limit=0"),
        ("listActors", 400, "bank/account?none=1"),
        ("listActors", 400, "bank@0.1.0/account"),
        ("listActors", 422, "bank/none"),
    ] {
        walk.ask(id, status, &Request::get(format!("/v1/actors/{path}")));
    }
    let delete = Request::get("/v1/actors/bank/account/ada").method("DELETE");
    for _ in 0..2 {
        walk.ask("deleteActor", 204, &delete);
    }
}

/// What every path has in common.
fn strangers_and_strays(walk: &mut Walk) {
    for (method, path, id, operation) in operations() {
        let request = request(method, path, "x");
        // Everybody may ask whether the server is there.
        let status = if id == "health" { 200 } else { 403 };
        walk.ask(id, status, &request.clone().header("origin", "http://evil"));
        if operation.get("security").is_none() {
            walk.ask(id, 401, &request.header("authorization", ""));
        }
    }
    let routes = routes();
    let paths = routes.iter().map(|(_, path)| *path);
    for path in paths.chain(["/none"]) {
        let (status, named) = match path {
            "/none" => (404, "NoSuchPath"),
            _ => (405, "NoSuchMethod"),
        };
        for method in ["get", "post"] {
            if !routes.contains(&(method, path)) {
                let answer = walk.0.ask(&request(method, path, "x"));
                assert_eq!(answer.status, status, "{method} {path}");
                check(path, &REFERENCE["components"]["responses"][named], &answer);
            }
        }
    }
}
