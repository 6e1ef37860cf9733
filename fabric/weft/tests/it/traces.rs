//! Traces, as a collector gets them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;

use crate::clock::eventually;
use crate::fixture::{Fixture, Place};
use crate::http::Request;
use crate::job;
use crate::server::{Server, Setup};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// Takes spans over HTTP until the test ends.
struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it listens"));
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let kept = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let request = ExportTraceServiceRequest::decode(&*body(stream)).expect("OTLP");
                let scopes = request.resource_spans.into_iter();
                let scopes = scopes.flat_map(|resource| resource.scope_spans);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(scopes.flat_map(|scope| scope.spans));
            }
        });
        Collector { endpoint, spans }
    }

    fn server(&self, place: &Place) -> Server {
        let setup = Setup::default()
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", &self.endpoint)
            .with("OTEL_BSP_SCHEDULE_DELAY", "50");
        Server::start(&place.data(), &setup)
    }

    /// The spans of the client's trace, once one with this name is among them.
    fn trace_with(&self, name: &str) -> Trace {
        eventually(name, || {
            let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
            let of_client = spans.iter().filter(|span| hex(&span.trace_id) == TRACE);
            let trace = Trace(of_client.cloned().collect());
            trace
                .0
                .iter()
                .any(|span| span.name == name)
                .then_some(trace)
        })
    }
}

/// Reads a request, answers it, returns its body.
fn body(stream: TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    reader
        .get_mut()
        .write_all(answer)
        .expect("it takes answers");
    body
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The request as a part of the client's trace.
fn traced(request: Request) -> Request {
    request.header("traceparent", format!("00-{TRACE}-{CLIENT}-01"))
}

/// Deploys what echoes, and calls it until an executor answers.
fn warm_up(server: &Server) {
    job::deploy(server, "mirror");
    let call = Request::post("/v1/invoke/mirror/echo", "text/plain", Vec::new());
    eventually("an executor answers", || {
        (server.ask(&call).status == 200).then_some(())
    });
}

struct Trace(Vec<Span>);

impl Trace {
    /// The names from the client's span down to each span called `name`.
    fn paths(&self, name: &str) -> Vec<String> {
        self.named(name).map(|span| self.path(span)).collect()
    }

    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Span> {
        self.0.iter().filter(move |span| span.name == name)
    }

    /// What is wrong with the one span of this name.
    fn error(&self, name: &str) -> String {
        let found: Vec<_> = self.named(name).map(|span| span.status.clone()).collect();
        let [Some(status)] = found.as_slice() else {
            panic!("`{name}`: {found:?}");
        };
        status.message.clone()
    }

    fn path(&self, span: &Span) -> String {
        if hex(&span.parent_span_id) == CLIENT {
            return span.name.clone();
        }
        let parent = self.0.iter().find(|one| one.span_id == span.parent_span_id);
        let parent = parent.unwrap_or_else(|| panic!("`{}` has no parent", span.name));
        assert!(
            parent.start_time_unix_nano <= span.start_time_unix_nano,
            "`{}` begins before `{}`",
            span.name,
            parent.name
        );
        format!("{} > {}", self.path(parent), span.name)
    }
}

#[test]
fn a_call_is_traced_from_its_client_to_its_guest() {
    let collector = Collector::start();
    let place = Place::with_components(&Fixture::shared());
    let server = collector.server(&place);
    warm_up(&server);
    let call = Request::post("/v1/invoke/mirror/echo", "text/plain", b"hello".to_vec());
    assert_eq!(server.ask(&traced(call)).status, 200);
    let route = "POST /v1/invoke/{component}/{function}";
    let trace = collector.trace_with(route);
    assert_eq!(
        trace.paths("guest"),
        [format!("{route} > invoke > execute > guest")]
    );
    assert_eq!(trace.0.len(), 4);
}

#[test]
fn a_job_is_traced_from_its_client_to_its_guests() {
    let collector = Collector::start();
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let server = collector.server(&place);
    let submit = Request::json("/v1/jobs", &job::weblog(&fixture.logs(), &place.out()));
    let id = job::id_of(&server.ask(&traced(submit)).json());
    let ended = job::wait(&server, &id);
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    // It comes last.
    let trace = collector.trace_with("job");
    let job = "POST /v1/jobs > job";
    for step in ["plan", "publish"] {
        assert_eq!(trace.paths(step), [format!("{job} > {step}")]);
    }
    let tasks = server.ask(&Request::get(format!("/v1/jobs/{id}/tasks")));
    let n_tasks = tasks.json()["items"].as_array().expect("a list").len();
    let execute = format!("{job} > task > execute");
    assert_eq!(trace.paths("execute"), vec![execute.clone(); n_tasks]);
    let guests = trace.paths("guest");
    let expected = format!("{execute} > guest");
    assert!(guests.iter().all(|path| *path == expected), "{guests:?}");
    let parents = trace.named("guest").map(|span| &span.parent_span_id);
    let executed = trace.named("execute").map(|span| &span.span_id);
    assert_eq!(
        parents.collect::<BTreeSet<_>>(),
        executed.collect::<BTreeSet<_>>(),
        "every task has a guest"
    );
}

#[test]
fn what_fails_says_why() {
    let collector = Collector::start();
    let place = Place::with_components(&Fixture::shared());
    let server = collector.server(&place);
    warm_up(&server);
    job::deploy(&server, "vandal");
    let call = Request::post(
        "/v1/invoke/vandal/spin-for-ever?deadline_ms=200",
        "text/plain",
        Vec::new(),
    );
    assert_eq!(server.ask(&traced(call)).status, 422);
    let trace = collector.trace_with("invoke");
    let said = trace.error("invoke");
    assert!(said.contains("its deadline of 200 ms"), "{said}");
    // It ends before its first step.
    let missing = place.path("none.txt");
    let job = job::map("mirror/copy", &json!({}), &missing, &place.out());
    let submit = traced(Request::json("/v1/jobs", &job));
    let ended = job::wait(&server, &job::id_of(&server.ask(&submit).ok()));
    assert_eq!(ended["problem"]["code"], "no_input", "{ended:#}");
    let said = collector.trace_with("job").error("job");
    assert!(said.contains("matches no file"), "{said}");
}

/// Nobody waits for a collector that is not there.
#[test]
fn a_server_without_its_collector_serves_and_stops() {
    let place = Place::with_components(&Fixture::shared());
    // Nobody listens on a port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("it listens"));
    drop(listener);
    let setup = Setup::default().with("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint);
    let server = Server::start(&place.data(), &setup);
    warm_up(&server);
    let call = Request::post("/v1/invoke/mirror/echo", "text/plain", b"hello".to_vec());
    assert_eq!(server.ask(&call).status, 200);
    assert!(server.stop().success());
}

/// A collector that cannot be reached is told of at once, not by spans that never come.
#[test]
fn collectors_that_need_tls_are_refused() {
    let place = Place::new();
    let setup = Setup::default().with("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318");
    let refused = Server::try_start(&place.data(), &setup);
    let said = refused.err().expect("it does not start");
    assert!(said.contains("`http://` alone"), "{said}");
}
