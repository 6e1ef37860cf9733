//! SQL through a driver of Flight SQL that others have written; see `bench/flight.py`.

use anyhow::Result;

use crate::places::Places;
use crate::python;
use crate::run::{program, run};

/// Rows that every test run fetches.
const ROWS: usize = 200_000;

/// Runs the driver against the binary that the tests have built.
pub(crate) fn driver(places: &Places) -> Result<()> {
    let bench = places.root.join("bench");
    let environment = places.target.join("flight");
    let python = python::environment(&environment, &bench.join("requirements-flight.txt"))?;
    let mut command = program(python);
    command.arg(bench.join("flight.py"));
    command.arg("--weft").arg(places.weft());
    run(command.args(["--rows", &ROWS.to_string()]))
}
