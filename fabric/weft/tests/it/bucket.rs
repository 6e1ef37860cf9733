//! A bucket of a test: a server that speaks as much of S3 as is asked of it, keeps all in memory, and loses answers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::Setup;

const NAME: &str = "lake";

/// A running server of one bucket. Dropping it ends it.
pub(crate) struct Bucket {
    address: SocketAddr,
    contents: Arc<Mutex<Contents>>,
    is_over: Arc<AtomicBool>,
}

#[derive(Default)]
struct Contents {
    /// Version and bytes, by key.
    objects: BTreeMap<String, (u64, Arc<Vec<u8>>)>,
    /// Key and parts, by id.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Vec<u8>>)>,
    n_changes: u64,
    /// One change of so many is done, and answered with an error.
    loses_every: Option<u64>,
    /// Credentials do not allow changes of keys with this part.
    forbidden: Option<String>,
    n_forbidden: u64,
}

struct Asked {
    method: String,
    key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Bucket {
    pub(crate) fn start(loses_every: Option<u64>) -> Bucket {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let contents = Arc::new(Mutex::new(Contents {
            loses_every,
            ..Contents::default()
        }));
        let is_over = Arc::new(AtomicBool::new(false));
        let (serves, ends) = (Arc::clone(&contents), Arc::clone(&is_over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), contents) = (stream, Arc::clone(&serves)) else {
                    continue;
                };
                // Whoever asked may have been killed.
                std::thread::spawn(move || serve(stream, &contents));
            }
        });
        Bucket {
            address,
            contents,
            is_over,
        }
    }

    /// A server whose jobs may use the bucket.
    pub(crate) fn setup(&self, setup: Setup) -> Setup {
        setup
            .with("WEFT__STORE__LAKE__URL", format!("s3://{NAME}/"))
            .with(
                "WEFT__STORE__LAKE__ENDPOINT",
                format!("http://{}", self.address),
            )
            .with("WEFT__STORE__LAKE__REGION", "us-east-1")
            .with("WEFT__STORE__LAKE__ACCESS_KEY_ID", "key")
            .with("WEFT__STORE__LAKE__SECRET_ACCESS_KEY", "secret")
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses all changes of keys with this part from now on.
    pub(crate) fn forbid(&self, part: &str) {
        let mut contents = self.contents();
        contents.forbidden = Some(part.to_owned());
        contents.n_forbidden = 0;
    }

    /// Changes that were refused since then.
    pub(crate) fn n_forbidden(&self) -> u64 {
        self.contents().n_forbidden
    }

    /// Keys with a prefix.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let contents = self.contents();
        let keys = contents.objects.keys();
        keys.filter(|key| key.starts_with(prefix))
            .cloned()
            .collect()
    }

    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        let contents = self.contents();
        contents.objects.get(key).map(|(_, bytes)| bytes.to_vec())
    }

    pub(crate) fn write(&self, key: &str, bytes: &[u8]) {
        self.contents().store(key, bytes.to_vec());
    }

    /// Keys of uploads that are neither completed nor aborted.
    pub(crate) fn uploads(&self) -> Vec<String> {
        let contents = self.contents();
        contents
            .uploads
            .values()
            .map(|(key, _)| key.clone())
            .collect()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It looks when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, contents: &Mutex<Contents>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(asked) = read(&mut reader)? else {
        return Ok(());
    };
    let answer = {
        let mut contents = contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.answer(&asked)
    };
    let mut head = format!("HTTP/1.1 {} -\r\nconnection: close\r\n", answer.status);
    let has_length = answer
        .headers
        .iter()
        .any(|(name, _)| *name == "content-length");
    if !has_length && answer.status != 204 {
        let _ = write!(head, "content-length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method != "HEAD" {
        stream.write_all(&answer.body)?;
    }
    stream.flush()
}

/// Reads a request. Nothing if nobody asked.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path
        .trim_start_matches('/')
        .strip_prefix(NAME)
        .unwrap_or("");
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    });
    let mut asked = Asked {
        method: method.to_owned(),
        key: decoded(key.trim_start_matches('/')),
        query: query.collect(),
        headers: BTreeMap::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let (name, value) = (name.to_lowercase(), value.trim().to_owned());
        asked.headers.insert(name, value);
    }
    let bytes = asked.headers.get("content-length");
    let bytes = bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    asked.body = vec![0; bytes];
    reader.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}

