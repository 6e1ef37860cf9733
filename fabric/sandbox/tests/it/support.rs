//! Guests by name, and settings with room for what a test does.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use tokio_util::sync::CancellationToken;
use weft_core::LimitKind;
use weft_sandbox::{
    Component, Engine, Fault, Guest, GuestSettings, MemoryAccount, Result, Role, TaskLog, compile,
};

pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(Role::Both).expect("the engine starts"))
}

/// The component of a guest that `cargo xtask test` builds.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("WEFT_GUESTS");
    let folder = folder.expect("WEFT_GUESTS is not set: run `cargo xtask test`");
    let path = std::path::Path::new(&folder).join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "cannot read {}: {error}; run `cargo xtask test`",
            path.display()
        )
    })
}

/// Compiles and loads a component.
pub(crate) fn load(bytes: &[u8]) -> Arc<Component> {
    let compiled = compile(bytes).expect("it is a component");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&compiled.artefact).expect("it is written");
    Component::load(engine(), file.path()).expect("it loads")
}

/// A guest by name, compiled once for all tests.
pub(crate) fn guest(name: &str) -> Arc<Component> {
    type Loaded = BTreeMap<String, Arc<OnceLock<Arc<Component>>>>;
    static LOADED: Mutex<Loaded> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let cell = Arc::clone(loaded.entry(name.to_owned()).or_default());
    drop(loaded);
    Arc::clone(cell.get_or_init(|| load(&bytes(name))))
}

/// Settings with 64 MiB of memory, 10 s of CPU time and 1 MiB of output.
pub(crate) fn settings() -> GuestSettings {
    GuestSettings {
        label: "guest@0.1.0/function".into(),
        account: MemoryAccount::new(64 << 20),
        cpu_limit_ns: 10_000_000_000,
        cpu_before_ns: 0,
        output_limit_bytes: 1 << 20,
        log: Arc::new(TaskLog::default()),
        cancel: CancellationToken::new(),
        seed: 7,
        started_ms: 1_700_000_000_123,
        expressions: None,
        futures: None,
    }
}

pub(crate) async fn start(name: &str) -> Guest {
    let started = Guest::start(&guest(name), settings()).await;
    started.expect("the guest starts")
}

/// Runs a task function in a fresh sandbox.
pub(crate) async fn run(name: &str, function: &str, input: &str) -> Result<Vec<u8>> {
    run_with(settings(), name, function, input).await
}

pub(crate) async fn run_with(
    settings: GuestSettings,
    name: &str,
    function: &str,
    input: &str,
) -> Result<Vec<u8>> {
    let mut guest = Guest::start(&guest(name), settings).await?;
    guest.run_task(function, &[], 0, input.as_bytes()).await
}

/// Binds, opens, pushes and finishes a map in a fresh sandbox.
pub(crate) async fn map(name: &str, function: &str, input: &[RecordBatch]) -> Vec<RecordBatch> {
    let mut guest = start(name).await;
    let bound = guest.bind(function, &input[0].schema(), &[]).await;
    let opened = guest.open_mapper(function, &[], bound.expect("it binds"));
    opened.await.expect("it opens");
    let mut output = Vec::new();
    for batch in input {
        let pushed = guest.push_mapper(batch.clone()).await;
        pushed.expect("it takes the batch");
        output.extend(guest.take_output().0);
    }
    guest.finish_mapper().await.expect("it finishes");
    output.extend(guest.take_output().0);
    output
}

#[track_caller]
pub(crate) fn check_limit<T: std::fmt::Debug>(
    result: Result<T>,
    expected: LimitKind,
    expected_value: &str,
) {
    match result {
        Err(Fault::Limit { kind, value, .. }) => {
            assert_eq!((kind, value.as_str()), (expected, expected_value));
        }
        other => panic!("expected the limit {expected}, not {other:?}"),
    }
}

#[track_caller]
pub(crate) fn check_trapped<T: std::fmt::Debug>(result: Result<T>, part: &str) {
    match result {
        Err(Fault::Trapped(message)) => {
            assert!(message.contains(part), "`{message}` lacks `{part}`");
        }
        other => panic!("expected a trap, not {other:?}"),
    }
}

#[track_caller]
pub(crate) fn check_failed<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
    match result {
        Err(Fault::Failed(message)) => {
            for part in parts {
                assert!(message.contains(part), "`{message}` lacks `{part}`");
            }
        }
        other => panic!("expected an error of the function, not {other:?}"),
    }
}

#[track_caller]
pub(crate) fn check_schema<T: std::fmt::Debug>(result: Result<T>, part: &str) {
    match result {
        Err(Fault::Schema(message)) => {
            assert!(message.contains(part), "`{message}` lacks `{part}`");
            assert!(message.len() < 4096, "{} bytes", message.len());
        }
        other => panic!("expected a wrong schema, not {other:?}"),
    }
}
