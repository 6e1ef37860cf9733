//! Flight SQL, as a driver speaks it: gRPC over HTTP/2 with messages that are written here anew.

use std::fs;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{EncodedData, IpcWriteOptions, write_message};
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::clock::eventually;
use crate::fixture::Place;
use crate::http::Request;
use crate::job;
use crate::server::{Server, Setup};

const TYPES: &str = "type.googleapis.com/arrow.flight.protocol.sql.";
/// A statement that does not end in the time of a test.
const ENDLESS: &str = "SELECT count(a.value + b.value) AS n \
                       FROM generate_series(1, 3000000) a, generate_series(1, 3000000) b";

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Any message of one text or of some bytes, which are encoded alike.
#[derive(Clone, PartialEq, Message)]
struct One {
    #[prost(bytes = "vec", tag = "1")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Descriptor {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    cmd: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Endpoint {
    #[prost(message, optional, tag = "1")]
    ticket: Option<One>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(bytes = "vec", tag = "1")]
    schema: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    endpoint: Vec<Endpoint>,
    #[prost(int64, tag = "4")]
    total_records: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Data {
    #[prost(message, optional, tag = "1")]
    descriptor: Option<Descriptor>,
    #[prost(bytes = "vec", tag = "2")]
    header: Vec<u8>,
    #[prost(bytes = "vec", tag = "1000")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Action {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Count {
    #[prost(int64, tag = "1")]
    rows: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GetTables {
    #[prost(string, optional, tag = "3")]
    name: Option<String>,
    #[prost(bool, tag = "5")]
    with_schemas: bool,
}

fn pack(name: &str, message: &impl Message) -> Vec<u8> {
    let any = Any {
        type_url: format!("{TYPES}{name}"),
        value: message.encode_to_vec(),
    };
    any.encode_to_vec()
}

fn one(value: impl Into<Vec<u8>>) -> One {
    One {
        value: value.into(),
    }
}

fn command(cmd: Vec<u8>) -> Descriptor {
    Descriptor { kind: 2, cmd }
}

fn query(sql: &str) -> Descriptor {
    command(pack("CommandStatementQuery", &one(sql)))
}

/// An answer: its messages, and its status.
struct Answer {
    messages: Vec<Bytes>,
    code: String,
    message: String,
    weft_code: Option<String>,
}

impl Answer {
    /// The messages of a success.
    #[track_caller]
    fn ok<M: Message + Default>(self) -> Vec<M> {
        assert_eq!(self.code, "0", "{}", self.message);
        let read = |message: Bytes| M::decode(message).expect("a message");
        self.messages.into_iter().map(read).collect()
    }

    #[track_caller]
    fn only<M: Message + Default>(self) -> M {
        let mut messages = self.ok();
        assert_eq!(messages.len(), 1);
        messages.remove(0)
    }

    #[track_caller]
    fn refused(self, code: &str, words: &str) {
        assert_eq!(self.code, code, "{}", self.message);
        assert!(self.message.contains(words), "{}", self.message);
    }
}

/// A client, on a connection of its own.
struct Driver {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    address: String,
    token: String,
}

impl Driver {
    fn connect(server: &Server) -> Driver {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let address = server.address.to_string();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(&address).await;
            let stream = TokioIo::new(stream.expect("the server listens"));
            let (sender, connection) = handshake(TokioExecutor::new(), stream)
                .await
                .expect("HTTP/2");
            runtime.spawn(async {
                // It ends with its client.
                let _ = connection.await;
            });
            sender
        });
        Driver {
            runtime,
            sender,
            address,
            token: server.token.clone(),
        }
    }

    /// An answer on its way.
    fn start(
        &self,
        method: &str,
        message: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> impl Future<Output = Answer> + Send + use<> {
        let length = u32::try_from(message.len()).expect("a short message");
        let body = [&[0][..], &length.to_be_bytes(), &message].concat();
        let path = format!(
            "http://{}/arrow.flight.protocol.FlightService/{method}",
            self.address
        );
        let mut request = hyper::Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).expect("a request");
        let mut sender = self.sender.clone();
        async move {
            sender.ready().await.expect("it is connected");
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), 200);
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a whole answer");
            let trailers = body.trailers().cloned().unwrap_or(head.headers);
            let text = |name: &str| {
                let value = trailers.get(name)?;
                Some(value.to_str().expect("ASCII").to_owned())
            };
            Answer {
                code: text("grpc-status").expect("a status"),
                message: text("grpc-message").unwrap_or_default(),
                weft_code: text("weft-code"),
                messages: messages(body.to_bytes()),
            }
        }
    }

    fn call(&self, method: &str, message: &impl Message) -> Answer {
        self.runtime
            .block_on(self.start(method, message.encode_to_vec(), &[]))
    }

    /// The rows of the only endpoint.
    fn rows(&self, info: &Info) -> RecordBatch {
        let [endpoint] = info.endpoint.as_slice() else {
            panic!("{info:?}");
        };
        let ticket = endpoint.ticket.clone().expect("a ticket");
        batch(self.call("DoGet", &ticket).ok())
    }

    /// Runs a query as one statement.
    fn query(&self, sql: &str) -> (Info, RecordBatch) {
        let info: Info = self.call("GetFlightInfo", &query(sql)).only();
        let rows = self.rows(&info);
        (info, rows)
    }

    /// Runs a statement for what it changes, and gives how many rows it has written.
    fn update(&self, sql: &str) -> i64 {
        let begin = Data {
            descriptor: Some(command(pack("CommandStatementUpdate", &one(sql)))),
            ..Data::default()
        };
        let result: One = self.call("DoPut", &begin).only();
        Count::decode(result.value.as_slice())
            .expect("a count")
            .rows
    }
}

