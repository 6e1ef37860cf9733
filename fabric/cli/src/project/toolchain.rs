//! Finding a Rust toolchain that compiles for Wasm.
//!
//! In this order: a `rustc` that has the target; `rustup`, which is asked to add it; Debian's
//! toolchain for the web, which compiles the standard library from its sources, once for each
//! project.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;
use crate::project::guest_environment::command;
use crate::terminal::Output;

/// The target that guests are compiled for; the module is put in a component afterwards.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
const RUSTFLAGS: &str = "-C target-feature=+simd128";
const DEBIAN_PROGRAMS: &str = "/usr/bin";
const DEBIAN_INSTALL: &str = "apt-get install -y --no-install-recommends";
const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src rust-web-llvm";

/// A toolchain that compiles for [`TARGET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The `cargo` of the search path.
    OfPath,
    /// Debian's, together with the linker to use.
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// The first one that does, for a project in `folder`. Each step is told.
    ///
    /// Errors: `Other` with the command that installs what is missing.
    pub(crate) fn find(folder: &Path, output: &mut Output) -> Result<Self, Failure> {
        if has_target(folder) {
            output.note(&format!("toolchain: rustc, which has {TARGET}"));
            return Ok(Toolchain::OfPath);
        }
        output.note(&format!(
            "toolchain: rustc does not have {TARGET}; trying `rustup target add`"
        ));
        match rustup_adds_target(folder) {
            Ok(()) if has_target(folder) => {
                output.note(&format!(
                    "toolchain: rustc, to which rustup has added {TARGET}"
                ));
                return Ok(Toolchain::OfPath);
            }
            Ok(()) => {
                output.note("toolchain: rustup has added it to another rustc; trying Debian's")
            }
            Err(reason) => output.note(&format!(
                "toolchain: rustup does not add it ({reason}); trying Debian's"
            )),
        }
        let linker = debian_linker(folder).map_err(|missing| nothing_found(&missing))?;
        output.note(&format!(
            "toolchain: Debian's rustc with the standard library from source, linker {}",
            linker.display()
        ));
        Ok(Toolchain::Debian { linker })
    }

    /// One word for `--json`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Toolchain::OfPath => "rustc",
            Toolchain::Debian { .. } => "debian",
        }
    }

    /// A `cargo build` of the library in `folder` for Wasm, optimised.
    pub(crate) fn cargo_build(&self, folder: &Path) -> Command {
        let mut cargo = match self {
            Toolchain::OfPath => command("cargo", folder),
            Toolchain::Debian { linker } => debian_cargo(folder, linker),
        };
        cargo
            .args(["build", "--release", "--lib", "--target", TARGET])
            .env("RUSTFLAGS", RUSTFLAGS);
        if matches!(self, Toolchain::Debian { .. }) {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        cargo
    }
}

/// A part that Debian's toolchain lacks, and the packages that have it.
struct Missing {
    what: String,
    packages: String,
}

impl Missing {
    fn toolchain(what: String) -> Self {
        Self {
            what,
            packages: DEBIAN_PACKAGES.into(),
        }
    }
}

fn nothing_found(missing: &Missing) -> Failure {
    let Missing { what, packages } = missing;
    Failure::other(format!(
        "no Rust toolchain for {TARGET}: {what}; run `rustup target add {TARGET}`, or, on Debian, `{DEBIAN_INSTALL} {packages}`"
    ))
}

/// The output of a program that succeeded, without white space around it.
fn printed(command: &mut Command) -> Result<String, String> {
    let done = command
        .output()
        .map_err(|error| format!("`{}`: {error}", command.get_program().display()))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    Err(last.map_or_else(|| done.status.to_string(), |line| line.trim().to_owned()))
}

pub(crate) fn has_target(folder: &Path) -> bool {
    let mut rustc = command("rustc", folder);
    let libraries = printed(rustc.args(["--print", "target-libdir", "--target", TARGET]));
    libraries.is_ok_and(|libraries| Path::new(&libraries).is_dir())
}

fn rustup_adds_target(folder: &Path) -> Result<(), String> {
    printed(command("rustup", folder).args(["target", "add", TARGET])).map(drop)
}

/// Checks that Debian's toolchain is there, whole, and answers with the linker that goes with it.
fn debian_linker(folder: &Path) -> Result<PathBuf, Missing> {
    let rustc = Path::new(DEBIAN_PROGRAMS).join("rustc");
    let cargo = Path::new(DEBIAN_PROGRAMS).join("cargo");
    if let Some(missing) = [&rustc, &cargo]
        .into_iter()
        .find(|program| !program.is_file())
    {
        return Err(Missing::toolchain(format!(
            "`{}` is missing",
            missing.display()
        )));
    }
    let sysroot = printed(
        command(rustc, folder)
            .env_remove("LD_LIBRARY_PATH")
            .args(["--print", "sysroot"]),
    );
    let library =
        Path::new(&sysroot.map_err(Missing::toolchain)?).join("lib/rustlib/src/rust/library");
    if !library.join("Cargo.lock").is_file() {
        return Err(Missing::toolchain(format!(
            "`{}` does not hold the standard library's sources",
            library.display()
        )));
    }
    let programs = Path::new(DEBIAN_PROGRAMS);
    rustups_linker(folder)
        .or_else(|| linker_in(programs))
        .ok_or_else(|| missing_linker(programs))
}

