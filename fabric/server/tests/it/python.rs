//! A guest in another language, with an interpreter and WASI in it.

use serde_json::json;

use crate::fixture::{Fixture, Place};
use crate::server::{Server, Setup};
use crate::{guests, job, outputs};

#[test]
fn a_python_guest_is_deployed_and_maps() {
    let fixture = Fixture::shared();
    let place = Place::with_components(&fixture);
    let server = Server::start(&place.data(), &Setup::default());
    let file = guests::path("hello-py");
    let deployed = server
        .cli(&["deploy", file.to_str().expect("a plain name")])
        .output()
        .expect("the command runs");
    assert!(deployed.status.success(), "{deployed:?}");
    let input = place.path("names.txt");
    std::fs::write(&input, "Ada\nGrace\nZoë\n").expect("it writes");
    let job = json!({
        "name": "greetings",
        "params": { "hello": "good day" },
        "input": { "names": { "format": "text", "uri": input, "encoding": "utf8" } },
        "stage": [
            { "name": "name", "from": "names", "map": "vandal/name" },
            { "name": "greet", "from": "name", "map": "hello-py/greet" },
        ],
        "output": { "greetings": { "from": "greet", "format": "parquet", "uri": place.out() } },
    });
    let ended = job::run(&server, &job);
    assert_eq!(ended["outputs"][0]["rows"], 3, "{ended:#}");
    let expected =
        ["Ada", "Grace", "Zoë"].map(|name| vec![name.to_owned(), format!("good day, {name}")]);
    assert_eq!(outputs::texts(&place.out()), expected);
}