/// Takes messages apart by their lengths.
fn messages(mut bytes: Bytes) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes.get_u8(), 0, "it is not compressed");
        let length = usize::try_from(bytes.get_u32()).expect("a length");
        messages.push(bytes.split_to(length));
    }
    messages
}

/// The rows of a schema and batches.
fn batch(messages: Vec<Data>) -> RecordBatch {
    let mut stream = Vec::new();
    for Data { header, body, .. } in messages {
        let message = EncodedData {
            ipc_message: header,
            arrow_data: body,
        };
        write_message(&mut stream, message, &IpcWriteOptions::default()).expect("it writes");
    }
    let reader = StreamReader::try_new(stream.as_slice(), None).expect("a schema comes first");
    let schema = reader.schema();
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
    arrow::compute::concat_batches(&schema, &batches).expect("of one schema")
}

fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    let column = rows.column_by_name(column).expect("it has the column");
    let texts = column.as_string::<i32>();
    texts.iter().flatten().map(str::to_owned).collect()
}

/// A server with a table of numbers in two files.
struct Desk {
    driver: Driver,
    server: Server,
    place: Place,
}

impl Desk {
    fn new() -> Desk {
        let place = Place::new();
        for (file, lines) in [("n-0.csv", "n\n0\n1\n2\n"), ("n-1.csv", "n\n3\n4\n")] {
            fs::create_dir_all(place.path("here")).expect("it is made");
            fs::write(place.path("here").join(file), lines).expect("it writes");
        }
        let server = Server::start(&place.data(), &Setup::default());
        Desk {
            driver: Driver::connect(&server),
            server,
            place,
        }
    }

    fn select(&self, rest: &str) -> String {
        let here = self.place.path("here");
        format!("SELECT n FROM '{}/n-*.csv' {rest}", here.display())
    }

    /// The newest job, if there is one.
    fn newest(&self) -> Option<Value> {
        let jobs = self.server.ask(&Request::get("/v1/jobs")).ok();
        jobs["items"].get(0).cloned()
    }

    /// The id of the job that runs next.
    fn running(&self) -> String {
        job::id_of(&eventually("a job is accepted", || self.newest()))
    }

    fn is_cancelled(&self, id: &str) {
        let ended = job::wait(&self.server, id);
        assert_eq!(ended["status"], "cancelled", "{ended:#}");
    }
}