/// Debian's `rust-lld` is a link to the `lld-<version>` that fits; that one is a package of its
/// own.
fn missing_linker(programs: &Path) -> Missing {
    let link = std::fs::read_link(programs.join("rust-lld")).ok();
    let package = link
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    let package = package
        .filter(|name| linker_rank(name).is_some())
        .unwrap_or("lld");
    Missing {
        what: "a linker is missing".into(),
        packages: package.into(),
    }
}

/// The linker that comes with the `rustc` of the search path.
fn rustups_linker(folder: &Path) -> Option<PathBuf> {
    let sysroot = printed(command("rustc", folder).args(["--print", "sysroot"])).ok()?;
    let targets = Path::new(&sysroot).join("lib/rustlib").read_dir().ok()?;
    let linkers = targets
        .flatten()
        .map(|target| target.path().join("bin/rust-lld"));
    linkers.filter(|linker| linker.is_file()).min()
}

/// A linker for Wasm in `folder`, with a version at the end of its name or without.
fn linker_in(folder: &Path) -> Option<PathBuf> {
    let programs = folder.read_dir().ok()?.flatten().map(|entry| entry.path());
    let ranked =
        programs.filter_map(|path| Some((linker_rank(path.file_name()?.to_str()?)?, path)));
    ranked
        .filter(|(_, path)| path.is_file())
        .min()
        .map(|(_, path)| path)
}

fn linker_rank(name: &str) -> Option<usize> {
    let stem = match name.rsplit_once('-') {
        Some((stem, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => stem,
        _ => name,
    };
    ["rust-lld", "wasm-ld", "lld"]
        .iter()
        .position(|known| *known == stem)
}

/// Debian's cargo, which must find its own compiler and nothing of rustup's.
fn debian_cargo(folder: &Path, linker: &Path) -> Command {
    let mut cargo = command(Path::new(DEBIAN_PROGRAMS).join("cargo"), folder);
    let mut path = OsString::from(DEBIAN_PROGRAMS);
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    cargo
        .env("PATH", path)
        .env_remove("RUSTUP_HOME")
        .env_remove("LD_LIBRARY_PATH");
    // The standard library is built with features that only a nightly compiler would accept
    // otherwise.
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkers_are_known_with_and_without_version() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(linker_in(folder.path()), None);
        for (name, best) in [
            ("ld.lld", None),
            ("lld-link-22", None),
            ("lld-22", Some("lld-22")),
            ("wasm-ld", Some("wasm-ld")),
            ("rust-lld", Some("rust-lld")),
        ] {
            std::fs::write(folder.path().join(name), "").expect("written");
            assert_eq!(
                linker_in(folder.path()),
                best.map(|best| folder.path().join(best)),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_missing_comes_with_the_commands_that_install_it() {
        let failure =
            nothing_found(&Missing::toolchain("`/usr/bin/cargo` is missing".into())).to_string();
        assert!(
            failure.contains("`rustup target add wasm32-unknown-unknown`"),
            "{failure}"
        );
        let command = "`apt-get install -y --no-install-recommends rustc-web cargo-web rust-web-src rust-web-llvm`";
        assert!(failure.contains(command), "{failure}");
    }

    #[test]
    fn a_link_to_a_linker_that_is_not_installed_names_its_package() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(missing_linker(folder.path()).packages, "lld");
        std::os::unix::fs::symlink("lld-22", folder.path().join("rust-lld")).expect("linked");
        assert_eq!(linker_in(folder.path()), None);
        assert_eq!(missing_linker(folder.path()).packages, "lld-22");
        std::fs::write(folder.path().join("lld-22"), "").expect("written");
        assert_eq!(
            linker_in(folder.path()),
            Some(folder.path().join("rust-lld"))
        );
    }

    #[test]
    fn debians_cargo_builds_the_standard_library() {
        let toolchain = Toolchain::Debian {
            linker: "/lld".into(),
        };
        let cargo = toolchain.cargo_build(Path::new("/"));
        let arguments: Vec<_> = cargo.get_args().collect();
        assert!(
            arguments.contains(&std::ffi::OsStr::new("-Zbuild-std=std,panic_abort")),
            "{arguments:?}"
        );
        let linker = cargo
            .get_envs()
            .find(|(name, _)| *name == "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER");
        assert_eq!(linker.and_then(|(_, value)| value), Some("/lld".as_ref()));
    }
}
