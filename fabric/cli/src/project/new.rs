//! `weft new`: creates a project that is tested, built and run by the commands in its README.

use std::path::Path;

use serde_json::json;

use crate::arguments::{Language, NewArguments};
use crate::failure::Failure;
use crate::project::sdk;
use crate::terminal::Output;

/// The folder of a project that holds the SDK.
const SDK_FOLDER: &str = ".weft";

/// A file of a project: its path, and its text, in which `{{name}}` stands for the component.
type Template = (&'static str, &'static str);

const JOB: Template = ("job.toml", include_str!("templates/job.toml.in"));
const SAMPLE: Template = ("data/lines.txt", include_str!("templates/lines.txt.in"));

const RUST: [Template; 6] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.in")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs.in")),
    JOB,
    SAMPLE,
    ("README.md", include_str!("templates/rust/README.md.in")),
    (".gitignore", include_str!("templates/rust/gitignore.in")),
];

const PYTHON: [Template; 6] = [
    ("app.py", include_str!("templates/python/app.py.in")),
    (
        "test_app.py",
        include_str!("templates/python/test_app.py.in"),
    ),
    JOB,
    SAMPLE,
    ("README.md", include_str!("templates/python/README.md.in")),
    (".gitignore", include_str!("templates/python/gitignore.in")),
];

/// Runs `weft new`.
///
/// Errors: `Usage` where the name is none for a component, `Other` where the folder exists.
pub(crate) fn new(arguments: &NewArguments, output: &mut Output) -> Result<(), Failure> {
    let folder = &arguments.name;
    let name = component_name(folder)?;
    let files = files(arguments.lang, name);
    lay(folder, &files)?;
    let document =
        json!({"name": name, "path": folder.display().to_string(), "files": files.len()});
    output.either(&document.to_string(), || {
        next_steps(arguments.lang, name, folder)
    })
}

fn component_name(folder: &Path) -> Result<&str, Failure> {
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    // A project that is called like the SDK could not depend on it.
    if weft_core::is_component_name(name) && name != "weft" {
        return Ok(name);
    }
    Err(Failure::Usage(format!(
        "`{}` is no name for a component: a letter, then letters, digits and `-`, all small, 63 at most, and not `weft`",
        folder.display()
    )))
}

/// The paths and texts of a project, the SDK's among them.
fn files(language: Language, name: &str) -> Vec<(String, String)> {
    let templates = templates(language).iter();
    let mut files: Vec<(String, String)> = templates
        .map(|(path, text)| ((*path).to_owned(), text.replace("{{name}}", name)))
        .collect();
    match language {
        Language::Rust => files.extend(rust_sdk()),
        Language::Python => files.extend(sdk::python()),
    }
    files
}

fn templates(language: Language) -> &'static [Template] {
    match language {
        Language::Rust => &RUST,
        Language::Python => &PYTHON,
    }
}

fn rust_sdk() -> impl Iterator<Item = (String, String)> {
    let files = sdk::RUST.iter();
    files.map(|(path, text)| (format!("{SDK_FOLDER}/{path}"), (*text).to_owned()))
}

fn cannot_make(path: &Path, error: &std::io::Error) -> Failure {
    Failure::other(format!("cannot make `{}`: {error}", path.display()))
}

fn lay(folder: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    std::fs::create_dir(folder).map_err(|error| cannot_make(folder, &error))?;
    lay_in(folder, files)
}

/// Writes files to a folder that there is.
pub(crate) fn lay_in(folder: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().expect("it is in the folder");
        std::fs::create_dir_all(parent).map_err(|error| cannot_make(parent, &error))?;
        std::fs::write(&path, text).map_err(|error| cannot_make(&path, &error))?;
    }
    Ok(())
}

fn next_steps(language: Language, name: &str, folder: &Path) -> String {
    let test = match language {
        Language::Rust => "cargo test",
        Language::Python => "python3 -m unittest",
    };
    format!(
        "made `{}`; next:\n  cd {}\n  {test}\n  weft build\n  weft deploy {name}.wasm\n  weft run job.toml",
        folder.display(),
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::captured;

    const ALL: [Language; 2] = [Language::Rust, Language::Python];

    #[test]
    fn a_project_has_its_files_and_the_sdk() {
        for lang in ALL {
            let parent = tempfile::tempdir().expect("a folder");
            let arguments = NewArguments {
                name: parent.path().join("my-words"),
                lang,
            };
            let (mut output, stdout, _) = captured::output(false);
            new(&arguments, &mut output).expect("laid out");
            assert!(
                stdout.text().contains("weft deploy my-words.wasm"),
                "{}",
                stdout.text()
            );
            for (path, _) in templates(lang) {
                let text = std::fs::read_to_string(arguments.name.join(path)).expect("there");
                assert!(!text.contains("{{"), "{path}: {text}");
            }
            let sdk = match lang {
                Language::Rust => [".weft/guest-sdk/rust/src/lib.rs", ".weft/wit/weft.wit"],
                Language::Python => ["weft/__init__.py", "weft/weft.wit"],
            };
            for path in sdk {
                assert!(arguments.name.join(path).is_file(), "{path}");
            }
            let failure = new(&arguments, &mut output).expect_err("it exists");
            assert!(failure.to_string().contains("exists"), "{failure}");
        }
    }

    #[test]
    fn its_job_is_one() {
        for lang in ALL {
            let parent = tempfile::tempdir().expect("a folder");
            let folder = parent.path().join("words");
            lay(&folder, &files(lang, "words")).expect("laid out");
            let (document, _) =
                crate::job_file::read(&folder.join("job.toml"), &[]).expect("a job file");
            weft_core::job::decode(&document).expect("a job");
        }
    }

    #[test]
    fn names_are_those_of_components() {
        for bad in ["", "/", "..", "Weft", "a_b", "1a", "weft"] {
            assert_eq!(
                component_name(Path::new(bad)).expect_err(bad).exit_code(),
                2
            );
        }
        assert_eq!(component_name(Path::new("/tmp/a-1")).expect("good"), "a-1");
    }
}
