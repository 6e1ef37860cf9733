//! Makes sure that guests can be built: a Rust toolchain with a Wasm target, and a C compiler for the host.
//!
//! `weft build` takes the toolchain in the path if it has the target, and Debian's otherwise, which brings the standard
//! library as source. What is missing is installed: by rustup where it can, by apt-get on Debian and Ubuntu.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{answer, guest_program, line_of, program, run};

const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's toolchain: compiler, cargo, the standard library's source, and the linker.
const DEBIAN_TOOLCHAIN: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];

/// The oldest compiler that guests build with, `rust-version` of the workspace.
const OLDEST: (u32, u32) = (1, 95);

/// Finds what guests are built with, and installs what is missing.
///
/// Asks before it uses sudo, except where CI is `true`. Errors: what is missing cannot be installed from here.
pub(crate) fn ensure() -> Result<()> {
    ensure_c_compiler()?;
    if let Some(found) = find_wasm() {
        println!("guests are built with {found}");
        return Ok(());
    }
    println!("no Rust toolchain for {TARGET} is installed");
    if has("rustup") {
        let added = run(guest_program("rustup").args(["target", "add", TARGET]));
        match (added, find_wasm()) {
            (Ok(()), Some(_)) => return Ok(()),
            (Ok(()), None) => println!(
                "rustup added the target to another toolchain than `rustc` in the path is of"
            ),
            (Err(error), _) => println!("rustup cannot add it: {error:#}"),
        }
    }
    install_debian()?;
    let found = find_wasm().with_context(|| {
        format!(
            "{} is installed, but does not build for {TARGET}",
            DEBIAN_TOOLCHAIN.join(", ")
        )
    })?;
    println!("guests are built with {found}");
    Ok(())
}

/// Installs Debian's toolchain, and its linker: `rust-lld` is a link to what a package of LLVM's version brings, which
/// none of the toolchain's packages depends on.
fn install_debian() -> Result<()> {
    let what = format!("a Rust toolchain with the target {TARGET}");
    install(&DEBIAN_TOOLCHAIN, &what)?;
    if has_linker() {
        return Ok(());
    }
    let linker =
        std::fs::read_link("/usr/bin/rust-lld").context("rust-web-llvm has no rust-lld")?;
    let package = linker.file_name().and_then(|name| name.to_str());
    install(&[package.unwrap_or("lld")], "the linker of this toolchain")
}

/// Finds the compiler of protocol buffers, which discovery by etcd is built with, or installs it.
pub(crate) fn ensure_protoc() -> Result<()> {
    match has("protoc") || std::env::var_os("PROTOC").is_some() {
        true => Ok(()),
        false => install(&["protobuf-compiler"], "`protoc`, for discovery by etcd,"),
    }
}

/// Finds etcd, which tests of discovery start, or installs it.
pub(crate) fn ensure_etcd() -> Result<()> {
    match has("etcd") {
        true => Ok(()),
        false => install(&["etcd-server"], "etcd, for tests of discovery,"),
    }
}

/// Finds Node and its package manager, which a store for tests needs, or installs them.
pub(crate) fn ensure_node() -> Result<()> {
    match has("node") && has("npm") {
        true => Ok(()),
        false => install(&["nodejs", "npm"], "Node with npm, for tests of stores,"),
    }
}

fn ensure_c_compiler() -> Result<()> {
    if !has_c_compiler() {
        install(&["build-essential"], "a C compiler with its headers")?;
        ensure!(
            has_c_compiler(),
            "`cc` does not compile, although build-essential is installed"
        );
    }
    Ok(())
}

/// True if `cc` compiles a file that needs the system's headers.
fn has_c_compiler() -> bool {
    let mut compiler = program("sh");
    compiler.args([
        "-c",
        "echo '#include <stdlib.h>' | cc -x c -c -o /dev/null -",
    ]);
    answer(&mut compiler).is_some()
}

fn find_wasm() -> Option<String> {
    find_with_target().or_else(find_debian)
}

/// The toolchain in the path, if it has the target.
fn find_with_target() -> Option<String> {
    let mut rustc = guest_program("rustc");
    let library = answer(rustc.args(["--print", "target-libdir", "--target", TARGET]))?;
    let version = answer(guest_program("rustc").arg("--version"))?;
    Path::new(&library).is_dir().then_some(version)
}

/// Debian's toolchain, if it can build the standard library: that takes two minutes, once.
fn find_debian() -> Option<String> {
    let version = answer(guest_program("/usr/bin/rustc").arg("--version"))?;
    let sysroot = answer(guest_program("/usr/bin/rustc").args(["--print", "sysroot"]))?;
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library/std/Cargo.toml");
    let has_all = source.is_file() && Path::new("/usr/bin/cargo").exists() && has_linker();
    (has_all && version_of(&version)? >= OLDEST)
        .then(|| format!("{version}, standard library from source"))
}

/// True if there is a linker for Wasm: Debian's, or the one that the compiler in the path brings.
fn has_linker() -> bool {
    let sysroot = answer(guest_program("rustc").args(["--print", "sysroot"])).unwrap_or_default();
    let targets = PathBuf::from(sysroot).join("lib/rustlib").read_dir();
    let mut targets = targets.into_iter().flatten().flatten();
    has("rust-lld") || targets.any(|target| target.path().join("bin/rust-lld").is_file())
}

/// Major and minor of `rustc 1.95.0 (..)`.
fn version_of(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// True if a program of this name is in the path.
pub(crate) fn has(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Installs packages of Debian or Ubuntu, which together are `what`.
pub(crate) fn install(packages: &[&str], what: &str) -> Result<()> {
    if !has("apt-get") {
        bail!(
            "{what} is missing: install it, on Debian and Ubuntu {}",
            packages.join(" ")
        );
    }
    let mut update = as_root();
    update.args(["apt-get", "update"]);
    let mut install = as_root();
    install
        .args(["apt-get", "install", "-y", "--no-install-recommends"])
        .args(packages);
    let lines = format!("{}\n  {}", line_of(&update), line_of(&install));
    println!("{what} is missing; to install it:\n  {lines}");
    ensure!(
        is_root() || is_ci() || asks("Run this?")?,
        "{what} is missing; to install it:\n  {lines}"
    );
    run(&mut update)?;
    run(&mut install)
}

/// A command that runs as root what its arguments say.
fn as_root() -> std::process::Command {
    let mut command = program(if is_root() { "env" } else { "sudo" });
    if !is_root() && is_ci() {
        command.arg("-n");
    }
    command.arg("DEBIAN_FRONTEND=noninteractive");
    command
}

fn is_root() -> bool {
    answer(program("id").arg("-u")).as_deref() == Some("0")
}

fn is_ci() -> bool {
    std::env::var("CI").as_deref() == Ok("true")
}

/// Asks a question that only `y` answers with yes; without a terminal the answer is no.
fn asks(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(
            version_of("rustc 1.96.0 (ac68faa20 2026-05-25)"),
            Some((1, 96))
        );
        assert_eq!(version_of("rustc 1.95.0-nightly"), Some((1, 95)));
        assert_eq!(version_of("rustc"), None);
    }
}