/// Text out of a URL.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(plain).expect("keys are UTF-8")
}

fn e_tag(version: u64) -> String {
    format!("\"{version}\"")
}

fn plain(status: u16) -> Answer {
    Answer {
        status,
        headers: Vec::new(),
        body: Vec::new(),
    }
}

fn error(status: u16, code: &str) -> Answer {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    Answer {
        body: text.into_bytes(),
        ..plain(status)
    }
}

fn xml(text: String) -> Answer {
    Answer {
        headers: vec![("content-type", "application/xml".into())],
        body: text.into_bytes(),
        ..plain(200)
    }
}

fn tagged(version: u64) -> Answer {
    Answer {
        headers: vec![("etag", e_tag(version))],
        ..plain(200)
    }
}

impl Contents {
    fn is_forbidden(&self, asked: &Asked) -> bool {
        let reads = matches!(asked.method.as_str(), "GET" | "HEAD");
        let part = self.forbidden.as_ref();
        !reads && part.is_some_and(|part| asked.key.contains(part))
    }

    fn answer(&mut self, asked: &Asked) -> Answer {
        if self.is_forbidden(asked) {
            self.n_forbidden += 1;
            return error(403, "AccessDenied");
        }
        let answer = match (asked.method.as_str(), asked.key.as_str()) {
            ("GET", "") if asked.query.contains_key("uploads") => return self.list_uploads(asked),
            ("GET" | "HEAD", "") => return self.list(asked),
            ("GET" | "HEAD", _) => return self.get(asked),
            ("POST", "") => self.delete_all(asked),
            ("PUT", _) if asked.query.contains_key("uploadId") => self.put_part(asked),
            ("PUT", _) => self.put(asked),
            ("POST", _) if asked.query.contains_key("uploads") => self.create_upload(asked),
            ("POST", _) => self.complete(asked),
            ("DELETE", _) if asked.query.contains_key("uploadId") => self.abort(asked),
            ("DELETE", key) => {
                self.objects.remove(key);
                plain(204)
            }
            _ => error(405, "MethodNotAllowed"),
        };
        self.n_changes += 1;
        match self.loses_every {
            Some(every) if self.n_changes.is_multiple_of(every) => error(503, "SlowDown"),
            _ => answer,
        }
    }

    fn store(&mut self, key: &str, bytes: Vec<u8>) -> u64 {
        self.n_changes += 1;
        let version = self.n_changes;
        self.objects
            .insert(key.to_owned(), (version, Arc::new(bytes)));
        version
    }

    fn put(&mut self, asked: &Asked) -> Answer {
        let there = self.objects.get(&asked.key).map(|(version, _)| *version);
        let must_be = asked.headers.get("if-match");
        let is_other = must_be.is_some_and(|must_be| there.map(e_tag).as_ref() != Some(must_be));
        let must_be_new = asked.headers.contains_key("if-none-match");
        if is_other || (must_be_new && there.is_some()) {
            return error(412, "PreconditionFailed");
        }
        tagged(self.store(&asked.key, asked.body.clone()))
    }

