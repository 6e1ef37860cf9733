//! Checks of stores: what they say of rights, and that they leave nothing behind.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_protocol::{StoreSettings, Stores};
use weft_store::{Access, Blobs, Error, Fault, PROBES, Probed, probe_stores, unreachable_stores};

use crate::azurite::{self, ACCOUNT, Azurite};
use crate::refusals::assert_fault;
use crate::seaweedfs::{KEY, READABLE, READER};

/// Time for the check of a store that nobody serves.
const MAX_WAIT: Duration = Duration::from_secs(15);

/// A cluster's own store, and one for jobs.
fn stores(own: StoreSettings, lake: StoreSettings) -> Stores {
    Stores {
        own,
        granted: BTreeMap::from([("lake".to_owned(), lake)]),
    }
}

/// The names and places of what was found.
fn places(probed: &[Probed]) -> Vec<(&str, &str)> {
    let places = probed.iter();
    places
        .map(|one| (one.store.as_str(), one.uri.as_str()))
        .collect()
}

/// Names of objects that checks left in a store.
async fn left(blobs: &Blobs) -> Vec<String> {
    let entries = blobs.entries(PROBES).await.expect("it lists");
    entries.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_tell_the_rights_in_each_place() {
    let server = crate::server();
    let at = |url: &str, key| crate::settings(&server.endpoint(), url, key);
    for bucket in ["probed", READABLE] {
        crate::make(&server.endpoint(), bucket).await;
    }
    let mut lake = at(&format!("s3://{READABLE}/"), READER);
    lake.roots = ["raw", "out"]
        .map(|root| format!("s3://{READABLE}/{root}"))
        .into();
    let probed = probe_stores(&stores(at("s3://probed/weft", KEY), lake), "a").await;
    let expected = [
        ("store", "s3://probed/weft"),
        ("store.lake", "s3://readable/raw"),
        ("store.lake", "s3://readable/out"),
    ];
    assert_eq!(places(&probed), expected);
    let Access::Full { written_ms } = &probed[0].access else {
        panic!("{:?}", probed[0]);
    };
    assert!(written_ms.is_some());
    let own = crate::bucket(&server.endpoint(), "s3://probed/weft");
    assert_eq!(left(&own).await, [""; 0]);
    own.claim("blue").await.expect("it is empty");
    for root in &probed[1..] {
        let Access::Reading(error) = &root.access else {
            panic!("{root:?}");
        };
        assert_fault(error, Fault::NoPermission);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_are_of_no_use_are_told_one_by_one() {
    let server = crate::server();
    crate::make(&server.endpoint(), "probed").await;
    let at = |url: &str, key| crate::settings(&server.endpoint(), url, key);
    let mut all = stores(
        at("s3://probed/weft", ("NOBODY", "secret")),
        at("s3://nowhere/", KEY),
    );
    let folder = StoreSettings::of_url("/data");
    all.granted.insert("pond".into(), folder);
    for probed in [
        probe_stores(&all, "a").await,
        unreachable_stores(&all).await,
    ] {
        let errors: Vec<&Error> = probed
            .iter()
            .map(|one| match &one.access {
                Access::None(error) => error,
                other => panic!("{}: {other:?}", one.uri),
            })
            .collect();
        let names: Vec<&str> = probed.iter().map(|one| one.store.as_str()).collect();
        assert_eq!(names, ["store", "store.lake", "store.pond"]);
        assert_fault(errors[0], Fault::WrongCredentials);
        assert_fault(errors[1], Fault::NoBucket);
        assert!(matches!(errors[2], Error::Settings { .. }), "{}", errors[2]);
    }
    let fine = stores(at("s3://probed/weft", KEY), at("s3://probed/", KEY));
    assert!(unreachable_stores(&fine).await.is_empty());
}

/// Jobs wait for it for half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_nobody_serves_is_given_up_within_seconds() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", taken.local_addr().expect("it is bound"));
    drop(taken);
    let at = |url: &str| crate::settings(&endpoint, url, KEY);
    let all = stores(at("s3://probed/weft"), at("s3://lake/"));
    let probed = tokio::time::timeout(MAX_WAIT, probe_stores(&all, "a")).await;
    for one in probed.expect("in time") {
        let Access::None(error) = &one.access else {
            panic!("{one:?}");
        };
        assert_fault(error, Fault::Unreachable);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_of_azure_write_to_the_clusters_own_store_alone() {
    let server = Azurite::start();
    for container in ["probed", "lake"] {
        server.make(container).await;
    }
    let at = |url: &str| azurite::settings(&server.endpoint(), url, ACCOUNT.1);
    let probed = probe_stores(&stores(at("az://probed/weft"), at("az://lake/")), "a").await;
    let written: Vec<bool> = probed
        .iter()
        .map(|one| match &one.access {
            Access::Full { written_ms } => written_ms.is_some(),
            other => panic!("{}: {other:?}", one.uri),
        })
        .collect();
    assert_eq!(written, [true, false]);
    let own = azurite::open(at("az://probed/weft"));
    assert_eq!(left(&own).await, [""; 0]);
}
