//! The SDK that `weft new` lays into a project, so that it builds without this repository.

/// Each file by its path from the root of the repository, with its text.
macro_rules! embedded {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../", $path)))),+]
    };
}

/// The Rust SDK and the contract that its bindings are made of. Their paths relative to each other
/// matter.
pub(crate) const RUST: &[(&str, &str)] = embedded![
    "guest-sdk/rust/Cargo.lock",
    "guest-sdk/rust/Cargo.toml",
    "guest-sdk/rust/src/actor.rs",
    "guest-sdk/rust/src/batch.rs",
    "guest-sdk/rust/src/bits.rs",
    "guest-sdk/rust/src/buffer.rs",
    "guest-sdk/rust/src/builder.rs",
    "guest-sdk/rust/src/column.rs",
    "guest-sdk/rust/src/component.rs",
    "guest-sdk/rust/src/error.rs",
    "guest-sdk/rust/src/exports.rs",
    "guest-sdk/rust/src/exports/actor.rs",
    "guest-sdk/rust/src/fields.rs",
    "guest-sdk/rust/src/functions.rs",
    "guest-sdk/rust/src/gather.rs",
    "guest-sdk/rust/src/groups.rs",
    "guest-sdk/rust/src/lib.rs",
    "guest-sdk/rust/src/log.rs",
    "guest-sdk/rust/src/meter.rs",
    "guest-sdk/rust/src/native.rs",
    "guest-sdk/rust/src/native_outside.rs",
    "guest-sdk/rust/src/scalar.rs",
    "guest-sdk/rust/src/schema.rs",
    "guest-sdk/rust/src/tasks.rs",
    "guest-sdk/rust/src/testing.rs",
    "guest-sdk/rust/src/testing/actors.rs",
    "guest-sdk/rust/src/view.rs",
    "guest-sdk/rust/src/wasm.rs",
    "guest-sdk/rust/src/wasm_outside.rs",
    "guest-sdk/rust/src/wire.rs",
    "wit/weft.wit",
];

/// The folder of a Python project that holds the SDK: a package, so that it is found without any
/// setting.
pub(crate) const PYTHON_FOLDER: &str = "weft";

/// The Python SDK, without its tests, and the contract that its bindings are made of.
const PYTHON: &[(&str, &str)] = embedded![
    "guest-sdk/python/weft/__init__.py",
    "guest-sdk/python/weft/__main__.py",
    "guest-sdk/python/weft/actors.py",
    "guest-sdk/python/weft/arguments.py",
    "guest-sdk/python/weft/batch.py",
    "guest-sdk/python/weft/columns.py",
    "guest-sdk/python/weft/error.py",
    "guest-sdk/python/weft/exports.py",
    "guest-sdk/python/weft/functions.py",
    "guest-sdk/python/weft/futures.py",
    "guest-sdk/python/weft/host.py",
    "guest-sdk/python/weft/log.py",
    "guest-sdk/python/weft/meter.py",
    "guest-sdk/python/weft/native.py",
    "guest-sdk/python/weft/native_actors.py",
    "guest-sdk/python/weft/scalars.py",
    "guest-sdk/python/weft/schema.py",
    "guest-sdk/python/weft/testing.py",
    "guest-sdk/python/weft/testing_actors.py",
    "wit/weft.wit",
];

/// The files of the Python SDK by their paths in a project, all of them in [`PYTHON_FOLDER`].
pub(crate) fn python() -> impl Iterator<Item = (String, String)> {
    PYTHON.iter().map(|(path, text)| {
        let name = path.rsplit('/').next().expect("a path has a last part");
        (format!("{PYTHON_FOLDER}/{name}"), (*text).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in root.join(folder).read_dir().expect("a folder") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            match entry.file_type().expect("a type").is_dir() {
                true if path.ends_with("target") || path.ends_with("__pycache__") => {}
                true => walk(root, &path, found),
                false => found.push(path.to_str().expect("text").to_owned()),
            }
        }
    }

    #[track_caller]
    fn check(table: &[(&str, &str)], folder: &str) {
        let root = Path::new("../..");
        let mut found = Vec::new();
        for folder in [folder, "wit"] {
            walk(root, Path::new(folder), &mut found);
        }
        found.sort();
        let mut embedded: Vec<&str> = table.iter().map(|(path, _)| *path).collect();
        embedded.sort_unstable();
        assert_eq!(
            embedded, found,
            "the table in `sdk.rs` lists the files of the SDK"
        );
    }

    #[test]
    fn every_file_is_embedded() {
        check(RUST, "guest-sdk/rust");
        check(PYTHON, "guest-sdk/python/weft");
    }
}
