//! Micro-benches of the sandbox, next to bare wasmtime and native code in the same run.
//!
//! ```text
//! WEFT_GUESTS=FOLDER cargo run --release -p weft-sandbox --example micro [ROUNDS]
//! ```
//!
//! Each round runs every row once, so that what else the machine does meets all of them alike. A row is the median of the
//! rounds, with the smallest and the largest.

#![expect(clippy::print_stdout, reason = "a bench tells what it found")]

mod cold;
mod fresh;
mod maps;
mod probe;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weft_sandbox::{Component, Engine, GuestSettings, MemoryAccount, Role, TaskLog, compile};

use crate::report::Report;

const ROUNDS: usize = 7;

/// What all rows share.
struct Bench {
    engine: Engine,
    folder: tempfile::TempDir,
    report: Report,
}

/// The bytes of a guest that `cargo xtask test` builds.
fn bytes(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("WEFT_GUESTS").expect("WEFT_GUESTS names a folder of guests");
    let path = PathBuf::from(folder).join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Bench {
    fn artefact(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        if !path.exists() {
            let compiled = compile(&bytes(name)).expect("it is a component");
            std::fs::write(&path, compiled.artefact).expect("it is written");
        }
        path
    }

    fn component(&self, name: &str) -> Arc<Component> {
        Component::load(&self.engine, &self.artefact(name)).expect("it loads")
    }
}

/// Settings whose limits are not met.
fn settings() -> GuestSettings {
    GuestSettings {
        label: "bench@0.1.0/function".into(),
        account: MemoryAccount::new(1 << 30),
        cpu_limit_ns: u64::MAX,
        cpu_before_ns: 0,
        output_limit_bytes: u64::MAX,
        log: Arc::new(TaskLog::default()),
        cancel: CancellationToken::new(),
        seed: 1,
        started_ms: 0,
        expressions: None,
        futures: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

fn main() {
    let rounds = std::env::args().nth(1);
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let mut bench = Bench {
        engine: Engine::new(Role::Both).expect("the engine starts"),
        folder: tempfile::tempdir().expect("a folder"),
        report: Report::default(),
    };
    let fresh = fresh::Fresh::new(&bench);
    let maps = maps::Maps::new(&bench);
    for _ in 0..rounds {
        fresh.round(&mut bench.report);
        maps.round(&mut bench.report);
        cold::round(&mut bench);
    }
    bench.report.print();
}
