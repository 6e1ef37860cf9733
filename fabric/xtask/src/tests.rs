//! Runs every test there is, and adds them up.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::places::Places;
use crate::run::{FEATURES, cargo, program, run, run_lines, step};
use crate::{conformance, flight, guests, npm, python, terraform, toolchain};

/// Tests of all steps together, as cargo's harness counts them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Sums {
    /// Adds a line like `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; ..`, and no other line.
    fn add(&mut self, line: &str) {
        let Some(counts) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.1.split("; ") {
            let (sum, number) = match count.split_once(' ') {
                Some((number, "passed")) => (&mut self.passed, number),
                Some((number, "failed")) => (&mut self.failed, number),
                // The verb filters nothing out but what cannot run here.
                Some((number, "ignored" | "filtered out")) => (&mut self.skipped, number),
                _ => continue,
            };
            *sum += number.parse::<u64>().unwrap_or_default();
        }
    }
}

/// Builds what tests need and runs them: the workspace's, the SDKs', the examples'. Tests that fail stop none of the
/// others.
///
/// The last line of the output is the sum of all steps, also where one failed. A tool that is missing and cannot be
/// installed is a failure; without Azurite alone, tests of Azure's protocol are skipped.
pub(crate) fn all(places: &Places) -> Result<()> {
    let mut sums = Sums::default();
    let result = steps(places, &mut sums);
    let Sums {
        passed,
        failed,
        skipped,
    } = sums;
    if let Err(error) = result {
        println!("{passed} passed, {failed} failed, {skipped} skipped, and steps failed");
        return Err(error);
    }
    ensure!(failed == 0, "{failed} tests failed");
    let reasons = reasons(places);
    let which = match skipped {
        0 => String::new(),
        _ if reasons.is_empty() => ": ignored".into(),
        _ => format!(": {}", reasons.join("; ")),
    };
    println!("{passed} passed, {failed} failed, {skipped} skipped{which}");
    Ok(())
}

fn steps(places: &Places, sums: &mut Sums) -> Result<()> {
    step("find the toolchains", toolchain::ensure)?;
    step("build weft", || guests::build_weft(places))?;
    let guests = step("build guests", || guests::build_all(places))?;
    let mut failed = Vec::new();
    let mut run = |name: &str, test: &mut dyn FnMut() -> Result<()>| {
        if let Err(error) = step(name, test) {
            println!("{error:#}");
            failed.push(name.to_owned());
        }
    };
    run("test the workspace", &mut || {
        workspace(places, &guests, sums)
    });
    for folder in host_tested(places)? {
        run(&test_of(places, &folder), &mut || {
            on_the_host(places, &folder, sums)
        });
    }
    run("compare random tables with other systems", &mut || {
        conformance::slice(places)
    });
    run("run SQL through a driver of Flight SQL", &mut || {
        flight::driver(places)
    });
    run("test a new project in Rust", &mut || {
        new_project(places, sums)
    });
    for folder in python_tested(places)? {
        run(&test_of(places, &folder), &mut || {
            in_python(places, &folder, sums)
        });
    }
    run("test the Terraform modules", &mut || {
        count(&mut terraform::tests(places)?, sums)
    });
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// The name of the step that tests what lies in `folder`.
fn test_of(places: &Places, folder: &Path) -> String {
    let name = folder.strip_prefix(&places.root).unwrap_or(folder);
    format!("test {}", name.display())
}

/// Crates outside the workspace whose tests run without Wasm: the SDK and the examples.
fn host_tested(places: &Places) -> Result<Vec<std::path::PathBuf>> {
    let mut folders = vec![places.root.join("guest-sdk/rust")];
    folders.extend(places.folders_with("examples", "", "Cargo.toml")?);
    Ok(folders)
}

/// Python's SDK and the Python examples.
fn python_tested(places: &Places) -> Result<Vec<std::path::PathBuf>> {
    let mut folders = vec![places.root.join("guest-sdk/python")];
    folders.extend(places.folders_with("examples", "", "app.py")?);
    Ok(folders)
}

fn workspace(places: &Places, guests: &Path, sums: &mut Sums) -> Result<()> {
    let mut command = cargo(places);
    toolchain::ensure_etcd()?;
    let seaweedfs = python::seaweedfs(places)?;
    if let Err(error) = npm::install_azurite(places) {
        println!("Azurite cannot be installed: {error:#}");
    }
    command
        .args(["test", "--release", "--workspace", "--no-fail-fast"])
        .args(FEATURES);
    for reason in reasons(places) {
        println!("skipped: {reason}");
    }
    command.arg("--");
    if can_mount() {
        command.arg("--include-ignored");
    }
    if !has_corpora() {
        command.args(["--skip", "corpora::"]);
    }
    if !npm::has_azurite(places) {
        command.args(["--skip", "azure"]);
    }
    command
        .env("WEFT_GUESTS", guests)
        .env("WEFT_BIN", places.weft())
        .env("WEFT_SEAWEEDFS", seaweedfs)
        .env("WEFT_AZURITE", npm::azurite(places));
    count(&mut command, sums)
}

/// What is skipped here, and why.
fn reasons(places: &Places) -> Vec<&'static str> {
    let mount = (!can_mount()).then_some("full disks, for which no mount namespace can be made");
    let corpora = (!has_corpora()).then_some("corpora, of which `WEFT_CORPORA` names none");
    let azure = (!npm::has_azurite(places))
        .then_some("Azure's protocol, whose server could not be installed");
    mount.into_iter().chain(corpora).chain(azure).collect()
}

