//! A server that speaks the protocol of Azure Blob Storage, Azurite, on a free port of the loopback interface, that
//! never outlives the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use tempfile::TempDir;
use weft_protocol::{Secret, StoreSettings, Stores};
use weft_store::Blobs;

use crate::seaweedfs::guard;

/// The one account of the server, and its key, which its documents publish.
pub(crate) const ACCOUNT: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// Megabytes of objects that the server keeps in memory.
const MEMORY_MB: &str = "512";
/// Looks at a server that starts, and the pause between two.
const LOOKS: u32 = 600;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Starts of a server whose port another process took.
const STARTS: u32 = 3;

/// A running server. Dropping it kills it.
pub(crate) struct Azurite {
    process: Child,
    guard: Child,
    port: u16,
    _folder: TempDir,
}

impl Azurite {
    /// Starts a server, and returns once it answers.
    pub(crate) fn start() -> Self {
        (0..STARTS)
            .find_map(|_| Self::try_start())
            .expect("the server starts")
    }

    /// Nothing if it ended before it answered.
    fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let process = command(folder.path(), port).spawn();
        let process = process.expect("azurite is installed: `cargo xtask test` does it");
        let guard = guard(process.id());
        let mut server = Self {
            process,
            guard,
            port,
            _folder: folder,
        };
        for _ in 0..LOOKS {
            if server.process.try_wait().expect("our child").is_some() {
                return None;
            }
            if server.answers() {
                return Some(server);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("the server does not answer");
    }

    /// `http://127.0.0.1:PORT/ACCOUNT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.port, ACCOUNT.0)
    }

    /// Makes a container; one that is there stays.
    pub(crate) async fn make(&self, container: &str) {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = "PUT".parse().expect("a method");
        let uri = format!("{}/{container}?restype=container", self.endpoint());
        *request.uri_mut() = uri.parse().expect("a URI");
        let key = AzureAccessKey::try_new(ACCOUNT.1).expect("a key");
        let credential = AzureCredential::AccessKey(key);
        AzureAuthorizer::new(&credential, ACCOUNT.0).authorize(&mut request);
        let options = ClientOptions::new().with_allow_http(true);
        let client = ReqwestConnector::default().connect(&options);
        let answer = client.expect("a client").execute(request).await;
        let status = answer.expect("it answers").status();
        assert!(matches!(status.as_u16(), 201 | 409), "{status}");
    }

    /// True if something that speaks HTTP answers.
    fn answers(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let request = "GET / HTTP/1.1\r\nHost: azure\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes());
        let read = asked.and_then(|()| stream.read_to_string(&mut answer));
        read.is_ok() && answer.starts_with("HTTP/1.1 ")
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        for process in [&mut self.process, &mut self.guard] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The program: where `cargo xtask test` says, or where it installs it.
fn program() -> PathBuf {
    std::env::var_os("WEFT_AZURITE").map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_default();
            Path::new(&home).join(".cache/weft/azurite/node_modules/.bin/azurite-blob")
        },
        PathBuf::from,
    )
}

fn command(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(program());
    command
        .current_dir(folder)
        .args(["--blobHost", "127.0.0.1", "--blobPort"])
        .arg(port.to_string())
        .args(["--inMemoryPersistence", "--extentMemoryLimit", MEMORY_MB])
        .args(["--disableTelemetry", "--silent"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Settings of a container at an endpoint.
pub(crate) fn settings(endpoint: &str, url: &str, key: &str) -> StoreSettings {
    let mut settings = StoreSettings::of_url(url);
    settings.endpoint = Some(endpoint.to_owned());
    for (name, value) in [("account_name", ACCOUNT.0), ("account_key", key)] {
        settings.options.insert(name.into(), Secret::new(value));
    }
    settings
}

/// The store with these settings as the cluster's own.
pub(crate) fn open(own: StoreSettings) -> Blobs {
    let stores = Stores {
        own,
        ..Stores::default()
    };
    Blobs::open(&stores).expect("the settings are right")
}
