//! The verbs of the repository, as `cargo xtask VERB`: demo, test, guests, lint, and others that `help` lists.
//!
//! They need what a checkout needs anyway: cargo, a C compiler, and for guests a Rust toolchain with a Wasm target, which
//! [`toolchain`] finds or installs. Everything that is built goes outside the checkout, see [`places`].
#![expect(clippy::print_stdout, reason = "a program for people at a terminal")]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

mod bench;
mod chaos;
mod conformance;
mod demo;
mod flags;
mod flight;
mod guests;
mod lint;
mod logs;
mod npm;
mod places;
mod prose;
mod python;
mod run;
mod server;
mod simulate;
mod supervise;
mod terraform;
mod tests;
mod toolchain;
mod zipf;

use places::Places;

const HELP: &str = "\
Usage: cargo xtask VERB

  demo     build weft and the weblog example, make 256 MB of access logs, run the job on a server of its own
  test     build weft and all guests, then run every test
  guests   build the guests that tests need
  terraform
           apply, plan and test the Terraform modules, by a Terraform that is installed for that
  lint     check formatting, lints and layers
  logs     make access logs: --bytes 256MB --out DIR [--files 8] [--seed 1]
  conformance
           compare what Weft reads and writes with others: --files DIR (suites of files), --tables 1000 (random ones), --seed N
  chaos    kill, pause and cut off processes of a cluster while clients use it: [--minutes 5 | --rounds 60] [--seed N]
  simulate run controllers and nodes from seeds, on disks and networks that fail: [--seeds 20000] [--first 0]
  failover time what clients see when the leader of a cluster is killed or paused
  bench    measure a clean checkout and write bench/RESULTS.md: [--peers] [--scale 1] [--runs 5] [--only NAME]

What is built goes to $CARGO_TARGET_DIR, or to `target` in the checkout where it is not set.";

/// What shells say of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match verb(&arguments) {
        Ok(code) => code,
        Err(_) if supervise::is_stopping() => {
            eprintln!("interrupted: what was started is stopped and removed");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn verb(arguments: &[String]) -> Result<ExitCode> {
    let Some((verb, rest)) = arguments.split_first() else {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    match (verb.as_str(), rest) {
        ("help" | "--help" | "-h", _) => println!("{HELP}"),
        ("logs", flags) => logs::write(&logs::Request::parse(flags)?)?,
        ("demo", []) => return demo::start(),
        (demo::WORKER, []) => demo::work(&Places::find()?)?,
        ("conformance", flags) => conformance::start(&Places::find()?, flags)?,
        ("chaos", flags) => chaos::start(&Places::find()?, flags)?,
        ("simulate", flags) => simulate::start(&Places::find()?, flags)?,
        ("failover", []) => chaos::failover(&Places::find()?)?,
        ("bench", flags) => return bench::start(flags),
        (bench::WORKER, flags) => bench::work(&Places::find()?, flags)?,
        ("test", []) => tests::all(&Places::find()?)?,
        ("guests", []) => guests_only(&Places::find()?)?,
        ("terraform", []) => terraform::start(&Places::find()?)?,
        ("lint", []) => lint::all(&Places::find()?)?,
        ("demo" | "test" | "guests" | "terraform" | "lint" | "failover", [first, ..]) => {
            bail!("`{verb}` takes no argument, and `{first}` is one")
        }
        _ => bail!("no verb `{verb}`\n\n{HELP}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn guests_only(places: &Places) -> Result<()> {
    toolchain::ensure()?;
    guests::build_weft(places)?;
    let folder = guests::build_all(places).context("the guests were not built")?;
    println!("guests are in {}", folder.display());
    Ok(())
}
