//! `weft build`: from a project to a component.
//!
//! ```text
//!   Cargo.toml --cargo, for Wasm--> core module --put in a component, in this process--> NAME.wasm
//!   app.py     --componentize-py, see `build_python`--> NAME.wasm
//! ```

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use weft_core::Digest;
use wit_component::ComponentEncoder;

use crate::arguments::BuildArguments;
use crate::failure::Failure;
use crate::project::build_python;
use crate::project::toolchain::Toolchain;
use crate::terminal::Output;
use crate::terminal::text::bytes;

/// A project's component.
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) component: Vec<u8>,
    /// One word for `--json`.
    pub(crate) toolchain: &'static str,
}

/// Runs `weft build`. What the language's tools say goes to standard error.
///
/// Errors: `Other` where the folder is no project, no toolchain is found, or the project does not
/// compile.
pub(crate) fn build(arguments: &BuildArguments, output: &mut Output) -> Result<(), Failure> {
    let shown = arguments.dir.display();
    let folder = arguments.dir.canonicalize();
    let folder =
        folder.map_err(|error| Failure::other(format!("cannot open `{shown}`: {error}")))?;
    let is_python =
        !folder.join("Cargo.toml").is_file() && folder.join(build_python::ENTRY).is_file();
    let built = match is_python {
        true => build_python::build(&folder, output)?,
        false => build_crate(&folder, arguments.target_dir.as_deref(), output)?,
    };
    let path = arguments
        .out
        .clone()
        .unwrap_or_else(|| arguments.dir.join(format!("{}.wasm", built.name)));
    std::fs::write(&path, &built.component)
        .map_err(|error| Failure::other(format!("cannot write `{}`: {error}", path.display())))?;
    tell(&built, &path, output)
}

fn tell(built: &Built, path: &Path, output: &mut Output) -> Result<(), Failure> {
    let component = &built.component;
    let digest = Digest::from_sha256(&Sha256::digest(component).into());
    let document = json!({
        "name": built.name,
        "path": path.display().to_string(),
        "digest": digest.as_str(),
        "size_bytes": component.len(),
        "toolchain": built.toolchain,
    });
    output.either(&document.to_string(), || {
        format!(
            "built {} ({}, {digest})",
            path.display(),
            bytes(component.len() as u64)
        )
    })
}

fn build_crate(
    folder: &Path,
    target_dir: Option<&Path>,
    output: &mut Output,
) -> Result<Built, Failure> {
    let name = package_name(folder)?;
    let toolchain = Toolchain::find(folder, output)?;
    let mut cargo = toolchain.cargo_build(folder);
    if let Some(target_dir) = target_dir {
        cargo
            .arg("--target-dir")
            .arg(std::path::absolute(target_dir).map_err(Failure::other)?);
    }
    let module = compile(cargo, folder)?;
    Ok(Built {
        name,
        component: component_of(&module)?,
        toolchain: toolchain.name(),
    })
}

#[derive(Deserialize)]
struct Manifest {
    package: Option<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

fn package_name(folder: &Path) -> Result<String, Failure> {
    let path = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::other(format!(
            "cannot read `{}`: {error}, and there is no `app.py`; `weft new` lays out a project",
            path.display()
        ))
    })?;
    let manifest: Manifest = toml::from_str(&text)
        .map_err(|error| Failure::other(format!("`{}`: {error}", path.display())))?;
    let package = manifest
        .package
        .ok_or_else(|| Failure::other(format!("`{}` has no `[package]`", path.display())))?;
    Ok(package.name)
}

/// Compiles and answers with the path of the core module.
fn compile(mut cargo: Command, folder: &Path) -> Result<PathBuf, Failure> {
    let cannot = |error: std::io::Error| Failure::other(format!("cannot run cargo: {error}"));
    // Messages come as JSON on standard output, what people read on standard error.
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let stdout = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
    let manifest = folder.join("Cargo.toml");
    let mut module = None;
    for line in stdout.lines() {
        module = module_in(&line.map_err(cannot)?, &manifest).or(module);
    }
    if !child.wait().map_err(cannot)?.success() {
        return Err(Failure::other("cargo could not compile the project"));
    }
    module.ok_or_else(|| {
        Failure::other(format!(
            "`{}` makes no module: it needs `[lib]` with `crate-type = [\"cdylib\"]`",
            manifest.display()
        ))
    })
}

#[derive(Deserialize)]
struct Artefact {
    manifest_path: PathBuf,
    filenames: Vec<PathBuf>,
}

/// The module that a message of cargo's tells of, if it is the project's own.
fn module_in(message: &str, manifest: &Path) -> Option<PathBuf> {
    let artefact: Artefact = serde_json::from_str(message).ok()?;
    let is_module = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "wasm")
    };
    let mut modules = artefact.filenames.into_iter().filter(is_module);
    (artefact.manifest_path == manifest)
        .then(|| modules.next())
        .flatten()
}

/// Puts a core module into a component, by what the SDK's bindings left in the module.
fn component_of(module: &Path) -> Result<Vec<u8>, Failure> {
    let cannot = |error: String| {
        Failure::other(format!(
            "cannot make a component of `{}`: {error}",
            module.display()
        ))
    };
    let bytes = std::fs::read(module).map_err(|error| cannot(error.to_string()))?;
    let encoder = ComponentEncoder::default().validate(true).module(&bytes);
    encoder
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| cannot(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_own_module_is_found_among_the_messages() {
        let manifest = Path::new("/p/Cargo.toml");
        let message = json!({
            "reason": "compiler-artifact", "manifest_path": "/p/Cargo.toml", "target": {"kind": ["cdylib", "rlib"]},
            "filenames": ["/p/target/x/libweb_log.rlib", "/p/target/x/web_log.wasm"],
        });
        let found = module_in(&message.to_string(), manifest);
        assert_eq!(found, Some("/p/target/x/web_log.wasm".into()));
        assert_eq!(
            module_in(&message.to_string(), Path::new("/q/Cargo.toml")),
            None
        );
        assert_eq!(
            module_in(r#"{"reason":"build-finished","success":true}"#, manifest),
            None
        );
    }

    #[test]
    fn a_folder_that_is_no_project_is_told_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let failure = package_name(folder.path()).expect_err("empty");
        assert!(failure.to_string().contains("weft new"), "{failure}");
        std::fs::write(folder.path().join("Cargo.toml"), "[workspace]\n").expect("written");
        let failure = package_name(folder.path()).expect_err("a workspace");
        assert!(failure.to_string().contains("no `[package]`"), "{failure}");
    }

    #[test]
    fn a_module_becomes_a_component() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("module.wasm");
        std::fs::write(&path, wat::parse_str("(module)").expect("a module")).expect("written");
        let component = component_of(&path).expect("a component");
        assert_eq!(&component[..8], b"\0asm\x0d\0\x01\0");
        std::fs::write(&path, b"nothing").expect("written");
        assert!(component_of(&path).is_err());
    }
}
