//! `cargo xtask conformance`: whether Weft reads and writes what others do. Other people's files, and random tables
//! with the quirks of other writers, are copied by jobs and compared with what pyarrow, DuckDB and Polars read; see
//! `bench/conformance.py` and `bench/random_tables.py`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::places::Places;
use crate::run::{program, run, step};
use crate::{flags, guests, python, toolchain};

/// Tables of a run that names no files.
const TABLES: usize = 1000;
/// Tables that every test run makes, always the same.
const SLICE_TABLES: usize = 60;
const SLICE_SEED: u64 = 1;

/// A request for comparisons.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    /// A folder of suites of files.
    files: Option<PathBuf>,
    tables: usize,
    /// Drawn where none is given.
    seed: Option<u64>,
}

impl Request {
    fn parse(flags: &[String]) -> Result<Request> {
        let (mut files, mut tables, mut seed) = (None, None, None);
        for flag in flags::read(flags, &[])? {
            match flag.name {
                "--files" => files = Some(PathBuf::from(flag.value)),
                "--tables" => tables = Some(flag.parse()?),
                "--seed" => seed = Some(flag.parse()?),
                name => bail!("`conformance` has no `{name}`, but --files, --tables, --seed"),
            }
        }
        let tables = tables.unwrap_or(if files.is_some() { 0 } else { TABLES });
        Ok(Request {
            files,
            tables,
            seed,
        })
    }
}

/// Builds what is needed, and compares.
pub(crate) fn start(places: &Places, flags: &[String]) -> Result<()> {
    let request = Request::parse(flags)?;
    toolchain::ensure()?;
    step("build weft", || guests::build_weft(places))?;
    step("build guests", || guests::build_all(places).map(drop))?;
    if let Some(files) = &request.files {
        ensure!(files.is_dir(), "`{}` is no folder", files.display());
        step("files", || {
            run(script(places, "conformance.py")?.arg("--files").arg(files))
        })?;
    }
    if request.tables > 0 {
        step("random tables", || {
            tables(places, request.tables, request.seed)
        })?;
    }
    Ok(())
}

/// The slice of every test run.
pub(crate) fn slice(places: &Places) -> Result<()> {
    tables(places, SLICE_TABLES, Some(SLICE_SEED))
}

fn tables(places: &Places, tables: usize, seed: Option<u64>) -> Result<()> {
    let mut command = script(places, "random_tables.py")?;
    command.args(["--tables", &tables.to_string()]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    run(&mut command)
}

fn script(places: &Places, name: &str) -> Result<Command> {
    let bench = places.root.join("bench");
    let environment = places.target.join("copies");
    let python = python::environment(&environment, &bench.join("requirements-copies.txt"))?;
    let mut command = program(python);
    command
        .arg(bench.join(name))
        .arg("--weft")
        .arg(places.weft())
        .arg("--guests")
        .arg(places.guests());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Request> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Request::parse(&flags)
    }

    #[test]
    fn flags_say_what_is_compared() {
        let tables = parse(&[]).expect("parses");
        assert_eq!((tables.files, tables.tables), (None, TABLES));
        let files = parse(&["--files", "/suites"]).expect("parses");
        assert_eq!((files.files.is_some(), files.tables), (true, 0));
        let both = parse(&["--files", "/suites", "--tables", "5", "--seed", "7"]);
        let both = both.expect("parses");
        assert_eq!((both.tables, both.seed), (5, Some(7)));
        for wrong in [&["--files"][..], &["--tables", "many"], &["--all", "1"]] {
            parse(wrong).expect_err("is refused");
        }
    }
}
