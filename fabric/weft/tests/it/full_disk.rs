//! Full disks: the job that meets one fails and says so, nothing is left of it, and the server goes on.

use std::path::PathBuf;

use crate::clock::until_empty;
use crate::fixture::{Fixture, Place};
use crate::server::{Server, Setup};
use crate::{catalog, folder, job};

/// Runs the weblog job where `disk` holds `size` and no more.
fn check(disk: impl FnOnce(&Place) -> PathBuf, size: &'static str) {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let setup = Setup {
        disks: vec![(disk(&place), size)],
        ..Setup::default()
    };
    let server = Server::start(&place.data(), &setup);
    let weblog = job::weblog(&fixture.logs(), &place.out());
    let ended = job::wait(&server, &job::submit(&server, &weblog));
    assert_eq!(ended["status"], "failed", "{ended:#}");
    assert_eq!(ended["problem"]["code"], "store_unavailable", "{ended:#}");
    let detail = ended["problem"]["detail"].as_str().expect("a text");
    assert!(detail.contains("No space left"), "{detail}");
    until_empty("nothing is left behind", || {
        let mut left = folder::leftovers(&server.sees(&place.data()));
        left.extend(folder::files(&server.sees(&place.out())));
        left
    });
    job::run(&server, &job::noop(1));
}

#[test]
#[ignore = "needs a mount namespace; `cargo xtask test` runs it where there is one"]
fn outputs_that_do_not_fit() {
    check(Place::out, "8k");
}

#[test]
#[ignore = "needs a mount namespace; `cargo xtask test` runs it where there is one"]
fn shuffle_objects_that_do_not_fit() {
    check(|place| place.path("data/store/jobs"), "64k");
}

/// The rows that were staged go before anything else is written, so that statements go on.
#[test]
#[ignore = "needs a mount namespace; `cargo xtask test` runs it where there is one"]
fn kept_tables_that_do_not_fit() {
    let place = Place::new();
    let here = place.path("here");
    std::fs::create_dir(&here).expect("it is made");
    let server = Server::start(&place.data(), &Setup::default());
    assert!(server.stop().success());
    let store = place.data().join("store");
    let setup = Setup {
        disks: vec![(store.clone(), "32m")],
        ..Setup::default()
    };
    let server = Server::start(&place.data(), &setup);
    let table = "CREATE TABLE t AS SELECT md5(CAST(value AS VARCHAR)) AS h FROM generate_series(1, 4000000)";
    catalog::refused(&server, &here, table, "No space left");
    let files = |folder: &str| folder::files(&server.sees(&store.join(folder)));
    until_empty("the rows are gone", || files("outputs"));
    until_empty("the job is archived", || files("jobs"));
    assert!(!files("archive").is_empty());
    let rows = catalog::done(&server, &here, "SELECT 1 AS a")["rows"].clone();
    assert_eq!(rows, serde_json::json!([[1]]));
}
