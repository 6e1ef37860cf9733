//! The reference of the API against the router and its answers: all that is there is in the document, and all that the document
//! tells of is there.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_core::{ErrorCode, LimitKind};

use crate::fixture::{Fixture, Place};
use crate::http::{Request, Response};
use crate::server::{Server, Setup};
use crate::{guests, job};

const DOCUMENT: &str = include_str!("../../src/api/openapi.json");
const ROUTER: &str = include_str!("../../src/api/mod.rs");

/// Methods, as the document calls them and the functions that route them.
const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// Words of schemas that are for people, or that are not looked at here.
const UNCHECKED: &str = "contentMediaType contentSchema default description examples format maxItems maxLength maximum \
    minItems minLength not pattern propertyNames properties additionalProperties";

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

struct Reference(Value);

impl Reference {
    fn new() -> Reference {
        Reference(serde_json::from_str(DOCUMENT).expect("the document is JSON"))
    }

    /// Method, path, and what the document says of it.
    fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        members(&self.0["paths"]).flat_map(|(path, operations)| {
            members(operations).map(move |(method, operation)| (method, path, operation))
        })
    }

    /// What stands where a `$ref` leads to.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else {
            return value;
        };
        let target = self.0.pointer(reference.trim_start_matches('#'));
        target.unwrap_or_else(|| panic!("`{reference}` leads nowhere"))
    }

    /// What is wrong with `value`. Members that an object's schema does not name are, unless it takes all.
    fn errors(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let mut errors = Vec::new();
        let inner = |schema: &Value| self.errors(schema, value, at);
        for (word, said) in members(schema) {
            let fitting = || items(said).filter(|one| inner(one).is_empty()).count();
            let is_missing = |name: &Value| value.get(name.as_str().unwrap_or("")).is_none();
            let wrong = match word {
                "type" => *said != kind(value) && !items(said).any(|one| *one == kind(value)),
                "const" => value != said,
                "enum" => !items(said).any(|one| one == value),
                "minimum" => value.is_number() && value.as_f64() < said.as_f64(),
                "required" => value.is_object() && items(said).any(is_missing),
                "oneOf" => fitting() != 1,
                "anyOf" => fitting() == 0,
                _ => false,
            };
            if wrong {
                errors.push(format!("{at}: {value} is not `{word}: {said}`"));
            }
            match word {
                "$ref" => errors.extend(inner(self.resolved(schema))),
                "allOf" => errors.extend(items(said).flat_map(inner)),
                "items" => errors.extend(items(value).flat_map(|item| self.errors(said, item, at))),
                "type" | "const" | "enum" | "minimum" | "required" | "oneOf" | "anyOf" => {}
                other => assert!(UNCHECKED.contains(other), "{at}: a schema says `{other}`"),
            }
        }
        let (named, others) = (&schema["properties"], &schema["additionalProperties"]);
        let is_open = named.is_null() || schema["type"] != "object";
        for (name, member) in members(value) {
            let at = format!("{at}/{name}");
            match (named.get(name), others) {
                (Some(schema), _) => errors.extend(self.errors(schema, member, &at)),
                (None, Value::Object(_)) => errors.extend(self.errors(others, member, &at)),
                (None, Value::Null) if is_open => {}
                (None, _) => errors.push(format!("{at}: is not in the document")),
            }
        }
        errors
    }

    /// Panics unless `answer` is one of `responses`.
    fn check(&self, what: &str, responses: &Value, answer: &Response) {
        let told = format!("{what} answered {}: {}", answer.status, answer.text());
        let response = responses.get(answer.status.to_string());
        let response = self.resolved(response.unwrap_or_else(|| panic!("no such status: {told}")));
        for (name, header) in members(&response["headers"]) {
            let is_there = answer.header(&name.to_ascii_lowercase()).is_some();
            let is_required = self.resolved(header)["required"] == true;
            assert!(is_there || !is_required, "no `{name}`: {told}");
        }
        let kind = answer.header("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default();
        let content = response["content"].get(kind);
        let schema = &content.unwrap_or_else(|| panic!("no type `{kind}`: {told}"))["schema"];
        let errors = match kind {
            "text/event-stream" => {
                let schema = &schema["properties"]["data"]["contentSchema"];
                let text = answer.text();
                let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
                let data = data.map(|data| serde_json::from_str(data).expect("data is JSON"));
                data.flat_map(|data| self.errors(schema, &data, ""))
                    .collect()
            }
            json if json.ends_with("json") => self.errors(schema, &answer.json(), ""),
            _ => Vec::new(),
        };
        assert!(errors.is_empty(), "{errors:#?}\n{told}");
    }
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
            let call = format!("{method}(");
            let mut places = route.match_indices(&call).map(|(at, _)| &route[..at]);
            places.any(|before| before.ends_with([' ', '.', ',']))
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
    let reference = Reference::new();
    let documented = reference.operations();
    let documented: BTreeSet<_> = documented.map(|(method, path, _)| (method, path)).collect();
    assert_eq!(documented, routes());
}

