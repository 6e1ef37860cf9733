//! A server that speaks the protocol of Azure Blob Storage, Azurite, on a free port of the loopback interface, that
//! never outlives the test.

use std::path::Path;
use std::process::Command;

use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use weft_protocol::{Secret, StoreSettings, Stores};
use weft_store::Blobs;

use crate::process::{ServerProcess, program};

/// The one account of the server, and its key, which its documents publish.
pub(crate) const ACCOUNT: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// Megabytes of objects that the server keeps in memory.
const MEMORY_MB: &str = "512";
/// A running server. Dropping it kills it.
pub(crate) struct Azurite(ServerProcess);

impl Azurite {
    /// Starts a server, and returns once it answers.
    pub(crate) fn start() -> Self {
        Self(ServerProcess::start(command, ("/", "HTTP/1.1 ")))
    }

    /// `http://127.0.0.1:PORT/ACCOUNT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}/{}", self.0.address(), ACCOUNT.0)
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
}

fn command(_: &Path, [port]: &[u16; 1]) -> Command {
    let installed = "azurite/node_modules/.bin/azurite-blob";
    let mut command = Command::new(program("WEFT_AZURITE", installed));
    command
        .args(["--blobHost", "127.0.0.1", "--blobPort"])
        .arg(port.to_string())
        .args(["--inMemoryPersistence", "--extentMemoryLimit", MEMORY_MB])
        .args(["--disableTelemetry", "--silent"]);
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
