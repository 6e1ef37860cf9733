//! The contract of all stores, over the memory of the process, a folder, a real S3 server, and one that speaks Azure's
//! protocol; and what callers see of a network that fails, and of settings that are wrong.
//!
//! `cargo xtask test` installs the servers, and sets `WEFT_SEAWEEDFS` and `WEFT_AZURITE`.

mod azure;
mod azurite;
mod contract;
mod credentials;
mod faults;
mod probe;
mod process;
mod proxy;
mod refusals;
mod seaweedfs;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use weft_protocol::{Secret, StoreSettings, Stores};
use weft_store::Blobs;

use seaweedfs::SeaweedFs;

/// The server that other tests use at this time, or a new one. It goes away with the last of them.
fn server() -> Arc<SeaweedFs> {
    static SHARED: Mutex<Weak<SeaweedFs>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(SeaweedFs::start());
    *shared = Arc::downgrade(&server);
    server
}

/// Settings of a bucket at an endpoint.
fn settings(endpoint: &str, url: &str, (key, secret): (&str, &str)) -> StoreSettings {
    let mut settings = StoreSettings::of_url(url);
    settings.endpoint = Some(endpoint.to_owned());
    settings.region = Some("us-east-1".into());
    for (name, value) in [("access_key_id", key), ("secret_access_key", secret)] {
        settings.options.insert(name.into(), Secret::new(value));
    }
    settings
}

/// Makes a bucket: the server does, when the first object is written to it.
async fn make(endpoint: &str, name: &str) {
    let blobs = bucket(endpoint, &format!("s3://{name}/made"));
    blobs.put("x", "x").await.expect("it is written");
    blobs.delete("x").await.expect("it is removed");
}

/// A bucket at an endpoint as the cluster's store.
fn bucket(endpoint: &str, url: &str) -> Blobs {
    let stores = Stores {
        own: settings(endpoint, url, seaweedfs::KEY),
        ..Stores::default()
    };
    Blobs::open(&stores).expect("the settings are right")
}
