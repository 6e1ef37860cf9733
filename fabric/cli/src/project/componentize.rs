//! Finding the tool that makes components of Python programs.
//!
//! In this order: `componentize-py` of the search path, if it has the version that the SDK is made
//! for; the one in a virtual environment in the user's cache folder, which is made where it is
//! missing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::locations::cache_dir;
use crate::project::guest_environment::command;
use crate::terminal::Output;

/// The version that makes components of Python programs: their bytes, and the names that the SDK
/// imports, depend on it.
pub(crate) const VERSION: &str = "0.25.1";

/// The oldest Python that the SDK runs on outside of components.
const OLDEST_PYTHON: (u32, u32) = (3, 10);
const DEBIAN_INSTALL: &str = "apt-get install -y --no-install-recommends python3 python3-venv";

/// The Python of the search path, which runs the user's module to describe it.
///
/// Errors: `Other` with the command that installs what is missing.
pub(crate) fn python(folder: &Path) -> Result<Command, Failure> {
    let mut asked = command("python3", folder);
    asked.args(["-c", "import sys; print('%d %d' % sys.version_info[:2])"]);
    let version = printed(&mut asked);
    match version.as_deref().and_then(major_and_minor) {
        Some(version) if version >= OLDEST_PYTHON => Ok(command("python3", folder)),
        Some((major, minor)) => Err(no_python(&format!("`python3` is {major}.{minor}"))),
        None => Err(no_python("there is no `python3`")),
    }
}

/// The path of `componentize-py`. What is installed, and where, is told before.
///
/// Errors: `Other` where it is missing and cannot be installed, with what to do about it.
pub(crate) fn find(folder: &Path, output: &mut Output) -> Result<PathBuf, Failure> {
    let of_path = PathBuf::from("componentize-py");
    if is_installed(&of_path, folder) {
        output.note(&format!("toolchain: componentize-py {VERSION}"));
        return Ok(of_path);
    }
    let environment = cache_dir()?.join("py");
    let tool = environment.join("bin").join("componentize-py");
    if !is_installed(&tool, folder) {
        let _only_one = lock(&environment)?;
        // It may have been installed while we waited.
        if !is_installed(&tool, folder) {
            install(&environment, folder, output)?;
        }
    }
    output.note(&format!(
        "toolchain: componentize-py {VERSION} in {}",
        environment.display()
    ));
    Ok(tool)
}

/// Folders of installed packages, in which the tool looks for modules that the project does not hold. `None` if
/// `pipenv` may choose them.
pub(crate) fn installed(folder: &Path) -> Option<Vec<PathBuf>> {
    if let Ok(environment) = std::env::var("VIRTUAL_ENV") {
        return Some(vec![Path::new(&environment).join("lib")]);
    }
    let is_of_pipenv = |folder: &Path| folder.join("Pipfile").exists();
    if std::env::var_os("PIPENV_PIPFILE").is_some() || folder.ancestors().any(is_of_pipenv) {
        return None;
    }
    let mut asked = command("python3", folder);
    let paths = "[site.getusersitepackages(), *site.getsitepackages()]";
    asked.args(["-c", &format!("import site; print(*{paths}, sep='\\n')")]);
    let paths = printed(&mut asked)?;
    Some(paths.lines().map(|path| folder.join(path)).collect())
}

/// Runs a program that says what it does on standard error. True if it succeeded.
fn runs(command: &mut Command) -> Result<bool, Failure> {
    let program = command.get_program().display().to_string();
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status();
    let status =
        status.map_err(|error| Failure::other(format!("cannot run `{program}`: {error}")))?;
    Ok(status.success())
}

fn install(environment: &Path, folder: &Path, output: &mut Output) -> Result<(), Failure> {
    let shown = environment.display();
    output.note(&format!(
        "toolchain: componentize-py {VERSION} is missing; installing it from PyPI to {shown}, a virtual environment of about 70 MB"
    ));
    let mut modules = python(folder)?;
    if printed(modules.args(["-c", "import ensurepip, venv; print()"])).is_none() {
        return Err(no_python("`python3` makes no virtual environments"));
    }
    // An environment whose Python is gone cannot be repaired, so it is made anew.
    let mut venv = command("python3", folder);
    venv.args(["-m", "venv", "--clear"]).arg(environment);
    let requirement = format!("componentize-py=={VERSION}");
    let mut pip = command(environment.join("bin").join("python"), folder);
    pip.args(["-m", "pip", "install"])
        .args(["--quiet", "--disable-pip-version-check"])
        .arg(&requirement);
    if runs(&mut venv)? && runs(&mut pip)? {
        return Ok(());
    }
    Err(Failure::other(format!(
        "cannot install `{requirement}` to `{shown}`; install it where the search path finds it, for example by `pipx install {requirement}`"
    )))
}

/// Waits until nobody else installs.
fn lock(environment: &Path) -> Result<File, Failure> {
    let path = environment.with_extension("lock");
    let parent = path.parent().expect("it is in the cache folder");
    let locked = std::fs::create_dir_all(parent)
        .and_then(|()| File::create(&path))
        .and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| Failure::other(format!("cannot lock `{}`: {error}", path.display())))
}

fn is_installed(tool: &Path, folder: &Path) -> bool {
    let version = printed(command(tool, folder).arg("--version"));
    version.is_some_and(|version| version.split_whitespace().last() == Some(VERSION))
}

/// The output of a program that is asked about something; `None` where it is missing or fails.
fn printed(command: &mut Command) -> Option<String> {
    let done = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(done.stdout).ok()?;
    done.status.success().then_some(text)
}

fn major_and_minor(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn no_python(what: &str) -> Failure {
    let (major, minor) = OLDEST_PYTHON;
    Failure::other(format!(
        "{what}: Python {major}.{minor} or newer with venv and pip is needed; on Debian, `{DEBIAN_INSTALL}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_python_prints_them() {
        assert_eq!(major_and_minor("3 11\n"), Some((3, 11)));
        assert_eq!(major_and_minor("Python 3.11"), None);
        assert!(major_and_minor("3 9").is_some_and(|version| version < OLDEST_PYTHON));
    }

    #[test]
    fn what_is_missing_comes_with_the_command_that_installs_it() {
        let failure = no_python("there is no `python3`").to_string();
        assert!(
            failure.contains("3.10 or newer") && failure.contains("python3-venv"),
            "{failure}"
        );
    }

    #[test]
    fn another_version_is_not_taken() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let tool = folder.path().join("componentize-py");
        for (version, is_it) in [("0.1.0", false), (VERSION, true)] {
            let text = format!("#!/bin/sh\necho componentize-py {version}\n");
            std::fs::write(&tool, text).expect("written");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&tool, mode).expect("executable");
            assert_eq!(is_installed(&tool, folder.path()), is_it, "{version}");
        }
        assert!(!is_installed(&folder.path().join("none"), folder.path()));
    }
}
