//! The environment that guests are compiled in: the user's, without what a surrounding cargo has
//! set.

use std::path::Path;
use std::process::Command;

/// Variables of cargo that are the user's settings of how it reaches the world, by name or prefix.
const KEPT: [&str; 8] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRY_",
    "CARGO_REGISTRIES_",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
    "CARGO_CACHE_",
];

/// Variables that choose another compiler, or other flags, than `weft build` does.
const CLEARED: [&str; 10] = [
    "CARGO",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_LINKER",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// A command that runs in `folder`, in the environment of guests.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_cleared) {
            command.env_remove(name);
        }
    }
    command
}

fn is_cleared(name: &str) -> bool {
    CLEARED.contains(&name)
        || name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_surrounding_cargo_is_left() {
        for name in [
            "CARGO",
            "CARGO_BUILD_JOBS",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_INCREMENTAL",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_PKG_NAME",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_TARGET_DIR",
            "CARGO_MAKEFLAGS",
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
            "RUSTC",
            "RUSTDOC",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_cleared(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "CARGO_REGISTRIES_X_TOKEN",
            "CARGO_TERM_COLOR",
            "PATH",
            "HOME",
            "RUSTUP_HOME",
        ] {
            assert!(!is_cleared(name), "{name}");
        }
    }

    #[test]
    fn a_command_has_what_is_left() {
        let command = command("true", Path::new("/"));
        let removed: Vec<_> = command
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name)
            .collect();
        assert!(
            removed.contains(&std::ffi::OsStr::new("CARGO_MANIFEST_DIR")),
            "cargo set it for this test: {removed:?}"
        );
    }
}
