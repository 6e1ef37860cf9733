//! `cargo xtask terraform`: tests of the Terraform modules, see `terraform/tests/run.py`.

use std::process::Command;

use anyhow::Result;

use crate::places::Places;
use crate::run::{program, run, step};
use crate::{guests, python};

/// Builds weft, whose cluster the module `local` starts, and runs the tests.
pub(crate) fn start(places: &Places) -> Result<()> {
    step("build weft", || guests::build_weft(places))?;
    step("test the Terraform modules", || run(&mut tests(places)?))
}

/// The tests, in a virtual environment that brings Terraform as a library.
pub(crate) fn tests(places: &Places) -> Result<Command> {
    let folder = places.root.join("terraform/tests");
    let environment = places.target.join("terraform");
    let python = python::environment(&environment, &folder.join("requirements.txt"))?;
    let mut command = program(python);
    command
        .arg(folder.join("run.py"))
        .arg("--weft")
        .arg(places.weft());
    Ok(command)
}
