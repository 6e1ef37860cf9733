//! A guest in another language, with an interpreter and WASI in it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::fixture::{Fixture, Place};
use crate::server::{Server, Setup, weft};
use crate::{guests, job, outputs};

/// Runs a command in a folder, and gives what it wrote to standard output and to standard error.
fn run(command: &mut Command, folder: &Path, succeeds: bool) -> (String, String) {
    let done = command.current_dir(folder).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(done.stdout), text(done.stderr));
    assert_eq!(done.status.success(), succeeds, "{stdout}\n{stderr}");
    (stdout, stderr)
}

#[test]
fn a_new_python_project_is_tested_built_deployed_and_run() {
    let place = Place::new();
    let server = Server::start(&place.data(), &Setup::default());
    let project = place.path("my-hits");
    let new = ["new", "my-hits", "--lang", "python"];
    let parent = project.parent().expect("it has one");
    run(weft().args(new), parent, true);
    let (_, tested) = run(
        Command::new("python3").args(["-B", "-m", "unittest"]),
        &project,
        true,
    );
    assert!(tested.contains("Ran 2 tests"), "{tested}");
    let (built, _) = run(weft().args(["build", "--json"]), &project, true);
    let built: Value = serde_json::from_str(&built).expect("a document");
    assert_eq!(
        (&built["name"], &built["toolchain"]),
        (&json!("my-hits"), &json!("componentize-py"))
    );
    let (deployed, _) = run(&mut server.cli(&["deploy", "my-hits.wasm"]), &project, true);
    assert!(deployed.contains("map-batches my-hits/words"), "{deployed}");
    for _ in 0..2 {
        run(&mut server.cli(&["run", "job.toml"]), &project, true);
    }
    let expected = [
        "Pack my box with five dozen liquor jugs.|8",
        "The quick brown fox|4",
        "jumps over the lazy dog.|5",
        "|0",
    ];
    assert_eq!(outputs::rows(&project.join("out/words")), expected);
    let (shown, _) = run(&mut server.cli(&["show", "out/lengths"]), &project, true);
    let shown: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = [
        ["words", "lines"],
        ["0", "1"],
        ["4", "1"],
        ["5", "1"],
        ["8", "1"],
    ];
    assert_eq!(shown[..5], expected);
}

#[test]
fn what_a_python_function_raises_is_told_with_its_place() {
    let place = Place::new();
    let server = Server::start(&place.data(), &Setup::default());
    let project = place.path("wrong");
    std::fs::create_dir(&project).expect("a folder");
    let app = "import weft\nweft.component('wrong', '1.0.0')\n\n@weft.task\ndef fail(params):\n    return {}[params['key']]\n";
    std::fs::write(project.join("app.py"), app).expect("written");
    run(weft().arg("build"), &project, true);
    run(&mut server.cli(&["deploy", "wrong.wasm"]), &project, true);
    let call = |arguments: &[&str]| {
        let arguments = [&["invoke", "wrong/fail", "--input", ""], arguments].concat();
        run(&mut server.cli(&arguments), &project, false).1
    };
    let failed = call(&["--param", "key=x"]);
    assert!(
        failed.contains("KeyError: 'x' (app.py:6 in `fail`)"),
        "{failed}"
    );
    let failed = call(&[]);
    assert!(failed.contains("parameter `key` is missing"), "{failed}");

    std::fs::write(
        project.join("app.py"),
        "import weft\nweft.component('Wrong', '1')\n",
    )
    .expect("written");
    let (_, refused) = run(weft().arg("build"), &project, false);
    assert!(
        refused.contains("`Wrong` is no name for a component"),
        "{refused}"
    );
}

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