#[test]
fn lists_are_those_of_the_document() {
    let reference = Reference::new();
    assert_eq!(reference.0["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schemas = &reference.0["components"]["schemas"];
    // Whoever reads a code that is none is told of all.
    let none = serde_json::from_value::<ErrorCode>(json!("none")).expect_err("no code");
    let none = none.to_string();
    let (_, codes) = none.split_once("one of ").expect("a list");
    let codes: Vec<&str> = codes.split('`').skip(1).step_by(2).collect();
    assert_eq!(schemas["ErrorCode"]["enum"], json!(codes));
    let limits = LimitKind::ALL.map(|limit| limit.to_string());
    assert_eq!(schemas["Limit"]["enum"], json!(limits));
}

/// A server whose answers are held against the document.
struct Walk {
    // Dropped first: its folders are in use until then.
    server: Server,
    place: Place,
    reference: Reference,
    /// Operations that have succeeded.
    done: BTreeSet<String>,
}

impl Walk {
    /// Asks, as the operation's id says.
    fn ask(&mut self, id: &str, status: u16, request: &Request) -> Response {
        let answer = self.server.ask(request);
        let mut operations = self.reference.operations();
        let found = operations.find(|(.., operation)| operation["operationId"] == id);
        let (.., operation) = found.unwrap_or_else(|| panic!("there is no `{id}`"));
        self.reference.check(id, &operation["responses"], &answer);
        assert_eq!(answer.status, status, "{id}: {}", answer.text());
        if status < 300 {
            self.done.insert(id.into());
        }
        answer
    }

    /// Runs a job and looks at all there is of it. Gives its id.
    fn job(&mut self, job: &Value, status: &str) -> String {
        let document = &self.reference.0["components"]["schemas"]["JobDocument"];
        let errors = self.reference.errors(document, job, "");
        assert!(errors.is_empty(), "{errors:#?}");
        let accepted = self.ask("submitJob", 201, &Request::json("/v1/jobs", job));
        let id = job::id_of(&accepted.json());
        let events = format!("/v1/jobs/{id}/events");
        self.ask("followJob", 200, &Request::get(events));
        let ended = job::wait(&self.server, &id);
        assert_eq!(ended["status"], status, "{ended:#}");
        self.look([200, 202], &id);
        id
    }

    fn look(&mut self, [status, cancelled]: [u16; 2], id: &str) {
        for (operation, name) in [
            ("showJob", ""),
            ("listStages", "/stages"),
            ("listTasks", "/tasks"),
            ("followJob", "/events"),
            ("listLogs", "/logs"),
            ("showReceipt", "/receipt"),
        ] {
            let request = Request::get(format!("/v1/jobs/{id}{name}"));
            self.ask(operation, status, &request);
        }
        let cancel = Request::post(format!("/v1/jobs/{id}/cancel"), "", Vec::new());
        self.ask("cancelJob", cancelled, &cancel);
    }

    /// A job of the vandal.
    fn deed(&self, deed: &str) -> Value {
        let input = self.place.path("lines.txt");
        std::fs::write(&input, "one\ntwo\n").expect("it writes");
        let (params, out) = (json!({ "deed": deed }), self.place.path(deed));
        job::map("vandal/misbehave", &params, &input, &out)
    }
}

#[test]
fn answers_are_those_of_the_document() {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let mut walk = Walk {
        server: Server::start(&place.data(), &Setup::default()),
        place,
        reference: Reference::new(),
        done: BTreeSet::new(),
    };
    // From here on an executor is ready.
    job::run(&walk.server, &job::noop(1));
    let served = walk.ask("openapi", 200, &Request::get("/v1/openapi.json"));
    assert_eq!(served.text(), DOCUMENT);
    for (status, request) in uploads() {
        walk.ask("uploadComponent", status, &request);
    }

    let weblog = job::weblog(&fixture.logs(), &walk.place.out());
    let ended = walk.job(&weblog, "succeeded");
    walk.job(&weblog, "failed");
    let mut spin = walk.deed("spin");
    spin["limits"] = json!({ "cpu": "200ms" });
    walk.job(&spin, "failed");
    walk.job(&walk.deed("trap"), "failed");
    walk.look([404, 404], "job-00000000000000000000000000");

    let unknown = json!({ "name": "n", "stage": [{ "name": "n", "task": "no/no", "count": 1 }] });
    for (id, path) in [("submitJob", "/v1/jobs"), ("checkJob", "/v1/jobs/check")] {
        walk.ask(id, 400, &Request::json(path, &json!({})));
        walk.ask(id, 422, &Request::json(path, &unknown));
        let large = json!(" ".repeat(1 << 20));
        walk.ask(id, 413, &Request::json(path, &large));
        walk.ask(id, 415, &Request::post(path, "text/plain", Vec::new()));
    }
    for (job, [submitted, checked]) in [
        (&job::noop(1), [201, 200]),
        (&job::noop(1), [200, 200]),
        (&weblog, [409, 409]),
    ] {
        let submit = Request::json("/v1/jobs", job).header("idempotency-key", "key");
        walk.ask("submitJob", submitted, &submit);
        let check = Request::json("/v1/jobs/check", job);
        walk.ask("checkJob", checked, &check);
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
    for (id, status, path) in [
        ("health", 200, "/v1/health"),
        ("metrics", 200, "/metrics"),
        ("showUsage", 200, "/v1/usage"),
        ("showUsage", 400, "/v1/usage?from_ms=2&to_ms=1"),
        ("showUsage", 400, "/v1/usage?none=1"),
        ("listNodes", 200, "/v1/nodes"),
        ("listJobs", 200, "/v1/jobs"),
        ("listJobs", 400, "/v1/jobs?cursor=a&cursor=b"),
        ("listTasks", 400, &format!("/v1/jobs/{ended}/tasks?cursor=")),
        ("listLogs", 400, &format!("/v1/jobs/{ended}/logs?cursor=")),
        ("listComponents", 200, "/v1/components"),
        ("listComponents", 400, "/v1/components?cursor=none"),
        ("showComponent", 200, "/v1/components/hello"),
        ("showComponent", 400, "/v1/components/%ff"),
        ("showComponent", 404, "/v1/components/none"),
        ("showComponentVersion", 200, "/v1/components/hello/0.1.0"),
        ("showComponentVersion", 404, "/v1/components/hello/9.9.9"),
    ] {
        walk.ask(id, status, &Request::get(path));
    }
    strangers_and_strays(&mut walk);
    let operations = Reference::new();
    let operations = operations.operations();
    let ids = operations.map(|(.., operation)| operation["operationId"].as_str().expect("an id"));
    let left: Vec<_> = ids.filter(|id| !walk.done.contains(*id)).collect();
    assert!(left.is_empty(), "nobody asked for {left:?}");
}

fn uploads() -> [(u16, Request); 6] {
    let mirror = || guests::bytes("mirror");
    // A custom section more makes it another component.
    let other = [mirror(), b"\0\x05\x04note".to_vec()].concat();
    let junk = Request::component(b"junk".to_vec());
    let large = junk.clone().header("content-length", "1000000000");
    [
        (201, Request::component(mirror())),
        (200, Request::component(mirror())),
        (409, Request::component(other)),
        (413, large),
        (415, junk.clone().header("content-type", "text/plain")),
        (400, junk),
    ]
}

/// What every path has in common.
fn strangers_and_strays(walk: &mut Walk) {
    let reference = Reference::new();
    let routes = routes();
    let stray = &reference.0["components"]["responses"];
    let stray = json!({ "404": stray["NoSuchPath"], "405": stray["NoSuchMethod"] });
    let request = |method: &str, path: &str| {
        let parts = path.split('/');
        let parts = parts.map(|part| if part.starts_with('{') { "x" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        match method {
            "get" => Request::get(path),
            _ => Request::post(path, "application/json", Vec::new()),
        }
    };
    for (method, path, operation) in reference.operations() {
        let id = operation["operationId"].as_str().expect("an id");
        let request = request(method, path);
        let foreign = request.clone().header("origin", "http://evil.example");
        walk.ask(id, 403, &foreign);
        if operation.get("security").is_none() {
            walk.ask(id, 401, &request.header("authorization", ""));
        }
    }
    for path in routes.iter().map(|(_, path)| *path).chain(["/none"]) {
        for method in ["get", "post"] {
            if !routes.contains(&(method, path)) {
                let answer = walk.server.ask(&request(method, path));
                let expected = if path == "/none" { 404 } else { 405 };
                assert_eq!(answer.status, expected, "{method} {path}");
                reference.check(path, &stray, &answer);
            }
        }
    }
}
