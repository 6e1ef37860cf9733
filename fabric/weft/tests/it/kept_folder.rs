//! A data folder that an earlier version wrote is opened, and its work goes on.

use std::path::Path;

use serde_json::Value;

use crate::clock::eventually;
use crate::fixture::Place;
use crate::http::Request;
use crate::server::{Server, Setup};
use crate::{folder, job};

/// Folders by format, as `tests/folders/make.py` wrote them. None is ever written anew.
const FORMATS: [&str; 1] = ["format-2"];

fn list(server: &Server, path: &str) -> Vec<Value> {
    let answer = server.ask(&Request::get(path)).ok();
    answer["items"].as_array().expect("a list").clone()
}

#[test]
fn folders_of_earlier_versions_are_opened_and_their_work_goes_on() {
    for format in FORMATS {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/folders");
        let place = Place::new();
        folder::copy(&kept.join(format), &place.data());
        let server = Server::start(&place.data(), &Setup::default());
        let components = list(&server, "/v1/components");
        assert_eq!(components[0]["name"], "hello", "{format}");
        let jobs = list(&server, "/v1/jobs");
        let of_name = |name: &str| {
            let found = jobs.iter().find(|job| job["name"] == name);
            found.unwrap_or_else(|| panic!("{format}: there is no job `{name}` in {jobs:#?}"))
        };
        for name in ["first", "second", "keyed"] {
            let id = job::id_of(of_name(name));
            assert_eq!(job::show(&server, &id)["status"], "succeeded", "{format}");
            let receipt = Request::get(format!("/v1/jobs/{id}/receipt"));
            let receipt = server.ask(&receipt).ok();
            assert!(
                receipt["billed"]["guest_cpu_ns"].as_u64() > Some(0),
                "{receipt:#}"
            );
        }
        // Its artefacts are not those of this engine: the component is compiled anew.
        let ended = job::wait(&server, &job::id_of(of_name("under-way")));
        assert_eq!(ended["status"], "succeeded", "{format}: {ended:#}");
        assert_eq!(ended["stages"][0]["tasks_done"], 200, "{format}");
        let usage = eventually("usage is there", || {
            let usage = server.ask(&Request::get("/v1/usage")).ok();
            usage["lines"]
                .as_array()
                .map(|lines| !lines.is_empty())?
                .then_some(usage)
        });
        let text = usage.to_string();
        assert!(text.contains("hello@0.1.0/echo"), "{format}: {usage:#}");
        assert!(server.stop().success(), "{format}");
        // Once opened, it is as any other.
        let server = Server::start(&place.data(), &Setup::default());
        assert_eq!(list(&server, "/v1/jobs").len(), jobs.len(), "{format}");
        assert!(server.stop().success(), "{format}");
    }
}

/// A folder of before is refused as such, and stays as it was.
#[test]
fn folders_of_format_1_are_refused() {
    let place = Place::new();
    std::fs::create_dir_all(place.data().join("raft/log")).expect("it is made");
    std::fs::write(place.data().join("lock"), "").expect("it is written");
    let before = folder::contents(&place.data());
    let refused = Server::try_start(&place.data(), &Setup::default());
    let text = refused.err().expect("it is refused");
    for word in ["earlier version", "format 1", "--data"] {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(folder::contents(&place.data()), before);
}
