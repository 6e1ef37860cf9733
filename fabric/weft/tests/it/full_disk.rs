//! Full disks: the job that meets one fails and says so, nothing is left of it, and the server goes on.

use std::path::PathBuf;

use crate::clock::until_empty;
use crate::fixture::{Fixture, Place};
use crate::server::{Server, Setup};
use crate::{folder, job};

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
