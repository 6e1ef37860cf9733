//! `cargo xtask simulate`: controllers and nodes in one thread, from seeds; see
//! `fabric/controller/src/simulation.rs`. The test run has a slice of it. Worlds are of two kinds, and each seed is run
//! in both: with jobs alone, and with shards of actors as well.

use anyhow::{Result, bail};

use crate::places::Places;
use crate::run::{FEATURES, cargo, run, step};
use crate::{flags, toolchain};

/// Seeds of each kind of world, if not said otherwise: some twenty-five minutes on two cores.
const SEEDS: u64 = 20_000;

/// Runs seeds; the lowest that fails is named, with what to set to repeat it.
pub(crate) fn start(places: &Places, flags: &[String]) -> Result<()> {
    let (mut seeds, mut first) = (SEEDS, 0);
    for flag in flags::read(flags, &[])? {
        match flag.name {
            "--seeds" => seeds = flag.parse()?,
            "--first" => first = flag.parse::<u64>()?,
            name => bail!("`simulate` has no `{name}`, but --seeds, --first"),
        }
    }
    let mut test = cargo(places);
    // The whole workspace, so that what other verbs have built fits.
    toolchain::ensure_protoc()?;
    test.args(["test", "--workspace", "--release", "--lib"]);
    test.args(FEATURES).arg("--");
    test.args(["simulation::whatever", "--nocapture"]);
    test.env("WEFT_SEEDS", seeds.to_string());
    test.env("WEFT_FIRST_SEED", first.to_string());
    step("simulate", || run(&mut test))
}
