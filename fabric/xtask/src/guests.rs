//! Builds the components that tests run, to `NAME.wasm` in one folder.
//!
//! A guest is a folder of `examples/` or of `fabric/*/tests/guests/`: a crate, or a Python program `app.py`. A Python program of the
//! examples is built by `weft build`, with the SDK; one of the tests meets the contract itself. Beside a component lies `NAME.inputs`, a hash of all that it was made from; while that is unchanged, the guest is not built.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::places::Places;
use crate::python;
use crate::run::{FEATURES, answer, cargo, guest_program, run, step};
use crate::toolchain;

/// What lies in a guest's folder beside its sources, and in any folder of it.
const BESIDE_SOURCES: [&str; 5] = ["target", "out", "data", ".venv", "__pycache__"];
const AMONG_SOURCES: [&str; 1] = ["__pycache__"];

/// Builds the `weft` binary, in release as everything.
pub(crate) fn build_weft(places: &Places) -> Result<()> {
    toolchain::ensure_protoc()?;
    let mut command = cargo(places);
    command.args(["build", "--release", "-p", "weft", "--bin", "weft"]);
    command.args(FEATURES);
    run(&mut command)
}

/// Builds one project to a component at `out`, by `weft build`. Guests share what cargo builds for them.
pub(crate) fn build_project(places: &Places, folder: &Path, out: &Path) -> Result<()> {
    let mut command = guest_program(places.weft());
    command.arg("build").arg(folder).arg("--out").arg(out);
    run(command
        .arg("--target-dir")
        .arg(places.target.join("guest-crates")))
}

/// Builds the guests whose inputs have changed. Gives the folder of all. `weft` must have been built.
pub(crate) fn build_all(places: &Places) -> Result<PathBuf> {
    let out = places.guests();
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let tools = Tools::of(places)?;
    for (name, folder) in all(places)? {
        let (wasm, stamp) = (
            out.join(format!("{name}.wasm")),
            out.join(format!("{name}.inputs")),
        );
        let inputs = tools.inputs(&folder)?;
        if wasm.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|old| old == inputs) {
            println!("guest {name} is up to date");
            continue;
        }
        drop(std::fs::remove_file(&stamp));
        step(&format!("build guest {name}"), || {
            tools.build(&folder, &wasm)
        })?;
        std::fs::write(&stamp, inputs)?;
    }
    Ok(out)
}

/// All guests by name.
fn all(places: &Places) -> Result<BTreeMap<String, PathBuf>> {
    let mut folders = places.guest_crates()?;
    folders.extend(places.folders_with("examples", "", "app.py")?);
    folders.extend(places.folders_with("fabric", "tests/guests", "app.py")?);
    let mut guests = BTreeMap::new();
    for folder in folders {
        let name = folder
            .file_name()
            .and_then(|name| name.to_str())
            .context("a guest's folder has a name")?;
        if let Some(other) = guests.insert(name.to_owned(), folder.clone()) {
            bail!(
                "two guests are called `{name}`: {} and {}",
                other.display(),
                folder.display()
            );
        }
    }
    Ok(guests)
}

/// What guests are made with, and a hash of it for each language.
struct Tools<'a> {
    places: &'a Places,
    rust: u64,
    python: u64,
}

impl<'a> Tools<'a> {
    fn of(places: &'a Places) -> Result<Tools<'a>> {
        let rustc = answer(guest_program("rustc").arg("--version"));
        let mut rust = DefaultHasher::new();
        rust.write(rustc.unwrap_or_default().as_bytes());
        add_file(&mut rust, &places.weft())?;
        add_folder(
            &mut rust,
            &places.root.join("guest-sdk/rust"),
            &BESIDE_SOURCES,
        )?;
        add_folder(&mut rust, &places.root.join("wit"), &[])?;
        let mut python = DefaultHasher::new();
        python.write(python::VERSION.as_bytes());
        // Not the whole binary, which changes often, and makes none of a component's bytes.
        let builder = places.root.join("fabric/cli/src/project/build_python.rs");
        add_file(&mut python, &builder)?;
        let sdk = places.root.join("guest-sdk/python");
        add_folder(&mut python, &sdk, &["__pycache__", "tests"])?;
        add_folder(&mut python, &places.root.join("wit"), &[])?;
        Ok(Tools {
            places,
            rust: rust.finish(),
            python: python.finish(),
        })
    }

    fn inputs(&self, folder: &Path) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(if is_python(folder) {
            self.python
        } else {
            self.rust
        });
        add_folder(&mut hasher, folder, &BESIDE_SOURCES)?;
        Ok(format!("{:016x}\n", hasher.finish()))
    }

    fn build(&self, folder: &Path, wasm: &Path) -> Result<()> {
        if !is_python(folder) {
            return build_project(self.places, folder, wasm);
        }
        let tool = python::ensure(self.places)?;
        if folder.starts_with(self.places.root.join("examples")) {
            return build_project(self.places, folder, wasm);
        }
        python::componentize(&tool, &self.places.root.join("wit"), folder, wasm)
    }
}

fn is_python(folder: &Path) -> bool {
    !folder.join("Cargo.toml").is_file()
}

/// Adds names and contents of the files below a folder, in order, without components and what is `skipped` in it.
fn add_folder(hasher: &mut DefaultHasher, folder: &Path, skipped: &[&str]) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .expect("it was listed by its name")
            .to_string_lossy();
        if skipped.contains(&name.as_ref()) || name.ends_with(".wasm") {
            continue;
        }
        hasher.write(name.as_bytes());
        match path.is_dir() {
            true => add_folder(hasher, &path, &AMONG_SOURCES)?,
            false => add_file(hasher, &path)?,
        }
        hasher.write_u8(0xff);
    }
    Ok(())
}

fn add_file(hasher: &mut DefaultHasher, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    hasher.write_usize(bytes.len());
    hasher.write(&bytes);
    Ok(())
}
