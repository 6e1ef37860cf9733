//! Credentials of executors, from a real service and for a real store: what they allow, and how they end.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use weft_core::{JobId, Location, TenantId};
use weft_protocol::{
    ExecutorCredentials, SessionCredential, StoreSettings, Stores, kept_prefix, shard_prefix,
};
use weft_store::{Blobs, Error, ErrorKind, Fault, HeldCredentials, Holding, Issuer, Remote};

use crate::proxy::canned;
use crate::refusals::assert_fault;
use crate::seaweedfs::{KEY, ROLE};

/// Stores of a server, all of them with a role for executors.
fn stores(endpoint: &str) -> Stores {
    let scoped = |url: &str| StoreSettings {
        executor_role: Some(ROLE.into()),
        ..crate::settings(endpoint, url, KEY)
    };
    let lake = StoreSettings {
        roots: ["raw", "out"]
            .map(|root| format!("s3://scoped-lake/{root}"))
            .into(),
        ..scoped("s3://scoped-lake/")
    };
    Stores {
        own: scoped("s3://scoped/weft"),
        granted: BTreeMap::from([("lake".to_owned(), lake)]),
    }
}

/// The stores as an executor has them, with credentials that it holds.
fn executor(stores: &Stores, first: ExecutorCredentials) -> (Blobs, HeldCredentials) {
    let issuer = Issuer::open(stores).expect("the settings are right");
    // By a clock that stands still, credentials are valid unless they say otherwise.
    let held = HeldCredentials::new(first, || 0);
    let blobs = Blobs::open_held(issuer.stores(), &held);
    (blobs.expect("the settings are right"), held)
}

async fn issued(stores: &Stores) -> ExecutorCredentials {
    let issuer = Issuer::open(stores).expect("the settings are right");
    let issued = issuer.issue("weft-1-test", &tenant("acme")).await;
    issued.expect("it is given")
}

fn tenant(id: &str) -> TenantId {
    id.parse().expect("an id")
}

/// Credentials that have expired by any clock.
fn expired(mut credentials: ExecutorCredentials) -> ExecutorCredentials {
    let expire = |one: &mut SessionCredential| one.expires_ms = 0;
    credentials.own.iter_mut().for_each(expire);
    credentials.granted.values_mut().for_each(expire);
    credentials
}

