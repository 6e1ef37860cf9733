//! The layers of the fabric: which crate may depend on what. `fabric/ARCHITECTURE.md` says why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates of the fabric, in the order in which they may depend on each other: on those before only.
const CRATES: [&str; 19] = [
    "weft-core",
    "weft-failpoint",
    "weft-protocol",
    "weft-control",
    "weft-consensus",
    "weft-store",
    "weft-shuffle",
    "weft-sandbox",
    "weft-sql",
    "weft-engine",
    "weft-runtime",
    "weft-net",
    "weft-telemetry",
    "weft-controller",
    "weft-agent",
    "weft-executor",
    "weft-client",
    "weft-cli",
    "weft",
];

/// Crates that do no I/O: pure types, and the pure state machine.
const PURE: [&str; 3] = ["weft-core", "weft-protocol", "weft-control"];

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
    let mut names: BTreeSet<String> = names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    assert!(
        names.remove(package),
        "`cargo tree` does not list {package}"
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

/// Checks that nothing in the whole dependency tree of `package` is one of `heavy` or begins with `heavy-`.
fn assert_lacks(package: &str, heavy: &[&str]) {
    let found = all(package);
    for heavy in heavy {
        let is_it = |name: &&String| *name == heavy || name.starts_with(&format!("{heavy}-"));
        let named: Vec<&String> = found.iter().filter(is_it).collect();
        assert!(named.is_empty(), "{package} depends on {named:?}");
    }
}

#[test]
fn pure_crates_do_no_io() {
    for package in PURE {
        let io = [
            "tokio",
            "hyper",
            "rustix",
            "libc",
            "object_store",
            "raft",
            "wasmtime",
        ];
        assert_lacks(package, &io);
    }
    let sources = PURE.map(sources_of).concat();
    for path in sources {
        let text = std::fs::read_to_string(&path).expect("sources are text");
        for io in [
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "std::env",
            "SystemTime",
        ] {
            assert!(!text.contains(io), "{} uses `{io}`", path.display());
        }
    }
}

#[test]
fn controllers_never_parse_tenants_bytes() {
    assert_lacks(
        "weft-controller",
        &["arrow", "parquet", "datafusion", "wasmtime"],
    );
}

#[test]
fn agents_carry_bytes_and_no_more() {
    let heavy = ["arrow", "parquet", "datafusion", "wasmtime", "raft", "axum"];
    assert_lacks("weft-agent", &heavy);
}

#[test]
fn stores_and_clients_are_light() {
    assert_lacks("weft-store", &["arrow", "datafusion", "wasmtime"]);
    let heavy = [
        "arrow",
        "datafusion",
        "wasmtime",
        "raft",
        "axum",
        "object_store",
    ];
    assert_lacks("weft-client", &heavy);
    assert_lacks("weft-cli", &heavy);
    let ours: BTreeSet<String> = all("weft-cli")
        .into_iter()
        .filter(|name| name.starts_with("weft"))
        .collect();
    assert_eq!(
        ours,
        BTreeSet::from(["weft-client", "weft-core"].map(str::to_owned))
    );
}

#[test]
fn only_sandbox_names_wasmtime() {
    let found = who_names(|name| name == "wasmtime" || name.starts_with("wasmtime-"));
    assert_eq!(found, ["weft-sandbox"]);
}

#[test]
fn only_sql_and_engine_name_datafusion() {
    assert_eq!(
        who_names(|name| name.starts_with("datafusion")),
        ["weft-sql", "weft-engine"]
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

/// Settings come in by argument. The exceptions: the command line, debugging of children, collectors, and tests (failpoints, and
/// how many mutants there are).
#[test]
fn only_the_binary_reads_the_environment() {
    let exceptions = [
        "fabric/weft/",
        "fabric/cli/",
        "fabric/failpoint/",
        "fabric/telemetry/src/exporter.rs",
        "fabric/agent/src/children.rs",
        "fabric/controller/src/scheduler/tests.rs",
        "fabric/controller/src/simulation.rs",
        "fabric/engine/src/planner/mutants.rs",
    ];
    for path in CRATES.into_iter().flat_map(sources_of) {
        let text = std::fs::read_to_string(&path).expect("sources are text");
        let path = path.to_string_lossy();
        let is_exception = exceptions.iter().any(|exception| path.contains(exception));
        assert!(
            is_exception || !text.contains("env::var"),
            "{path} reads the environment"
        );
    }
}

fn sources_of(package: &str) -> Vec<PathBuf> {
    let name = package.strip_prefix("weft-").unwrap_or(package);
    let mut sources = Vec::new();
    add_sources(&root().join("fabric").join(name).join("src"), &mut sources);
    assert!(!sources.is_empty(), "{package} has sources");
    sources
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
