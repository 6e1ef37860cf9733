//! Wrong settings, and stores that refuse: each has an error with a name, that says what to do.

use weft_protocol::{StoreSettings, Stores};
use weft_store::{Blobs, Error, ErrorKind, Fault};

use crate::proxy::canned;
use crate::seaweedfs::{KEY, READABLE, READER};

/// The store with these settings.
fn open(own: StoreSettings) -> Blobs {
    let stores = Stores {
        own,
        ..Stores::default()
    };
    Blobs::open(&stores).expect("nothing is asked yet")
}

#[track_caller]
pub(crate) fn assert_fault(error: &Error, expected: Fault) {
    match error {
        Error::Refused { fault, .. } => assert_eq!(*fault, expected, "{error}"),
        other => panic!("{other:?}"),
    }
    let kind = match expected.is_retryable() {
        true => ErrorKind::Unavailable,
        false => ErrorKind::Refused,
    };
    assert_eq!(error.kind(), kind);
    assert!(error.to_string().contains(expected.advice()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_real_server_refuses_has_a_name() {
    let server = crate::server();
    let at = |url: &str, key| open(crate::settings(&server.endpoint(), url, key));
    let url = format!("s3://{READABLE}/a");
    at(&url, KEY).put("x", "text").await.expect("it is written");
    let reader = at(&url, READER);
    reader.check().await.expect("it may list");
    assert_eq!(reader.get("x").await.expect("it may read"), "text");
    let error = reader.put("y", "text").await.expect_err("it may not write");
    assert_fault(&error, Fault::NoPermission);
    let empty = at(&format!("s3://{READABLE}/b"), READER);
    let error = empty.claim("blue").await.expect_err("it may not write");
    assert_fault(&error, Fault::NoPermission);
    let error = at(&url, KEY).claim("blue").await.expect_err("it holds `x`");
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    for key in [("OWNER", "another-secret"), ("NOBODY", "owner-secret")] {
        let error = at(&url, key).check().await.expect_err("nobody knows it");
        assert_fault(&error, Fault::WrongCredentials);
    }
    let error = at("s3://nowhere/a", KEY).check().await.expect_err("none");
    assert_fault(&error, Fault::NoBucket);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_belongs_to_the_cluster_that_came_first() {
    let server = crate::server();
    crate::make(&server.endpoint(), "claimed").await;
    let blue = crate::bucket(&server.endpoint(), "s3://claimed/weft");
    for _ in 0..2 {
        blue.claim("blue").await.expect("it is blue's");
    }
    let error = blue.claim("green").await.expect_err("it is blue's");
    let text = error.to_string();
    assert!(
        text.contains("`blue`") && text.contains("another prefix"),
        "{text}"
    );
    let other = crate::bucket(&server.endpoint(), "s3://claimed/other");
    other.claim("green").await.expect("another prefix");
}

/// Answers of AWS that no server here gives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_servers_answer_has_a_name() {
    let code = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    for (status, body, expected) in [
        (403, code("AccessDenied"), Fault::NoPermission),
        (301, code("PermanentRedirect"), Fault::WrongRegion),
        (
            400,
            code("AuthorizationHeaderMalformed"),
            Fault::WrongRegion,
        ),
        (403, code("RequestTimeTooSkewed"), Fault::ClockSkew),
        (400, code("ExpiredToken"), Fault::Expired),
        (404, code("NoSuchBucket"), Fault::NoBucket),
        (200, "<html>It works!</html>".into(), Fault::NotAStore),
        (404, "<html>Not Found</html>".into(), Fault::NotAStore),
    ] {
        let endpoint = canned(status, &body);
        let blobs = open(crate::settings(&endpoint, "s3://bucket/a", KEY));
        // A list of nothing looks like any page; what is written does not.
        let answered = match blobs.check().await {
            Ok(()) => blobs.claim("blue").await,
            refused => refused,
        };
        let error = answered.expect_err("it is no answer");
        assert_fault(&error, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_without_a_server_are_named() {
    // Bound and not listened on: nobody else gets the port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it is bound");
    drop(taken);
    let endpoint = format!("http://{address}");
    let blobs = open(crate::settings(&endpoint, "s3://bucket/a", KEY));
    let error = blobs.check().await.expect_err("nobody listens");
    assert_fault(&error, Fault::Unreachable);
}