#[test]
fn a_query_is_a_job_whose_rows_come_as_arrow() {
    let desk = Desk::new();
    let (info, rows) = desk.driver.query(&desk.select("ORDER BY n"));
    assert_eq!(numbers(&rows), [0, 1, 2, 3, 4]);
    assert_eq!(info.total_records, 5);
    let job = desk.newest().expect("a job");
    assert_eq!(
        (&job["name"], &job["status"]),
        (&json!("sql"), &json!("succeeded"))
    );
    let (info, rows) = desk.driver.query(&desk.select("WHERE n < 0"));
    assert_eq!((info.total_records, rows.num_rows()), (0, 0));
    assert_eq!(rows.schema().field(0).name(), "n");
}

#[test]
fn a_prepared_statement_runs_more_than_once() {
    let desk = Desk::new();
    let action = |kind: &str, body: Vec<u8>| Action {
        kind: kind.into(),
        body,
    };
    let sql = desk.select("WHERE n > 2 ORDER BY n");
    let body = pack("ActionCreatePreparedStatementRequest", &one(sql));
    let created: One = desk
        .driver
        .call("DoAction", &action("CreatePreparedStatement", body))
        .only();
    let created = Any::decode(created.value.as_slice()).expect("it is packed");
    let handle = One::decode(created.value.as_slice()).expect("a handle");
    for _ in 0..2 {
        let command = command(pack("CommandPreparedStatementQuery", &handle));
        let info: Info = desk.driver.call("GetFlightInfo", &command).only();
        assert_eq!(numbers(&desk.driver.rows(&info)), [3, 4]);
    }
    let body = pack("ActionClosePreparedStatementRequest", &handle);
    let close = action("ClosePreparedStatement", body);
    assert!(desk.driver.call("DoAction", &close).ok::<One>().is_empty());
    let bind = Data {
        descriptor: Some(command(pack("CommandPreparedStatementQuery", &handle))),
        ..Data::default()
    };
    let refused = desk.driver.call("DoPut", &bind);
    refused.refused("12", "parameters");
}

#[test]
fn statements_without_rows_change_tables_and_write_files() {
    let desk = Desk::new();
    let driver = &desk.driver;
    // A cursor that executes does not know yet whether there will be rows.
    let view = format!("CREATE VIEW few AS {}", desk.select("WHERE n < 2"));
    let info: Info = driver.call("GetFlightInfo", &query(&view)).only();
    assert!(info.endpoint.is_empty());
    let reader = StreamReader::try_new(info.schema.as_slice(), None).expect("a schema");
    assert!(reader.schema().fields().is_empty());

    let copy = format!(
        "COPY (SELECT n FROM few) TO '{}/' STORED AS CSV",
        desk.place.out().display()
    );
    assert_eq!(driver.update(&copy), 2);

    let tables = |asked: &GetTables| {
        let command = command(pack("CommandGetTables", asked));
        driver.rows(&driver.call("GetFlightInfo", &command).only())
    };
    let mut asked = GetTables {
        name: Some("f%".into()),
        with_schemas: true,
    };
    let found = tables(&asked);
    assert_eq!(texts(&found, "table_name"), ["few"]);
    assert_eq!(texts(&found, "table_type"), ["VIEW"]);
    let schema = found.column(4).as_binary::<i32>().value(0).to_vec();
    let schema = StreamReader::try_new(schema.as_slice(), None).expect("a schema");
    assert_eq!(schema.schema().field(0).name(), "n");
    asked.name = Some("g%".into());
    assert_eq!(tables(&asked).num_rows(), 0);

    assert_eq!(driver.update("DROP VIEW few"), -1);
    assert_eq!(tables(&GetTables::default()).num_rows(), 0);
    for (list, column) in [
        ("CommandGetCatalogs", "catalog_name"),
        ("CommandGetDbSchemas", "db_schema_name"),
        ("CommandGetTableTypes", "table_type"),
    ] {
        let command = command(pack(list, &One::default()));
        let rows = driver.rows(&driver.call("GetFlightInfo", &command).only());
        assert!(!texts(&rows, column).is_empty(), "{list}");
    }
}

