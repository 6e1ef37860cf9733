//! Formatting, lints, layers and prose, for the workspace and for the crates of guests, which are
//! not members of it.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::places::Places;
use crate::prose;
use crate::run::{FEATURES, cargo, run, step};
use crate::toolchain;

pub(crate) fn all(places: &Places) -> Result<()> {
    let guests = guest_crates(places)?;
    step("formatting", || formatting(places, &guests))?;
    step("clippy of the workspace", || workspace(places))?;
    step("clippy of the guests", || {
        guests.iter().try_for_each(|folder| guest(places, folder))
    })?;
    step("layers", || layers(places))?;
    step("prose", || prose::check(places))
}

/// The SDK and all guests: they are linted as the host sees them, so no Wasm toolchain is needed.
fn guest_crates(places: &Places) -> Result<Vec<PathBuf>> {
    let mut folders = vec![places.root.join("guest-sdk/rust")];
    folders.extend(places.guest_crates()?);
    Ok(folders)
}

fn formatting(places: &Places, guests: &[PathBuf]) -> Result<()> {
    run(cargo(places).args(["fmt", "--all", "--check"]))?;
    for folder in guests {
        run(cargo(places)
            .args(["fmt", "--check", "--manifest-path"])
            .arg(folder.join("Cargo.toml")))?;
    }
    Ok(())
}

fn workspace(places: &Places) -> Result<()> {
    toolchain::ensure_protoc()?;
    let mut clippy = cargo(places);
    clippy.args(["clippy", "--release", "--workspace", "--all-targets"]);
    run(clippy.args(FEATURES).args(["--", "-D", "warnings"]))
}

fn guest(places: &Places, folder: &Path) -> Result<()> {
    let mut clippy = cargo(places);
    clippy
        .args(["clippy", "--release", "--all-targets", "--manifest-path"])
        .arg(folder.join("Cargo.toml"));
    clippy
        .args(["--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", places.target.join("sdk-tests"));
    run(&mut clippy)
}

/// The layers are tests, so that `cargo test` checks them too.
fn layers(places: &Places) -> Result<()> {
    run(cargo(places).args([
        "test",
        "--release",
        "--quiet",
        "-p",
        "weft-xtask",
        "--test",
        "layers",
    ]))
}
