//! A client for one request at a time: HTTP/1.1 on a connection of its own, closed after the answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use crate::clock::PATIENCE;

/// A request. Headers given here stand in for those that are sent otherwise.
#[derive(Clone)]
pub(crate) struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Nothing more is sent after the body, however much of it was announced.
    hangs_up: bool,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (method, path, bytes) = (self.method, &self.path, self.body.len());
        write!(
            f,
            "{method} {path} with {:?} and {bytes} bytes",
            self.headers
        )
    }
}

impl Request {
    pub(crate) fn get(path: impl Into<String>) -> Request {
        Request {
            method: "GET",
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            hangs_up: false,
        }
    }

    pub(crate) fn post(path: impl Into<String>, content_type: &str, body: Vec<u8>) -> Request {
        Request {
            method: "POST",
            path: path.into(),
            headers: vec![("content-type", content_type.into())],
            body,
            hangs_up: false,
        }
    }

    pub(crate) fn json(path: impl Into<String>, body: &Value) -> Request {
        Request::post(path, "application/json", body.to_string().into_bytes())
    }

    pub(crate) fn component(body: Vec<u8>) -> Request {
        Request::post("/v1/components", "application/wasm", body)
    }

    /// Sets a header; an empty value leaves it out.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn method(mut self, method: &'static str) -> Request {
        self.method = method;
        self
    }

    /// Adds a query to the path.
    pub(crate) fn with_query(mut self, query: &str) -> Request {
        self.path = format!("{}?{query}", self.path);
        self
    }

    /// Closes its side of the connection behind the body.
    pub(crate) fn and_hang_up(mut self) -> Request {
        self.hangs_up = true;
        self
    }

    /// What goes over the wire. `token` is sent unless the request has an `authorization` of its own.
    fn head(&self, address: SocketAddr, token: &str) -> String {
        let mut headers = vec![
            ("host", address.to_string()),
            ("connection", "close".into()),
            ("authorization", format!("Bearer {token}")),
            ("content-length", self.body.len().to_string()),
        ];
        for (name, value) in &self.headers {
            headers.retain(|(known, _)| known != name);
            headers.push((name, value.clone()));
        }
        let lines = headers.iter().filter(|(_, value)| !value.is_empty());
        let lines: String = lines
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{} {} HTTP/1.1\r\n{lines}\r\n", self.method, self.path)
    }

    /// Sends the request, for whose answer nobody need wait.
    pub(crate) fn start(&self, address: SocketAddr, token: &str) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(4 * PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(self.head(address, token).as_bytes())?;
        stream.write_all(&self.body)?;
        Ok(stream)
    }

    /// Sends the request and waits for the whole answer. Errors: the server is gone, or went away before it had answered.
    pub(crate) fn send(&self, address: SocketAddr, token: &str) -> io::Result<Response> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(4 * PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(self.head(address, token).as_bytes())?;
        // A server that refuses a body by its head may close before all of it is sent; its answer counts.
        let sent = stream.write_all(&self.body);
        if self.hangs_up {
            stream.shutdown(Shutdown::Write)?;
        }
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        if answer.is_empty() {
            sent?;
            read?;
        }
        Response::parse(&answer)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    trailers: Vec<(String, String)>,
}

/// Lines of headers, or of trailers.
fn fields(lines: &str) -> Vec<(String, String)> {
    let fields = lines.lines().filter_map(|line| line.split_once(": "));
    fields
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect()
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off")
}

impl Response {
    pub(crate) fn parse(answer: &[u8]) -> io::Result<Response> {
        let end = find(answer, b"\r\n\r\n").ok_or_else(cut_off)?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let (first, lines) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut response = Response {
            status: status.ok_or_else(cut_off)?,
            headers: fields(lines),
            body: Vec::new(),
            trailers: Vec::new(),
        };
        let rest = &answer[end + 4..];
        response.body = if response.header("transfer-encoding") == Some("chunked") {
            let (body, trailers) = unchunk(rest)?;
            response.trailers = fields(&trailers);
            body
        } else {
            let length = response.header("content-length").unwrap_or("0");
            let length: usize = length.parse().map_err(|_| cut_off())?;
            rest.get(..length).ok_or_else(cut_off)?.to_vec()
        };
        Ok(response)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// What came behind the body.
    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        let found = self.trailers.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Panics where it is something else.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// The body of a success. Panics with the answer where it is none.
    pub(crate) fn ok(&self) -> Value {
        assert!(self.status < 300, "{}: {}", self.status, self.text());
        self.json()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A body that came in chunks, and its trailers.
fn unchunk(mut rest: &[u8]) -> io::Result<(Vec<u8>, String)> {
    let mut body = Vec::new();
    loop {
        let line = find(rest, b"\r\n").ok_or_else(cut_off)?;
        let size = std::str::from_utf8(&rest[..line]).map_err(|_| cut_off())?;
        let size = usize::from_str_radix(size, 16).map_err(|_| cut_off())?;
        if size == 0 {
            let trailers = String::from_utf8_lossy(&rest[line + 2..]).into_owned();
            return Ok((body, trailers));
        }
        let chunk = rest.get(line + 2..line + 2 + size).ok_or_else(cut_off)?;
        body.extend_from_slice(chunk);
        rest = rest.get(line + 2 + size + 2..).ok_or_else(cut_off)?;
    }
}