#[test]
fn errors_are_statuses_with_codes_of_weft() {
    let desk = Desk::new();
    let failing = desk.driver.call(
        "GetFlightInfo",
        &query(&desk.select("WHERE 1 / (n - 3) > 0")),
    );
    let id = job::id_of(&desk.newest().expect("a job"));
    assert_eq!(failing.weft_code.as_deref(), Some("query_error"));
    assert!(failing.messages.is_empty());
    failing.refused("3", &id);
    for (method, asked, code, words) in [
        ("GetFlightInfo", query("SELEC 1"), "3", "invalid_job"),
        ("GetFlightInfo", query(" "), "3", "empty"),
        ("GetFlightInfo", query(&"x".repeat(300_000)), "8", "256 KiB"),
        (
            "GetFlightInfo",
            command(pack("CommandGetSqlInfo", &one(""))),
            "12",
            "CommandGetSqlInfo",
        ),
        ("GetFlightInfo", command(Vec::new()), "3", "no command"),
        ("GetSchema", query("SELECT 1 AS a"), "12", "GetSchema"),
    ] {
        desk.driver.call(method, &asked).refused(code, words);
    }
    let ticket = |handle: &str| one(pack("TicketStatementQuery", &one(handle)));
    let failed = format!("{id}/result");
    for (handle, code) in [("none", "3"), ("job-1/result", "5"), (failed.as_str(), "5")] {
        desk.driver.call("DoGet", &ticket(handle)).refused(code, "");
    }
}

#[test]
fn a_token_is_needed() {
    let mut desk = Desk::new();
    desk.driver.token = "wrong".into();
    let refused = desk.driver.call("GetFlightInfo", &query("SELECT 1 AS a"));
    assert_eq!(refused.weft_code.as_deref(), Some("unauthorized"));
    refused.refused("16", "token");
    assert_eq!(desk.newest(), None);
    // HTTP/1.1 has no place for the status.
    let path = "/arrow.flight.protocol.FlightService/DoGet";
    for kind in ["application/json", "application/grpc"] {
        let asked = Request::post(path, kind, Vec::new());
        assert_eq!(desk.server.ask(&asked).status, 415, "{kind}");
    }
    // Nor is any other route told by a status of gRPC.
    let asked = Request::post("/v1/jobs", "application/grpc", Vec::new());
    let asked = asked.header("authorization", "");
    assert_eq!(desk.server.ask(&asked).status, 401);
}

#[test]
fn the_job_of_a_client_that_goes_away_is_cancelled() {
    let desk = Desk::new();
    let call = desk
        .driver
        .start("GetFlightInfo", query(ENDLESS).encode_to_vec(), &[]);
    let call = desk.driver.runtime.spawn(call);
    let id = desk.running();
    call.abort();
    desk.is_cancelled(&id);
}

#[test]
fn a_call_that_takes_longer_than_it_may_is_cancelled() {
    let desk = Desk::new();
    let headers = [("grpc-timeout", "2S")];
    let call = desk
        .driver
        .start("GetFlightInfo", query(ENDLESS).encode_to_vec(), &headers);
    desk.driver.runtime.block_on(call).refused("4", "more time");
    desk.is_cancelled(&desk.running());
}

#[test]
fn somebody_else_may_cancel_a_statement() {
    let desk = Desk::new();
    let call = desk
        .driver
        .start("GetFlightInfo", query(ENDLESS).encode_to_vec(), &[]);
    let call = desk.driver.runtime.spawn(call);
    let id = desk.running();
    let cancel = Request::post(format!("/v1/jobs/{id}/cancel"), "", Vec::new());
    desk.server.ask(&cancel).ok();
    let answer = desk.driver.runtime.block_on(call).expect("it is answered");
    answer.refused("1", &id);
}

#[test]
fn many_rows_come_as_the_client_takes_them() {
    let desk = Desk::new();
    let (info, rows) = desk
        .driver
        .query("SELECT value AS n FROM generate_series(1, 1000000)");
    assert_eq!(info.total_records, 1_000_000);
    let sum: i64 = numbers(&rows).iter().sum();
    assert_eq!((rows.num_rows(), sum), (1_000_000, 500_000_500_000));
}
