//! Running other programs.
//!
//! Every program that a verb waits for goes through [`run`] or [`run_lines`], so that [`supervise`](crate::supervise) knows
//! what to stop. `cargo run` describes the package that it runs in the environment; none of that reaches what we start.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::places::Places;
use crate::supervise;

/// What the outer cargo sets for the package that it runs.
const SET_BY_CARGO: [&str; 7] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_PRIMARY_",
    "CARGO_RUSTC_",
    "RUST_RECURSION_COUNT",
];

/// What a guest's build keeps of cargo's and rustup's variables: where things are and how to reach registries. All else,
/// flags above all, is meant for the machine that we build on.
const KEPT_FOR_GUESTS: [&str; 11] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "RUSTUP_AUTO_",
    "RUSTUP_DIST_",
    "RUSTUP_HOME",
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// Features of what the verbs build: all of them, the same everywhere, so that nothing is built twice.
pub(crate) const FEATURES: [&str; 2] = ["--features", "weft/etcd"];

/// Cargo on the workspace, building to our target folder.
pub(crate) fn cargo(places: &Places) -> Command {
    let mut command = program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&places.root)
        .env("CARGO_TARGET_DIR", &places.target);
    command
}

/// A program that sees the user's environment, without what `cargo run` adds to it.
pub(crate) fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    remove(&mut command, |name| {
        name == "CARGO" || starts_with_any(name, &SET_BY_CARGO)
    });
    command
}

/// A program that builds guests: no variable of cargo, rustc or the loader reaches it.
pub(crate) fn guest_program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    remove(&mut command, |name| {
        let is_build = name.starts_with("CARGO") || name.starts_with("RUST");
        name == "LD_LIBRARY_PATH" || is_build && !starts_with_any(name, &KEPT_FOR_GUESTS)
    });
    command
}

fn remove(command: &mut Command, is_removed: impl Fn(&str) -> bool) {
    let names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names
        .iter()
        .filter(|name| name.to_str().is_some_and(&is_removed))
    {
        command.env_remove(name);
    }
}

fn starts_with_any(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Runs a program to its end. Errors: it does not start, or ends with anything but 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let child = start(command)?;
    check(command, supervise::wait(child)?)
}

/// Like [`run`], handing each line of the standard output to `line` as it comes.
pub(crate) fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    let mut child = start(command.stdout(Stdio::piped()))?;
    supervise::watch(&child);
    let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut bytes = Vec::new();
    while output.read_until(b'\n', &mut bytes)? > 0 {
        line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
        bytes.clear();
    }
    check(command, supervise::wait(child)?)
}

/// The standard output of a program that asks about something, trimmed; `None` where it is missing or fails.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Starts a program. The caller waits for it.
pub(crate) fn start(command: &mut Command) -> Result<Child> {
    ensure!(!supervise::is_stopping(), "interrupted");
    supervise::separate(command);
    let started = command.spawn();
    started.with_context(|| format!("cannot start `{}`", command.get_program().display()))
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed: {status}", line_of(command));
    }
    Ok(())
}

/// The command as one would type it, more or less.
pub(crate) fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// Runs a step of a verb under its name, and says how long it took.
pub(crate) fn step<T>(name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {name}");
    let started = now();
    let result = step().with_context(|| format!("step `{name}`"));
    let word = if result.is_ok() { "done" } else { "FAILED" };
    println!(
        "==> {name}: {word} in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    result
}

/// The time, for what people see and for deadlines.
#[expect(clippy::disallowed_methods, reason = "the one clock of this program")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