fn lake(blobs: &Blobs) -> Remote {
    let root = Location::parse("s3://scoped-lake/raw/").expect("it is right");
    let lake = blobs.grants().find(&root);
    lake.expect("jobs may use it").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_reach_their_part_of_the_own_store_alone() {
    let server = crate::server();
    let stores = stores(&server.endpoint());
    let owner = Blobs::open(&stores).expect("the settings are right");
    let theirs = format!("{}/wal/1.sst", shard_prefix(&tenant("other"), 0));
    for key in ["owner", "artefacts/a", "components/a", &theirs] {
        owner.put(key, "text").await.expect("it is written");
    }
    let (blobs, _held) = executor(&stores, issued(&stores).await);
    let job = JobId::new(1, 2);
    let mine = format!("jobs/{job}/0/a");
    blobs.put(&mine, "text").await.expect("it may write");
    assert_eq!(blobs.get(&mine).await.expect("it may read"), "text");
    assert_eq!(blobs.get("artefacts/a").await.expect("it may read"), "text");
    let missing = format!("jobs/{job}/0/b");
    assert!(!blobs.exists(&missing).await.expect("it is known"));
    let kept = blobs.entries(&kept_prefix(&job)).await;
    assert!(kept.expect("it may list those of a job").is_empty());
    // A shard of the tenant's own is its executor's, with all that is in it.
    let own = shard_prefix(&tenant("acme"), 0);
    let wal = format!("{own}/wal/1.sst");
    blobs.put(&wal, "text").await.expect("it may write");
    assert_eq!(blobs.get(&wal).await.expect("it may read"), "text");
    let listed = blobs.entries(&format!("{own}/wal")).await;
    assert_eq!(listed.expect("it may list").len(), 1);
    blobs.delete(&wal).await.expect("it may remove");
    for key in ["owner", "components/a", &theirs] {
        let error = blobs.get(key).await.expect_err("it may not read");
        assert_fault(&error, Fault::NoPermission);
    }
    for key in ["owner", "artefacts/a", "archive/a.json.zst"] {
        let error = blobs.put(key, "mine").await.expect_err("it may not write");
        assert_fault(&error, Fault::NoPermission);
    }
    let error = blobs.entries("jobs").await;
    assert_fault(&error.expect_err("jobs of others"), Fault::NoPermission);
    assert!(blobs.delete(&mine).await.is_err(), "controllers delete");
    assert_eq!(owner.get(&mine).await.expect("it is there"), "text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_reach_the_roots_of_jobs_alone() {
    let server = crate::server();
    let stores = stores(&server.endpoint());
    let owner = lake(&Blobs::open(&stores).expect("the settings are right"));
    for key in ["raw/a.csv", "secret/a.csv"] {
        let put = owner.objects.put(&owner.path(key), "text".into()).await;
        put.expect("it is written");
    }
    let (blobs, _held) = executor(&stores, issued(&stores).await);
    let remote = lake(&blobs);
    let read = remote.objects.get(&remote.path("raw/a.csv")).await;
    read.expect("it may read");
    let secret = remote.path("secret/a.csv");
    let refused = remote.objects.get(&secret).await;
    let error = remote.error(&secret, refused.expect_err("it may not read"));
    assert_fault(&error, Fault::NoPermission);
    // A new output: there is no manifest, the folder is empty, and uploads can be made.
    let output = blobs.place_of("s3://scoped-lake/out/daily/");
    let output = output.expect("jobs may use it");
    let found = output.look_into().await.expect("it may look");
    assert!(matches!(found, Holding::Nothing));
    let prepared = output.prepare(&JobId::new(1, 2)).await;
    prepared.expect("it may write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_read_on_after_credentials_were_renewed() {
    let server = crate::server();
    let stores = stores(&server.endpoint());
    // Buckets are made by objects of their owners.
    let owner = lake(&Blobs::open(&stores).expect("the settings are right"));
    let path = owner.path("raw/long.csv");
    let put = owner.objects.put(&path, "0123456789".into()).await;
    put.expect("it is written");
    let first = issued(&stores).await;
    let (blobs, held) = executor(&stores, first.clone());
    let remote = lake(&blobs);
    let location = Location::parse("s3://scoped-lake/raw/long.csv").expect("it is right");
    let file = remote.file(&location, 10).expect("a file");
    let read = move |range: std::ops::Range<u64>| {
        let file = file.clone();
        tokio::task::spawn_blocking(move || file.fetch(range).wait())
    };
    assert_eq!(
        read(0..5).await.expect("it ends").expect("it reads"),
        "01234"
    );
    held.replace(expired(first));
    let error = read(5..10)
        .await
        .expect("it ends")
        .expect_err("they have expired");
    assert!(error.to_string().contains("have expired"), "{error}");
    let error = blobs.get("jobs/a").await.expect_err("they have expired");
    assert_fault(&error, Fault::Expired);
    assert_eq!(
        error.kind(),
        ErrorKind::Unavailable,
        "tasks are tried again"
    );
    held.replace(issued(&stores).await);
    assert_eq!(
        read(5..10).await.expect("it ends").expect("it reads"),
        "56789"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_are_not_given_say_why() {
    let server = crate::server();
    let page = canned(200, "<html>It works!</html>");
    let forbidden = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
    let forbidden = canned(403, forbidden);
    let overloaded = canned(
        503,
        "<ErrorResponse><Error><Code>ServiceUnavailable</Code></Error></ErrorResponse>",
    );
    for (sts, role, kind, words) in [
        (
            &server.endpoint(),
            "arn:aws:iam::1:role/nobody",
            ErrorKind::Refused,
            "role/nobody",
        ),
        (
            &forbidden,
            ROLE,
            ErrorKind::Refused,
            "let the role trust them",
        ),
        (&page, ROLE, ErrorKind::Refused, "`sts_endpoint`"),
        (&overloaded, ROLE, ErrorKind::Unavailable, "try again later"),
    ] {
        let mut stores = stores(&server.endpoint());
        stores.own.sts_endpoint = Some(sts.clone());
        stores.own.executor_role = Some(role.into());
        let issuer = Issuer::open(&stores).expect("nothing is asked yet");
        let error = issuer
            .issue("weft-1-test", &tenant("acme"))
            .await
            .expect_err("it is not given");
        assert!(matches!(error, Error::NotAssumed { .. }), "{error:?}");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}
