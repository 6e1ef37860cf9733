//! The layers of the fabric: which crate may depend on what. `fabric/ARCHITECTURE.md` says why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates of the fabric, in the order in which they may depend on each other: on those before only.
const CRATES: [&str; 7] = [
    "weft-core",
    "weft-control",
    "weft-consensus",
    "weft-shuffle",
    "weft-sandbox",
    "weft-engine",
    "weft-server",
];

fn root() -> PathBuf {
    Path::new("../..").to_owned()
}

/// Names of the crates that `package` depends on: all of them, or those of its own `Cargo.toml`. Not those of its tests.
fn dependencies(package: &str, depth: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--locked",
        "--offline",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--depth",
        depth,
    ]);
    let output = cargo
        .args(["--package", package])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).expect("names of crates are UTF-8");
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let names: BTreeSet<String> = names
        .filter(|name| !name.is_empty() && *name != package)
        .map(str::to_owned)
        .collect();
    assert!(
        package == "weft-core" || !names.is_empty(),
        "`cargo tree` says nothing about {package}"
    );
    names
}

fn all(package: &str) -> BTreeSet<String> {
    dependencies(package, "999")
}

fn direct(package: &str) -> BTreeSet<String> {
    dependencies(package, "1")
}

/// The crates that name a dependency in their own `Cargo.toml`.
fn who_names(is_it: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let names = |package: &&str| direct(package).iter().any(|name| is_it(name));
    CRATES
        .into_iter()
        .filter(|package| names(package))
        .collect()
}

#[test]
fn control_is_pure() {
    for package in ["weft-core", "weft-control"] {
        let found = all(package);
        for heavy in ["tokio", "hyper", "wasmtime", "object_store", "raft"] {
            assert!(!found.contains(heavy), "{package} depends on {heavy}");
        }
    }
}

#[test]
fn only_sandbox_names_wasmtime() {
    let found = who_names(|name| name == "wasmtime" || name.starts_with("wasmtime-"));
    assert_eq!(found, ["weft-sandbox"]);
}

#[test]
fn only_engine_names_datafusion() {
    assert_eq!(
        who_names(|name| name.starts_with("datafusion")),
        ["weft-engine"]
    );
}

#[test]
fn only_consensus_names_raft() {
    assert_eq!(
        who_names(|name| name == "raft" || name == "raft-engine"),
        ["weft-consensus"]
    );
}

#[test]
fn consensus_knows_no_job() {
    let ours: Vec<String> = all("weft-consensus")
        .into_iter()
        .filter(|name| name.starts_with("weft-"))
        .collect();
    assert!(ours.is_empty(), "weft-consensus depends on {ours:?}");
}

#[test]
fn dependencies_point_one_way() {
    for (position, package) in CRATES.into_iter().enumerate() {
        let found = direct(package);
        for later in &CRATES[position..] {
            assert!(!found.contains(*later), "{package} depends on {later}");
        }
    }
}

/// Settings come in by argument. The exceptions are for tests: failpoints, and how many mutants there are.
#[test]
fn only_the_server_reads_the_environment() {
    let exceptions = [
        "fabric/server/",
        "fabric/core/src/failpoint.rs",
        "fabric/engine/src/planner/mutants.rs",
    ];
    let mut sources = Vec::new();
    for package in CRATES {
        let name = package.strip_prefix("weft-").expect("our prefix");
        add_sources(&root().join("fabric").join(name).join("src"), &mut sources);
    }
    assert!(
        sources.len() > CRATES.len(),
        "the sources are where they were"
    );
    for path in sources {
        let text = std::fs::read_to_string(&path).expect("sources are text");
        let path = path.to_string_lossy();
        let is_exception = exceptions.iter().any(|exception| path.contains(exception));
        assert!(
            is_exception || !text.contains("env::var"),
            "{path} reads the environment"
        );
    }
}

fn add_sources(folder: &Path, sources: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a crate has sources") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            add_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}