    fn get(&self, asked: &Asked) -> Answer {
        let Some((version, bytes)) = self.objects.get(&asked.key) else {
            return error(404, "NoSuchKey");
        };
        let mut headers = vec![
            ("etag", e_tag(*version)),
            ("last-modified", "Tue, 01 Dec 2026 00:00:00 GMT".into()),
        ];
        let (first, end) = match asked
            .headers
            .get("range")
            .and_then(|range| span(range, bytes.len()))
        {
            Some((first, end)) => {
                let (last, all) = (end - 1, bytes.len());
                headers.push(("content-range", format!("bytes {first}-{last}/{all}")));
                (first, end)
            }
            None => (0, bytes.len()),
        };
        headers.push(("content-length", (end - first).to_string()));
        let status = if end - first == bytes.len() && !asked.headers.contains_key("range") {
            200
        } else {
            206
        };
        Answer {
            status,
            headers,
            body: bytes[first..end].to_vec(),
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        let of = |name: &str| asked.query.get(name).map_or("", String::as_str);
        let (prefix, delimiter, after) = (of("prefix"), of("delimiter"), of("start-after"));
        let mut text = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        let mut folders = Vec::new();
        for (key, (version, bytes)) in &self.objects {
            let Some(rest) = key.strip_prefix(prefix) else {
                continue;
            };
            if key.as_str() <= after {
                continue;
            }
            if let Some((folder, _)) = rest.split_once('/')
                && !delimiter.is_empty()
            {
                folders.push(format!("{prefix}{folder}/"));
                continue;
            }
            let (size, version) = (bytes.len(), version);
            let _ = write!(
                text,
                "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>\"{version}\"</ETag>\
                 <LastModified>2026-12-01T00:00:00.000Z</LastModified></Contents>"
            );
        }
        folders.dedup();
        for folder in folders {
            let _ = write!(
                text,
                "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            );
        }
        xml(format!(
            "{text}<IsTruncated>false</IsTruncated></ListBucketResult>"
        ))
    }

    fn list_uploads(&self, asked: &Asked) -> Answer {
        let prefix = asked.query.get("prefix").map_or("", String::as_str);
        let mut text = String::from("<?xml version=\"1.0\"?><ListMultipartUploadsResult>");
        for (id, (key, _)) in &self.uploads {
            if key.starts_with(prefix) {
                let _ = write!(
                    text,
                    "<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>"
                );
            }
        }
        xml(format!(
            "{text}<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"
        ))
    }

    fn delete_all(&mut self, asked: &Asked) -> Answer {
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let mut text = String::from("<?xml version=\"1.0\"?><DeleteResult>");
        for rest in body.split("<Key>").skip(1) {
            let key = rest.split("</Key>").next().unwrap_or("");
            self.objects.remove(key);
            let _ = write!(text, "<Deleted><Key>{key}</Key></Deleted>");
        }
        xml(format!("{text}</DeleteResult>"))
    }

    fn create_upload(&mut self, asked: &Asked) -> Answer {
        self.n_changes += 1;
        let id = format!("upload-{}", self.n_changes);
        let upload = (asked.key.clone(), BTreeMap::new());
        self.uploads.insert(id.clone(), upload);
        xml(format!(
            "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        ))
    }

    fn put_part(&mut self, asked: &Asked) -> Answer {
        let number = asked
            .query
            .get("partNumber")
            .and_then(|number| number.parse().ok());
        let Some((_, parts)) = self.uploads.get_mut(&asked.query["uploadId"]) else {
            return error(404, "NoSuchUpload");
        };
        let number = number.expect("parts have numbers");
        parts.insert(number, asked.body.clone());
        tagged(u64::from(number))
    }

    fn complete(&mut self, asked: &Asked) -> Answer {
        let id = asked.query.get("uploadId").cloned().unwrap_or_default();
        let Some((key, parts)) = self.uploads.remove(&id) else {
            return error(404, "NoSuchUpload");
        };
        let version = self.store(&key, parts.into_values().flatten().collect());
        xml(format!(
            "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>\"{version}\"</ETag></CompleteMultipartUploadResult>"
        ))
    }

    fn abort(&mut self, asked: &Asked) -> Answer {
        match self.uploads.remove(&asked.query["uploadId"]) {
            Some(_) => plain(204),
            None => error(404, "NoSuchUpload"),
        }
    }
}

/// Beginning and end of `bytes=a-b`, `bytes=a-` or `bytes=-n`.
fn span(range: &str, bytes: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last + 1),
        (Ok(first), Err(_)) => (first, bytes),
        (Err(_), Ok(n)) => (bytes.saturating_sub(n), bytes),
        (Err(_), Err(_)) => return None,
    };
    (first < end.min(bytes)).then(|| (first, end.min(bytes)))
}