/// Whether there are files that broke other readers.
fn has_corpora() -> bool {
    std::env::var_os("WEFT_CORPORA").is_some_and(|folder| !folder.is_empty())
}

/// Whether a process may have file systems of its own: tests that need them are marked as ignored.
fn can_mount() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
    ]);
    let tried = unshare.arg(std::env::temp_dir()).output();
    tried.is_ok_and(|tried| tried.status.success())
}

fn on_the_host(places: &Places, folder: &Path, sums: &mut Sums) -> Result<()> {
    let mut command = cargo(places);
    command
        .args(["test", "--release", "--manifest-path"])
        .arg(folder.join("Cargo.toml"));
    command.env("CARGO_TARGET_DIR", places.target.join("sdk-tests"));
    count(&mut command, sums)
}

/// What `weft new` lays out: it is tested, and builds to a component.
fn new_project(places: &Places, sums: &mut Sums) -> Result<()> {
    let parent = places.target.join("new-project");
    if parent.exists() {
        std::fs::remove_dir_all(&parent)
            .with_context(|| format!("cannot remove {}", parent.display()))?;
    }
    std::fs::create_dir_all(&parent)
        .with_context(|| format!("cannot make {}", parent.display()))?;
    let project = parent.join("hits");
    let mut new = program(places.weft());
    run(new.arg("new").arg(&project).args(["--lang", "rust"]))?;
    on_the_host(places, &project, sums)?;
    guests::build_project(places, &project, &parent.join("hits.wasm"))
}

/// Runs the tests of a folder, and counts them by what `unittest` says at the end.
fn in_python(places: &Places, folder: &Path, sums: &mut Sums) -> Result<()> {
    let mut command = program("python3");
    command
        .args(["-c", UNITTEST])
        .current_dir(folder)
        .env("PYTHONPATH", places.root.join("guest-sdk/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    count(&mut command, sums)
}

/// Runs the tests below a folder, and sums them up as cargo's harness does.
const UNITTEST: &str = r#"
import sys, unittest
tests = unittest.defaultTestLoader.discover(".", top_level_dir=".")
ran = unittest.TextTestRunner().run(tests)
failed, skipped = len(ran.failures) + len(ran.errors), len(ran.skipped)
print(f"test result: python. {ran.testsRun - failed - skipped} passed; {failed} failed; {skipped} ignored; 0 measured")
sys.exit(failed > 0 or ran.testsRun == 0)
"#;

fn count(command: &mut Command, sums: &mut Sums) -> Result<()> {
    run_lines(command, |line| {
        println!("{line}");
        sums.add(line);
    })
    .context("tests failed, or did not compile")
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn results_add_up_and_other_lines_do_not_count() {
        let mut sums = Sums::default();
        for line in [
            "running 3 tests",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            "test result_of_2. 9 passed; 9 failed ... ok",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            sums.add(line);
        }
        assert_eq!(
            sums,
            Sums {
                passed: 7,
                failed: 3,
                skipped: 3
            }
        );
    }
}
