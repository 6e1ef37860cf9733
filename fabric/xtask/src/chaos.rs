//! `cargo xtask chaos`: processes of a real cluster are killed, paused and cut off while clients use it, and it
//! must keep its word; see `bench/chaos.py`. `cargo xtask failover` times what clients see of it.

use std::process::Command;

use anyhow::{Result, bail};

use crate::places::Places;
use crate::run::{program, run, step};
use crate::server::Folder;
use crate::{flags, guests, logs, toolchain};

/// Minutes of rounds, if not said otherwise.
const MINUTES: u32 = 5;
/// Access logs of the weblog job: small enough for several jobs in a round.
const LOG_BYTES: u64 = 24_000_000;
const LOG_FILES: u32 = 6;

/// Runs rounds of faults. Lines of the rounds go to the end of `bench/chaos.jsonl`.
pub(crate) fn start(places: &Places, flags: &[String]) -> Result<()> {
    let (mut length, mut seed) = (("--minutes", MINUTES), None);
    for flag in flags::read(flags, &[])? {
        match flag.name {
            "--minutes" => length = ("--minutes", flag.parse()?),
            "--rounds" => length = ("--rounds", flag.parse()?),
            "--seed" => seed = Some(flag.parse::<u64>()?),
            name => bail!("`chaos` has no `{name}`, but --minutes, --rounds, --seed"),
        }
    }
    build(places)?;
    let folder = Folder::new("chaos")?;
    logs::write(&logs::Request {
        size_bytes: LOG_BYTES,
        folder: folder.0.clone(),
        n_files: LOG_FILES,
        seed: 1,
    })?;
    let mut chaos = script(places, "chaos.py");
    chaos.arg("--logs").arg(&folder.0);
    let (name, number) = length;
    chaos.args([name, &number.to_string()]);
    chaos
        .arg("--ledger")
        .arg(places.root.join("bench/chaos.jsonl"));
    if let Some(seed) = seed {
        chaos.args(["--seed", &seed.to_string()]);
    }
    step("chaos", || run(&mut chaos))
}

/// Times failovers.
pub(crate) fn failover(places: &Places) -> Result<()> {
    build(places)?;
    step("failover", || run(&mut script(places, "failover.py")))
}

fn build(places: &Places) -> Result<()> {
    toolchain::ensure()?;
    step("build weft", || guests::build_weft(places))?;
    step("build guests", || guests::build_all(places).map(drop))
}

fn script(places: &Places, name: &str) -> Command {
    let mut command = program("python3");
    command.arg(places.root.join("bench").join(name));
    command.arg("--weft").arg(places.weft());
    command.arg("--guests").arg(places.guests());
    command
}
