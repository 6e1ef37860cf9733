//! The SDK that `weft new` lays into a project, so that it builds without this repository.

/// Each file by its path from the root of the repository, with its text.
macro_rules! embedded {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../", $path)))),+]
    };
}

/// The Rust SDK and the contract that its bindings are made of. Their paths relative to each other matter.
pub(crate) const RUST: &[(&str, &str)] = embedded![
    "guest-sdk/rust/Cargo.lock",
    "guest-sdk/rust/Cargo.toml",
    "guest-sdk/rust/src/batch.rs",
    "guest-sdk/rust/src/bits.rs",
    "guest-sdk/rust/src/buffer.rs",
    "guest-sdk/rust/src/builder.rs",
    "guest-sdk/rust/src/column.rs",
    "guest-sdk/rust/src/component.rs",
    "guest-sdk/rust/src/error.rs",
    "guest-sdk/rust/src/exports.rs",
    "guest-sdk/rust/src/fields.rs",
    "guest-sdk/rust/src/functions.rs",
    "guest-sdk/rust/src/gather.rs",
    "guest-sdk/rust/src/groups.rs",
    "guest-sdk/rust/src/lib.rs",
    "guest-sdk/rust/src/log.rs",
    "guest-sdk/rust/src/meter.rs",
    "guest-sdk/rust/src/native.rs",
    "guest-sdk/rust/src/schema.rs",
    "guest-sdk/rust/src/testing.rs",
    "guest-sdk/rust/src/view.rs",
    "guest-sdk/rust/src/wasm.rs",
    "guest-sdk/rust/src/wire.rs",
    "wit/weft.wit",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in root.join(folder).read_dir().expect("a folder") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            match entry.file_type().expect("a type").is_dir() {
                true if path.ends_with("target") => {}
                true => walk(root, &path, found),
                false => found.push(path.to_str().expect("text").to_owned()),
            }
        }
    }

    #[test]
    fn every_file_is_embedded() {
        let root = Path::new("../..");
        let mut found = Vec::new();
        for folder in ["guest-sdk/rust", "wit"] {
            walk(root, Path::new(folder), &mut found);
        }
        found.sort();
        let mut embedded: Vec<&str> = RUST.iter().map(|(path, _)| *path).collect();
        embedded.sort_unstable();
        assert_eq!(
            embedded, found,
            "the table in `sdk.rs` lists the files of the SDK"
        );
    }
}
