//! Stores of Azure's kind: what they refuse has a name, objects that were listed are read, and outputs are not offered.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use weft_core::Location;
use weft_protocol::Stores;
use weft_store::{Blobs, Error, Fault};

use crate::azurite::{ACCOUNT, Azurite, open, settings};
use crate::refusals::assert_fault;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_azure_refuses_has_a_name() {
    let server = Azurite::start();
    server.make("refusals").await;
    let at = |url: &str, key| open(settings(&server.endpoint(), url, key));
    let blobs = at("az://refusals/a", ACCOUNT.1);
    blobs.check().await.expect("it may list");
    blobs.claim("blue").await.expect("it is empty");
    let error = blobs.claim("green").await.expect_err("it is blue's");
    assert!(matches!(error, Error::Owned { .. }), "{error}");
    let stranger = at("az://refusals/a", "YW5vdGhlciBrZXk=");
    for error in [
        stranger.check().await.expect_err("nobody knows the key"),
        stranger.put("x", "text").await.expect_err("nor here"),
        stranger.get("owner").await.expect_err("nor here"),
    ] {
        assert_fault(&error, Fault::WrongCredentials);
    }
    let nowhere = at("az://nowhere/a", ACCOUNT.1);
    for error in [
        nowhere.check().await.expect_err("no container"),
        nowhere.put("x", "text").await.expect_err("no container"),
        nowhere.get("x").await.expect_err("no container"),
    ] {
        assert_fault(&error, Fault::NoBucket);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_read_what_azure_lists_and_write_no_outputs_there() {
    let server = Azurite::start();
    server.make("lake").await;
    let lake = settings(&server.endpoint(), "az://lake/", ACCOUNT.1);
    let own = tempfile::tempdir().expect("a folder");
    let stores = Stores {
        granted: BTreeMap::from([("lake".to_owned(), lake)]),
        ..Stores::folder(own.path())
    };
    let blobs = Blobs::open(&stores).expect("the settings are right");
    let at = Location::parse("az://lake/raw/a.csv").expect("it is right");
    let remote = blobs.grants().find(&at).expect("jobs may use it").clone();
    let path = remote.path("raw/a.csv");
    let put = remote.objects.put(&path, "0123456789".into());
    put.await.expect("it is written");
    // Lists have the version without quotes, and answers with them.
    let read = tokio::task::spawn_blocking(move || {
        let mut below = remote.objects_below("raw").expect("it begins");
        let found = below.next().expect("there is one").expect("it lists");
        let file = remote.file_as_found(&at, found.bytes, found.e_tag.as_deref());
        file.expect("a file").fetch(2..5).wait()
    });
    let read = read.await.expect("it ends");
    assert_eq!(read.expect("it is as it was listed"), "234");
    let error = blobs.place_of("az://lake/out/").expect_err("not offered");
    assert!(matches!(error, Error::Unpublishable(_)), "{error}");
}
