//! From a Python project to a component.
//!
//! ```text
//!   app.py --python3 -m weft--> its name
//!          --componentize-py, with the SDK and an interpreter--> component
//! ```
//!
//! A build whose inputs were built before gives the same component again.
//!
//! A project may hold the SDK and the contract in its folder `weft`, as `weft new` lays it out;
//! without it, those of this binary are used.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use crate::failure::Failure;
use crate::locations::cache_dir;
use crate::project::build::Built;
use crate::project::component_cache::{ComponentCache, Inputs};
use crate::project::componentize;
use crate::project::guest_environment::command;
use crate::project::new::lay_in;
use crate::project::{python_run, sdk};
use crate::terminal::Output;

/// The file that makes a folder a Python project.
pub(crate) const ENTRY: &str = "app.py";

/// The module that the component is made of: the user's, and what answers the host.
const GLUE: (&str, &str) = (
    "weft_app",
    // Whatever the project's own SDK exports, which may be an earlier one.
    "import app\nfrom weft.exports import *\n",
);

/// Builds the project in `folder`. What Python and the tool say goes to standard error.
///
/// Errors: `Other` where Python or the tool is missing, or the module cannot be imported.
pub(crate) fn build(folder: &Path, output: &mut Output) -> Result<Built, Failure> {
    let beside = Beside::lay(folder)?;
    let name = described_name(folder, &beside, output)?;
    let component = component(folder, &beside, output)?;
    Ok(Built {
        name,
        component,
        toolchain: "componentize-py",
    })
}

/// The component of the project: that of an earlier build if nothing has changed since.
fn component(folder: &Path, beside: &Beside, output: &mut Output) -> Result<Vec<u8>, Failure> {
    let digest = || {
        let installed = componentize::installed(folder)?;
        let inputs = Inputs {
            tool: componentize::VERSION,
            sources: &[folder, beside.folder.path()],
            installed: &installed,
        };
        inputs.digest()
    };
    let components = cache_dir().ok().map(|cache| cache.join("components"));
    let Some((components, before)) = components.zip(digest()) else {
        return compile(folder, beside, output);
    };
    let cache = ComponentCache::new(components);
    if let Some(component) = cache.get(&before) {
        output.note("unchanged: the component is the one that was built from these files before");
        return Ok(component);
    }
    let component = compile(folder, beside, output)?;
    // A file that changed meanwhile may be in the component, or not.
    let kept = match digest() {
        Some(after) if after == before => cache.put(&before, &component),
        _ => Ok(()),
    };
    if let Err(error) = kept {
        output.note(&format!(
            "the component cannot be kept, and the next build makes other bytes: {error}"
        ));
    }
    Ok(component)
}

fn compile(folder: &Path, beside: &Beside, output: &mut Output) -> Result<Vec<u8>, Failure> {
    let tool = componentize::find(folder, output)?;
    let out = beside.folder.path().join("component.wasm");
    let mut command = command(tool, folder);
    command.arg("--quiet").arg("-d").arg(&beside.wit);
    command.args(["-w", "component", "componentize", GLUE.0]);
    command.arg("-p").arg(folder);
    command.arg("-p").arg(beside.folder.path());
    command.arg("-o").arg(&out);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let what = "componentize-py could not make a component of the project";
    let printed = python_run::run(&mut command, what, output)?;
    if !printed.trim().is_empty() {
        output.note(printed.trim_end());
    }
    std::fs::read(&out)
        .map_err(|error| Failure::other(format!("cannot read the component: {error}")))
}

/// Files that a build needs beside the project, in a folder that goes away with it.
struct Beside {
    folder: TempDir,
    wit: PathBuf,
}

impl Beside {
    fn lay(project: &Path) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::other(format!("cannot make a folder: {error}")))?;
        let mut files = vec![(format!("{}.py", GLUE.0), GLUE.1.to_owned())];
        let own = project.join(sdk::PYTHON_FOLDER);
        let has_sdk = own.join("__init__.py").is_file();
        if !has_sdk {
            files.extend(sdk::python());
        }
        lay_in(folder.path(), &files)?;
        let sdk = match has_sdk {
            true => own,
            false => folder.path().join(sdk::PYTHON_FOLDER),
        };
        Ok(Self {
            wit: sdk.join("weft.wit"),
            folder,
        })
    }
}

#[derive(Deserialize)]
struct Described {
    name: String,
}

/// The component's name, as the module says when it is imported. That also finds its mistakes
/// before the slow step.
fn described_name(folder: &Path, beside: &Beside, output: &mut Output) -> Result<String, Failure> {
    let mut python = componentize::python(folder)?;
    python
        .args(["-m", "weft"])
        .env("PYTHONPATH", beside.folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let what = format!("python3 cannot import `{ENTRY}`");
    let text = python_run::run(&mut python, &what, output)?;
    // The module may print while it is imported; the description comes last.
    let described = text.lines().next_back().unwrap_or_default();
    let described: Described = serde_json::from_str(described)
        .map_err(|error| Failure::other(format!("`{ENTRY}` was not described: {error}")))?;
    Ok(described.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::captured;

    fn name_of(app: &str) -> Result<String, Failure> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(ENTRY), app).expect("written");
        let beside = Beside::lay(folder.path()).expect("laid");
        let (mut output, _, _) = captured::output(false);
        described_name(folder.path(), &beside, &mut output)
    }

    #[test]
    fn a_project_without_the_sdk_gets_that_of_this_binary() {
        let app = "import weft\nweft.component('a-b', '1.0.0')\nprint('loud')\n";
        assert_eq!(name_of(app).expect("described"), "a-b");
    }

    #[test]
    fn a_module_that_names_no_component_is_told_so() {
        let failure = name_of("import weft\n").expect_err("it has no name");
        assert!(failure.to_string().contains(ENTRY), "{failure}");
    }

    #[test]
    fn a_module_that_is_missing_is_named_with_its_line() {
        let app = "import weft\nimport no_such_package.part\n";
        let failure = name_of(app).expect_err("it is missing").to_string();
        let expected = "module `no_such_package` cannot be imported (`app.py`, line 2): ";
        assert!(failure.starts_with(expected), "{failure}");
    }

    #[test]
    fn a_projects_own_sdk_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        lay_in(folder.path(), &sdk::python().collect::<Vec<_>>()).expect("laid");
        let beside = Beside::lay(folder.path()).expect("laid");
        assert_eq!(beside.wit, folder.path().join("weft/weft.wit"));
        assert!(beside.wit.is_file() && !beside.folder.path().join("weft").exists());
    }
}
