//! `weft new`: lays out a project that is tested, built and run by the commands in its README.

use std::path::Path;

use serde_json::json;

use crate::cli::arguments::{Language, NewArguments};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::sdk;

/// The folder of a project that holds the SDK.
const SDK_FOLDER: &str = ".weft";

const RUST: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.in")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs.in")),
    ("job.toml", include_str!("templates/rust/job.toml.in")),
    (
        "data/lines.txt",
        include_str!("templates/rust/lines.txt.in"),
    ),
    ("README.md", include_str!("templates/rust/README.md.in")),
    (".gitignore", include_str!("templates/rust/gitignore.in")),
];

/// Runs `weft new`.
///
/// Errors: `Usage` where the name is none for a component, `Other` where the folder exists.
pub(crate) fn new(arguments: &NewArguments, output: &mut Output) -> Result<(), Failure> {
    let folder = &arguments.name;
    let name = component_name(folder)?;
    let files = match arguments.lang {
        Language::Rust => rust_files(name),
    };
    lay(folder, &files)?;
    let document =
        json!({"name": name, "path": folder.display().to_string(), "files": files.len()});
    output.either(&document.to_string(), || next_steps(name, folder))
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

fn rust_files(name: &str) -> Vec<(String, String)> {
    let own = RUST
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.replace("{{name}}", name)));
    let sdk = sdk::RUST
        .iter()
        .map(|(path, text)| (format!("{SDK_FOLDER}/{path}"), (*text).to_owned()));
    own.chain(sdk).collect()
}

fn lay(folder: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::other(format!("cannot make `{}`: {error}", path.display()))
    };
    std::fs::create_dir(folder).map_err(|error| cannot(folder, error))?;
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().expect("it is in the folder");
        std::fs::create_dir_all(parent).map_err(|error| cannot(parent, error))?;
        std::fs::write(&path, text).map_err(|error| cannot(&path, error))?;
    }
    Ok(())
}

fn next_steps(name: &str, folder: &Path) -> String {
    format!(
        "made `{}`; next:\n  cd {}\n  cargo test\n  weft build\n  weft deploy {name}.wasm\n  weft run job.toml",
        folder.display(),
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::captured;

    #[test]
    fn a_project_has_its_files_and_the_sdk() {
        let parent = tempfile::tempdir().expect("a folder");
        let arguments = NewArguments {
            name: parent.path().join("my-words"),
            lang: Language::Rust,
        };
        let (mut output, stdout, _) = captured::output(false);
        new(&arguments, &mut output).expect("laid out");
        assert!(
            stdout.text().contains("weft deploy my-words.wasm"),
            "{}",
            stdout.text()
        );
        for (path, _) in RUST {
            let text = std::fs::read_to_string(arguments.name.join(path)).expect("there");
            assert!(!text.contains("{{"), "{path}: {text}");
        }
        assert!(
            arguments
                .name
                .join(".weft/guest-sdk/rust/src/lib.rs")
                .is_file()
        );
        assert!(arguments.name.join(".weft/wit/weft.wit").is_file());
        let failure = new(&arguments, &mut output).expect_err("it exists");
        assert!(failure.to_string().contains("exists"), "{failure}");
    }

    #[test]
    fn its_job_is_one() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("words");
        lay(&folder, &rust_files("words")).expect("laid out");
        let document =
            crate::cli::job_file::read(&folder.join("job.toml"), &[]).expect("a job file");
        weft_core::job::decode(&document).expect("a job");
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
